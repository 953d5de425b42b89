package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/webhook"
	"github.com/minigate/minigate/internal/wxsim"
)

// The backend of docs/examples/node-backend behind the real program.

var (
	hookKey = webhook.Key{ID: "2026-b", Secret: settings.Secret("a-webhook-secret-for-tests")}
	oldKey  = webhook.Key{ID: "2026-a", Secret: settings.Secret("the-webhook-secret-of-before")}
)

// nodeBackend starts the backend, which takes the keys of the key set at
// jwksURL, and returns its address.
func nodeBackend(t *testing.T, jwksURL string) string {
	t.Helper()
	keys, err := json.Marshal(map[string]string{hookKey.ID: hookKey.Secret.Value(), oldKey.ID: oldKey.Secret.Value()})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "server.mjs")
	cmd.Dir = "../../docs/examples/node-backend"
	cmd.Env = append(os.Environ(), "PORT=0", "AUDIENCE=node-backend", "WEBHOOK_KEYS="+string(keys), "JWKS_URL="+jwksURL)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the backend wrote:\n%s", errors.String())
		}
	})
	line, err := bufio.NewReader(pipe).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("the backend said %q, %v", line, err)
	}
	return url
}

// behindNode is a gateway in front of the backend.
type behindNode struct {
	*program
	backend   string
	sim       *wxsim.Server
	wechatURL string
}

// startBehindNode has the settings for all that the backend serves. More go
// under webhooks and to the end.
func startBehindNode(t *testing.T) *behindNode {
	t.Helper()
	b := &behindNode{}
	b.sim, b.wechatURL = simulator(t)
	ops := fmt.Sprintf("127.0.0.1:%d", testdeps.FreePort(t))
	b.backend = nodeBackend(t, "http://"+ops+"/.well-known/jwks.json")
	config := strings.NewReplacer(
		"ops:\n  listen: 127.0.0.1:0", "ops:\n  listen: "+ops,
		"      secret:", "      push: {token: "+testPushToken+", encoding_aes_key: "+testPushKey+"}\n      secret:",
	).Replace(baseConfig(t, b.wechatURL))
	b.program = startServe(t, strings.NewReplacer("BACKEND", b.backend, "SECRET", hookKey.Secret.Value()).Replace(askedConfig(config+devChannels+`
session:
  login_webhook: {endpoint: 'BACKEND/minigate/login', required: true}
webhooks:
  keys: [{id: 2026-b, secret: SECRET}]
  wechat_push: {endpoint: 'BACKEND/minigate/wechat_push'}
  open_data: {endpoint: 'BACKEND/minigate/open_data'}
  upload: {endpoint: 'BACKEND/minigate/upload', required: true}
  files: {endpoint: 'BACKEND/minigate/files'}
proxy:
  routes: [{prefix: /api/, upstream: 'BACKEND'}]
rpc: {upstream: 'BACKEND', path: '/api/{method}'}
`)))
	return b
}

// told waits until the backend has heard of something with all of want in it.
func (b *behindNode) told(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the backend hears of %q", want), func() bool {
		var state struct{ News []json.RawMessage }
		call(t, "GET", b.backend+"/state", nil, nil, &state)
		for _, n := range state.News {
			all := true
			for _, w := range want {
				all = all && strings.Contains(string(n), w)
			}
			if all {
				return true
			}
		}
		return false
	})
}

