package proxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/rest"
)

// namedBackend answers its name, whom it takes the caller for, and the path.
func namedBackend(t *testing.T, name string) string {
	return backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s %s", name, r.Header.Get("X-WX-OPENID"), r.RequestURI)
	})).URL
}

func TestRoutesByMiniProgram(t *testing.T) {
	route := func(prefix, name, login string, apps ...string) Route {
		r := testRoute(prefix, namedBackend(t, name))
		r.Login, r.AppIDs = login, apps
		return r
	}
	g := newGate(t, Options{},
		route("/api/", "all", LoginRequired),
		route("/api/", "one", LoginRequired, "wx1", "wx3"),
		route("/api/", "two", LoginRequired, "wx2"),
		route("/api/v2/", "two-v2", LoginRequired, "wx2"),
		route("/open/", "open", LoginNone),
		route("/open/", "open-one", LoginRequired, "wx1"),
		route("/maybe/", "maybe", LoginOptional),
		route("/maybe/", "maybe-one", LoginOptional, "wx1"),
		route("/only/", "only", LoginRequired, "wx1"),
		route("/own/", "own", LoginNone),
	).start()
	for _, c := range []struct{ caller, path, want string }{
		{"Bearer ann", "/api/x", "one o-ann /api/x"},
		{"Bearer tom", "/api/x", "two o-tom /api/x"},
		{"Bearer own", "/api/x", "all own-user /api/x"}, // of no mini-program
		{"", "/api/x", "401 token_invalid"},
		{"Bearer nobody", "/api/x", "401 token_invalid"},
		{"Bearer away", "/api/x", "503 sessions_unavailable"},

		// The prefix counts first; where it has nothing, a shorter one.
		{"Bearer tom", "/api/v2/x", "two-v2 o-tom /api/v2/x"},
		{"Bearer ann", "/api/v2/x", "one o-ann /api/v2/x"},
		{"Bearer own", "/api/v2/x", "all own-user /api/v2/x"},

		// Whom nobody knows takes the public route; a token has to be good.
		{"", "/open/x", "open  /open/x"},
		{"Basic YTpi", "/open/x", "open  /open/x"},
		{"Bearer ann", "/open/x", "open-one o-ann /open/x"},
		{"Bearer tom", "/open/x", "open  /open/x"},
		{"Bearer nobody", "/open/x", "401 token_invalid"},
		{"Bearer nobody", "/own/x", "own  /own/x"}, // nobody asks there
		{"", "/maybe/x", "maybe  /maybe/x"},
		{"Bearer tom", "/maybe/x", "maybe o-tom /maybe/x"},
		{"Bearer ann", "/maybe/x", "maybe-one o-ann /maybe/x"},

		{"Bearer ann", "/only/x", "only o-ann /only/x"},
		{"Bearer tom", "/only/x", "404 not_found"},
		{"", "/only/x", "401 token_invalid"},
	} {
		r := g.request("GET", c.path, nil)
		r.Header.Del("Authorization")
		if c.caller != "" {
			r.Header.Set("Authorization", c.caller)
		}
		res, body := g.do(r)
		if res.StatusCode != 200 {
			var e struct{ Error struct{ Code string } }
			if err := json.Unmarshal([]byte(body), &e); err != nil {
				t.Fatal(err)
			}
			body = fmt.Sprint(res.StatusCode, " ", e.Error.Code)
		}
		if body != c.want {
			t.Errorf("%q at %s: got %q, want %q", c.caller, c.path, body, c.want)
		}
	}
	if n := len(g.proxy.Prefixes()); n != 6 {
		t.Errorf("%d prefixes: %v", n, g.proxy.Prefixes())
	}
}

func TestTokensAreVerifiedOnce(t *testing.T) {
	verified := 0
	route, all := testRoute("/api/", namedBackend(t, "one")), testRoute("/api/", namedBackend(t, "all"))
	route.AppIDs = []string{"wx1"}
	g := newGate(t, Options{}, route, all)
	g.proxy.verify = func(r *http.Request) (*auth.Session, error) {
		verified++
		return verify(r)
	}
	g.start()
	g.do(g.request("GET", "/api/x", nil))
	if verified != 1 {
		t.Errorf("verified %d times", verified)
	}
}

func TestRewrite(t *testing.T) {
	to := func(prefix, rewrite, base string) Route {
		r := testRoute(prefix, namedBackend(t, prefix)+base)
		r.Rewrite = rewrite
		return r
	}
	g := newGate(t, Options{}, to("/api/", "/v2/", ""), to("/a/b/", "/", "/base"), to("/c/", "/d/e/", "/base/")).start()
	for path, want := range map[string]string{
		"/api/":               "/api/ o-ann /v2/",
		"/api/x?q=%2F":        "/api/ o-ann /v2/x?q=%2F",
		"/%61pi/a%20b/%E4%BD": "400",
		"/%61pi/a%20b/c%3Bd":  "/api/ o-ann /v2/a%20b/c%3Bd",
		"/a/b/x/":             "/a/b/ o-ann /base/x/",
		"/c/x":                "/c/ o-ann /base/d/e/x",
	} {
		res, body := g.do(g.request("GET", path, nil))
		if want == "400" && res.StatusCode == 400 {
			continue
		}
		if body != want {
			t.Errorf("%s: got %q, want %q", path, body, want)
		}
	}
}

