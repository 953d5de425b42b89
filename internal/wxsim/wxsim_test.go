package wxsim

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	appA, secretA = "wx00000000000000aa", "secret-a"
	appB, secretB = "wx00000000000000bb", "secret-b"
)

// bench is a Server with a clock the test turns.
type bench struct {
	*Server
	t     *testing.T
	clock time.Time
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, clock: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)}
	b.Server = New(Options{Apps: []App{{AppID: appA, Secret: secretA}, {AppID: appB, Secret: secretB}}, Now: func() time.Time { return b.clock }})
	return b
}

func (b *bench) do(method, target, body string) (*httptest.ResponseRecorder, map[string]any) {
	b.t.Helper()
	w := httptest.NewRecorder()
	b.ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	var v map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		b.t.Fatalf("%s %s: %v in %q", method, target, err, w.Body)
	}
	return w, v
}

func (b *bench) get(path string, query ...string) map[string]any {
	b.t.Helper()
	q := url.Values{}
	for i := 0; i < len(query); i += 2 {
		q.Set(query[i], query[i+1])
	}
	w, v := b.do(http.MethodGet, path+"?"+q.Encode(), "")
	checkWeChatAnswer(b.t, w, v)
	return v
}

func (b *bench) post(target, body string) map[string]any {
	b.t.Helper()
	w, v := b.do(http.MethodPost, target, body)
	if !strings.HasPrefix(target, "/sim/") {
		checkWeChatAnswer(b.t, w, v)
	}
	return v
}

func (b *bench) redeem(appID, secret, code string) map[string]any {
	b.t.Helper()
	return b.get("/sns/jscode2session", "appid", appID, "secret", secret, "js_code", code, "grant_type", "authorization_code")
}

var rid = regexp.MustCompile(`rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}$`)

// checkWeChatAnswer checks what holds for every answer of the real thing.
func checkWeChatAnswer(t *testing.T, w *httptest.ResponseRecorder, v map[string]any) {
	t.Helper()
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/plain" {
		t.Errorf("status %d, type %q; WeChat answers 200 text/plain", w.Code, w.Header().Get("Content-Type"))
	}
	if code, ok := v["errcode"]; ok && code != 0.0 && !rid.MatchString(v["errmsg"].(string)) {
		t.Errorf("errmsg %q does not end in a rid", v["errmsg"])
	}
}

func wantCode(t *testing.T, v map[string]any, code float64) {
	t.Helper()
	got, _ := v["errcode"].(float64)
	if got != code {
		t.Errorf("errcode %v, want %v (answer %v)", got, code, v)
	}
}

func TestRealCode(t *testing.T) {
	b := newBench(t)
	used := b.NewCode(appA, "ann")
	first := b.redeem(appA, secretA, used)
	wantCode(t, first, 0)
	wantCode(t, b.redeem(appA, secretA, used), 40163)

	foreign := b.NewCode(appB, "ann")
	wantCode(t, b.redeem(appA, secretA, foreign), 40029)
	other := b.redeem(appB, secretB, foreign)
	if other["openid"] == first["openid"] || other["unionid"] != first["unionid"] {
		t.Errorf("ann in two apps: %v and %v", first, other)
	}

	late := b.NewCode(appA, "ann")
	intime := b.NewCode(appA, "ann")
	b.clock = b.clock.Add(5*time.Minute - time.Second)
	wantCode(t, b.redeem(appA, secretA, intime), 0)
	b.clock = b.clock.Add(time.Second)
	wantCode(t, b.redeem(appA, secretA, late), 40029)

	code := b.post("/sim/login", `{"appid":"`+appA+`","user":"ann"}`)["code"].(string)
	if got := b.redeem(appA, secretA, code); got["openid"] != first["openid"] || got["session_key"] == first["session_key"] {
		t.Errorf("second login %v after %v: want the same openid and a new key", got, first)
	}
	wantCode(t, b.redeem(appA, secretA, code), 40163)
}

