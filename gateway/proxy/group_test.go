package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// newGroupGate leads /api/ to a group.
func newGroupGate(t *testing.T, o Options, s UpstreamSettings) *gate {
	t.Helper()
	return newGateOf(t, o, Settings{Routes: []Route{testRoute("/api/", s.Name)}, Upstreams: []UpstreamSettings{s}}).start()
}

func (g *gate) metric(c string, labels ...string) float64 {
	m := g.proxy.rpcCounts.metrics
	switch c {
	case "up":
		return testutil.ToFloat64(m.upstream.WithLabelValues(labels...))
	case "retries":
		return testutil.ToFloat64(m.retries.WithLabelValues(labels...))
	}
	return testutil.ToFloat64(m.failures.WithLabelValues(labels...))
}

func TestATargetThatIsAwayIsPassedOver(t *testing.T) {
	captureLogs(t)
	port, heard, s := newSleepingPort(t), &changes{}, &seen{}
	g := newGroupGate(t, Options{Health: heard.add}, group("app", "http://"+port.addr, backend(t, s).URL))
	for range 10 {
		// A body does not hinder: nothing of it was sent.
		res, body := g.do(g.request("POST", "/api/x", struct{ io.Reader }{strings.NewReader("body")}))
		if res.StatusCode != 200 || s.bodies[len(s.bodies)-1] != "body" {
			t.Fatalf("%d %s, backend got %q", res.StatusCode, body, s.bodies)
		}
	}
	heard.want(t, true)
	if n := g.metric("failures", "app", port.addr, "connect"); n != 1 {
		t.Errorf("connected %v times to a target that is away", n)
	}
	if g.metric("up", "app", port.addr) != 0 || g.metric("retries", "app") != 1 {
		t.Errorf("up %v, retries %v", g.metric("up", "app", port.addr), g.metric("retries", "app"))
	}
	serveOn(t, port, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "back") }))
	if err := g.proxy.Targets()[0].Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	heard.want(t, true, false)
	back := 0
	for range 10 {
		if _, body := g.do(g.request("GET", "/api/x", nil)); body == "back" {
			back++
		}
	}
	if back != 5 || g.metric("up", "app", port.addr) != 1 {
		t.Errorf("the target that is back got %d of 10 requests, up %v", back, g.metric("up", "app", port.addr))
	}
}

func serveOn(t *testing.T, port *sleepingPort, h http.Handler) {
	server, served := &http.Server{Handler: h}, make(chan struct{}) //nolint:gosec // a test's server needs no limits
	listener := port.listen()
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
}

// TestWhatIsSentTwice has one target that hangs up once it has read a
// request's header, and a good one.
func TestWhatIsSentTwice(t *testing.T) {
	for _, c := range []struct {
		method, body string
		status       int
	}{
		{"GET", "", 200},
		{"HEAD", "", 200},
		{"OPTIONS", "", 200},
		{"PUT", "", 200},
		{"DELETE", "", 200},
		{"POST", "", 502},
		{"PATCH", "", 502},
		{"PUT", "body", 502},
		{"POST", "body", 502},
		{"DELETE", "body", 502},
	} {
		t.Run(c.method+" "+c.body, func(t *testing.T) {
			captureLogs(t)
			s := &seen{}
			g := newGroupGate(t, Options{}, group("app", rawBackend(t, ""), backend(t, s).URL))
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			res, text := g.do(g.request(c.method, "/api/x", body))
			if res.StatusCode != c.status {
				t.Errorf("got %d %s", res.StatusCode, text)
			}
			if sent := s.count(); sent != map[int]int{200: 1, 502: 0}[c.status] {
				t.Errorf("the second target got %d requests", sent)
			}
		})
	}
}

