package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ann = auth.User{AppID: "wx1", OpenID: "o-ann", UnionID: "u-ann"}
	bob = auth.User{AppID: "wx1", OpenID: "o-bob"}
)

func verify(r *http.Request) (*auth.Session, error) {
	switch r.Header.Get("Authorization") {
	case "Bearer ann":
		return &auth.Session{Fingerprint: annFingerprint, User: ann, Claims: json.RawMessage(annClaims)}, nil
	case "Bearer bob":
		return &auth.Session{User: bob}, nil
	case "Bearer tom":
		return &auth.Session{User: auth.User{AppID: "wx2", OpenID: "o-tom"}}, nil
	case "Bearer own":
		return &auth.Session{User: auth.User{OpenID: "own-user"}}, nil
	case "Bearer away":
		return nil, fault.New(fault.Unavailable, "sessions_unavailable", "Sessions cannot be looked up now.")
	}
	return nil, fault.New(fault.Unauthenticated, "token_invalid", "Log in first.")
}

var annFingerprint = auth.Fingerprint{0xa, 0xb, 0xc}

const annClaims = `{"vip":1,"name":"\u5b89"}`

// testRoute has the defaults of the settings.
func testRoute(prefix, upstream string) Route {
	return Route{
		Prefix: prefix, Upstream: upstream, Timeout: 30 * time.Second, MaxBody: 16 << 20, Login: LoginRequired,
		UserBurst: 20, IPBurst: 100,
	}
}

// gate is a proxy behind a real HTTP server.
type gate struct {
	*httptest.Server
	t       *testing.T
	proxy   *Proxy
	metrics *prometheus.Registry
	busy    sync.WaitGroup // handlers under way
}

func newGate(t *testing.T, o Options, routes ...Route) *gate {
	t.Helper()
	return newGateOf(t, o, Settings{Routes: routes})
}

func newGateOf(t *testing.T, o Options, s Settings) *gate {
	t.Helper()
	g := &gate{t: t, metrics: prometheus.NewRegistry()}
	o.Verify, o.Metrics = verify, NewMetrics(g.metrics)
	p, err := New(s, o)
	if err != nil {
		t.Fatal(err)
	}
	g.proxy = p
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.busy.Add(1)
		defer g.busy.Done()
		info := &rest.Info{RequestID: "req-1", ClientIP: "203.0.113.7"}
		p.ServeHTTP(w, r.WithContext(rest.WithInfo(r.Context(), info)))
	}))
	g.EnableHTTP2 = true
	t.Cleanup(func() {
		g.Close()
		p.Close()
	})
	return g
}

func (g *gate) start() *gate { g.Start(); return g }

// startTLS serves HTTP/2, too.
func (g *gate) startTLS() *gate { g.StartTLS(); return g }

// trust makes the proxy accept the certificate of a test's backend.
func (g *gate) trust(b *httptest.Server) {
	if b.TLS != nil {
		g.proxy.places[0].general.transport.TLSClientConfig.RootCAs = b.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	}
}

// request has a deadline, so that a hang shows as a failure.
func (g *gate) request(method, path string, body io.Reader, header ...string) *http.Request {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	g.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, g.URL, body)
	if err != nil {
		g.t.Fatal(err)
	}
	r.URL.Opaque = strings.TrimPrefix(g.URL, strings.Split(g.URL, "//")[0]) + path // sent as it is written
	r.Header.Set("Authorization", "Bearer ann")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
	}
	return r
}

func (g *gate) do(r *http.Request) (*http.Response, string) {
	g.t.Helper()
	res, err := g.Client().Do(r)
	if err != nil {
		g.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatalf("%s %s: body: %v", r.Method, r.URL, err)
	}
	return res, string(body)
}

// seen keeps the requests that reached a backend.
type seen struct {
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
}

func (s *seen) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	s.bodies = append(s.bodies, string(body))
	w.Header().Set("X-Backend", "yes")
	_, _ = io.WriteString(w, "hello")
}

func (s *seen) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

func (s *seen) last(t *testing.T) *http.Request {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) == 0 {
		t.Fatal("no request reached the backend")
	}
	return s.requests[len(s.requests)-1]
}

func backend(t *testing.T, h http.Handler) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// logs collects what the default logger says during one test.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), s)
}

func captureLogs(t *testing.T) *logs {
	l, old := &logs{}, slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(l, nil)))
	t.Cleanup(func() { slog.SetDefault(old) })
	return l
}

func wantError(t *testing.T, res *http.Response, body string, status int, code string) {
	t.Helper()
	if res.StatusCode != status || !strings.Contains(body, `"code":"`+code+`"`) {
		t.Errorf("got %d %s, want %d with code %s", res.StatusCode, body, status, code)
	}
}

func newTLSBackend(t *testing.T, h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}
