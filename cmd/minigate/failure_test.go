package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/testdeps"
)

func newRequest(method, url, token string, body io.Reader) *http.Request {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		panic(err) // constant input
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return req
}

type readiness struct {
	Status       string
	Dependencies []struct {
		Name  string
		Up    bool
		Error string
	}
}

// up asks readyz whether a dependency is there.
func (p *program) up(t testing.TB, name string) bool {
	t.Helper()
	var r readiness
	call(t, "GET", p.Ops+"/readyz", nil, nil, &r)
	for _, d := range r.Dependencies {
		if d.Name == name {
			return d.Up
		}
	}
	return false
}

// TestDependenciesComeAndGo starts a node while everything it needs is away,
// lets it all appear, vanish and come back, and asks for each step.
func TestDependenciesComeAndGo(t *testing.T) {
	sim, wechatURL := simulator(t)
	redis := testdeps.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	s3 := testdeps.StartMinIO(t)
	backAddr := fmt.Sprintf("127.0.0.1:%d", testdeps.FreePort(t))
	redis.Stop()
	s3.Stop()
	p := startServe(t, clusterConfig(t, wechatURL, redis.Addr, s3.S3, "http://"+backAddr))

	var r readiness
	if status := call(t, "GET", p.Ops+"/readyz", nil, nil, &r); status != http.StatusServiceUnavailable {
		t.Errorf("readyz without Redis: status %d, %+v", status, r)
	}
	expect := func(what string, method, path string, header map[string]string, body any, want int) {
		t.Helper()
		if status, raw := callRaw(t, method, p.Public+path, header, body); status != want {
			t.Errorf("%s: status %d, want %d: %s", what, status, want, raw)
		}
	}
	expect("login without Redis", "POST", "/auth/login", nil, `{"code":"`+sim.NewCode(testAppID, "alice")+`"}`, 503)

	redis.Restart()
	eventually(t, "redis is up", func() bool { return p.up(t, "redis") })
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	expect("request without a backend", "GET", "/api/whoami", bearer(me.Token), nil, 503)
	if status, raw := tryUpload(t, p.Public, me.Token, "a.txt", strings.NewReader("hello")); status != 503 {
		t.Errorf("upload without storage: status %d: %s", status, raw)
	}

	s3.Restart()
	eventually(t, "storage is up", func() bool { return p.up(t, "storage") })
	file := upload(t, p.Public, me.Token, "a.txt", strings.NewReader("hello"))

	back := &http.Server{Addr: backAddr, Handler: http.NotFoundHandler()}
	go func() { _ = back.ListenAndServe() }()
	t.Cleanup(func() { _ = back.Close() })
	eventually(t, "the backend answers", func() bool {
		status, _ := callRaw(t, "GET", p.Public+"/api/whoami", bearer(me.Token), nil)
		return status == 404 // its own answer
	})

	socket := connect(t, p.Public, me.Token)
	redis.Stop()
	s3.Stop()
	eventually(t, "redis and storage are away", func() bool { return !p.up(t, "redis") && !p.up(t, "storage") })
	expect("download without storage", "GET", "/files/"+file.ID, bearer(me.Token), nil, 503)
	redis.Restart()
	s3.Restart()
	eventually(t, "both are back", func() bool { return p.up(t, "redis") && p.up(t, "storage") })

	expect("the session after the return of Redis", "GET", "/auth/session", bearer(me.Token), nil, 200)
	expect("the file after the return of both", "GET", "/files/"+file.ID, bearer(me.Token), nil, 200)
	eventually(t, "a push reaches the old socket", func() bool {
		var answer struct{ Result struct{ Sockets int } }
		call(t, "POST", p.Ops+"/api/push", map[string]string{"X-API-Key": testAPIKey},
			fmt.Sprintf(`{"users":[%q],"data":1}`, me.User.OpenID), &answer)
		return answer.Result.Sockets == 1
	})
	if got := socket.publication(); got != "1" {
		t.Errorf("push after the return of Redis: %s", got)
	}
	for _, want := range []string{"redis", "storage"} {
		if out := p.Output(); !strings.Contains(out, want+" is away") || !strings.Contains(out, want+" is back") {
			t.Errorf("the log does not tell about %s", want)
		}
	}
}
