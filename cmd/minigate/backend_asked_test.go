package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// askedConfig adds what the backend is asked about sockets and told of who is
// online, and signed identities.
func askedConfig(config string) string {
	return strings.NewReplacer(
		"client:\n", "client:\n  proxy:\n    connect: {enabled: true, for_logins: true, endpoint: 'BACKEND/minigate/connect'}\n    refresh: {enabled: true, endpoint: 'BACKEND/minigate/refresh'}\n",
		"channel:\n", `channel:
  proxy:
    subscribe: {endpoint: 'BACKEND/minigate/subscribe'}
    publish: {endpoint: 'BACKEND/minigate/publish'}
    sub_refresh: {endpoint: 'BACKEND/minigate/sub_refresh'}
`,
		"  namespaces:\n", `  namespaces:
    - {name: chat, subscribe_proxy_enabled: true, publish_proxy_enabled: true}
    - {name: order, subscribe_proxy_enabled: true, sub_refresh_proxy_enabled: true}
`,
		"routes: [{", "routes: [{audience: node-backend, ",
		"rpc: {upstream: 'BACKEND', ", "rpc: {routes: true, proxy: {endpoint: 'BACKEND/minigate/rpc'}, namespaces: [{name: shop, proxy_enabled: true}], ",
		"webhooks:\n", "webhooks:\n  user_status: {endpoint: 'BACKEND/minigate/user_status', grace: 1s}\n",
	).Replace(config)
}

// reply is the answer to a command; what others do is told before it.
func (s *testSocket) reply(id uint32, command string) frame {
	s.t.Helper()
	s.send(fmt.Sprintf(`{"id":%d,%s}`, id, command))
	for {
		if f := s.read(); f.ID == id {
			return f
		}
	}
}

func (b *behindNode) api(t *testing.T, method, body string) {
	t.Helper()
	status, raw := callRaw(t, "POST", b.Ops+"/api/"+method, map[string]string{"X-API-Key": testAPIKey}, body)
	if status != 200 || strings.Contains(string(raw), `"error"`) {
		t.Fatalf("%s: %d %s", method, status, raw)
	}
}

// nodeGuest connects without a login.
func nodeGuest(t *testing.T, b *behindNode) {
	s := dial(t, b.Public)
	if f := s.reply(1, `"connect":{"data":{"guest":"eve"},"subs":{"room:lobby":{}}}`); f.Connect == nil {
		t.Fatalf("answered %+v", f)
	}
	if f := s.reply(2, `"subscribe":{"channel":"chat:x"}`); f.Error != nil {
		t.Fatalf("answered %+v", f.Error)
	}
	s.send(`{"id":3,"publish":{"channel":"chat:x","data":{"text":" hello "}}}`)
	if got := s.publication(); !strings.Contains(got, `"text":"hello","from":"guest-eve"`) {
		t.Errorf("published as %s", got)
	}
	if f := s.reply(4, `"publish":{"channel":"chat:x","data":"hello"}`); f.Error == nil || f.Error.Code != 1001 {
		t.Errorf("answered %+v", f.Error)
	}
	if f := s.reply(5, `"subscribe":{"channel":"order:1"}`); f.Error == nil || f.Error.Code != 103 {
		t.Errorf("answered %+v", f.Error)
	}
	b.api(t, "refresh", fmt.Sprintf(`{"user":"guest-eve","expire_at":%d}`, time.Now().Add(2*time.Second).Unix()))
	call(t, "POST", b.backend+"/block", nil, map[string]string{"user": "guest-eve"}, nil)
	if code, reason := s.goodbye(); code != 3005 {
		t.Errorf("closed with %d %s", code, reason)
	}
	nobody := dial(t, b.Public)
	nobody.send(`{"id":1,"connect":{}}`)
	if code, reason := nobody.goodbye(); code != 4501 || reason != "log in first" {
		t.Errorf("closed with %d %s", code, reason)
	}
}

// nodeOwner opens the channel of an order to whom it belongs to, while it does.
func nodeOwner(t *testing.T, b *behindNode) {
	me := login(t, b.Public, b.sim.NewCode(testAppID, "heidi"))
	s := connect(t, b.Public, me.Token)
	var o order
	f := s.reply(2, `"rpc":{"method":"shop:orders/create","data":{"item":"tea"}}`)
	if f.RPC == nil || json.Unmarshal(f.RPC.Data, &o) != nil || o.Item != "tea" {
		t.Fatalf("answered %+v", f)
	}
	if f := s.reply(3, `"rpc":{"method":"shop:nosuch"}`); f.Error == nil || f.Error.Code != 104 {
		t.Errorf("answered %+v", f)
	}
	if f := s.reply(4, `"subscribe":{"channel":"order:`+o.ID+`"}`); f.Error != nil {
		t.Errorf("answered %+v", f.Error)
	}
	other := connect(t, b.Public, login(t, b.Public, b.sim.NewCode(testAppID, "ivan")).Token)
	if f := other.reply(2, `"subscribe":{"channel":"order:`+o.ID+`"}`); f.Error == nil || f.Error.Code != 103 {
		t.Errorf("answered %+v", f.Error)
	}
	s.reply(5, `"rpc":{"method":"shop:orders/remove","data":{"id":"`+o.ID+`"}}`)
	s.reply(6, `"unsubscribe":{"channel":"order:`+o.ID+`"}`)
	b.api(t, "subscribe", fmt.Sprintf(`{"user":%q,"channel":"order:%s","expire_at":%d}`, me.User.OpenID, o.ID, time.Now().Add(2*time.Second).Unix()))
	if code, reason := s.goodbye(); code != 3006 {
		t.Errorf("closed with %d %s", code, reason)
	}
}

// nodeStatus tells the backend who comes and goes.
func nodeStatus(t *testing.T, b *behindNode) {
	me := login(t, b.Public, b.sim.NewCode(testAppID, "judy"))
	is := func(status string) func() bool {
		return func() bool {
			var state struct {
				Online map[string]struct{ Status string }
			}
			call(t, "GET", b.backend+"/state", nil, nil, &state)
			return state.Online[me.User.OpenID].Status == status
		}
	}
	s := connect(t, b.Public, me.Token)
	eventually(t, "judy is online", is("online"))
	_ = s.conn.CloseNow()
	eventually(t, "judy is offline", is("offline"))
}

// nodeIdentity has the backend verify who is asking, by request and by rpc.
func nodeIdentity(t *testing.T, b *behindNode) {
	me := login(t, b.Public, b.sim.NewCode(testAppID, "kim"))
	var who struct {
		OpenID   string
		Identity struct {
			Sub    string
			Claims struct{ Level string }
		}
	}
	call(t, "GET", b.Public+"/api/whoami", bearer(me.Token), nil, &who)
	if who.Identity.Sub != me.User.OpenID || who.Identity.Claims.Level != "gold" {
		t.Errorf("the backend verified %+v", who)
	}
	s := connect(t, b.Public, me.Token)
	if f := s.reply(2, `"rpc":{"method":"whoami"}`); f.RPC == nil || json.Unmarshal(f.RPC.Data, &who) != nil || who.Identity.Sub != me.User.OpenID {
		t.Errorf("answered %+v", f)
	}
}
