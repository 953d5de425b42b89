package rest

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
)

// sentPath runs a request for target, as it would come over the wire, through
// RefuseOddPaths; passed is the decoded path that came out.
func sentPath(target string) (passed string, ok bool, w *httptest.ResponseRecorder) {
	w = httptest.NewRecorder()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
	if err != nil {
		return "", false, nil // net/http answers 400 itself
	}
	RefuseOddPaths(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		passed, ok = r.URL.Path, true
	})).ServeHTTP(w, r)
	return passed, ok, w
}

func TestRefuseOddPaths(t *testing.T) {
	for _, good := range []string{
		"/", "/api/", "/api/whoami", "/a.b/..c/...", "/.well-known/x", "/a%20b", "/%E4%BD%A0%E5%A5%BD", "/100%25", "/a?x=../..//%2f", "/a;v=1/b", "/a:b@c", "http://x/a",
	} {
		if _, ok, w := sentPath(good); !ok {
			t.Errorf("%s is refused: %v", good, w)
		}
	}
	for _, bad := range []string{
		"/..", "/.", "/a/../b", "/a/./b", "/a/..", "//a", "/a//b", "/a//", `/a\b`, `/..\b`,
		"/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb", "/a%252fb", "/a%252Fb", "/a%255cb", "/a%25252fb", "/%2e%2e/b", "/.%2E/b", "/%252e%252e/b", "/%2e",
		"/a%00", "/a%2500", "/a%0ab", "/a%7f", "/..;/b", "/..;x=y/b", "/..%3b/b", "/;/b", "/;a", "/%c0%af", "/%ff", "http://x/a//b", "http://x/../b",
		"/" + strings.Repeat("%25", 10000) + "2f", "/%" + strings.Repeat("25", 400000) + "2f",
	} {
		_, ok, w := sentPath(bad)
		if ok || w == nil || w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `"path_invalid"`) {
			t.Errorf("%.40s is not refused as it should be: %v", bad, w)
		}
	}
}

// A middleware that rewrote the URL must not hide what was sent, nor the other
// way round.
func TestRefuseOddPathsLooksAtBoth(t *testing.T) {
	for _, tt := range []struct{ uri, path string }{{"/a/../b", "/b"}, {"/b", "/a/../b"}} {
		r := httptest.NewRequest("GET", "/b", nil)
		r.RequestURI, r.URL.Path = tt.uri, tt.path
		w := httptest.NewRecorder()
		RefuseOddPaths(http.NotFoundHandler()).ServeHTTP(w, r)
		if w.Code != http.StatusBadRequest {
			t.Errorf("%v passed", tt)
		}
	}
}

func FuzzRefuseOddPaths(f *testing.F) {
	for _, s := range []string{"/", "/a/", "/a/../b", "//a", "/%2e%2e/", "/%252f", "/..;/", "/a%5c", "http://x/a", "/%25%32%66", "*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		p, ok, _ := sentPath(target)
		if !ok {
			return
		}
		if clean := path.Clean(p); p != clean && p != clean+"/" {
			t.Errorf("%q passed as %q, clean is %q", target, p, clean)
		}
		lower := strings.ToLower(p)
		if strings.ContainsAny(p, "\\\x00\r\n") || strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c") {
			t.Errorf("%q passed as %q", target, p)
		}
	})
}

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
		if OddPath(p) == "" {
			t.Errorf("%q passes", p)
		}
	}
	for _, p := range evenPaths {
		if problem := OddPath(p); problem != "" {
			t.Errorf("%q is refused: %s", p, problem)
		}
	}
}

// FuzzOddPath checks what prefixes are for: however somebody behind us decodes
// and cleans a path that was let through, it stays where it was let in.
func FuzzOddPath(f *testing.F) {
	for _, p := range append(oddPaths, evenPaths...) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(u.Path, "/api/") || OddPath(u.EscapedPath()) != "" {
			return
		}
		seen := u.EscapedPath()
		for range decodeRounds {
			seen = unescape(seen)
			if !strings.HasPrefix(path.Clean(strings.ReplaceAll(seen, `\`, "/"))+"/", "/api/") {
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
