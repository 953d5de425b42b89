package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/internal/apidoc/apidoctest"
)

// expectation is a call of the program and what has to come of it.
type expectation struct {
	args   []string
	status int
	want   string // in what is printed, on either side
}

func (p *program) expect(t *testing.T, cases map[string]expectation) {
	t.Helper()
	for name, c := range cases {
		if status, stdout, stderr := p.admin(t, c.args...); status != c.status || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("%s: status %d, want %d and %q in\n%s%s", name, status, c.status, c.want, stdout, stderr)
		}
	}
}

// stdin is what the next push reads.
func stdin(t *testing.T, text string) {
	old := pushStdin
	pushStdin = strings.NewReader(text)
	t.Cleanup(func() { pushStdin = old })
}

// TestPushOnTheCommandLine sends to a socket from a shell.
func TestPushOnTheCommandLine(t *testing.T) {
	sim, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL)+"channel: {namespaces: [{name: plain}]}\n")
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	socket := connect(t, p.Public, me.Token)
	stdin(t, `{"from":"stdin"}`)
	p.expect(t, map[string]expectation{"from standard input": {[]string{"push", "--user", me.User.OpenID}, 0, "for 1 sockets"}})
	if got := socket.publication(); got != `{"from":"stdin"}` {
		t.Errorf("arrived %s", got)
	}
	// Flags come before the data, so --ops goes first here.
	push := func(args ...string) (int, string) {
		t.Helper()
		t.Setenv(keyVariable, testAPIKey)
		var out bytes.Buffer
		status := run(context.Background(), append([]string{"push", "--ops", strings.TrimPrefix(p.Ops, "http://")}, args...), &out, &out)
		return status, out.String()
	}
	for name, c := range map[string]expectation{
		"user":            {[]string{"--user", me.User.OpenID, `"argument"`}, 0, "stored"},
		"all":             {[]string{"--all", `"argument"`}, 0, "for 1 sockets"},
		"JSON":            {[]string{"--user", me.User.OpenID, "--json", `"argument"`}, 0, `{"result":{"sockets":1,`},
		"several":         {[]string{"--user", me.User.OpenID, "--user", "oNobody", "--channel", "plain:a", `"argument"`}, 0, "nobody is there, and nothing is kept"},
		"a failure":       {[]string{"--user", me.User.OpenID, "--channel", "nope:a", `"argument"`}, 1, "unknown channel"},
		"a failure, JSON": {[]string{"--json", "--channel", "nope:a", `"argument"`}, 1, `"message":"unknown channel"`},
		"no target":       {[]string{`"argument"`}, 2, "to whom?"},
		"no JSON":         {[]string{"--all", "hello"}, 1, "not JSON"},
		"two data":        {[]string{"--all", "1", "2"}, 2, "one argument"},
		"all, once":       {[]string{"--all", "--idempotency-key", "k", "1"}, 1, "107: bad request: idempotency_key does not work with all"},
		"wrong key":       {[]string{"--all", "--key", "not-the-right-key", "1"}, 1, "api_key_unknown"},
		"unknown flag":    {[]string{"--everybody", "1"}, 2, "everybody"},
	} {
		if status, out := push(c.args...); status != c.status || !strings.Contains(out, c.want) {
			t.Errorf("%s: status %d, want %d and %q in\n%s", name, status, c.status, c.want, out)
		}
	}
	for range 5 {
		if got := socket.publication(); got != `"argument"` {
			t.Errorf("arrived %s", got)
		}
	}
	for range 2 {
		if _, out := push("--user", me.User.OpenID, "--idempotency-key", "once", `"once"`); !strings.Contains(out, "sockets") {
			t.Error(out)
		}
	}
	push("--user", me.User.OpenID, `"last"`)
	if got := socket.publication() + socket.publication(); got != `"once""last"` {
		t.Errorf("arrived %s", got)
	}
	noSecrets(t, p, me.Token)
}

// TestOthersWordsOnTheCommandLine: what clients chose commands no terminal.
func TestOthersWordsOnTheCommandLine(t *testing.T) {
	const evil = "\x1b[31mred\n"
	var out strings.Builder
	printUser(&out, userAnswer{Logins: &auth.UserLogins{
		Block:    &auth.Block{Reason: evil},
		Sessions: []auth.SessionInfo{{ID: "s1", Device: evil}},
	}})
	var c gateway.Connection
	c.User, c.Device = evil, evil
	printConnectionTable(&out, []gateway.Connection{c})
	printFields(&out, [][2]string{{"reason", evil}})
	if strings.Contains(out.String(), "\x1b") || strings.Count(out.String(), "red\n") > 0 || strings.Count(out.String(), "red") != 5 {
		t.Errorf("printed %q", out.String())
	}
}