func TestSlowIsNotSentTwice(t *testing.T) {
	captureLogs(t)
	var asked atomic.Int32
	slow := func() string {
		return backend(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			<-r.Context().Done()
		})).URL
	}
	route := testRoute("/api/", "app")
	route.Timeout = 10 * time.Millisecond
	g := newGateOf(t, Options{}, Settings{Routes: []Route{route}, Upstreams: []UpstreamSettings{group("app", slow(), slow())}}).start()
	res, body := g.do(g.request("GET", "/api/", nil))
	wantError(t, res, body, 504, "backend_timeout")
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func TestTriesAreBounded(t *testing.T) {
	captureLogs(t)
	s := group("app")
	for range 5 {
		s.Targets = append(s.Targets, TargetSettings{"http://" + newSleepingPort(t).addr, 1})
	}
	s.Tries = 3
	g := newGroupGate(t, Options{}, s)
	for range 2 { // also where all are known to be away
		res, body := g.do(g.request("GET", "/api/", nil))
		wantError(t, res, body, 503, "backend_unavailable")
		if res.Header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q", res.Header.Get("Retry-After"))
		}
	}
	tries := 0.0
	for _, target := range g.proxy.Targets() {
		tries += g.metric("failures", "app", target.address, "connect")
	}
	if tries != 6 || g.metric("retries", "app") != 4 {
		t.Errorf("%v tries, %v retries", tries, g.metric("retries", "app"))
	}
}

// TestTargetKilledUnderLoad: of two targets one is killed and comes back, and
// no request that may be sent again fails.
func TestTargetKilledUnderLoad(t *testing.T) {
	captureLogs(t)
	var got [2]atomic.Int64
	handler := func(i int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			got[i].Add(1)
			_, _ = io.WriteString(w, "well")
		})
	}
	stays, dies := backend(t, handler(0)), httptest.NewServer(handler(1))
	s := group("app", stays.URL, dies.URL)
	s.FailPause = 100 * time.Millisecond
	g := newGroupGate(t, Options{Health: func(string, error) {}}, s)

	stop, progress := make(chan struct{}), make(chan bool)
	var load sync.WaitGroup
	for range 8 {
		load.Go(func() {
			for {
				res, err := g.Client().Do(g.request("GET", "/api/x", nil))
				well := err == nil && res.StatusCode == 200
				if err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
				select {
				case progress <- well:
				case <-stop:
					return
				}
			}
		})
	}
	t.Cleanup(func() { // before the servers end
		close(stop)
		load.Wait()
	})
	until := func(what string, ok func() bool) {
		t.Helper()
		for n := 0; !ok(); n++ {
			if !<-progress || n > 100000 {
				t.Fatalf("%s: a request failed, or the requests never came", what)
			}
		}
	}
	until("the first requests", func() bool { return got[0].Load() > 50 && got[1].Load() > 50 })
	addr := dies.Listener.Addr().String()
	_ = dies.Listener.Close()
	dies.CloseClientConnections()
	dies.Close()
	at := got[0].Load()
	until("without it", func() bool { return got[0].Load() > at+200 })
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	again := httptest.NewUnstartedServer(handler(1))
	_ = again.Listener.Close()
	again.Listener = l
	again.Start()
	t.Cleanup(again.Close)
	before := got[1].Load()
	until("it is back", func() bool { return got[1].Load() > before+50 })
}

func TestHealthChecks(t *testing.T) {
	captureLogs(t)
	var well atomic.Bool
	b := backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && !well.Load() {
			http.Error(w, "warming up", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprint(w, "answer of ", r.URL.Path)
	}))
	other := backend(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other") }))
	s := group("app", b.URL+"/base", other.URL)
	s.HealthCheck = HealthCheckSettings{Path: "/healthz", Interval: 100 * time.Millisecond, Timeout: 30 * time.Second, UnhealthyAfter: 2, HealthyAfter: 2}
	news := make(chan error, 10)
	g := newGroupGate(t, Options{Health: func(_ string, err error) { news <- err }}, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.proxy.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if err := <-news; err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("news %v", err)
	}
	for range 4 {
		if _, body := g.do(g.request("GET", "/api/x", nil)); body != "other" {
			t.Errorf("the target that is unwell answered %q", body)
		}
	}
	target := g.proxy.Targets()[0]
	if target.Name != "app "+target.address || target.Check(t.Context()) == nil {
		t.Errorf("%s: Check finds it well", target.Name)
	}
	well.Store(true)
	if err := <-news; err != nil {
		t.Errorf("news %v", err)
	}
	if err := target.Check(t.Context()); err != nil {
		t.Error(err)
	}
	bodies := map[string]int{}
	for range 4 {
		_, body := g.do(g.request("GET", "/api/x", nil))
		bodies[body]++
	}
	if bodies["answer of /base/api/x"] != 2 || bodies["other"] != 2 {
		t.Errorf("answers %v", bodies)
	}
}