func TestRequestRates(t *testing.T) {
	s := &seen{}
	b := backend(t, s)
	byUser, byIP := testRoute("/user/", b.URL), testRoute("/ip/", b.URL)
	byUser.UserRate, byUser.UserBurst, byUser.Login = 1.0/3600, 2, LoginOptional
	byIP.IPRate, byIP.IPBurst, byIP.Login = 1.0/60, 3, LoginNone
	g := newGate(t, Options{}, byUser, byIP).start()
	get := func(path, caller string) (*http.Response, string) {
		r := g.request("GET", path, nil)
		r.Header.Del("Authorization")
		if caller != "" {
			r.Header.Set("Authorization", caller)
		}
		return g.do(r)
	}
	for range 2 {
		for _, caller := range []string{"Bearer ann", "Bearer bob"} {
			if res, body := get("/user/", caller); res.StatusCode != 200 {
				t.Errorf("%s: %d %s", caller, res.StatusCode, body)
			}
		}
	}
	res, body := get("/user/", "Bearer ann")
	wantError(t, res, body, 429, "request_rate")
	if after := res.Header.Get("Retry-After"); after != "3600" {
		t.Errorf("Retry-After %q", after)
	}
	for range 5 { // nobody has no user
		if res, body := get("/user/", ""); res.StatusCode != 200 {
			t.Errorf("nobody: %d %s", res.StatusCode, body)
		}
	}
	for range 3 {
		if res, body := get("/ip/", ""); res.StatusCode != 200 {
			t.Errorf("by address: %d %s", res.StatusCode, body)
		}
	}
	before := s.count()
	res, body = g.do(g.request("POST", "/ip/", http.NoBody))
	wantError(t, res, body, 429, "request_rate")
	if s.count() != before {
		t.Error("a refused request reached the backend")
	}
}

// TestBadTokensCountByAddress: who guesses tokens is slowed down before they
// are looked up.
func TestBadTokensCountByAddress(t *testing.T) {
	route := testRoute("/api/", namedBackend(t, "all"))
	route.IPRate, route.IPBurst = 1.0/60, 1
	g := newGate(t, Options{}, route).start()
	for i, want := range []int{401, 429} {
		r := g.request("GET", "/api/", nil)
		r.Header.Set("Authorization", "Bearer nobody")
		res, body := g.do(r)
		if res.StatusCode != want {
			t.Errorf("request %d: %d %s", i, res.StatusCode, body)
		}
	}
}

func TestBodyIsNotReadTwice(t *testing.T) {
	// A chunked upload whose first target is away must reach the second whole.
	captureLogs(t)
	s := &seen{}
	g := newGroupGate(t, Options{Health: func(string, error) {}}, group("app", "http://"+newSleepingPort(t).addr, backend(t, s).URL))
	body, write := io.Pipe()
	go func() {
		for range 100 {
			_, _ = write.Write(make([]byte, 1<<12))
		}
		_ = write.Close()
	}()
	if res, text := g.do(g.request("PUT", "/api/x", body)); res.StatusCode != 200 || len(s.bodies[0]) != 100<<12 {
		t.Errorf("%d %s: the backend got %d bytes", res.StatusCode, text, len(s.bodies[0]))
	}
}

// FuzzRewritten: whatever path a client sends, what the backend sees stays
// below what the configuration says, and means the same in both spellings.
func FuzzRewritten(f *testing.F) {
	for _, p := range append(oddPaths, "/api/", "/api/x", "/%61pi/%20", "/api/%E4%BD%A0", "/api/a;b/c", "/ap%69/%2e") {
		f.Add(p)
	}
	rt := &route{Route: Route{Prefix: "/api/", Rewrite: "/v2/x/"}, base: target{"/base", "/base"}}
	f.Fuzz(func(t *testing.T, sent string) {
		u, err := url.ParseRequestURI(sent)
		if err != nil || !strings.HasPrefix(u.Path, "/api/") || rest.OddPath(u.EscapedPath()) != "" {
			return
		}
		path, raw := rt.rewritten(u.Path, u.EscapedPath())
		decoded, err := url.PathUnescape(raw)
		if err != nil || decoded != path || !strings.HasPrefix(raw, "/base/v2/x/") || rest.OddPath(raw) != "" ||
			strings.TrimPrefix(path, "/base/v2/x/") != strings.TrimPrefix(u.Path, "/api/") {
			t.Fatalf("%q leads to %q, %q", sent, path, raw)
		}
	})
}

// FuzzConnection: what Connection names is taken away, but nothing of ours.
func FuzzConnection(f *testing.F) {
	for _, c := range []string{"", "keep-alive", "x-hop, X-WX-OPENID", ",,\t x-hop ,", "X-Minigate-Identity", "\x00", "host"} {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, connection string) {
		h := addTo(passOn(http.Header{"Connection": {connection}, "X-Hop": {"1"}, "X-Wx-Openid": {"evil"}}))
		h.identity(&auth.Session{User: ann}, []string{"token"})
		if h.Get("X-Wx-Openid") != "o-ann" || h.Get(headerIdentity) != "token" || h.Header["Connection"] != nil {
			t.Fatalf("%q: the backend sees %v", connection, h.Header)
		}
	})
}
