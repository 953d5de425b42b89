package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
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
	seen := make(chan http.Header, 1)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			seen <- r.Header
		}
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(b.Close)
	sim, wechat := simulator(t)
	p := startServe(t, baseConfig(t, wechat)+`
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
		return (<-seen).Get("X-Minigate-Identity")
	}
	good, other := identityOf("/api/x"), identityOf("/other/x")
	s := connect(t, p.Public, user.Token)
	s.send(`{"id":2,"rpc":{"method":"orders/list","data":{}}}`)
	h := <-seen
	if h.Get("X-Minigate-Identity") != good || h.Get("X-Minigate-Client") == "" {
		t.Errorf("an rpc of the same session brings %v", h)
	}
	half := len(good) / 2
	forged := good[:half] + string("AB"[btoi(good[half] == 'A')]) + good[half+1:]
	want := "true false false false " + user.User.OpenID + "\n"
	for name, run := range map[string]func(*testing.T, string, ...string) string{"js": runDocumentedJS, "go": runDocumentedGo} {
		if out := run(t, p.Ops+"/.well-known/jwks.json", good, forged, other, ""); out != want {
			t.Errorf("%s: got %q, want %q", name, out, want)
		}
	}
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

func runDocumentedJS(t *testing.T, jwks string, tokens ...string) string {
	script := documented(t, "proxy", "js", "const { createPublicKey") + `
const [jwks, ...tokens] = process.argv.slice(1)
const expected = { jwks, issuer: 'minigate', audience: 'app' }
Promise.all(tokens.map((t) => identity(t, expected))).then((all) => console.log(...all.map((c) => c !== null), all[0].sub))`
	out, err := exec.Command("node", append([]string{"-e", script, jwks}, tokens...)...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v\n%s", err, out)
	}
	return string(out)
}

func runDocumentedGo(t *testing.T, jwks string, tokens ...string) string {
	code := strings.Replace(documented(t, "proxy", "go", "package identity"), "package identity", "package main", 1)
	dir := t.TempDir()
	main := `package main

import (
	"fmt"
	"os"
)

func main() {
	v := Verifier{JWKS: os.Args[1], Issuer: "minigate", Audience: "app"}
	user := ""
	for i, token := range os.Args[2:] {
		c, err := v.Verify(token)
		if i == 0 {
			user = c.Subject
		}
		fmt.Print(err == nil, " ")
	}
	fmt.Println(user)
}
`
	files := []string{filepath.Join(dir, "identity.go"), filepath.Join(dir, "main.go")}
	for i, text := range []string{code, main} {
		if err := os.WriteFile(files[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"run"}, files...)
	args = append(args, jwks)
	out, err := exec.Command("go", append(args, tokens...)...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v\n%s", err, out)
	}
	return string(out)
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
		`minigate_proxy_requests_total{code="200",route="/api/"} 10`,
	} {
		if !strings.Contains(string(metrics), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
