package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/webhook"
	"github.com/minigate/minigate/internal/wxsim"
)

// TestLoginWebhook lets a backend say at login who a user is and where he
// belongs, and looks where that arrives.
func TestLoginWebhook(t *testing.T) {
	key := webhook.Key{ID: "k1", Secret: settings.Secret("a-webhook-secret-for-tests")}
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := webhook.Verify(r.Header, body, []webhook.Key{key}, time.Now()); err != nil {
			t.Errorf("signature: %v", err)
		}
		_, _ = io.WriteString(w, `{"claims":{"vip":"是"},"channels":["room:club","nosuch:namespace"]}`)
	}))
	defer hook.Close()
	claims := make(chan string, 1)
	back := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		claims <- r.Header.Get("X-WX-CLAIMS")
	}))
	defer back.Close()
	sim, wechatURL := simulator(t)
	p := startServe(t, strings.Replace(baseConfig(t, wechatURL), "wechat:\n", "session:\n  login_webhook: {endpoint: '"+hook.URL+"'}\nwebhooks:\n  keys: [{id: k1, secret: a-webhook-secret-for-tests}]\nwechat:\n", 1)+
		devChannels+"proxy: {routes: [{prefix: /api/, upstream: '"+back.URL+"'}]}\n")

	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	callRaw(t, "GET", p.Public+"/api/x", bearer(me.Token), nil)
	if got := <-claims; got != `{"vip":"\u662f"}` {
		t.Errorf("the backend saw the claims %s", got)
	}
	s := dial(t, p.Public)
	s.send(`{"id":1,"connect":{"token":"` + me.Token + `"}}`)
	f := s.read()
	if _, ok := f.Connect.Subs["room:club"]; !ok || len(f.Connect.Subs) != 3 {
		t.Errorf("subscribed to %v", f.Connect.Subs)
	}
	_, raw := callRaw(t, "POST", p.Ops+"/api/presence", map[string]string{"X-API-Key": testAPIKey}, `{"channel":"room:club"}`)
	var presence struct {
		Result struct {
			Presence map[string]struct {
				ConnInfo map[string]string `json:"conn_info"`
			}
		}
	}
	if err := json.Unmarshal(raw, &presence); err != nil || len(presence.Result.Presence) != 1 {
		t.Fatalf("presence: %s", raw)
	}
	for _, who := range presence.Result.Presence {
		if who.ConnInfo["vip"] != "是" {
			t.Errorf("conn_info: %s", raw)
		}
	}
}

// TestWeChatPushReachesTheBackend follows an event from WeChat through the
// durable queue to the backend, which is away at first.
func TestWeChatPushReachesTheBackend(t *testing.T) {
	key := webhook.Key{ID: "k1", Secret: settings.Secret("a-webhook-secret-for-tests")}
	news := make(chan string, 8)
	calls := 0
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := webhook.Verify(r.Header, body, []webhook.Key{key}, time.Now()); err != nil {
			t.Errorf("signature: %v", err)
		}
		if calls++; calls == 1 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		news <- string(body)
	}))
	defer hook.Close()
	sim, wechatURL := simulator(t)
	config := strings.Replace(baseConfig(t, wechatURL), "      secret:", "      push: {token: "+testPushToken+", encoding_aes_key: "+testPushKey+"}\n      secret:", 1)
	p := startServe(t, config+"webhooks:\n  keys: [{id: k1, secret: a-webhook-secret-for-tests}]\n  wechat_push: {endpoint: '"+hook.URL+"'}\n  open_data: {endpoint: '"+hook.URL+"'}\n")

	pusher := wxsim.New(wxsim.Options{Apps: []wxsim.App{{AppID: testAppID, Push: wxsim.PushTarget{
		URL: p.Public + "/wechat/push/" + testAppID, Token: testPushToken, AESKey: testPushKey,
	}}}})
	if err := pusher.Push(t.Context(), testAppID, []byte(`{"MsgType":"event","FromUserName":"oAlice","CreateTime":1,"Event":"subscribe_msg_popup_event"}`)); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-news:
		for _, want := range []string{`"event":"wechat_push"`, `"from":"oAlice"`, `"event":"subscribe_msg_popup_event"`, `"delivery":"`} {
			if !strings.Contains(got, want) {
				t.Errorf("no %s in %s", want, got)
			}
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the backend never heard of it")
	}

	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	var phone struct{ Code string }
	call(t, "POST", wechatURL+"/sim/phone", nil, map[string]string{"appid": testAppID, "user": "alice"}, &phone)
	var number struct {
		Number string `json:"phone_number"`
	}
	call(t, "POST", p.Public+"/auth/phone", bearer(me.Token), map[string]string{"code": phone.Code}, &number)
	select {
	case got := <-news:
		for _, want := range []string{`"event":"open_data"`, `"kind":"phone"`, me.User.OpenID, `"phone_number":"` + number.Number + `"`} {
			if number.Number == "" || !strings.Contains(got, want) {
				t.Errorf("no %s in %s", want, got)
			}
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the backend never heard of the phone number")
	}
}
