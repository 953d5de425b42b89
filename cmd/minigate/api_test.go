package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/minigate/minigate/gateway/serverapi"
	"github.com/minigate/minigate/internal/apidoc/apidoctest"
	"github.com/minigate/minigate/internal/testdeps"
)

var withKey = map[string]string{"X-API-Key": testAPIKey}

// TestAllRoutesAreDescribed: what is mounted below /api is in the description,
// and what is described is mounted.
func TestAllRoutesAreDescribed(t *testing.T) {
	cfg, err := loadConfig(writeConfig(t, baseConfig(t, "http://127.0.0.1:1")), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := build(cfg, mode{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stores.close)
	mounted := []string{"POST /api", "GET /api/openapi.json", "GET /api/asyncapi.json"}
	for _, m := range serverapi.Methods() {
		mounted = append(mounted, "POST /api/"+m)
	}
	for _, rt := range s.routes() {
		mounted = append(mounted, rt.pattern)
	}
	described := apidoctest.Operations()
	for _, r := range mounted {
		if !slices.Contains(described, r) {
			t.Errorf("%s is not described", r)
		}
	}
	mux := s.opsRoutes()
	for _, r := range described {
		if !slices.Contains(mounted, r) {
			t.Errorf("%s is described and not mounted", r)
		}
		method, path, _ := strings.Cut(strings.ReplaceAll(r, "{openid}", "oAlice"), " ")
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, httptest.NewRequest(method, path, strings.NewReader("{}")))
		if want := map[bool]int{true: 200, false: 401}[strings.HasSuffix(path, ".json")]; rec.Code != want {
			t.Errorf("%s without a key: %d, want %d", r, rec.Code, want)
		}
	}
}

func TestDescriptionsAreServed(t *testing.T) {
	_, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL))
	for path, version := range map[string]string{"/api/openapi.json": "3.1.0", "/api/asyncapi.json": "3.0.0"} {
		var doc struct{ OpenAPI, AsyncAPI string }
		if status := call(t, "GET", p.Ops+path, nil, nil, &doc); status != 200 || doc.OpenAPI+doc.AsyncAPI != version {
			t.Errorf("%s: %d %+v", path, status, doc)
		}
		if status, _ := callRaw(t, "GET", p.Public+path, nil, nil); status != 404 {
			t.Errorf("%s on the public listener: %d", path, status)
		}
	}
}

// twoNodesConfig makes nodes that share a Redis.
func twoNodesConfig(t testing.TB, wechatURL, redis string) string {
	return jwtConfig(t, wechatURL, redis) + `
channel:
  namespaces:
    - {name: feed, allow_subscribe_for_client: true, history_size: 10, history_ttl: 300s}
`
}

// TestWhoIsWhere asks one node about users on two.
func TestWhoIsWhere(t *testing.T) {
	sim, wechatURL := simulator(t)
	redis := testdeps.Redis(t)
	a := startServe(t, twoNodesConfig(t, wechatURL, redis))
	b := startServe(t, twoNodesConfig(t, wechatURL, redis))
	me := login(t, a.Public, sim.NewCode(testAppID, "alice"))
	onA, onB := connect(t, a.Public, me.Token), connect(t, b.Public, me.Token)
	onB.send(`{"id":2,"subscribe":{"channel":"feed:x"}}`)
	for onB.read().ID != 2 {
	}
	connect(t, b.Public, userJWT(t, "jwt-user"))

	var nodes struct{ Nodes []struct{ UID string } }
	eventually(t, "both nodes are known", func() bool {
		call(t, "GET", a.Ops+"/api/nodes", withKey, nil, &nodes)
		return len(nodes.Nodes) == 2
	})
	var user struct {
		Online      bool
		Nodes       []struct{ UID string }
		Channels    []string
		Connections []struct{ Client, Node string }
		Logins      *struct{ Sessions []any }
	}
	for _, p := range []*program{a, b} {
		if status := call(t, "GET", p.Ops+"/api/users/"+me.User.OpenID, withKey, nil, &user); status != 200 {
			t.Fatal(status)
		}
		if !user.Online || len(user.Nodes) != 2 || len(user.Connections) != 2 || !slices.Contains(user.Channels, "feed:x") || user.Logins == nil || len(user.Logins.Sessions) != 1 {
			t.Errorf("%+v", user)
		}
	}
	user.Logins = nil
	call(t, "GET", a.Ops+"/api/users/nobody", withKey, nil, &user)
	if user.Online || len(user.Connections) != 0 {
		t.Errorf("nobody is %+v", user)
	}

	wantPages(t, a, fmt.Sprintf("map[jwt-user:1 %s:2]", me.User.OpenID))
	var channels struct {
		Result struct{ Channels map[string]any }
	}
	call(t, "POST", a.Ops+"/api/channels", withKey, `{"pattern":"feed:*"}`, &channels)
	if fmt.Sprint(channels.Result.Channels) != "map[feed:x:map[num_clients:1]]" {
		t.Errorf("channels %v", channels)
	}
	wantKick(t, a, onB, onA)
}

