package main

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/samplebackend"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/testdeps"
)

// liveConfig makes a node that shares only Redis, and calls the backend.
func liveConfig(t testing.TB, wechatURL, redis, upstream, more string) string {
	return strings.Replace(baseConfig(t, wechatURL), "client:\n", "client:\n"+more, 1) + fmt.Sprintf(`
keys:
  sealing: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
  signing: [MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDM=]
  tickets: [{id: t1, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDI=}]
redis:
  addresses: [%s]
channel:
  namespaces:
    - name: room
      history_size: 100
      history_ttl: 300s
      force_recovery: true
rpc:
  upstream: %s
  path: /api/{method}
`, redis, upstream)
}

// api calls the server API and fails on anything but a result.
func (p *program) api(t testing.TB, method, body string) string {
	t.Helper()
	status, raw := callRaw(t, "POST", p.Ops+"/api/"+method, map[string]string{"X-API-Key": testAPIKey}, body)
	if status != 200 || !strings.HasPrefix(string(raw), `{"result":`) {
		t.Fatalf("%s %s: %d %s", method, body, status, raw)
	}
	return string(raw)
}

// TestLiveSide drives what the backend does to sockets on two real nodes, and
// what sockets ask the backend.
func TestLiveSide(t *testing.T) {
	sim, wechatURL := simulator(t)
	redis := testdeps.Redis(t)
	back := httptest.NewServer(samplebackend.New())
	t.Cleanup(back.Close)
	const more = "  single_connection: device\n"
	a := startServe(t, liveConfig(t, wechatURL, redis, back.URL, more))
	b := startServe(t, liveConfig(t, wechatURL, redis, back.URL, more))

	ann := login(t, a.Public, sim.NewCode(testAppID, "ann"))
	other := login(t, a.Public, sim.NewCode(testAppID, "ann"))
	onA, onB := connect(t, a.Public, ann.Token), connect(t, b.Public, other.Token)

	// The handler that answers wx.request answers rpc commands as well.
	onB.send(`{"id":2,"rpc":{"method":"whoami","data":{}}}`)
	var who struct{ Openid, Appid, Method, Path string }
	if f := onB.read(); f.ID != 2 || f.Error != nil || json.Unmarshal(f.RPC.Data, &who) != nil {
		t.Fatalf("rpc was answered %+v", f)
	}
	if who.Openid != ann.User.OpenID || who.Appid != testAppID || who.Method != "POST" || who.Path != "/api/whoami" {
		t.Errorf("the backend saw %+v", who)
	}
	onB.send(`{"id":3,"rpc":{"method":"echo","data":{"n":[1,2]}}}`)
	if f := onB.read(); f.ID != 3 || f.RPC == nil || !strings.Contains(string(f.RPC.Data), `{\"n\":[1,2]}`) {
		t.Errorf("echo: %+v", f)
	}
	onB.send(`{"id":4,"rpc":{"method":"no/such"}}`)
	if f := onB.read(); f.ID != 4 || f.Error == nil || f.Error.Code != 104 {
		t.Errorf("unknown method: %+v", f)
	}

	// Every connection of the user on every node, with what was said before.
	user := `"user":"` + ann.User.OpenID + `"`
	a.api(t, "publish", `{"channel":"room:team","data":1}`)
	a.api(t, "subscribe", `{`+user+`,"channel":"room:team","data":{"hi":1},"recover_since":{"offset":0,"epoch":""}}`)
	b.api(t, "publish", `{"channel":"room:team","data":2}`)
	for _, s := range []*testSocket{onA, onB} {
		if f := s.read(); f.Push == nil || f.Push.Channel != "room:team" || f.Push.Subscribe == nil || !f.Push.Subscribe.Recoverable || string(f.Push.Subscribe.Data) != `{"hi":1}` {
			t.Fatalf("subscribe push: %+v", f)
		}
		if one, two := s.publication(), s.publication(); one != "1" || two != "2" {
			t.Errorf("got %s %s", one, two)
		}
	}
	b.api(t, "unsubscribe", `{`+user+`,"channel":"room:team"}`)
	for _, s := range []*testSocket{onA, onB} {
		if f := s.read(); f.Push == nil || f.Push.Unsubscribe == nil || f.Push.Unsubscribe.Code != 2000 {
			t.Errorf("unsubscribe push: %+v", f)
		}
	}

	// The same login once more, on the other node: the older socket ends.
	connect(t, b.Public, ann.Token)
	if code, reason := onA.goodbye(); code != 3504 || reason == "" {
		t.Errorf("the older socket was told %d %q", code, reason)
	}
	a.api(t, "refresh", `{`+user+`,"expired":true}`)
	if code, _ := onB.goodbye(); code != 3005 {
		t.Errorf("the expired socket was told %d", code)
	}
	for _, p := range []*program{a, b} {
		noSecrets(t, p, ann.Token)
	}
}

// TestInsecureNeedsLoopback: the switch for tests opens nothing to others.
func TestInsecureNeedsLoopback(t *testing.T) {
	const apps = "wechat: {apps: [{appid: wx0123456789abcdef, secret: 0123456789abcdef0123456789abcdef}]}\nclient: {insecure: true}\n"
	for listen, ok := range map[string]bool{
		"127.0.0.1:0": true, "localhost:0": true, "'[::1]:0'": true, ":8080": false, "0.0.0.0:8080": false, "10.0.0.1:80": false, "'[::]:80'": false,
	} {
		err := settings.Load(new(Config), settings.Source{File: []byte("listen: " + listen + "\n" + apps), FileName: "f"})
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "client.insecure: lets everybody do everything") {
			t.Errorf("listen %s: %v", listen, err)
		}
	}
}