func TestHTTP2WithoutTLS(t *testing.T) {
	s := &seen{}
	b := httptest.NewUnstartedServer(s)
	b.Config.Protocols = new(http.Protocols)
	b.Config.Protocols.SetUnencryptedHTTP2(true)
	b.Start()
	t.Cleanup(b.Close)
	settings := group("app", b.URL)
	settings.H2C = true
	g := newGroupGate(t, Options{}, settings)
	for range 2 {
		if res, body := g.do(g.request("POST", "/api/x", strings.NewReader("body"))); res.StatusCode != 200 {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	r := s.last(t)
	if r.ProtoMajor != 2 || r.Host != strings.TrimPrefix(b.URL, "http://") || s.bodies[0] != "body" {
		t.Errorf("backend saw %s, Host %q, body %q", r.Proto, r.Host, s.bodies[0])
	}
	wantOnlyAnn(t, r)
}

// TestAnswersPassAsTheyAre: what a backend says is its own affair.
func TestAnswersPassAsTheyAre(t *testing.T) {
	var asked atomic.Int32
	b := backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		var status int
		_, _ = fmt.Sscanf(r.URL.Path, "/api/%d", &status)
		w.Header().Set("Location", "/api/200")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
		if status != 204 && status != 304 {
			_, _ = io.WriteString(w, "the backend's own words")
		}
	}))
	g := newGroupGate(t, Options{}, group("app", b.URL))
	g.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for i, status := range []int{200, 204, 301, 302, 304, 307, 400, 404, 429, 500, 502, 503, 599} {
		res, body := g.do(g.request("GET", fmt.Sprintf("/api/%d", status), nil))
		if res.StatusCode != status || res.Header.Get("Location") != "/api/200" || res.Header.Get("Retry-After") != "7" {
			t.Errorf("%d came as %d %v", status, res.StatusCode, res.Header)
		}
		if status != 204 && status != 304 && body != "the backend's own words" {
			t.Errorf("%d came with %q", status, body)
		}
		if int(asked.Load()) != i+1 {
			t.Errorf("%d: asked %d times", status, asked.Load())
		}
	}
}

func TestEarlyHints(t *testing.T) {
	b := backend(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "answer")
	}))
	g := newGroupGate(t, Options{}, group("app", b.URL))
	conn, err := net.Dial("tcp", g.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET /api/ HTTP/1.1\r\nHost: gate\r\nConnection: close\r\nAuthorization: Bearer ann\r\n\r\n")
	raw, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	hints, answer, _ := strings.Cut(string(raw), "\r\n\r\n")
	if !strings.HasPrefix(hints, "HTTP/1.1 103 ") || !strings.Contains(hints, "Link: </a.css>") ||
		!strings.HasPrefix(answer, "HTTP/1.1 200 OK") || strings.Contains(answer, "Link") || !strings.HasSuffix(answer, "answer") {
		t.Errorf("got\n%s", raw)
	}
}

// TestResetInTheMiddle: a backend that crashes while it answers, once the
// client has the first half.
func TestResetInTheMiddle(t *testing.T) {
	logged := captureLogs(t)
	got := make(chan struct{})
	b := backend(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		<-got
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.(*net.TCPConn).SetLinger(0) // a reset instead of an end
		_ = conn.Close()
	}))
	other := &seen{}
	g := newGroupGate(t, Options{}, group("app", b.URL, backend(t, other).URL))
	res, err := g.Client().Do(g.request("GET", "/api/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	readString(t, res.Body, "half")
	close(got)
	if rest, err := io.ReadAll(res.Body); err == nil || len(rest) > 0 {
		t.Errorf("the client takes half an answer for a whole one: %q", rest)
	}
	g.busy.Wait()
	if logged.count("backend broke off its answer") != 1 || other.count() != 0 {
		t.Errorf("the other target got %d requests; logged:\n%s", other.count(), logged.buf.String())
	}
}
