package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// sleepingPort is a port that is taken but refuses connections until listen
// is called, so that nobody else can get hold of it in between.
type sleepingPort struct {
	addr   string
	listen func() net.Listener
}

func newSleepingPort(t *testing.T) *sleepingPort {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*syscall.SockaddrInet4).Port}
	return &sleepingPort{addr.String(), func() net.Listener {
		if err := syscall.Listen(fd, 16); err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "listener")
		defer func() { _ = f.Close() }()
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}}
}

// changes collects what the Health hook hears.
type changes struct {
	mu   sync.Mutex
	errs []error
}

func (c *changes) add(_ string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, err)
}

func (c *changes) want(t *testing.T, down ...bool) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.errs) != len(down) {
		t.Fatalf("heard %v, want %d changes", c.errs, len(down))
	}
	for i := range down {
		if (c.errs[i] != nil) != down[i] {
			t.Errorf("change %d: %v", i, c.errs[i])
		}
	}
}

func TestBackendAwayAndBack(t *testing.T) {
	captureLogs(t)
	port, heard := newSleepingPort(t), &changes{}
	g := newGate(t, Options{Health: heard.add}, testRoute("/api/", "http://"+port.addr), testRoute("/more/", "http://"+port.addr)).start()
	upstream := g.proxy.Targets()[0]

	for _, path := range []string{"/api/", "/api/", "/more/"} {
		res, body := g.do(g.request("POST", path, nil))
		wantError(t, res, body, 503, "backend_unavailable")
		if res.Header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q", res.Header.Get("Retry-After"))
		}
	}
	if upstream.Check(t.Context()) == nil {
		t.Error("Check finds the backend well")
	}
	heard.want(t, true)

	s := &seen{}
	server := &http.Server{Handler: s} //nolint:gosec // a test's server needs no limits
	listener, served := port.listen(), make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	for range 3 {
		if res, body := g.do(g.request("GET", "/api/", nil)); res.StatusCode != 200 {
			t.Errorf("after the backend is back: %d %s", res.StatusCode, body)
		}
	}
	heard.want(t, true, false)
	if err := upstream.Check(t.Context()); err != nil {
		t.Error(err)
	}
	heard.want(t, true, false)
}

func TestCheckAloneNoticesChanges(t *testing.T) {
	captureLogs(t)
	port, heard := newSleepingPort(t), &changes{}
	g := newGate(t, Options{Health: heard.add}, testRoute("/api/", "http://"+port.addr)).start()
	upstream := g.proxy.Targets()[0]

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if upstream.Check(canceled) == nil {
		t.Error("a cancelled check passed")
	}
	heard.want(t) // says nothing about the backend
	_ = upstream.Check(t.Context())
	heard.want(t, true)
	l := port.listen()
	defer func() { _ = l.Close() }()
	if err := upstream.Check(t.Context()); err != nil {
		t.Error(err)
	}
	heard.want(t, true, false)
}

// TestChangesAreLoggedOnce: a backend that is away does not fill the log.
func TestChangesAreLoggedOnce(t *testing.T) {
	logged := captureLogs(t)
	port := newSleepingPort(t)
	g := newGate(t, Options{}, testRoute("/api/", "http://"+port.addr)).start()
	for range 3 {
		g.do(g.request("GET", "/api/", nil))
	}
	if logged.count("backend cannot be used") != 1 || logged.count("level=") != 1 {
		t.Errorf("logged:\n%s", logged.buf.String())
	}
	l := port.listen()
	defer func() { _ = l.Close() }()
	for range 3 {
		_ = g.proxy.Targets()[0].Check(t.Context())
	}
	if logged.count("backend is back") != 1 || logged.count("level=") != 2 {
		t.Errorf("logged:\n%s", logged.buf.String())
	}
}

func TestUnknownHost(t *testing.T) {
	captureLogs(t)
	g := newGate(t, Options{}, testRoute("/api/", "http://backend.invalid")).start()
	g.proxy.Targets()[0].upstream.dialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no name server here")
	}}
	res, body := g.do(g.request("GET", "/api/", nil))
	wantError(t, res, body, 503, "backend_unavailable")
}

func TestBackendTooSlow(t *testing.T) {
	captureLogs(t)
	slow := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, b := range []*httptest.Server{backend(t, slow), newTLSBackend(t, slow)} {
		t.Run(b.URL[:5], func(t *testing.T) {
			route := testRoute("/api/", b.URL)
			route.Timeout = 10 * time.Millisecond
			heard := &changes{}
			g := newGate(t, Options{Health: heard.add}, route)
			g.trust(b)
			g.start()
			res, body := g.do(g.request("GET", "/api/", nil))
			wantError(t, res, body, 504, "backend_timeout")
			heard.want(t) // slow is not away
		})
	}
}

func TestTLSToAnUntrustedBackend(t *testing.T) {
	captureLogs(t)
	s := &seen{}
	g := newGate(t, Options{}, testRoute("/api/", newTLSBackend(t, s).URL)).start()
	res, body := g.do(g.request("GET", "/api/", nil))
	wantError(t, res, body, 502, "backend_broken")
	if s.count() > 0 {
		t.Error("the request was sent")
	}
}