func TestCode2SessionErrors(t *testing.T) {
	b := newBench(t)
	for name, tc := range map[string]struct {
		query []string
		code  float64
	}{
		"no appid":       {[]string{"secret", secretA, "js_code", "x", "grant_type", "authorization_code"}, 41002},
		"no secret":      {[]string{"appid", appA, "js_code", "x", "grant_type", "authorization_code"}, 41004},
		"no code":        {[]string{"appid", appA, "secret", secretA, "grant_type", "authorization_code"}, 41008},
		"unknown appid":  {[]string{"appid", "wxff", "secret", secretA, "js_code", "x", "grant_type", "authorization_code"}, 40013},
		"wrong secret":   {[]string{"appid", appA, "secret", secretB, "js_code", "x", "grant_type", "authorization_code"}, 40125},
		"no grant":       {[]string{"appid", appA, "secret", secretA, "js_code", "x"}, 40002},
		"unknown code":   {[]string{"appid", appA, "secret", secretA, "js_code", "x", "grant_type", "authorization_code"}, 40029},
		"bad sim name":   {[]string{"appid", appA, "secret", secretA, "js_code", "sim:a b", "grant_type", "authorization_code"}, 40029},
		"empty sim name": {[]string{"appid", appA, "secret", secretA, "js_code", "sim:", "grant_type", "authorization_code"}, 40029},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, b.get("/sns/jscode2session", tc.query...), tc.code) })
	}
	w, v := b.do(http.MethodPost, "/sns/jscode2session", "")
	checkWeChatAnswer(t, w, v)
	wantCode(t, v, 43001)
}

func TestSimCode(t *testing.T) {
	shape := regexp.MustCompile(`^o[A-Za-z0-9_-]{27}$`)
	for _, name := range []string{"ann", "A.b_c-9", "小明", strings.Repeat("明", 64)} {
		v := newBench(t).redeem(appA, secretA, "sim:"+name)
		again := newBench(t).redeem(appA, secretA, "sim:"+name) // as after a restart
		if v["openid"] != again["openid"] || v["unionid"] != again["unionid"] || v["session_key"] == again["session_key"] {
			t.Errorf("%s: %v, then %v", name, v, again)
		}
		if !shape.MatchString(v["openid"].(string)) || !shape.MatchString(v["unionid"].(string)) || len(v["session_key"].(string)) != 24 {
			t.Errorf("%s: unlikely answer %v", name, v)
		}
	}
	wantCode(t, newBench(t).redeem(appA, secretA, "sim:"+strings.Repeat("a", 65)), 40029)
}

func (b *bench) stable(force bool) (token string, expiresIn float64) {
	body, _ := json.Marshal(map[string]any{"grant_type": "client_credential", "appid": appA, "secret": secretA, "force_refresh": force})
	v := b.post("/cgi-bin/stable_token", string(body))
	token, _ = v["access_token"].(string)
	expiresIn, _ = v["expires_in"].(float64)
	return token, expiresIn
}

// valid says whether an access token is taken: an unsigned check then fails
// for its signature only.
func (b *bench) valid(token string) bool {
	return b.get("/wxa/checksession", "access_token", token, "sig_method", "hmac_sha256")["errcode"] == 87009.0
}

func TestStableToken(t *testing.T) {
	b := newBench(t)
	first, in := b.stable(false)
	if in != 7200 || !b.valid(first) {
		t.Fatalf("first token lives %v s, valid %v", in, b.valid(first))
	}
	b.clock = b.clock.Add(2*time.Hour - 5*time.Minute - time.Second)
	if again, in := b.stable(false); again != first || in != 301 {
		t.Errorf("before its last five minutes the token changed, or lives %v s", in)
	}
	b.clock = b.clock.Add(time.Second)
	second, _ := b.stable(false)
	if second == first || !b.valid(first) || !b.valid(second) {
		t.Error("in the last five minutes a new token must come and both be good")
	}
	third, _ := b.stable(true)
	if third == second || b.valid(second) {
		t.Error("force_refresh must replace the token at once")
	}
	if soon, _ := b.stable(true); soon != third {
		t.Error("force_refresh within 30 s must do nothing")
	}
	for range forcePerDay - 1 {
		b.clock = b.clock.Add(30 * time.Second)
		b.stable(true)
	}
	b.clock = b.clock.Add(30 * time.Second)
	if last, _ := b.stable(true); last != "" {
		t.Error("force_refresh must stop at 20 a day")
	}
}