type connectionPage struct {
	Connections []struct{ Client, User string }
	Cursor      string
	Missing     []string
}

// wantPages goes through the connections of all nodes, one a page.
func wantPages(t *testing.T, p *program, want string) {
	t.Helper()
	seen := map[string]int{}
	var page connectionPage
	for cursor := ""; ; cursor = page.Cursor {
		page.Cursor, page.Missing = "", nil
		call(t, "POST", p.Ops+"/api/connections", withKey, `{"limit":1,"cursor":"`+cursor+`"}`, &page)
		for _, c := range page.Connections {
			seen[c.User]++
		}
		if page.Cursor == "" {
			break
		}
	}
	if fmt.Sprint(seen) != want || page.Missing != nil {
		t.Errorf("seen %v, want %v; missing %v", seen, want, page.Missing)
	}
}

// wantKick looks for the one who is in feed:x and closes that connection alone.
func wantKick(t *testing.T, a *program, onB, onA *testSocket) {
	t.Helper()
	var page connectionPage
	call(t, "POST", a.Ops+"/api/connections", withKey, `{"channel":"feed:x"}`, &page)
	client := page.Connections[0].Client
	if status, raw := callRaw(t, "POST", a.Ops+"/api/connections/show", withKey, `{"client":"`+client+`"}`); status != 200 || !strings.Contains(string(raw), `"feed:x"`) {
		t.Errorf("%d %s", status, raw)
	}
	if status, raw := callRaw(t, "POST", a.Ops+"/api/connections/kick", withKey, `{"client":"`+client+`","code":4500,"reason":"enough"}`); status != 200 || string(raw) != `{"kicked":1}` {
		t.Errorf("%d %s", status, raw)
	}
	onB.wantGoodbye("kicked", 4500, "enough")
	onA.wantAlive("the other connection")
	eventually(t, "the connection is gone", func() bool {
		status, raw := callRaw(t, "POST", a.Ops+"/api/connections/kick", withKey, `{"client":"`+client+`"}`)
		return status == 404 && strings.Contains(string(raw), "connection_unknown")
	})
	for body, code := range map[string]string{`{}`: "target_missing", `{"client":"a","user":"b"}`: "target_missing", `{"user":"a","code":1}`: "bad_request"} {
		if status, raw := callRaw(t, "POST", a.Ops+"/api/connections/kick", withKey, body); status != 400 || !strings.Contains(string(raw), code) {
			t.Errorf("%s: %d %s", body, status, raw)
		}
	}
}

// TestScopesOfLookups: keys to read see where a user is and not the logins;
// keys to publish see nothing.
func TestScopesOfLookups(t *testing.T) {
	_, wechatURL := simulator(t)
	config := strings.Replace(baseConfig(t, wechatURL), "  keys:\n", "  keys:\n    - {name: reader, key: a-key-that-may-read, scope: read}\n    - {name: sender, key: a-key-that-may-publish, scope: publish}\n", 1)
	p := startServe(t, config)
	read, publish := map[string]string{"X-API-Key": "a-key-that-may-read"}, map[string]string{"X-API-Key": "a-key-that-may-publish"}
	for _, c := range []struct {
		method, path, body string
		read               int
	}{
		{"GET", "/api/users/oAlice", "", 200},
		{"GET", "/api/nodes", "", 200},
		{"POST", "/api/connections", `{}`, 200},
		{"POST", "/api/connections/show", `{"client":"x"}`, 404},
		{"POST", "/api/connections/kick", `{"client":"x"}`, 403},
		{"POST", "/api/users/info", `{"user":"oAlice"}`, 403},
	} {
		if status, raw := callRaw(t, c.method, p.Ops+c.path, read, c.body); status != c.read || strings.Contains(string(raw), "logins") {
			t.Errorf("%s to read: %d %s", c.path, status, raw)
		}
		if status, _ := callRaw(t, c.method, p.Ops+c.path, publish, c.body); status != 403 {
			t.Errorf("%s to publish: %d", c.path, status)
		}
	}
	if status, raw := callRaw(t, "GET", p.Ops+"/api/users/oAlice", withKey, nil); status != 200 || !strings.Contains(string(raw), `"logins":{"user":"oAlice","block":null,"sessions":[]}`) {
		t.Errorf("%d %s", status, raw)
	}
	if status, raw := callRaw(t, "GET", p.Ops+"/api/users/"+"a%20b", withKey, nil); status != 200 || strings.Contains(string(raw), "logins") {
		t.Errorf("a name that logins have not: %d %s", status, raw)
	}
}