// TestLookingOnTheCommandLine finds connections, users and nodes, and closes.
func TestLookingOnTheCommandLine(t *testing.T) {
	sim, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL))
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	user := me.User.OpenID
	socket, other := connect(t, p.Public, me.Token), connect(t, p.Public, login(t, p.Public, sim.NewCode(testAppID, "bob")).Token)
	_, stdout, _ := p.admin(t, "connections", "list", "--json", "--user", user)
	var page struct{ Connections []struct{ Client string } }
	if err := json.Unmarshal([]byte(stdout), &page); err != nil || len(page.Connections) != 1 {
		t.Fatalf("%v in %s", err, stdout)
	}
	client := page.Connections[0].Client
	p.expect(t, map[string]expectation{
		"list":           {[]string{"connections", "list"}, 0, client},
		"by channel":     {[]string{"connections", "list", "--channel", "#" + user}, 0, client},
		"by address":     {[]string{"connections", "list", "--ip", "127.0.0.0/8"}, 0, client},
		"elsewhere":      {[]string{"connections", "list", "--ip", "192.0.2.0/24"}, 0, "no connections"},
		"a page":         {[]string{"connections", "list", "--limit", "1"}, 0, "there may be more: --cursor "},
		"bad limit":      {[]string{"connections", "list", "--limit", "0"}, 1, "bad_request"},
		"show":           {[]string{"connections", "show", "--client", client}, 0, "#" + user},
		"show nobody":    {[]string{"connections", "show", "--client", "x"}, 1, "connection_unknown"},
		"no verb":        {[]string{"connections"}, 2, "list, show"},
		"user":           {[]string{"users", "show", "--user", user}, 0, "online since"},
		"user, logins":   {[]string{"users", "show", "--user", user}, 0, "LAST SEEN"},
		"user, JSON":     {[]string{"users", "show", "--json", "--user", user}, 0, `"online":true`},
		"nobody":         {[]string{"users", "show", "--user", "oNobody"}, 0, "offline"},
		"nodes":          {[]string{"nodes"}, 0, "127.0.0.1:0"},
		"nodes, JSON":    {[]string{"nodes", "--json"}, 0, `{"nodes":[{"uid":"`},
		"kick whom":      {[]string{"kick"}, 2, "either --client ID or --user OPENID"},
		"kick both":      {[]string{"kick", "--client", "a", "--user", "b"}, 2, "either --client ID or --user OPENID"},
		"kick nobody":    {[]string{"kick", "--user", "oNobody"}, 0, "closed 0 connections"},
		"kick a unknown": {[]string{"kick", "--client", "x"}, 1, "connection_unknown"},
		"bad code":       {[]string{"kick", "--client", client, "--code", "7"}, 1, "bad_request"},
	})
	p.expect(t, map[string]expectation{"kick": {[]string{"kick", "--client", client, "--code", "4500", "--reason", "enough"}, 0, "closed 1 connections"}})
	socket.wantGoodbye("kicked", 4500, "enough")
	other.wantAlive("the other user")
	eventually(t, "the user is offline", func() bool {
		_, stdout, _ := p.admin(t, "users", "show", "--user", user)
		return strings.HasPrefix(stdout, "offline")
	})
}

