package proxy

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

var oddPaths = []string{
	"/api/..", "/api/../admin", "/api/./x", "/api/.", "/api//x", "//api/x", "/api/x//",
	"/api/%2e%2e/admin", "/api/%2E%2e/", "/api/.%2e/", "/api/%2e/x", "/api/%2e%2e%2fadmin", "/api/..%2fadmin",
	"/api/a%2fb", "/api/a%2Fb", "/api/a%5cb", "/api/..%5cadmin", `/api/..\admin`,
	"/api/%252e%252e/admin", "/api/%252e%252e%252fadmin", "/api/%25252e%25252e/admin", "/api/%25/%252e%252e/admin", "/api/a%255cb",
	"/api/..;/admin", "/api/..;a=b/admin", "/api/%2e%2e%3b/admin", "/api/.;/x",
	"/api/a%00b", "/api/a%0d%0ab", "/api/%7f", "/api/%c0%ae%c0%ae/", "/api/%c0%afx", "/api/%ff", "/api/%25c0%25ae/",
	"", "api/x", "*",
}

var evenPaths = []string{
	"/api/", "/api/x", "/api/a..b", "/api/...", "/api/.well-known", "/api/a;b=c", "/api/a%20b", "/api/100%25", "/api/%E4%BD%A0%E5%A5%BD",
	"/api/a%3Fb%23c", "/api/a%2Bb", "/api/%2e%2ehidden", "/api/a@b:c,d=e", "/api/50%25%20off", "/api/你好",
}

func TestOddPath(t *testing.T) {
	for _, p := range oddPaths {
		if oddPath(p) == "" {
			t.Errorf("%q passes", p)
		}
	}
	for _, p := range evenPaths {
		if problem := oddPath(p); problem != "" {
			t.Errorf("%q is refused: %s", p, problem)
		}
	}
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

// FuzzPath checks what prefixes are for: however the backend decodes and
// cleans the path of a request that was let through, it stays where it was
// let in.
func FuzzPath(f *testing.F) {
	for _, p := range append(oddPaths, evenPaths...) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(u.Path, "/api/") || oddPath(u.EscapedPath()) != "" {
			return
		}
		seen := u.EscapedPath()
		cut := cutPrefix(seen, "/api/")
		if decoded, err := url.PathUnescape(cut); err != nil || decoded != u.Path[len("/api"):] {
			t.Fatalf("%q without its prefix is %q", seen, cut)
		}
		for range 3 {
			if seen = unescape(seen); !strings.HasPrefix(path.Clean(strings.ReplaceAll(seen, `\`, "/"))+"/", "/api/") {
				t.Fatalf("%q leads to %q", target, seen)
			}
		}
	})
}

func TestUnescapeAgrees(t *testing.T) {
	for _, p := range append(oddPaths, evenPaths...) {
		if want, err := url.PathUnescape(p); err == nil && unescape(p) != want {
			t.Errorf("unescape(%q) = %q, want %q", p, unescape(p), want)
		}
	}
	for in, want := range map[string]string{"%": "%", "%4": "%4", "%zz%41": "%zzA", "%+1": "%+1", "a%2": "a%2"} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}