func TestNodeBackend(t *testing.T) {
	b := startBehindNode(t)
	for name, test := range map[string]func(*testing.T, *behindNode){
		"login": nodeLogin, "requests": nodeRequests, "large body": nodeLargeBody, "rpc": nodeRPC,
		"news": nodeNews, "files": nodeFiles, "forged": nodeForged,
		"guest": nodeGuest, "owner": nodeOwner, "status": nodeStatus, "identity": nodeIdentity,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

// nodeLogin lets the backend decide who logs in, and with what.
func nodeLogin(t *testing.T, b *behindNode) {
	me := login(t, b.Public, b.sim.NewCode(testAppID, "alice"))
	var who struct {
		OpenID, UnionID, AppID string
		Claims                 struct{ Level string }
	}
	call(t, "GET", b.Public+"/api/whoami", bearer(me.Token), nil, &who)
	if who.OpenID != me.User.OpenID || who.UnionID != me.User.UnionID || who.AppID != testAppID || who.Claims.Level != "gold" {
		t.Errorf("the backend sees %+v", who)
	}
	s := dial(t, b.Public)
	s.send(`{"id":1,"connect":{"token":"` + me.Token + `"}}`)
	if f := s.read(); f.Connect.Subs["room:club"] == nil {
		t.Errorf("subscribed to %v", f.Connect.Subs)
	}

	mallory := login(t, b.Public, b.sim.NewCode(testAppID, "mallory"))
	call(t, "POST", b.backend+"/block", nil, map[string]string{"user": mallory.User.OpenID}, nil)
	var refused struct {
		Error struct{ Code, Message string }
	}
	status := call(t, "POST", b.Public+"/auth/login", nil, map[string]string{"code": b.sim.NewCode(testAppID, "mallory")}, &refused)
	if status != http.StatusForbidden || refused.Error.Message != "This account is closed." {
		t.Errorf("status %d, %+v", status, refused)
	}
}

type order struct {
	ID, Item, Note string
	Count          int
}

func nodeRequests(t *testing.T, b *behindNode) {
	me := bearer(login(t, b.Public, b.sim.NewCode(testAppID, "bob")).Token)
	var o order
	if status := call(t, "POST", b.Public+"/api/orders", me, map[string]any{"item": "茶", "count": 2}, &o); status != http.StatusCreated || o.ID == "" {
		t.Fatalf("status %d, %+v", status, o)
	}
	// wx.request has no PATCH.
	patch := bearer(strings.TrimPrefix(me["Authorization"], "Bearer "))
	patch["X-HTTP-Method-Override"] = "PATCH"
	call(t, "POST", b.Public+"/api/orders/"+o.ID, patch, map[string]any{"note": "hot"}, &o)
	if want := (order{o.ID, "茶", "hot", 2}); o != want {
		t.Errorf("changed to %+v", o)
	}
	var list struct{ Orders []order }
	call(t, "GET", b.Public+"/api/orders", me, nil, &list)
	if len(list.Orders) != 1 || list.Orders[0] != o {
		t.Errorf("there are %+v", list)
	}
	carol := bearer(login(t, b.Public, b.sim.NewCode(testAppID, "carol")).Token)
	if status, _ := callRaw(t, "GET", b.Public+"/api/orders/"+o.ID, carol, nil); status != http.StatusNotFound {
		t.Errorf("somebody else's order: status %d", status)
	}
	if status, _ := callRaw(t, "DELETE", b.Public+"/api/orders/"+o.ID, me, nil); status != http.StatusOK {
		t.Errorf("delete: status %d", status)
	}
	if status, raw := callRaw(t, "PATCH", b.Public+"/api/orders/"+o.ID, me, `{"count":0}`); status != http.StatusNotFound {
		t.Errorf("a deleted order: status %d, %s", status, raw)
	}
	if _, raw := callRaw(t, "GET", b.Public+"/api/stream", me, nil); string(raw) != "line 1\nline 2\nline 3\nline 4\nline 5\n" {
		t.Errorf("streamed %q", raw)
	}
	if _, raw := callRaw(t, "GET", b.Public+"/api/slow?ms=50", me, nil); string(raw) != `{"slept":50}` {
		t.Errorf("slow: %s", raw)
	}
	if status, _ := callRaw(t, "GET", b.Public+"/api/whoami", map[string]string{"X-WX-OPENID": "oEvil"}, nil); status != http.StatusUnauthorized {
		t.Errorf("nobody: status %d", status)
	}
	for _, path := range []string{"/state", "/block", "/minigate/login", "/api/../state"} {
		if status, _ := callRaw(t, "POST", b.Public+path, me, `{}`); status != http.StatusNotFound && status != http.StatusBadRequest {
			t.Errorf("a phone reaches %s: status %d", path, status)
		}
	}
}

func nodeLargeBody(t *testing.T, b *behindNode) {
	me := bearer(login(t, b.Public, b.sim.NewCode(testAppID, "dave")).Token)
	content := make([]byte, 10<<20+7)
	_, _ = rand.Read(content)
	var answer struct {
		Size   int
		SHA256 string
	}
	call(t, "POST", b.Public+"/api/hash", me, bytes.NewReader(content), &answer)
	if sum := sha256.Sum256(content); answer.Size != len(content) || answer.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("it received %+v", answer)
	}
}

// nodeRPC reaches the same handlers over a socket.
func nodeRPC(t *testing.T, b *behindNode) {
	me := login(t, b.Public, b.sim.NewCode(testAppID, "erin"))
	s := connect(t, b.Public, me.Token)
	rpc := func(id uint32, params string) frame {
		t.Helper()
		s.send(fmt.Sprintf(`{"id":%d,"rpc":%s}`, id, params))
		for {
			if f := s.read(); f.ID == id { // others joining room:club are told, too
				return f
			}
		}
	}
	var o order
	if f := rpc(2, `{"method":"orders/create","data":{"item":"tea"}}`); f.RPC == nil || json.Unmarshal(f.RPC.Data, &o) != nil || o.Item != "tea" || o.Count != 1 {
		t.Fatalf("answered %+v", f)
	}
	if f := rpc(3, `{"method":"orders/list"}`); f.RPC == nil || !strings.Contains(string(f.RPC.Data), o.ID) {
		t.Errorf("answered %+v", f)
	}
	if f := rpc(4, `{"method":"orders/show","data":{"id":"nosuch"}}`); f.Error == nil || f.Error.Code != 1404 || f.Error.Message != "no such order" {
		t.Errorf("answered %+v", f)
	}
	if f := rpc(5, `{"method":"whoami"}`); f.RPC == nil || !strings.Contains(string(f.RPC.Data), me.User.OpenID) {
		t.Errorf("answered %+v", f)
	}
}

// nodeNews follows what WeChat pushes and what phones have opened to the
// backend, and has it check what we sign for the phone.
func nodeNews(t *testing.T, b *behindNode) {
	pusher := wxsim.New(wxsim.Options{Apps: []wxsim.App{{AppID: testAppID, Push: wxsim.PushTarget{
		URL: b.Public + "/wechat/push/" + testAppID, Token: testPushToken, AESKey: testPushKey,
	}}}})
	if err := pusher.Push(t.Context(), testAppID, []byte(`{"MsgType":"event","FromUserName":"oFrank","CreateTime":1,"Event":"subscribe_msg_popup_event"}`)); err != nil {
		t.Fatal(err)
	}
	b.told(t, `"wechat_push"`, `"oFrank"`, `"subscribe_msg_popup_event"`)

	me := login(t, b.Public, b.sim.NewCode(testAppID, "frank"))
	var phone struct{ Code string }
	call(t, "POST", b.wechatURL+"/sim/phone", nil, map[string]string{"appid": testAppID, "user": "frank"}, &phone)
	var number struct {
		Number string `json:"phone_number"`
		JWS    string
	}
	call(t, "POST", b.Public+"/auth/phone", bearer(me.Token), map[string]string{"code": phone.Code}, &number)
	b.told(t, `"open_data"`, `"phone"`, me.User.OpenID, number.Number)

	var believed struct{ Phone string }
	call(t, "POST", b.Public+"/api/phone", bearer(me.Token), map[string]string{"jws": number.JWS}, &believed)
	if believed.Phone == "" || believed.Phone != number.Number {
		t.Errorf("the backend believes %q of %+v", believed.Phone, number)
	}
	other := login(t, b.Public, b.sim.NewCode(testAppID, "grace"))
	for name, jws := range map[string]string{"somebody else's": number.JWS, "a changed one": number.JWS[:len(number.JWS)-8] + "AAAAAAAA"} {
		token := other.Token
		if name != "somebody else's" {
			token = me.Token
		}
		if status, _ := callRaw(t, "POST", b.Public+"/api/phone", bearer(token), map[string]string{"jws": jws}); status != http.StatusUnauthorized {
			t.Errorf("%s: status %d", name, status)
		}
	}
}

// nodeFiles lets the backend decide about uploads, and tells it what became of
// them.
func nodeFiles(t *testing.T, b *behindNode) {
	me := login(t, b.Public, b.sim.NewCode(testAppID, "leo"))
	if status, raw := tryUpload(t, b.Public, me.Token, "virus.exe", strings.NewReader("MZ")); status != http.StatusForbidden || !strings.Contains(string(raw), "No programs, please.") {
		t.Errorf("status %d: %s", status, raw)
	}
	f := upload(t, b.Public, me.Token, "cat.txt", strings.NewReader("a cat"))
	b.told(t, `"file_ready"`, f.ID, `"album":"inbox"`)
	if status, raw := callRaw(t, "DELETE", b.Public+"/files/"+f.ID, bearer(me.Token), nil); status/100 != 2 {
		t.Errorf("delete: status %d: %s", status, raw)
	}
	b.told(t, `"file_deleted"`, f.ID)
}

// nodeForged calls the backend itself, with what it must not take, what it must
// take only once, and the key of before.
func nodeForged(t *testing.T, b *behindNode) {
	post := func(key webhook.Key, at time.Time, body string) int {
		h := http.Header{}
		webhook.Sign(h, []byte(body), key, at)
		header := map[string]string{}
		for name := range h {
			header[name] = h.Get(name)
		}
		status, _ := callRaw(t, "POST", b.backend+"/minigate/files", header, body)
		return status
	}
	now := time.Now()
	for name, tt := range map[string]struct {
		key  webhook.Key
		at   time.Time
		want int
	}{
		"new key":     {hookKey, now, 204},
		"old key":     {oldKey, now, 204},
		"too old":     {hookKey, now.Add(-webhook.Window - time.Minute), 401},
		"from ahead":  {hookKey, now.Add(webhook.Window + time.Minute), 401},
		"another key": {webhook.Key{ID: hookKey.ID, Secret: "another-secret-for-tests"}, now, 401},
		"unknown id":  {webhook.Key{ID: "x", Secret: hookKey.Secret}, now, 401},
	} {
		for range 2 {
			if got := post(tt.key, tt.at, `{"event":"file_ready","delivery":"`+name+`"}`); got != tt.want {
				t.Errorf("%s: status %d, want %d", name, got, tt.want)
			}
		}
	}
	_, raw := callRaw(t, "GET", b.backend+"/state", nil, nil)
	for name, want := range map[string]int{"new key": 1, "old key": 1, "too old": 0, "another key": 0} {
		if got := strings.Count(string(raw), `"delivery":"`+name+`"`); got != want {
			t.Errorf("%s was handled %d times, want %d", name, got, want)
		}
	}
}
