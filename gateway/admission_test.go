package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/rest"
)

// from is a handshake request of a client with an address, as behind rest.Edge.
func from(ip string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/connection/websocket", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Authorization", "Bearer someone")
	r.RemoteAddr = "10.0.0.1:1234" // the proxy
	return r.WithContext(rest.WithInfo(r.Context(), &rest.Info{ClientIP: ip}))
}

func (th *testHub) refusals(reason string) float64 {
	return testutil.ToFloat64(th.metrics.refused.WithLabelValues(reason))
}

// wantRefused sends a handshake that has to be refused before any token of it
// is looked at.
func (th *testHub) wantRefused(ip string, no *refusal, status int) {
	th.t.Helper()
	before := th.refusals(no.reason)
	w := httptest.NewRecorder()
	th.ServeWebSocket(w, from(ip))
	after, err := strconv.Atoi(w.Header().Get("Retry-After"))
	if w.Code != status || err != nil || after < 1 || time.Duration(after)*time.Second > no.spread || w.Header().Get("Connection") != "close" {
		th.t.Errorf("%s: answered %d %v, want %d", no.reason, w.Code, w.Header(), status)
	}
	if n := th.refusals(no.reason) - before; n != 1 {
		th.t.Errorf("%s: counted %v times", no.reason, n)
	}
	th.mu.Lock()
	defer th.mu.Unlock()
	if th.verified != 0 {
		th.t.Errorf("%s: a token was verified first", no.reason)
	}
}

// Whatever is full, the handshake is refused before anything is done for it, and
// the refusal leaves nothing behind.
func TestRefusals(t *testing.T) {
	const ip = "198.51.100.7"
	for name, tt := range map[string]struct {
		set    func(*Settings)
		fill   func(*testHub)
		want   *refusal
		status int
	}{
		"address":    {func(s *Settings) { s.Client.IPConnectionLimit = 1 }, func(h *testHub) { h.addresses.take(ip) }, refusedIP, 429},
		"handshakes": {func(s *Settings) { s.Client.HandshakeLimit = 1 }, func(h *testHub) { h.pending.begin(0) }, refusedPending, 503},
		"node":       {func(s *Settings) { s.Client.ConnectionLimit = 1 }, func(h *testHub) { h.clients.admit(0) }, refusedLimit, 503},
		"rate":       {func(s *Settings) { s.Client.ConnectionRateLimit = 1 }, func(h *testHub) { h.Hub.rate.Allow() }, refusedRate, 503},
		"overload":   {nil, func(h *testHub) { h.overload.slow.Store(true) }, refusedOverload, 503},
		"memory":     {nil, func(h *testHub) { h.overload.memory.Store(true) }, refusedMemory, 503},
		"stopping":   {nil, func(h *testHub) { h.clients.close() }, refusedShutdown, 503},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the rate stands still
				h := startHub(t, func(s *Settings) {
					s.Client.IPConnectionLimit = 5
					if tt.set != nil {
						tt.set(s)
					}
				})
				tt.fill(h)
				admitted, pending, counted := h.clients.admitted, h.pending.n.Load(), h.addresses.counts[mustKey(t, ip)]
				h.wantRefused(ip, tt.want, tt.status)
				if h.clients.admitted != admitted || h.pending.n.Load() != pending || h.addresses.counts[mustKey(t, ip)] != counted {
					t.Errorf("left behind: %d admitted, %d handshakes, %d of the address", h.clients.admitted, h.pending.n.Load(), h.addresses.counts[mustKey(t, ip)])
				}
				if h.clients.admitted = 0; admitted > 0 { // what fill has let in ends
					h.clients.running.Done()
				}
			})
		})
	}
}

func mustKey(t *testing.T, ip string) uint64 {
	t.Helper()
	key, ok := networkKey(ip)
	if !ok {
		t.Fatalf("%q is no address", ip)
	}
	return key
}

// Connections are counted by who the client is, not by the proxy in between,
// and until they end.
func TestConnectionsOfAnAddress(t *testing.T) {
	h := startHub(t, func(s *Settings) { s.Client.IPConnectionLimit = 2 })
	edge := rest.Edge{}
	edge.TrustedProxies, _ = rest.ParseProxies([]string{"127.0.0.1"})
	srv := httptest.NewServer(edge.Wrap(http.HandlerFunc(h.ServeWebSocket)))
	t.Cleanup(srv.Close)
	dial := func(forwarded string) (*http.Response, func()) {
		t.Helper()
		conn, resp, err := websocketDial(t, srv.URL, http.Header{"X-Forwarded-For": {forwarded}})
		if err != nil {
			return resp, nil
		}
		return resp, func() { _ = conn.CloseNow() }
	}
	_, end := dial("203.0.113.1")
	for _, ip := range []string{"203.0.113.1", "2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1", "203.0.113.2", "1.1.1.1, 203.0.113.3"} {
		if resp, ok := dial(ip); ok == nil {
			t.Fatalf("%s is refused: %v", ip, resp.Status)
		}
	}
	for _, ip := range []string{"203.0.113.1", "::ffff:203.0.113.1", "2001:db8:0:1:ffff::", "2.2.2.2, 203.0.113.1"} {
		if resp, ok := dial(ip); ok != nil || resp.StatusCode != http.StatusTooManyRequests {
			t.Errorf("%s is let in for the third time", ip)
		}
	}
	if n := h.refusals("ip"); n != 4 {
		t.Errorf("%v refused", n)
	}
	end()
	for n := -1; n != 1; { // the end of a connection is an event of the kernel
		h.addresses.mu.Lock()
		n = int(h.addresses.counts[mustKey(t, "203.0.113.1")])
		h.addresses.mu.Unlock()
		runtime.Gosched()
	}
	if resp, ok := dial("203.0.113.1"); ok == nil {
		t.Errorf("refused with room again: %v", resp.Status)
	}
}

