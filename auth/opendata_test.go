package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/minigate/minigate/internal/jws"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/wxsim"
)

// WeChat's published vector, and one with an iv that was changed so that
// another openid comes out.
const (
	sampleAppID  = "wx4f4bc4dec97d474b"
	sampleOpenID = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
	sampleKey    = "tiihtNczf5v6AKRyjwEUhQ=="
	sampleIV     = "r7BXXKkLb8qrSNn05n0qiA=="
	forgedIV     = "r7BXXKkLb8qrSNne924z4A=="
	corruptIV    = "r7BXXKkLb8qrSNn05n94bw=="
	sampleData   = "CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC+oNPdbB+3hVbJSRgv+4lGOETKUQz6OYStslQ142dNCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInNlxuacJXwu0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/r7Z6xNrXd2UIeorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7JCUjCpoG20f0a04COwfneQAGGwd5oa+T8yO5hzuyDb/XcxxmK01EpqOyuxINew=="
)

// The vectors against the rules: whose they are, and how old.
func TestOpenDataVectors(t *testing.T) {
	made := time.Unix(1477314187, 0)
	user := User{AppID: sampleAppID, OpenID: sampleOpenID}
	for name, tc := range map[string]struct {
		user User
		key  string
		iv   string
		now  time.Time
		good bool
	}{
		"published":            {user, sampleKey, sampleIV, made, true},
		"oldest":               {user, sampleKey, sampleIV, made.Add(time.Hour), true},
		"too old":              {user, sampleKey, sampleIV, made.Add(time.Hour + time.Second), false},
		"from the near future": {user, sampleKey, sampleIV, made.Add(-clockSkew), true},
		"from the far future":  {user, sampleKey, sampleIV, made.Add(-clockSkew - time.Second), false},
		"forged iv":            {user, sampleKey, forgedIV, made, false},
		"corrupt iv":           {user, sampleKey, corruptIV, made, false},
		"other user":           {User{AppID: sampleAppID, OpenID: "EVIL"}, sampleKey, sampleIV, made, false},
		"other mini-program":   {User{AppID: appA, OpenID: sampleOpenID}, sampleKey, sampleIV, made, false},
		"other key":            {user, "HyVFkGl5F5OQWJZZaNzBBg==", sampleIV, made, false},
	} {
		p, err := parseOpenData(OpenDataRequest{EncryptedData: sampleData, IV: tc.iv})
		if err != nil {
			t.Fatal(err)
		}
		opened := p.open(tc.user, tc.key, tc.now, time.Hour)
		if (opened != nil) != tc.good {
			t.Errorf("%s: %+v", name, opened)
		}
	}
}

