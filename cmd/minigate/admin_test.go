package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
)

// admin runs a command against a running node, with its key.
func (p *program) admin(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	t.Setenv(keyVariable, testAPIKey)
	var out, errs bytes.Buffer
	status = run(context.Background(), append(args, "--ops", strings.TrimPrefix(p.Ops, "http://")), &out, &errs)
	return status, out.String(), errs.String()
}

// TestUsersOnTheCommandLine lists, revokes, blocks and unblocks from a shell.
func TestUsersOnTheCommandLine(t *testing.T) {
	sim, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL))
	var me loginAnswer
	body := `{"code":"` + sim.NewCode(testAppID, "alice") + `","device":"iPhone"}`
	if status := call(t, "POST", p.Public+"/auth/login", nil, body, &me); status != 200 {
		t.Fatal(status)
	}
	user := me.User.OpenID
	alive := func() bool {
		status, _ := callRaw(t, "GET", p.Public+"/auth/session", bearer(me.Token), nil)
		return status == 200
	}
	must := func(want string, args ...string) string {
		t.Helper()
		status, stdout, stderr := p.admin(t, args...)
		if status != 0 || !strings.Contains(stdout, want) {
			t.Fatalf("%q: status %d, want 0 and %q\n%s%s", args, status, want, stdout, stderr)
		}
		return stdout
	}
	must("iPhone", "sessions", "list", "--user", user)
	var list struct{ Sessions []struct{ ID string } }
	if err := json.Unmarshal([]byte(must("{", "sessions", "list", "--json", "--user", user)), &list); err != nil || len(list.Sessions) != 1 {
		t.Fatalf("listed %+v, %v", list, err)
	}
	must("ended 1", "sessions", "revoke", "--user", user, "--session", list.Sessions[0].ID)
	if alive() {
		t.Error("a revoked session works")
	}
	me = login(t, p.Public, sim.NewCode(testAppID, "alice"))
	must("ended 1", "sessions", "revoke", "--user", user, "--all")
	must("no sessions", "sessions", "list", "--user", user)
	me = login(t, p.Public, sim.NewCode(testAppID, "alice"))
	must("ended 1", "users", "block", "--user", user, "--reason", "spam", "--for", "1h")
	if alive() {
		t.Error("a blocked user's session works")
	}
	status, raw := callRaw(t, "POST", p.Public+"/auth/login", nil, `{"code":"`+sim.NewCode(testAppID, "alice")+`"}`)
	if status != 403 || !strings.Contains(string(raw), "user_blocked") || !strings.Contains(string(raw), "spam") {
		t.Errorf("a blocked user's login: status %d %s", status, raw)
	}
	must("may log in", "users", "unblock", "--user", user)
	login(t, p.Public, sim.NewCode(testAppID, "alice"))

	for name, c := range map[string]struct {
		args   []string
		status int
		stderr string
	}{
		"no verb":       {[]string{"sessions"}, 2, "list, revoke"},
		"unknown verb":  {[]string{"users", "ban"}, 2, "show, block, unblock"},
		"no user":       {[]string{"sessions", "list"}, 2, "--user OPENID is missing"},
		"revoke what":   {[]string{"sessions", "revoke", "--user", user}, 2, "either --session ID or --all"},
		"block a while": {[]string{"users", "block", "--user", user, "--for", "1ms"}, 2, "one second"},
		"unknown id":    {[]string{"sessions", "revoke", "--user", user, "--session", "0"}, 1, "session_unknown"},
		"bad user":      {[]string{"sessions", "list", "--user", "a b"}, 1, "openid_invalid"},
		"wrong key":     {[]string{"sessions", "list", "--user", user, "--key", "not-the-right-key"}, 1, "api_key_unknown"},
	} {
		if status, _, stderr := p.admin(t, c.args...); status != c.status || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%s: status %d, want %d and %q in %s", name, status, c.status, c.stderr, stderr)
		}
	}
	noSecrets(t, p, me.Token)
}

// TestUserRoutesAreGuarded asks without a key and with one that may only publish.
func TestUserRoutesAreGuarded(t *testing.T) {
	_, wechatURL := simulator(t)
	config := strings.Replace(baseConfig(t, wechatURL), "  keys:\n", "  keys:\n    - {name: weak, key: a-key-that-may-publish, scope: publish}\n", 1)
	p := startServe(t, config)
	for _, path := range []string{"/api/sessions", "/api/sessions/revoke", "/api/users/info", "/api/users/block", "/api/users/unblock"} {
		if status, raw := callRaw(t, "POST", p.Ops+path, nil, `{"user":"o","all":true}`); status != 401 {
			t.Errorf("%s without a key: status %d %s", path, status, raw)
		}
		if status, raw := callRaw(t, "POST", p.Ops+path, map[string]string{"X-API-Key": "a-key-that-may-publish"}, `{"user":"o","all":true}`); status != 403 {
			t.Errorf("%s with a key to publish: status %d %s", path, status, raw)
		}
		if status, _ := callRaw(t, "POST", p.Public+path, map[string]string{"X-API-Key": testAPIKey}, `{"user":"o"}`); status != 404 {
			t.Errorf("%s on the public listener: status %d", path, status)
		}
	}
	if status, raw := callRaw(t, "GET", p.Ops+"/api/alerts", map[string]string{"X-API-Key": testAPIKey}, nil); status != 200 || string(raw) != `{"alerts":[]}` {
		t.Errorf("alerts: status %d %s", status, raw)
	}
}
