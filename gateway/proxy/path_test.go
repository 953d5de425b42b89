package proxy

import (
	"net/url"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/rest"
)

// rest has the long list of odd paths; these are one of each kind.
var oddPaths = []string{
	"/api/../admin", "/api/./x", "/api//x", "//api/x", "/api/%2e%2e/admin", "/api/a%2fb", "/api/a%5cb", `/api/..\admin`,
	"/api/%252e%252e/admin", "/api/..;/admin", "/api/a%00b", "/api/%c0%ae%c0%ae/", "api/x", "*",
}

func TestOddPathsDoNotReachTheBackend(t *testing.T) {
	s := &seen{}
	strip := testRoute("/strip/", backend(t, s).URL)
	strip.StripPrefix = true
	g := newGate(t, Options{}, testRoute("/api/", strip.Upstream), strip).start()
	for _, p := range oddPaths {
		if !strings.HasPrefix(p, "/") {
			continue
		}
		for _, p := range []string{p, strings.Replace(p, "/api/", "/strip/", 1)} {
			text := "GET " + p + " HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer ann\r\n\r\n"
			if status := rawHTTP1(t, g.Listener.Addr().String(), text); status != 400 && status != 404 {
				t.Errorf("%q: status %d", p, status)
			}
		}
	}
	if s.count() > 0 {
		t.Errorf("%q reached the backend", s.last(t).RequestURI)
	}
}

func FuzzCutPrefix(f *testing.F) {
	for _, p := range append(oddPaths, "/api/", "/api/x", "/%61pi/%20", "/api/%E4%BD%A0") {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(u.Path, "/api/") || rest.OddPath(u.EscapedPath()) != "" {
			return
		}
		cut := cutPrefix(u.EscapedPath(), "/api/")
		if decoded, err := url.PathUnescape(cut); err != nil || decoded != u.Path[len("/api"):] {
			t.Fatalf("%q without its prefix is %q", u.EscapedPath(), cut)
		}
	})
}