// fetchData is what wx.getUserProfile hands out to a user, or what is made of
// the given fields.
func (e *env) fetchData(user, data string) OpenDataRequest {
	e.t.Helper()
	w := httptest.NewRecorder()
	e.sim.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/sim/opendata", strings.NewReader(`{"appid":"`+appA+`","user":"`+user+`"`+data+`}`)))
	var d wxsim.OpenData
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || w.Code != http.StatusOK {
		e.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return OpenDataRequest{d.RawData, d.Signature, d.EncryptedData, d.IV}
}

func bodyOf(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestServeOpenData(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	token, _ := e.mustLogin("ann")
	open := e.Require(e.ServeOpenData)
	all := e.fetchData("ann", "")
	signed, encrypted := OpenDataRequest{RawData: all.RawData, Signature: all.Signature}, OpenDataRequest{EncryptedData: all.EncryptedData, IV: all.IV}
	for name, req := range map[string]OpenDataRequest{"both": all, "signed": signed, "encrypted": encrypted} {
		w, v := call(open, http.MethodPost, token, bodyOf(t, req))
		if w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %d %s", name, w.Code, w.Body)
		}
		raw, hasRaw := v["raw_data"].(map[string]any)
		data, hasData := v["data"].(map[string]any)
		if hasRaw != (name != "encrypted") || hasData != (name != "signed") || hasRaw && raw["nickName"] != "ann" || hasData && data["openId"] != wxsim.OpenID(appA, "ann") {
			t.Errorf("%s: %s", name, w.Body)
		}
		claims := e.verifyJWS(v["jws"].(string))
		if claims["sub"] != wxsim.OpenID(appA, "ann") || claims["kind"] != "opendata" || (claims["raw_data"] != nil) != hasRaw || (claims["data"] != nil) != hasData {
			t.Errorf("%s: the JWS says %v", name, claims)
		}
	}
	if w, v := call(open, http.MethodPost, "", bodyOf(t, all)); w.Code != http.StatusUnauthorized || errorCode(v) != "token_missing" {
		t.Errorf("without a login: %d %s", w.Code, w.Body)
	}
	// Data without an openid is good as well.
	if w, v := call(open, http.MethodPost, token, bodyOf(t, e.fetchData("ann", `,"data":{"stepInfoList":[{"step":100}]}`))); w.Code != http.StatusOK || v["data"].(map[string]any)["stepInfoList"] == nil {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// verifyJWS is what a backend does.
func (e *env) verifyJWS(text string) jwt.MapClaims {
	e.t.Helper()
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(text, claims, func(token *jwt.Token) (any, error) {
		w := httptest.NewRecorder()
		e.ServeKeys(w, httptest.NewRequest(http.MethodGet, "/.well-known/jwks.json", nil))
		return jws.PublicKey(w.Body.Bytes(), token.Header["kid"].(string))
	}, jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer("minigate"), jwt.WithAudience(appA), jwt.WithExpirationRequired())
	if err != nil {
		e.t.Errorf("the JWS is not good: %v", err)
	}
	return claims
}

// A key that a later login replaced still opens what was fetched before, and
// data of today's key opens on every device.
func TestOpenDataWithOlderKeys(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	token, _ := e.mustLogin("ann")
	before := e.fetchData("ann", "")
	e.mustLogin("ann")
	e.mustLogin("ann")
	for name, req := range map[string]OpenDataRequest{"before": before, "now": e.fetchData("ann", "")} {
		if w, _ := call(e.Require(e.ServeOpenData), http.MethodPost, token, bodyOf(t, req)); w.Code != http.StatusOK {
			t.Errorf("fetched %s: %d %s", name, w.Code, w.Body)
		}
	}
	e.mustLogin("ann") // the fourth key
	if w, v := call(e.Require(e.ServeOpenData), http.MethodPost, token, bodyOf(t, before)); w.Code != http.StatusConflict || errorCode(v) != "session_key_stale" {
		t.Errorf("fetched long before: %d %s", w.Code, w.Body)
	}
}

// Nobody can tell from the outside what was wrong under the key: not by the
// answer and not by the time it takes.
func TestRefusalsLookTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)))
		token, _ := e.mustLogin("ann")
		e.mustLogin("bob")
		good := e.fetchData("ann", "")
		flip := func(text string, at int) string {
			raw, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			raw[(at+len(raw))%len(raw)] ^= 1
			return base64.StdEncoding.EncodeToString(raw)
		}
		unfit := map[string]OpenDataRequest{
			"padding":            {EncryptedData: flip(good.EncryptedData, -17), IV: good.IV},
			"JSON":               {EncryptedData: flip(good.EncryptedData, 40), IV: good.IV},
			"first block":        {EncryptedData: good.EncryptedData, IV: flip(good.IV, 0)},
			"openid":             {EncryptedData: good.EncryptedData, IV: flip(good.IV, 12)},
			"somebody else's":    e.fetchData("bob", ""),
			"signature":          {RawData: good.RawData + " ", Signature: good.Signature},
			"raw and other data": {RawData: good.RawData, Signature: good.Signature, EncryptedData: good.EncryptedData, IV: flip(good.IV, 0)},
			"published":          {EncryptedData: sampleData, IV: sampleIV},
		}
		time.Sleep(time.Hour + time.Second)
		unfit["too old"] = good
		e.wantVerify(token, "") // which writes down when the session was used
		answer := ""
		for name, req := range unfit {
			start := time.Now()
			w, _ := call(e.Require(e.ServeOpenData), http.MethodPost, token, bodyOf(t, req))
			if took := time.Since(start); took != staleAfter {
				t.Errorf("%s: answered after %v", name, took)
			}
			if answer == "" {
				answer = w.Body.String()
			}
			if w.Code != http.StatusConflict || w.Body.String() != answer || !strings.Contains(answer, "session_key_stale") {
				t.Errorf("%s: %d %s, want %s", name, w.Code, w.Body, answer)
			}
		}
	})
}