// TestFilesOnTheCommandLine speaks to handlers as the description has them.
func TestFilesOnTheCommandLine(t *testing.T) {
	const file = `{"id":"f1","name":"a\u001b[31m.jpg","size":5,"type":"image/jpeg","sha256":"aa","owner":{"openid":"oAlice","appid":"wx1"},"state":"ready","created":"2026-01-02T03:04:05Z","channel":"room:1","expires_at":"2026-02-02T03:04:05Z","attributes":{"album":"inbox"}}`
	var got []string
	answers := map[string]string{
		"/api/files":        `{"files":[` + file + `],"cursor":"next"}`,
		"/api/files/stat":   file,
		"/api/files/delete": `{}`,
		"/api/files/verify": `{"checked":2,"differences":[{"problem":"bytes_missing","file":"f1","key":"k\u001b[31m","size":5,"stored":0}]}`,
		"/api/files/link":   `{"url":"https://files.example/f1?t=x","expires_at":"2026-01-02T03:04:05Z"}`,
	}
	srv := httptest.NewServer(apidoctest.Wrap(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.URL.Path+" "+string(body))
		w.Header().Set("Content-Type", "application/json")
		if strings.Contains(string(body), "unknown") {
			w.WriteHeader(404)
			_, _ = io.WriteString(w, `{"error":{"code":"file_unknown","message":"There is no such file."}}`)
			return
		}
		_, _ = io.WriteString(w, answers[r.URL.Path])
	})))
	defer srv.Close()
	p := &program{Ops: srv.URL}
	for _, c := range []struct {
		expectation
		sent string
	}{
		{expectation{[]string{"files", "list"}, 0, "--cursor next"}, `/api/files {"cursor":"","limit":50,"user":""}`},
		{expectation{[]string{"files", "list", "--user", "oAlice", "--cursor", "c", "--limit", "7"}, 0, `"a\x1b[31m.jpg"`}, `/api/files {"cursor":"c","limit":7,"user":"oAlice"}`},
		{expectation{[]string{"files", "list", "--json"}, 0, `"cursor":"next"`}, `/api/files {"cursor":"","limit":50,"user":""}`},
		{expectation{[]string{"files", "stat", "--file", "f1"}, 0, `"a\x1b[31m.jpg"`}, `/api/files/stat {"file":"f1"}`},
		{expectation{[]string{"files", "stat", "--file", "f1"}, 0, `{"album":"inbox"}`}, `/api/files/stat {"file":"f1"}`},
		{expectation{[]string{"files", "stat", "--file", "unknown"}, 1, "file_unknown: There is no such file."}, `/api/files/stat {"file":"unknown"}`},
		{expectation{[]string{"files", "stat", "--file", "f1"}, 0, `who is subscribed to "room:1"`}, `/api/files/stat {"file":"f1"}`},
		{expectation{[]string{"files", "delete", "--file", "f1"}, 0, "deleted"}, `/api/files/delete {"file":"f1"}`},
		{expectation{[]string{"files", "link", "--file", "f1", "--for", "90s"}, 0, "https://files.example/f1?t=x"}, `/api/files/link {"expires_in":90,"file":"f1"}`},
		{expectation{[]string{"files", "link", "--file", "f1", "--for", "1ms"}, 2, "at least one second"}, ``},
		{expectation{[]string{"files", "stat"}, 2, "--file ID is missing"}, ``},
		{expectation{[]string{"files", "verify"}, 1, "bytes_missing\tf1\t\"k\\x1b[31m\": the storage has no bytes of this file (5 bytes listed, 0 stored)\n2 files and 2 objects compared"}, `/api/files/verify {"cursor":"","limit":200,"side":"files"}/api/files/verify {"cursor":"","limit":200,"side":"storage"}`},
		{expectation{[]string{"files", "verify", "--json"}, 1, `{"problem":"bytes_missing","file":"f1"`}, `/api/files/verify {"cursor":"","limit":200,"side":"files"}/api/files/verify {"cursor":"","limit":200,"side":"storage"}`},
		{expectation{[]string{"files"}, 2, "list, stat, delete, link, verify"}, ``},
	} {
		got = nil
		status, stdout, stderr := p.admin(t, c.args...)
		if status != c.status || !strings.Contains(stdout+stderr, c.want) || strings.Join(got, "") != c.sent {
			t.Errorf("%q: status %d, sent %q\n%s%s", c.args, status, got, stdout, stderr)
		}
	}
}

// TestRealFilesOnTheCommandLine does the same to a node.
func TestRealFilesOnTheCommandLine(t *testing.T) {
	sim, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL))
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	file := upload(t, p.Public, me.Token, "hello.txt", strings.NewReader("hello"))
	for _, c := range []expectation{
		{[]string{"files", "list"}, 0, file.ID},
		{[]string{"files", "list", "--user", "oNobody"}, 0, "no files"},
		{[]string{"files", "stat", "--file", file.ID}, 0, file.SHA256},
		{[]string{"files", "link", "--file", file.ID, "--for", "5m"}, 0, file.ID},
		{[]string{"files", "delete", "--file", file.ID}, 0, "deleted"},
		{[]string{"files", "stat", "--file", file.ID}, 1, "file_not_found"},
	} {
		if status, stdout, stderr := p.admin(t, c.args...); status != c.status || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("%q: status %d, want %d and %q in\n%s%s", c.args, status, c.status, c.want, stdout, stderr)
		}
	}
}