// A network that nobody uses any more is forgotten; without a limit none is
// ever known.
func TestAddressesAreForgotten(t *testing.T) {
	a := addresses{limit: 10}
	for i := range 1000 {
		ip := fmt.Sprintf("10.0.%d.%d", i/250, i%250)
		for range 2 {
			if !a.take(ip) {
				t.Fatal(ip)
			}
		}
	}
	if len(a.counts) != 1000 {
		t.Errorf("%d networks", len(a.counts))
	}
	for i := range 1000 {
		ip := fmt.Sprintf("10.0.%d.%d", i/250, i%250)
		a.leave(ip)
		a.leave(ip)
	}
	if len(a.counts) != 0 {
		t.Errorf("%d networks are kept", len(a.counts))
	}
	for range 20 {
		if !a.take("@") { // a Unix socket, say
			t.Fatal("what has no address is limited")
		}
	}
	off := addresses{}
	if !off.take("10.0.0.1") || off.counts != nil {
		t.Error("addresses are counted without a limit")
	}
}

func TestNetworkKeys(t *testing.T) {
	same := func(a, b string, want bool) {
		t.Helper()
		if got := mustKey(t, a) == mustKey(t, b); got != want {
			t.Errorf("%s and %s count together: %v", a, b, got)
		}
	}
	same("1.2.3.4", "::ffff:1.2.3.4", true)
	same("1.2.3.4", "1.2.3.5", false)
	same("2001:db8::1", "2001:db8::ffff:0:0:1", true)
	same("2001:db8::1", "2001:db8:0:1::1", false)
	same("0.0.0.0", "::1", false)
	same("fe80::1%eth0", "fe80::2%eth1", true)
}

// A connect command counts as long as this node works on it, and not while it
// waits for the client.
func TestPendingConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entered, answer := make(chan struct{}), make(chan struct{})
		h := startHub(t, func(s *Settings) { s.Client.HandshakeLimit = 1 }, func(o *Options) {
			verify := o.Verify
			o.Verify = func(ctx context.Context, token string) (*auth.Session, error) {
				if token == "slow" {
					entered <- struct{}{}
					<-answer
				}
				return verify(ctx, token)
			}
		})
		idle := h.dial(dialOptions{})
		synctest.Wait() // a client may know of its upgrade a moment before the server is done
		w := h.dial(dialOptions{})
		w.send(`{"id":1,"connect":{"token":"slow"}}`)
		<-entered
		h.wantRefused("198.51.100.7", refusedPending, 503)
		idle.send(`{"id":1,"connect":{"token":"bob"}}`) // whoever is in is served
		idle.want(`{"id":1,"connect":*`)
		close(answer)
		w.want(`{"id":1,"connect":*`)
		synctest.Wait()
		h.login("carol")
	})
}

// Many at once never get past a limit together, and nothing is left of them.
func TestLimitsHoldUnderAStorm(t *testing.T) {
	h := startHub(t, func(s *Settings) {
		s.Client.IPConnectionLimit, s.Client.ConnectionLimit, s.Client.HandshakeLimit = 3, 10, 8
	})
	var workers sync.WaitGroup
	for i := range 16 {
		workers.Go(func() {
			ip := fmt.Sprintf("192.0.2.%d", i%5)
			for range 500 {
				if h.admit(ip) != nil {
					continue
				}
				h.addresses.mu.Lock()
				n := h.addresses.counts[mustKey(t, ip)]
				h.addresses.mu.Unlock()
				h.clients.mu.RLock()
				all := h.clients.admitted
				h.clients.mu.RUnlock()
				if n > 3 || all > 10 || h.pending.n.Load() > 8+16 { // 16 are being turned away at most
					t.Errorf("%d of an address, %d in all, %d handshakes", n, all, h.pending.n.Load())
				}
				h.pending.done()
				h.release(ip)
			}
		})
	}
	workers.Wait()
	if n := testutil.ToFloat64(h.metrics.pending); len(h.addresses.counts) != 0 || h.clients.admitted != 0 || h.pending.n.Load() != 0 || n != 0 {
		t.Errorf("left behind: %v, %d admitted, %d handshakes (%v)", h.addresses.counts, h.clients.admitted, h.pending.n.Load(), n)
	}
}