func TestMalformedOpenData(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)), func(o *Options) { o.Settings.WeChat.OpenData.Rate = 0 })
	token, _ := e.mustLogin("ann")
	block := base64.StdEncoding.EncodeToString(make([]byte, 16))
	sig := strings.Repeat("0", 40)
	for name, tc := range map[string]struct {
		body string
		code string
	}{
		"nothing":       {`{}`, "opendata_missing"},
		"no iv":         {bodyOf(t, OpenDataRequest{EncryptedData: block}), "opendata_invalid"},
		"only iv":       {bodyOf(t, OpenDataRequest{IV: block}), "opendata_invalid"},
		"short iv":      {bodyOf(t, OpenDataRequest{EncryptedData: block, IV: block[:20]}), "opendata_invalid"},
		"half a block":  {bodyOf(t, OpenDataRequest{EncryptedData: "AAAA", IV: block}), "opendata_invalid"},
		"no signature":  {bodyOf(t, OpenDataRequest{RawData: "{}"}), "opendata_invalid"},
		"short hash":    {bodyOf(t, OpenDataRequest{RawData: "{}", Signature: sig[1:]}), "opendata_invalid"},
		"only hash":     {bodyOf(t, OpenDataRequest{Signature: sig}), "opendata_invalid"},
		"raw no JSON":   {bodyOf(t, OpenDataRequest{RawData: "{", Signature: sig}), "opendata_invalid"},
		"raw too long":  {bodyOf(t, OpenDataRequest{RawData: strings.Repeat(" ", maxRawData) + "1", Signature: sig}), "opendata_invalid"},
		"one bad pair":  {bodyOf(t, OpenDataRequest{RawData: "{}", Signature: sig, EncryptedData: "!", IV: block}), "opendata_invalid"},
		"number":        {`{"raw_data":1}`, "json_invalid"},
		"body too long": {`{"raw_data":"` + strings.Repeat("x", maxOpenDataBody) + `"}`, "body_too_large"},
	} {
		w, v := call(e.Require(e.ServeOpenData), http.MethodPost, token, tc.body)
		if w.Code/100 != 4 || errorCode(v) != tc.code {
			t.Errorf("%s: %d %s, want %s", name, w.Code, w.Body, tc.code)
		}
	}
}

func TestServePhone(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)), func(o *Options) { o.Settings.WeChat.OpenData.Rate = 0 })
	token, _ := e.mustLogin("ann")
	phone := e.Require(e.ServePhone)
	w, v := call(phone, http.MethodPost, token, `{"code":"`+e.sim.NewPhoneCode(appA, "ann")+`"}`)
	number := wxsim.Phone("ann")
	if w.Code != http.StatusOK || v["phone_number"] != number || v["pure_phone_number"] != number || v["country_code"] != "86" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	claims := e.verifyJWS(v["jws"].(string))
	if data, _ := claims["data"].(map[string]any); claims["kind"] != "phone" || claims["sub"] != wxsim.OpenID(appA, "ann") || data["phone_number"] != number {
		t.Errorf("the JWS says %v", claims)
	}
	used := e.sim.NewPhoneCode(appA, "ann")
	call(phone, http.MethodPost, token, `{"code":"`+used+`"}`)
	for name, body := range map[string]string{
		"bob's": `{"code":"` + e.sim.NewPhoneCode(appA, "bob") + `"}`, "used": `{"code":"` + used + `"}`,
		"of a login": `{"code":"` + e.sim.NewCode(appA, "ann") + `"}`, "none": `{}`, "too long": `{"code":"` + strings.Repeat("x", 257) + `"}`,
	} {
		if w, v := call(phone, http.MethodPost, token, body); w.Code != http.StatusBadRequest || errorCode(v) != "phone_code_invalid" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	e.sim.Script("/wxa/business/getuserphonenumber", wxsim.Trouble{Code: 45011})
	if w, v = call(phone, http.MethodPost, token, `{"code":"x"}`); w.Code != http.StatusTooManyRequests || errorCode(v) != "wechat_quota" || w.Header().Get("Retry-After") == "" {
		t.Errorf("quota: %d %s", w.Code, w.Body)
	}
}

