package wxsim

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// active logs ann in and returns an access token.
func (b *bench) active() string {
	b.t.Helper()
	b.redeem(appA, secretA, "sim:ann")
	v := b.post("/cgi-bin/stable_token", `{"grant_type":"client_credential","appid":"`+appA+`","secret":"`+secretA+`"}`)
	return "?access_token=" + v["access_token"].(string)
}

func TestMsgSecCheck(t *testing.T) {
	b := newBench(t)
	token := b.active()
	ask := func(content, version string) map[string]any {
		return b.post("/wxa/msg_sec_check"+token, `{`+version+`"scene":2,"openid":"`+OpenID(appA, "ann")+`","content":"`+content+`"}`)
	}
	const v2 = `"version":2,`
	for content, want := range map[string]string{
		"hello": "pass", RiskyText: "risky", RiskyTextV1: "pass",
		`sim-\u8fdd\u89c4`: "pass", // in escapes it is not read, as with the real one
	} {
		v := ask(content, v2)
		wantCode(t, v, 0)
		if got := v["result"].(map[string]any)["suggest"]; got != want || v["trace_id"] == "" {
			t.Errorf("%q: %v, want %s", content, v, want)
		}
	}
	wantCode(t, ask(RiskyTextV1, ""), 87014)
	wantCode(t, ask("hello", ""), 0)
	wantCode(t, b.post("/wxa/msg_sec_check"+token, `{"version":2,"scene":2,"openid":"o","content":"x"}`), 40003)
	b.clock = b.clock.Add(2*time.Hour + time.Second)
	wantCode(t, ask("hello", v2), 40001) // the token is as old
}

func TestInactiveUser(t *testing.T) {
	b := newBench(t)
	b.redeem(appA, secretA, "sim:ann")
	b.clock = b.clock.Add(2*time.Hour + time.Second)
	b.redeem(appA, secretA, "sim:bob")
	token := "?access_token=" + b.post("/cgi-bin/stable_token", `{"grant_type":"client_credential","appid":"`+appA+`","secret":"`+secretA+`"}`)["access_token"].(string)
	body := func(user string) string {
		return `{"version":2,"scene":1,"media_type":2,"media_url":"https://x/a.png","content":"x","openid":"` + OpenID(appA, user) + `"}`
	}
	for _, path := range []string{"/wxa/msg_sec_check", "/wxa/media_check_async"} {
		wantCode(t, b.post(path+token, body("ann")), 61010)
		wantCode(t, b.post(path+token, body("bob")), 0)
	}
}

func TestMessages(t *testing.T) {
	b := newBench(t)
	token := b.active()
	ann := OpenID(appA, "ann")
	subscribe := func(data string) map[string]any {
		return b.post("/cgi-bin/message/subscribe/send"+token, `{"touser":"`+ann+`","template_id":"T","data":`+data+`}`)
	}
	const good = `{"thing1":{"value":"二十个字"}}`
	wantCode(t, subscribe(good), 43101)
	b.post("/sim/grant", `{"appid":"`+appA+`","user":"ann","template":"T"}`)
	wantCode(t, subscribe(`{"thing1":{"value":"一二三四五六七八九十一二三四五六七八九十一"}}`), 47003)
	wantCode(t, subscribe(`{"number1":{"value":"many"}}`), 47003)
	wantCode(t, subscribe(good), 0)
	wantCode(t, subscribe(good), 43101) // one consent, one message

	custom := func() map[string]any {
		return b.post("/cgi-bin/message/custom/send"+token, `{"touser":"`+ann+`","msgtype":"text","text":{"content":"hi"}}`)
	}
	wantCode(t, custom(), 45015)
	b.post("/sim/write", `{"appid":"`+appA+`","user":"ann"}`)
	for range 5 {
		wantCode(t, custom(), 0)
	}
	wantCode(t, custom(), 45047)
	if sent := b.Sent(); len(sent) != 6 || sent[0] != (Message{appA, ann, "T", "thing1=二十个字"}) || sent[5].Text != "hi" {
		t.Errorf("sent %v", sent)
	}
}

func TestScript(t *testing.T) {
	b := newBench(t)
	b.Script("/cgi-bin/token", Trouble{Code: -1, Msg: "system error"}, Trouble{HTTP: http.StatusBadGateway, Body: "{}"})
	wantCode(t, b.get("/cgi-bin/token"), -1)
	if w, _ := b.do(http.MethodGet, "/cgi-bin/token", ""); w.Code != http.StatusBadGateway {
		t.Errorf("answered %d", w.Code)
	}
	wantCode(t, b.get("/cgi-bin/token"), 41002)
	if n := b.Calls("/cgi-bin/token"); n != 3 {
		t.Errorf("counted %d calls", n)
	}
}

func TestDeliver(t *testing.T) {
	bodies := make(chan *http.Request, 4)
	answer := "success"
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bodies <- r
		_, _ = w.Write([]byte(answer))
	}))
	defer target.Close()
	b := newBench(t)
	b.targets[appA] = PushTarget{URL: target.URL, Token: "AAAAA", AESKey: "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"}
	token := b.active()
	body := `{"version":2,"scene":1,"media_type":2,"media_url":"https://x/risky.png","openid":"` + OpenID(appA, "ann") + `"}`
	wantCode(t, b.post("/wxa/media_check_async"+token, body), 0)
	if v := b.post("/sim/deliver", `{}`); v["delivered"] != 1.0 {
		t.Errorf("delivered %v", v)
	}
	q := (<-bodies).URL.Query()
	if q.Get("signature") != sortedSHA1("AAAAA", q.Get("timestamp"), q.Get("nonce")) || q.Get("encrypt_type") != "aes" {
		t.Errorf("the query is %v", q)
	}
	answer = "no"
	if err := b.Push(t.Context(), appA, []byte(`{}`)); err == nil {
		t.Error("an answer other than success is taken")
	}
}

func TestPushSignatureVector(t *testing.T) {
	for want, parts := range map[string][]string{
		"f464b24fc39322e44b38aa78f5edd27bd1441696": {"AAAAA", "1714036504", "1514711492"},
		"899cf89e464efb63f54ddac96b0a0a235f53aa78": {"AAAAA", "1714037059", "486452656"},
	} {
		if got := sortedSHA1(parts...); got != want {
			t.Errorf("%v: %s, want %s", parts, got, want)
		}
	}
}
