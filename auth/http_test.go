package auth

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/wxsim"
)

func TestHTTPLifeOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)))
		w, v := call(rest.Handler(e.ServeLogin), http.MethodPost, "", `{"code":"sim:ann"}`)
		token, _ := v["token"].(string)
		want := fmt.Sprintf(`{"token":"%s","expires_in":2592000,"user":{"appid":"%s","openid":"%s","unionid":"%s"}}`,
			token, appA, wxsim.OpenID(appA, "ann"), wxsim.UnionID("ann"))
		if w.Code != http.StatusOK || w.Body.String() != want || w.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("login answered %d %s, want %s", w.Code, w.Body, want)
		}
		time.Sleep(9 * time.Minute) // not yet worth a write
		w, v = call(rest.Handler(e.ServeSession), http.MethodGet, token, "")
		if user, _ := v["user"].(map[string]any); w.Code != http.StatusOK || v["expires_in"] != 2592000.0-540 || user["openid"] != wxsim.OpenID(appA, "ann") {
			t.Errorf("session answered %d %s", w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), "token") {
			t.Error("the session's answer repeats the token")
		}
		who := e.Require(func(w http.ResponseWriter, r *http.Request) error {
			return rest.JSON(w, http.StatusOK, SessionFrom(r.Context()).User)
		})
		if w, v = call(who, http.MethodGet, token, ""); v["openid"] != wxsim.OpenID(appA, "ann") {
			t.Errorf("behind Require: %d %s", w.Code, w.Body)
		}
		for range 2 {
			if w, _ = call(rest.Handler(e.ServeLogout), http.MethodPost, token, ""); w.Code != http.StatusNoContent || w.Body.Len() != 0 {
				t.Errorf("logout answered %d %s", w.Code, w.Body)
			}
		}
		for _, h := range []http.Handler{who, rest.Handler(e.ServeSession)} {
			w, v = call(h, http.MethodGet, token, "")
			if w.Code != http.StatusUnauthorized || errorCode(v) != "token_expired" || w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("after logout: %d %s", w.Code, w.Body)
			}
		}
	})
}

func TestMalformedLogin(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	for name, tc := range map[string]struct {
		body, contentType string
		status            int
		code              string
	}{
		"no body":          {"", "", 400, "body_missing"},
		"not JSON":         {"code=abc", "", 400, "json_invalid"},
		"cut off":          {`{"code":"sim`, "", 400, "json_invalid"},
		"two objects":      {`{"code":"sim:a"}{}`, "", 400, "json_invalid"},
		"array":            {`["sim:a"]`, "", 400, "json_invalid"},
		"null":             {`null`, "", 400, "code_missing"},
		"no code":          {`{}`, "", 400, "code_missing"},
		"empty code":       {`{"code":""}`, "", 400, "code_missing"},
		"code a number":    {`{"code":7}`, "", 400, "json_invalid"},
		"code too long":    {`{"code":"` + strings.Repeat("x", 257) + `"}`, "", 400, "code_too_long"},
		"longest code":     {`{"code":"` + strings.Repeat("x", 256) + `"}`, "", 401, "code_invalid"},
		"unknown appid":    {`{"code":"sim:a","appid":"wxffffffffffffffff"}`, "", 400, "appid_unknown"},
		"appid a list":     {`{"code":"sim:a","appid":["x"]}`, "", 400, "json_invalid"},
		"body too large":   {`{"code":"` + strings.Repeat("x", 4<<10) + `"}`, "", 413, "body_too_large"},
		"XML":              {`<code/>`, "application/xml", 415, "unsupported_media_type"},
		"odd content type": {`{"code":"sim:a"}`, ";", 415, "unsupported_media_type"},
		"odd sim name":     {`{"code":"sim:a b"}`, "", 401, "code_invalid"},
		"NUL in the code":  {`{"code":"a\u0000b"}`, "", 401, "code_invalid"},
		"broken UTF-8":     {"{\"code\":\"\xff\"}", "", 401, "code_invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/auth/login", strings.NewReader(tc.body))
			if tc.contentType != "" {
				r.Header.Set("Content-Type", tc.contentType)
			}
			w := httptest.NewRecorder()
			rest.Handler(e.ServeLogin).ServeHTTP(w, r)
			if w.Code != tc.status || !strings.Contains(w.Body.String(), `"code":"`+tc.code+`"`) {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, tc.status, tc.code)
			}
		})
	}
}

func TestMalformedAuthorization(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	unknown, _ := newToken()
	for name, h := range map[string]rest.Handler{"session": e.ServeSession, "logout": e.ServeLogout, "required": e.Require(e.ServeSession)} {
		for header, want := range map[string]string{
			"": "token_missing", "Bearer": "token_invalid", "Basic " + unknown: "token_invalid", unknown: "token_invalid",
			"Bearer " + unknown[1:]: "token_invalid", "Bearer " + unknown + " ": "token_invalid", "Bearer " + unknown: "token_expired",
			"Bearer " + strings.Repeat("x", 1<<16): "token_invalid",
		} {
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			if header != "" {
				r.Header.Set("Authorization", header)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if name == "logout" && want == "token_expired" {
				if w.Code != http.StatusNoContent { // ended before: nothing left to do
					t.Errorf("logout of an ended session answered %d", w.Code)
				}
				continue
			}
			if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), `"`+want+`"`) {
				t.Errorf("%s with %.60q: %d %s, want %s", name, header, w.Code, w.Body, want)
			}
		}
	}
}

func TestLoginRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)), func(o *Options) { o.Settings.Session.LoginRate, o.Settings.Session.LoginBurst = 0.5, 3 })
		login := func(info *rest.Info, remote string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"code":"sim:ann"}`))
			r.RemoteAddr = remote
			if info != nil {
				r = r.WithContext(rest.WithInfo(r.Context(), info))
			}
			w := httptest.NewRecorder()
			rest.Handler(e.ServeLogin).ServeHTTP(w, r)
			return w
		}
		for range 3 {
			if w := login(nil, "192.0.2.1:1"); w.Code != http.StatusOK {
				t.Fatalf("within the burst: %d %s", w.Code, w.Body)
			}
		}
		for range 5 { // refusals cost nothing
			if w := login(nil, "192.0.2.1:2"); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "2" {
				t.Fatalf("beyond the burst: %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
			}
		}
		if w := login(nil, "192.0.2.2:1"); w.Code != http.StatusOK {
			t.Errorf("another address: %d", w.Code)
		}
		if w := login(&rest.Info{ClientIP: "198.51.100.7"}, "192.0.2.1:1"); w.Code != http.StatusOK {
			t.Errorf("another client behind the same proxy: %d", w.Code)
		}
		if w := login(&rest.Info{ClientIP: "::ffff:192.0.2.1"}, "192.0.2.9:1"); w.Code != http.StatusTooManyRequests {
			t.Errorf("the same address written as IPv6: %d", w.Code)
		}
		time.Sleep(2 * time.Second)
		if w := login(nil, "192.0.2.1:3"); w.Code != http.StatusOK {
			t.Errorf("after the time to wait: %d", w.Code)
		}
		for i := range 4 { // one customer's IPv6 network counts as one
			want := http.StatusOK
			if i == 3 {
				want = http.StatusTooManyRequests
			}
			if w := login(nil, fmt.Sprintf("[2001:db8:1:2::%d]:1", i)); w.Code != want {
				t.Errorf("IPv6 login %d: %d, want %d", i, w.Code, want)
			}
		}
	})
}