// Open data and phone numbers share a limit per user.
func TestUserRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)), func(o *Options) { o.Settings.WeChat.OpenData.Rate, o.Settings.WeChat.OpenData.Burst = 0.5, 2 })
		ann, _ := e.mustLogin("ann")
		ann2, _ := e.mustLogin("ann")
		bob, _ := e.mustLogin("bob")
		open, phone := e.Require(e.ServeOpenData), e.Require(e.ServePhone)
		call(open, http.MethodPost, ann, `{}`)
		call(phone, http.MethodPost, ann2, `{}`)
		for _, h := range []rest.Handler{open, phone} {
			w, v := call(h, http.MethodPost, ann, `{}`)
			if w.Code != http.StatusTooManyRequests || errorCode(v) != "user_rate" || w.Header().Get("Retry-After") != "2" {
				t.Errorf("beyond the burst: %d %s, Retry-After %q", w.Code, w.Body, w.Header().Get("Retry-After"))
			}
		}
		if w, _ := call(open, http.MethodPost, bob, `{}`); w.Code != http.StatusBadRequest {
			t.Errorf("another user: %d", w.Code)
		}
		time.Sleep(2 * time.Second)
		if w, _ := call(open, http.MethodPost, ann, `{}`); w.Code != http.StatusBadRequest {
			t.Errorf("after the time to wait: %d", w.Code)
		}
	})
}

func TestBackendOpensData(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	_, s := e.mustLogin("ann")
	d := e.fetchData("ann", "")
	ask := func(h rest.Handler, user, appID string) (int, map[string]any) {
		w, v := call(h, http.MethodPost, "", bodyOf(t, map[string]string{
			"user": user, "appid": appID, "encrypted_data": d.EncryptedData, "iv": d.IV,
		}))
		return w.Code, v
	}
	for _, appID := range []string{"", appA} {
		if status, v := ask(e.ServeOpenDataOf, s.User.OpenID, appID); status != http.StatusOK || v["data"].(map[string]any)["openId"] != s.User.OpenID {
			t.Errorf("in %q: %d %v", appID, status, v)
		}
	}
	for _, tc := range []struct {
		user, appID string
		status      int
		code        string
	}{
		{s.User.OpenID, "wxffffffffffffffff", 400, "appid_unknown"},
		{"", appA, 400, "openid_invalid"},
		{"a b", appA, 400, "openid_invalid"},
		{wxsim.OpenID(appA, "bob"), appA, 409, "session_key_stale"},
		{s.User.OpenID, appB, 409, "session_key_stale"},
	} {
		if status, v := ask(e.ServeOpenDataOf, tc.user, tc.appID); status != tc.status || errorCode(v) != tc.code {
			t.Errorf("%+v: %d %v", tc, status, v)
		}
	}
}

func TestOperatorsSessionKeys(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	_, s := e.mustLogin("ann")
	body := bodyOf(t, map[string]string{"user": s.User.OpenID})
	current := func(want bool) {
		t.Helper()
		if w, v := call(rest.Handler(e.ServeCheckSession), http.MethodPost, "", body); w.Code != http.StatusOK || v["current"] != want {
			t.Errorf("%d %s, want current %v", w.Code, w.Body, want)
		}
	}
	current(true)
	for range 2 { // each from the key that the last one gave
		if w, _ := call(rest.Handler(e.ServeResetSessionKey), http.MethodPost, "", body); w.Code != http.StatusNoContent {
			t.Errorf("reset: %d %s", w.Code, w.Body)
		}
		current(true)
	}
	if err := e.store.ReplaceKeys(t.Context(), s.User.OpenID, e.sealSessionKey(s.User, sampleKey)); err != nil {
		t.Fatal(err)
	}
	current(false)
	if w, v := call(rest.Handler(e.ServeResetSessionKey), http.MethodPost, "", body); w.Code != http.StatusConflict || errorCode(v) != "session_key_stale" {
		t.Errorf("reset with a key that WeChat does not know: %d %s", w.Code, w.Body)
	}
	if w, v := call(rest.Handler(e.ServeCheckSession), http.MethodPost, "", `{"user":"unknown"}`); w.Code != http.StatusConflict || errorCode(v) != "session_key_stale" {
		t.Errorf("a user without a key: %d %s", w.Code, w.Body)
	}
}

