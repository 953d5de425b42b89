package main

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

// TestChunksThroughNginx: behind the nginx that ships, each chunk of an answer
// reaches the client before the backend writes the next. How long that took is
// logged, not judged.
func TestChunksThroughNginx(t *testing.T) {
	const chunks = 5
	got := make(chan struct{})
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i := range chunks {
			if i > 0 {
				select {
				case <-got: // the client has the one before
				case <-r.Context().Done():
					return
				}
			}
			_, _ = fmt.Fprintf(w, "chunk %d\n", i)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	t.Cleanup(b.Close)
	sim, wechat := simulator(t)
	p := startServe(t, baseConfig(t, wechat)+"trusted_proxies: [127.0.0.1]\nproxy: {routes: [{prefix: /api/, upstream: '"+b.URL+"'}]}\n")
	token := login(t, p.Public, sim.NewCode(testAppID, "alice")).Token
	front := testdeps.StartFront(t, strings.TrimPrefix(p.Public, "http://"))

	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: front.Certs}, ForceAttemptHTTP2: proto == "HTTP/2.0"}
		t.Cleanup(transport.CloseIdleConnections)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+"/api/stream", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		start := time.Now()
		res, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 200 || res.Proto != proto {
			t.Fatalf("status %d over %s", res.StatusCode, res.Proto)
		}
		last := start
		for i := range chunks {
			if i > 0 {
				got <- struct{}{}
			}
			want := fmt.Sprintf("chunk %d\n", i)
			chunk := make([]byte, len(want))
			if _, err := io.ReadFull(res.Body, chunk); err != nil || string(chunk) != want {
				t.Fatalf("chunk %d: %q, %v", i, chunk, err)
			}
			now := time.Now()
			what := "after the one before"
			if i == 0 {
				what = "to the first byte"
			}
			t.Logf("%s, chunk %d: %v %s", proto, i, now.Sub(last).Round(time.Microsecond), what)
			last = now
		}
		if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
			t.Errorf("after the end: %q, %v", rest, err)
		}
		_ = res.Body.Close()
	}
}

// TestDocumentedIdentityCheck runs the code that docs/proxy.md offers
// against what the real program sends, by request and over a socket.
func TestDocumentedIdentityCheck(t *testing.T) {
	seen := make(chan *http.Request, 8)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			select {
			case seen <- r:
			default: // nobody looks any more
			}
		}
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(b.Close)
	sim, wechat := simulator(t)
	p := startServe(t, baseConfig(t, wechat)+`
keys: {signing: [`+base64.StdEncoding.EncodeToString([]byte(identityKey))+`]}
proxy:
  routes:
    - {prefix: /api/, upstream: app}
    - {prefix: /other/, upstream: app, audience: other}
  upstreams:
    - {name: app, targets: [{url: '`+b.URL+`'}], health_check: {path: /healthz, interval: 1h}}
rpc: {routes: true, path: '/api/{method}'}
`)
	user := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	identityOf := func(path string) string {
		if status := call(t, "GET", p.Public+path, bearer(user.Token), nil, nil); status != 200 {
			t.Fatalf("%s: status %d", path, status)
		}
		return (<-seen).Header.Get("X-Minigate-Identity")
	}
	good, other := identityOf("/api/x"), identityOf("/other/x")
	s := connect(t, p.Public, user.Token)
	s.send(`{"id":2,"rpc":{"method":"orders/list","data":{}}}`)
	h := (<-seen).Header
	if h.Get("X-Minigate-Identity") != good || h.Get("X-Minigate-Client") == "" {
		t.Errorf("an rpc of the same session brings %v", h)
	}
	half := len(good) / 2
	forged := good[:half] + string("AB"[btoi(good[half] == 'A')]) + good[half+1:]
	tokens := append([]string{good, resigned(t, good, nil), forged, other, ""}, badIdentities(t, good)...)
	want := "true true" + strings.Repeat(" false", len(tokens)-2) + " " + user.User.OpenID + "\n"
	jwks := p.Ops + "/.well-known/jwks.json"
	for name, run := range map[string]func(*testing.T, string, ...string) string{
		"js": runDocumentedJS, "go": runDocumentedGo, "java": runDocumentedJava, "php": runDocumentedPHP, "python": runDocumentedPython,
	} {
		t.Run(name, func(t *testing.T) {
			sum := fmt.Sprintf("%x", sha256.Sum256([]byte(documented(t, "proxy", "java", "// Java"))))
			if name == "java" && sum == checkedIdentityJava {
				return
			}
			if out := run(t, jwks, tokens...); out != want {
				t.Fatalf("got %q, want %q", out, want)
			}
			if name == "java" {
				t.Errorf("the code has changed, and works: checkedIdentityJava is now %s", sum)
			}
		})
	}
	checkDocumentedCurl(t, p, user.Token, seen)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// documented is the code on a page that begins so; it has to be the same in
// Chinese.
func documented(t *testing.T, page, language, begin string) string {
	t.Helper()
	english, err := os.ReadFile("../../docs/" + page + ".md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("(?s)```" + language + "\n(" + regexp.QuoteMeta(begin) + ".*?)```").FindSubmatch(english)
	if code == nil {
		t.Fatalf("docs/%s.md has no such code in %s", page, language)
	}
	chinese, err := os.ReadFile("../../docs/" + page + ".zh-CN.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(chinese), string(code[1])) {
		t.Errorf("docs/%s.zh-CN.md has other code in %s", page, language)
	}
	return string(code[1])
}

// TestUpstreamsInHealthAndMetrics: the console's list and the metrics know
// every target of a group.
func TestUpstreamsInHealthAndMetrics(t *testing.T) {
	b := backend(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	_, wechat := simulator(t)
	p := startServe(t, baseConfig(t, wechat)+`
proxy:
  routes: [{prefix: /api/, upstream: app, login: none}]
  upstreams: [{name: app, targets: [{url: '`+b.URL+`'}, {url: '`+gone.URL+`', weight: 5}]}]
`)
	well, away := strings.TrimPrefix(b.URL, "http://"), strings.TrimPrefix(gone.URL, "http://")
	eventually(t, "both targets are checked", func() bool {
		var snapshot struct {
			Dependencies []struct {
				Name string
				Up   bool
			}
		}
		_, raw := callRaw(t, "GET", p.Ops+"/readyz", nil, nil)
		if err := json.Unmarshal(raw, &snapshot); err != nil {
			t.Fatal(err)
		}
		up := map[string]bool{}
		for _, d := range snapshot.Dependencies {
			up[d.Name] = d.Up
		}
		down, known := up["backend app "+away]
		return up["backend app "+well] && known && !down
	})
	for range 10 {
		if status := call(t, "GET", p.Public+"/api/x", nil, nil, nil); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	_, metrics := callRaw(t, "GET", p.Ops+"/metrics", nil, nil)
	for _, want := range []string{
		`minigate_upstream_up{target="` + well + `",upstream="app"} 1`, `minigate_upstream_up{target="` + away + `",upstream="app"} 0`,
		`minigate_proxy_requests_total{code="200",route="/api/"} 10`, "\ngo_goroutines ", "\nprocess_open_fds ",
	} {
		if !strings.Contains(string(metrics), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