func TestPlainToken(t *testing.T) {
	b := newBench(t)
	ask := func() string {
		v := b.get("/cgi-bin/token", "grant_type", "client_credential", "appid", appA, "secret", secretA)
		return v["access_token"].(string)
	}
	first := ask()
	second := ask()
	if first == second || !b.valid(first) {
		t.Error("each call must make a new token and leave the old one for five minutes")
	}
	b.clock = b.clock.Add(5 * time.Minute)
	if b.valid(first) || !b.valid(second) {
		t.Error("after five minutes only the newest token is good")
	}
	wantCode(t, b.get("/cgi-bin/token", "appid", appA, "secret", secretA), 40002)
	wantCode(t, b.get("/wxa/checksession"), 41001)
	wantCode(t, b.get("/wxa/checksession", "access_token", first), 40001)
	wantCode(t, b.post("/cgi-bin/stable_token", "{"), 47001)
	wantCode(t, b.post("/cgi-bin/stable_token", `{"x":"`+strings.Repeat("x", maxBody)+`"}`), 47001)
}

func TestCheckAndResetSession(t *testing.T) {
	b := newBench(t)
	token, _ := b.stable(false)
	user := b.redeem(appA, secretA, "sim:ann")
	openID, key := user["openid"].(string), user["session_key"].(string)
	ask := func(path, key string) map[string]any {
		return b.get(path, "access_token", token, "openid", openID, "sig_method", "hmac_sha256", "signature", sign(key, ""))
	}
	wantCode(t, ask("/wxa/checksession", key), 0)
	wantCode(t, ask("/wxa/checksession", "o0q0otL8aEzpcZL/FT9WsQ=="), 87009)
	wantCode(t, b.get("/wxa/checksession", "access_token", token, "openid", openID, "signature", sign(key, "")), 87008)

	reset := ask("/wxa/resetusersessionkey", key)
	fresh, _ := reset["session_key"].(string)
	if fresh == "" || fresh == key || reset["openid"] != openID {
		t.Fatalf("reset answered %v", reset)
	}
	wantCode(t, ask("/wxa/checksession", key), 87009)
	wantCode(t, ask("/wxa/checksession", fresh), 0)
	b.redeem(appA, secretA, "sim:ann")
	wantCode(t, ask("/wxa/checksession", fresh), 87009)
}

func TestPhoneNumber(t *testing.T) {
	b := newBench(t)
	token, _ := b.stable(false)
	newCode := func() string {
		return b.post("/sim/phone", `{"appid":"`+appA+`","user":"ann"}`)["code"].(string)
	}
	ask := func(code, openID string) map[string]any {
		return b.post("/wxa/business/getuserphonenumber?access_token="+token, `{"code":"`+code+`","openid":"`+openID+`"}`)
	}
	code := newCode()
	wantCode(t, ask(code, OpenID(appA, "bob")), 40029)
	v := ask(code, OpenID(appA, "ann"))
	wantCode(t, v, 0)
	info, _ := v["phone_info"].(map[string]any)
	number, _ := info["purePhoneNumber"].(string)
	if !regexp.MustCompile(`^1[3-9]\d{9}$`).MatchString(number) || number != Phone("ann") || info["countryCode"] != "86" {
		t.Errorf("phone_info %v", info)
	}
	if mark, _ := info["watermark"].(map[string]any); mark["appid"] != appA {
		t.Errorf("watermark %v", mark)
	}
	wantCode(t, ask(code, ""), 40029)                      // used
	wantCode(t, ask(b.NewCode(appA, "ann"), ""), 40029)    // a login code
	wantCode(t, ask("sim:ann", ""), 40029)                 // also one
	wantCode(t, ask(b.NewPhoneCode(appB, "x"), ""), 40029) // another app's
	late := newCode()
	b.clock = b.clock.Add(5 * time.Minute)
	wantCode(t, ask(late, ""), 40029)
}

func TestFaultHook(t *testing.T) {
	s := New(Options{Apps: []App{{AppID: appA, Secret: secretA}}, Fault: func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusBadGateway)
		return true
	}})
	for target, want := range map[string]int{"/sns/jscode2session": 502, "/sim/login": 405} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", target, w.Code, want)
		}
	}
}

func TestTableIsBounded(t *testing.T) {
	tab, now := newTable[int](3), time.Unix(0, 0)
	for i, key := range []string{"a", "b", "c", "d"} {
		tab.put(key, i, now, now.Add(time.Minute))
	}
	if tab.get("a", now) != nil || tab.get("d", now) == nil || len(tab.entries) != 3 {
		t.Errorf("a full table must drop its oldest: %v", tab.entries)
	}
	later := now.Add(time.Minute)
	tab.put("e", 4, later, later.Add(time.Minute))
	if len(tab.entries) != 1 || tab.order.Len() != 1 {
		t.Errorf("expired entries stay: %v", tab.entries)
	}
}