// After a reset nothing opens any more under the keys from before, also not
// under those of earlier logins; what the phone fetches from then on does.
func TestResetReplacesTheKeyring(t *testing.T) {
	for name, store := range map[string]Store{"file": first(newFileStore(t)), "redis": newRedisStore(t)} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, store, func(o *Options) { o.Settings.WeChat.OpenData.Rate = 0 })
			want := func(token string, d OpenDataRequest, status int, code string) {
				t.Helper()
				for _, part := range []OpenDataRequest{d, {RawData: d.RawData, Signature: d.Signature}, {EncryptedData: d.EncryptedData, IV: d.IV}} {
					w, v := call(e.Require(e.ServeOpenData), http.MethodPost, token, bodyOf(t, part))
					if w.Code != status || errorCode(v) != code {
						t.Errorf("%d %s, want %d %q", w.Code, w.Body, status, code)
					}
				}
			}
			token, s := e.mustLogin("ann")
			long := e.fetchData("ann", "") // under the key of the first login
			token2, _ := e.mustLogin("ann")
			before := e.fetchData("ann", "")
			want(token, long, http.StatusOK, "")
			want(token, before, http.StatusOK, "")
			if ring, err := store.Keys(t.Context(), s.User.OpenID); err != nil || len(ring) != 2 {
				t.Fatal(ring, err)
			}
			if w, _ := call(rest.Handler(e.ServeResetSessionKey), http.MethodPost, "", bodyOf(t, map[string]string{"user": s.User.OpenID})); w.Code != http.StatusNoContent {
				t.Fatalf("reset: %d %s", w.Code, w.Body)
			}
			after := e.fetchData("ann", "")
			for _, tok := range []string{token, token2} { // sessions stay
				want(tok, long, http.StatusConflict, "session_key_stale")
				want(tok, before, http.StatusConflict, "session_key_stale")
				want(tok, after, http.StatusOK, "")
			}
			if ring, err := store.Keys(t.Context(), s.User.OpenID); err != nil || len(ring) != 1 {
				t.Errorf("%d keys are kept, %v", len(ring), err)
			}
		})
	}
}

// The operator hangs up while WeChat resets the key: it is stored all the same.
func TestResetOutlivesItsCaller(t *testing.T) {
	ctx, hangUp := context.WithCancel(t.Context())
	e := newEnv(t, first(newFileStore(t)), func(o *Options) {
		next := o.Transport
		o.Transport = transportFunc(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "resetusersessionkey") {
				r = r.WithContext(context.WithoutCancel(r.Context())) // the answer is on its way
				defer hangUp()
			}
			return next.RoundTrip(r)
		})
	})
	_, s := e.mustLogin("ann")
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(bodyOf(t, map[string]string{"user": s.User.OpenID})))
	rest.Handler(e.ServeResetSessionKey).ServeHTTP(httptest.NewRecorder(), r)
	if ctx.Err() == nil {
		t.Fatal("the key was not reset")
	}
	if _, err := e.OpenData(t.Context(), s.User, e.fetchData("ann", "")); err != nil {
		t.Errorf("the new key is not known: %v", err)
	}
}

func FuzzParseOpenData(f *testing.F) {
	f.Add(`{"nickName":"Band"}`, strings.Repeat("0", 40), sampleData, sampleIV)
	f.Add("", "", "AAAA", "")
	f.Fuzz(func(t *testing.T, raw, signature, data, iv string) {
		p, err := parseOpenData(OpenDataRequest{raw, signature, data, iv})
		if err != nil {
			return
		}
		if opened := p.open(User{AppID: sampleAppID, OpenID: sampleOpenID}, sampleKey, time.Unix(1477314187, 0), time.Hour); opened != nil && data != "" && data != sampleData {
			t.Errorf("opened %+v", opened)
		}
	})
}
