package auth

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/internal/rest"
)

const goodAnswer = `{"openid":"oGZUI0egBJY1zhBYw2KhdUfwVJJE","session_key":"tiihtNczf5v6AKRyjwEUhQ==","unionid":"ocMvos6NjeKLIBqg5Mr9QjxrP1FA"}`

// canned answers one body after the other.
type canned struct {
	t       *testing.T
	answers []string
	status  int
	asked   int
}

func (s *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Query().Get("secret") == "" {
		s.t.Error("the secret did not reach WeChat")
	}
	body := s.answers[min(s.asked, len(s.answers)-1)]
	s.asked++
	return &http.Response{StatusCode: s.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func TestWeChatPolicy(t *testing.T) {
	const busy = `{"errcode":-1,"errmsg":"system error, rid: 65f00000-11112222-33334444"}`
	for name, tc := range map[string]struct {
		answers []string
		http    int // what WeChat answers with, 200 where 0
		status  int // what we answer with
		code    string
		asked   int // 1 where 0
	}{
		"busy once":       {answers: []string{busy, goodAnswer}, status: 200, asked: 2},
		"busy twice":      {answers: []string{busy, busy, goodAnswer}, status: 200, asked: 3},
		"busy":            {answers: []string{busy}, status: 503, code: "wechat_unavailable", asked: 3},
		"busy, then bad":  {answers: []string{busy, `{"errcode":40029}`}, status: 401, code: "code_invalid", asked: 2},
		"invalid":         {answers: []string{`{"errcode":40029,"errmsg":"invalid code"}`}, status: 401, code: "code_invalid"},
		"used":            {answers: []string{`{"errcode":40163}`}, status: 401, code: "code_used"},
		"blocked":         {answers: []string{`{"errcode":40226}`}, status: 403, code: "blocked"},
		"quota":           {answers: []string{`{"errcode":45011}`}, status: 429, code: "wechat_quota"},
		"bad appid":       {answers: []string{`{"errcode":40013}`}, status: 500, code: "wechat_config"},
		"bad secret":      {answers: []string{`{"errcode":40125}`}, status: 500, code: "wechat_config"},
		"no appid":        {answers: []string{`{"errcode":41002}`}, status: 500, code: "wechat_config"},
		"unknown":         {answers: []string{`{"errcode":12345}`}, status: 502, code: "wechat_error"},
		"no JSON":         {answers: []string{`<html>`}, status: 502, code: "wechat_error"},
		"empty":           {answers: []string{``}, status: 502, code: "wechat_error"},
		"empty object":    {answers: []string{`{}`}, status: 502, code: "wechat_error"},
		"wrong types":     {answers: []string{`{"openid":7}`}, status: 502, code: "wechat_error"},
		"short key":       {answers: []string{strings.Replace(goodAnswer, "tiihtNczf5v6AKRyjwEUhQ==", "AAAA", 1)}, status: 502, code: "wechat_error"},
		"odd openid":      {answers: []string{strings.Replace(goodAnswer, "oGZ", `o\r\n`, 1)}, status: 502, code: "wechat_error"},
		"odd unionid":     {answers: []string{strings.Replace(goodAnswer, "ocM", "o{}", 1)}, status: 502, code: "wechat_error"},
		"too long":        {answers: []string{goodAnswer + strings.Repeat(" ", 64<<10)}, status: 502, code: "wechat_error"},
		"HTTP 500":        {answers: []string{goodAnswer}, http: 500, status: 503, code: "wechat_unavailable"},
		"HTTP 429":        {answers: []string{goodAnswer}, http: 429, status: 503, code: "wechat_unavailable"},
		"HTTP 404":        {answers: []string{goodAnswer}, http: 404, status: 502, code: "wechat_error"},
		"redirect":        {answers: []string{""}, http: 302, status: 502, code: "wechat_error"},
		"no unionid":      {answers: []string{`{"openid":"o","session_key":"tiihtNczf5v6AKRyjwEUhQ=="}`}, status: 200},
		"errcode 0":       {answers: []string{strings.Replace(goodAnswer, "{", `{"errcode":0,"errmsg":"ok",`, 1)}, status: 200},
		"errcode is text": {answers: []string{`{"errcode":"40029"}`}, status: 502, code: "wechat_error"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wx := &canned{t: t, answers: tc.answers, status: max(tc.http, 200)}
				e := newEnv(t, first(newFileStore(t)), func(o *Options) { o.Transport = wx })
				w, v := call(rest.Handler(e.ServeLogin), http.MethodPost, "", `{"code":"abc"}`)
				if w.Code != tc.status || errorCode(v) != tc.code {
					t.Errorf("answered %d %s, want %d %q", w.Code, w.Body, tc.status, tc.code)
				}
				if wx.asked != max(tc.asked, 1) {
					t.Errorf("WeChat was asked %d times, want %d", wx.asked, max(tc.asked, 1))
				}
				if wait := w.Header().Get("Retry-After"); (wait != "") != (tc.status == 429 || tc.status == 503) {
					t.Errorf("Retry-After %q with %d", wait, tc.status)
				}
			})
		})
	}
}

func TestWeChatTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)), func(o *Options) {
			o.Transport = transportFunc(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			})
		})
		start := time.Now()
		_, _, err := e.Login(t.Context(), "", "abc")
		wantFault(t, err, "wechat_unavailable")
		if took := time.Since(start).Truncate(time.Second); took != 5*time.Second { // and a moment for the disk
			t.Errorf("gave up after %v", took)
		}
	})
}

// A code is the phone's to choose: it must not become another parameter.
func TestCodeIsEscaped(t *testing.T) {
	const code = "x&appid=" + appB + "&secret=1#\r\n明"
	var got string
	e := newEnv(t, first(newFileStore(t)), func(o *Options) {
		o.Transport = transportFunc(func(r *http.Request) (*http.Response, error) {
			q := r.URL.Query()
			if q.Get("appid") != appA || len(q["appid"]) != 1 || q.Get("secret") != secretA || len(q) != 4 {
				t.Errorf("the query became %q", r.URL.RawQuery)
			}
			got = q.Get("js_code")
			return nil, errors.New("enough")
		})
	})
	_, _, err := e.Login(t.Context(), "", code)
	wantFault(t, err, "wechat_unavailable")
	if got != code {
		t.Errorf("WeChat got the code %q, want %q", got, code)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	e := newEnv(t, first(newFileStore(t)), func(o *Options) { o.Metrics = NewMetrics(reg) })
	token, _ := e.mustLogin("ann")
	e.wantVerify(token, "")
	e.wantVerify(token, "")
	_, _, err := e.Login(t.Context(), "", "unknown")
	wantFault(t, err, "code_invalid")
	if err := e.Logout(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	want := `
# HELP minigate_logins_total Logins by result: ok, or the code of the error.
# TYPE minigate_logins_total counter
minigate_logins_total{result="code_invalid"} 1
minigate_logins_total{result="ok"} 1
# HELP minigate_sessions_ended_total Sessions this node ended before they expired, by reason.
# TYPE minigate_sessions_ended_total counter
minigate_sessions_ended_total{reason="logout"} 1
# HELP minigate_sessions_verified_total Tokens found good, by whether the node's cache or the session store knew.
# TYPE minigate_sessions_verified_total counter
minigate_sessions_verified_total{source="cache"} 1
minigate_sessions_verified_total{source="store"} 1
# HELP minigate_wechat_requests_total Calls to WeChat's server API, retries counted too, by API and result: ok, or the code of the error.
# TYPE minigate_wechat_requests_total counter
minigate_wechat_requests_total{api="code2session",result="code_invalid"} 1
minigate_wechat_requests_total{api="code2session",result="ok"} 1
`
	err = testutil.GatherAndCompare(reg, strings.NewReader(want), "minigate_logins_total",
		"minigate_sessions_ended_total", "minigate_sessions_verified_total", "minigate_wechat_requests_total")
	if err != nil {
		t.Error(err)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}