// lines are those of the log with a message.
func (p *program) logged(msg string) (lines []string) {
	for line := range strings.Lines(p.Output()) {
		if strings.Contains(line, `"msg":"`+msg+`"`) {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestKeysAreReadAgain rotates keys without a restart, and offers bad ones.
func TestKeysAreReadAgain(t *testing.T) {
	_, wechatURL := simulator(t)
	secret := t.TempDir() + "/key"
	write(t, secret, "the-first-key-of-shop\n")
	good := strings.Replace(baseConfig(t, wechatURL), "  keys:\n", "  keys:\n    - {name: shop, key: \"file:"+secret+"\", scope: publish}\n", 1)
	file := writeConfig(t, good)
	p := start(t, "serve", "--config", file)
	// Whoever signed in to the console with the key goes with it.
	cookie := signIn(t, p, "the-first-key-of-shop")
	if !signedIn(t, p, cookie) {
		t.Fatal("not signed in")
	}
	p.wantKeys(t, "the-first-key-of-shop", testAPIKey)

	write(t, secret, "the-second-key-of-shop\n")
	line := p.reload(t, file, strings.Replace(good, "  keys:\n", "  keys:\n    - {name: other, key: the-key-of-the-other, scope: publish}\n", 1), keysRead)
	if !strings.Contains(line, `"added":["other"]`) || !strings.Contains(line, `"removed":null`) || !strings.Contains(line, `"changed":["shop"]`) {
		t.Errorf("logged %s", line)
	}
	p.wantKeys(t, "the-second-key-of-shop", "the-key-of-the-other", testAPIKey)
	if signedIn(t, p, cookie) {
		t.Error("who signed in with the old key is still in")
	}
	for name, bad := range map[string]string{
		"no YAML":        "{",
		"short key":      strings.Replace(good, testAPIKey, "short", 1),
		"unknown word":   good + "nonsense: true\n",
		"missing secret": strings.Replace(good, secret, secret+"x", 1),
	} {
		if line := p.reload(t, file, bad, keysRefused); !strings.Contains(line, `"level":"ERROR"`) {
			t.Errorf("%s: %s", name, line)
		}
		p.wantKeys(t, "the-second-key-of-shop", "the-key-of-the-other", testAPIKey)
	}
	p.reload(t, file, good, keysRead)
	p.wantKeys(t, "the-second-key-of-shop", testAPIKey)
	_, metrics := callRaw(t, "GET", p.Ops+"/metrics", nil, nil)
	if !strings.Contains(string(metrics), `minigate_api_key_requests_total{key="shop",result="allowed"}`) || strings.Contains(string(metrics), `key="other"`) {
		t.Error("the metrics of keys are not those of the keys that are there")
	}
	noSecrets(t, p, rotated...)
}

// What a node says after SIGHUP.
const (
	keysRead    = "API keys read again"
	keysRefused = "the API keys stay as they were, since the configuration is refused"
)

var rotated = []string{"the-first-key-of-shop", "the-second-key-of-shop", "the-key-of-the-other", testAPIKey}

// wantKeys fails unless these of the rotated keys work, and no others.
func (p *program) wantKeys(t *testing.T, want ...string) {
	t.Helper()
	for _, key := range rotated {
		status, _ := callRaw(t, "POST", p.Ops+"/api/publish", map[string]string{"X-API-Key": key}, `{"channel":"a","data":1}`)
		if (status == 200) != slices.Contains(want, key) {
			t.Errorf("%s: status %d", key, status)
		}
	}
}

// reload gives a node another configuration and returns what it says to that.
func (p *program) reload(t *testing.T, file, config, msg string) (line string) {
	t.Helper()
	before := len(p.logged(msg))
	write(t, file, config)
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, msg, func() bool { return len(p.logged(msg)) > before })
	return p.logged(msg)[before]
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// signIn returns the cookie of an operator.
func signIn(t testing.TB, p *program, key string) string {
	t.Helper()
	req, err := http.NewRequest("POST", p.Ops+"/console/session", strings.NewReader(`{"key":"`+key+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 200 || len(res.Cookies()) != 1 {
		t.Fatalf("signing in: %d", res.StatusCode)
	}
	return res.Cookies()[0].Name + "=" + res.Cookies()[0].Value
}

func signedIn(t testing.TB, p *program, cookie string) bool {
	t.Helper()
	var answer struct {
		SignedIn bool `json:"signed_in"`
	}
	call(t, "GET", p.Ops+"/console/session", map[string]string{"Cookie": cookie}, nil, &answer)
	return answer.SignedIn
}

// TestAuditOfOperators: what is changed by API, command line and console is
// written down, with who it was and how it ended.
func TestAuditOfOperators(t *testing.T) {
	_, wechatURL := simulator(t)
	config := strings.Replace(baseConfig(t, wechatURL), "  keys:\n", "  keys:\n    - {name: reader, key: a-key-that-may-read, scope: read}\n", 1)
	p := startServe(t, config)
	block := `{"user":"oAlice","reason":"private words"}`
	callRaw(t, "POST", p.Ops+"/api/users/block", withKey, block)
	callRaw(t, "POST", p.Ops+"/api/users/block", map[string]string{"X-API-Key": "a-key-that-may-read"}, block)
	callRaw(t, "POST", p.Ops+"/api/users/block", nil, block)
	callRaw(t, "POST", p.Ops+"/api/users/info", withKey, `{"user":"oLooked"}`)
	callRaw(t, "POST", p.Ops+"/api/disconnect", withKey, `{"user":"oBob"}`)
	p.admin(t, "sessions", "revoke", "--user", "oCarl", "--all")
	cookie := signIn(t, p, testAPIKey)
	callRaw(t, "POST", p.Ops+"/console/kick", map[string]string{"Cookie": cookie}, `{"user":"oDan","client":"c1"}`)
	callRaw(t, "POST", p.Ops+"/console/user/block", map[string]string{"Cookie": cookie}, `{"user":"a b"}`)

	type entry struct {
		Key, Method, Result, Remote string
		RequestID                   string `json:"request_id"`
		Target                      struct {
			User, Client string
			All          bool
		}
	}
	eventually(t, "all is audited", func() bool { return len(p.logged("audit")) >= 6 })
	var got []string
	for _, line := range p.logged("audit") {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.RequestID == "" || !strings.HasPrefix(e.Remote, "127.0.0.1:") {
			t.Errorf("%v in %s", err, line)
		}
		got = append(got, fmt.Sprint(e.Key, " ", e.Method, " ", e.Result, " ", e.Target))
	}
	want := []string{
		"tests users/block ok {oAlice  false}",
		"reader users/block scope_too_small {  false}",
		"tests disconnect ok {oBob  false}",
		"tests sessions/revoke ok {oCarl  true}",
		"tests console/kick ok {oDan c1 false}",
		"tests console/user/block openid_invalid {a b  false}",
	}
	if !slices.Equal(got, want) {
		t.Errorf("audited\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	noSecrets(t, p, "private words", "oLooked", testAPIKey, "a-key-that-may-read")
}

// TestRateOfKeys: the limit of a key holds for all of the API.
func TestRateOfKeys(t *testing.T) {
	_, wechatURL := simulator(t)
	config := strings.Replace(baseConfig(t, wechatURL), "  keys:\n", "  keys:\n    - {name: slow, key: a-key-with-a-limit, scope: admin, rate: 0.001, burst: 2}\n", 1)
	p := startServe(t, config)
	slow := map[string]string{"X-API-Key": "a-key-with-a-limit"}
	for i, want := range []int{200, 200, 429, 429} {
		status, raw := callRaw(t, "GET", p.Ops+"/api/nodes", slow, nil)
		if status != want || status == 429 && !strings.Contains(string(raw), `"too_many_requests"`) {
			t.Errorf("call %d: %d %s, want %d", i, status, raw, want)
		}
	}
	if status, raw := callRaw(t, "POST", p.Ops+"/api/info", slow, `{}`); status != 429 || string(raw) != `{"error":{"code":111,"message":"too many requests"}}` {
		t.Errorf("%d %s", status, raw)
	}
	if status, _ := callRaw(t, "POST", p.Ops+"/console/kick", slow, `{"user":"a","client":"b"}`); status != 429 {
		t.Errorf("console: %d", status)
	}
}
