package gateway

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// dialDeaf connects a user who reads the answer to connect, and nothing more.
func (th *testHub) dialDeaf(user string) *client {
	th.t.Helper()
	dialer := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		line, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			err = line.(*net.TCPConn).SetReadBuffer(2 << 10)
		}
		return line, err
	}}}
	conn, _, err := websocket.Dial(th.t.Context(), th.overTCP(), &websocket.DialOptions{HTTPClient: dialer})
	if err != nil {
		th.t.Fatal(err)
	}
	th.t.Cleanup(func() { _ = conn.CloseNow() })
	if err := conn.Write(th.t.Context(), websocket.MessageText, []byte(`{"id":1,"connect":{"token":"`+user+`"}}`)); err != nil {
		th.t.Fatal(err)
	}
	if _, _, err := conn.Read(th.t.Context()); err != nil {
		th.t.Fatal(err)
	}
	for _, c := range th.clients.list() {
		if c.user() == user {
			return c
		}
	}
	th.t.Fatal("nobody is connected")
	return nil
}

// Who stops reading a channel owns none of its messages, but what the kernel
// keeps for the socket: so that one is among those who are closed for memory.
func TestMemoryClosesWhoReadsNoChannel(t *testing.T) {
	h := startHub(t, func(s *Settings) { s.WebSocket.WriteTimeout, s.Client.PingInterval = 10*time.Second, 0 })
	c := h.dialDeaf("lazy")
	message := `"` + strings.Repeat("x", 8<<10) + `"`
	for !c.out.waiting().parked {
		h.publish("#lazy", message)
		for h.channels.get("#lazy").isQueued() || c.isWriting() {
			runtime.Gosched() // until it is written or parked: two messages in one batch would be its own
		}
	}
	if w := c.out.waiting(); w.bytes != 0 || w.ending {
		t.Fatalf("%+v", w)
	}
	closed := func() float64 { return testutil.ToFloat64(h.metrics.slow.WithLabelValues(slowMemory)) }
	h.shedForMemory(1)
	if n := closed(); n != 0 {
		t.Errorf("%v closed who have only just stopped", n)
	}
	c.out.mu.Lock()
	c.out.moved -= lazyAfter
	c.out.mu.Unlock()
	h.shedForMemory(1)
	if n := closed(); n != 1 {
		t.Errorf("%v closed, want the one who reads nothing", n)
	}
}

// isWriting tells whether the client has a writer that is not waiting for room.
func (c *client) isWriting() bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.writing && c.out.stand != parked
}
