package gateway

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"github.com/minigate/minigate/gateway/epoll"
)

// overTCP serves the hub on a real socket, so that epoll holds connections
// where it may.
func (th *testHub) overTCP() (url string) {
	th.t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(th.ServeWebSocket))
	th.t.Cleanup(srv.Close)
	return "ws" + strings.TrimPrefix(srv.URL, "http")
}

func (th *testHub) ends(code uint32, reason string) float64 {
	return testutil.ToFloat64(th.metrics.disconnects.WithLabelValues(strconv.Itoa(int(code)), reason))
}

// However a connection ends, it is counted once, and by what ended it, whoever
// holds it.
func TestEndingsAreCounted(t *testing.T) {
	raw := func(frame ...byte) func(*testHub, *websocket.Conn, net.Conn) {
		return func(_ *testHub, _ *websocket.Conn, line net.Conn) { _, _ = line.Write(frame) }
	}
	endings := map[string]struct {
		end  func(h *testHub, conn *websocket.Conn, line net.Conn)
		want cause
	}{
		"a close frame": {func(_ *testHub, conn *websocket.Conn, _ net.Conn) { _ = conn.Close(1000, "") }, cause{0, endClient}},
		"no goodbye":    {func(_ *testHub, _ *websocket.Conn, line net.Conn) { _ = line.Close() }, cause{0, endNetwork}},
		"a reset": {func(_ *testHub, _ *websocket.Conn, line net.Conn) {
			_ = line.(*net.TCPConn).SetLinger(0)
			_ = line.Close()
		}, cause{0, endNetwork}},
		"a large message": {func(h *testHub, conn *websocket.Conn, _ net.Conn) {
			_ = conn.Write(context.Background(), 1, make([]byte, h.settings.WebSocket.MessageSizeLimit+1))
		}, cause{1009, endTooBig}},
		"reserved bits": {raw(0xc1, 0x80, 1, 2, 3, 4), cause{1002, endBroken}},
		"no command": {func(_ *testHub, conn *websocket.Conn, _ net.Conn) {
			_ = conn.Write(context.Background(), 1, []byte("x"))
		}, cause{3501, "bad_request"}},
		"the server API": {func(h *testHub, _ *websocket.Conn, _ net.Conn) {
			_ = h.Disconnect(context.Background(), "alice", DisconnectOptions{Code: 4321, Reason: "so"})
		}, cause{4321, endAPI}},
		"the end of its session": {func(h *testHub, _ *websocket.Conn, _ net.Conn) {
			c := h.clients.list()[0]
			c.mu.Lock()
			fp := c.login.fingerprint
			c.mu.Unlock()
			h.EndSession("alice", fp, 3503, "logged out")
		}, cause{3503, endSession}},
		"a block":             {func(h *testHub, _ *websocket.Conn, _ net.Conn) { h.EndUser("alice", DisconnectBlocked) }, cause{3503, "blocked"}},
		"the backend":         {func(h *testHub, _ *websocket.Conn, _ net.Conn) { h.EndUser("alice", &Disconnect{4000, "x"}) }, cause{4000, endBackend}},
		"the end of the node": {func(h *testHub, _ *websocket.Conn, _ net.Conn) { h.cut() }, cause{0, endCut}},
	}
	for _, lean := range []bool{epoll.Supported, false} {
		for name, tt := range endings {
			t.Run(name+", epoll "+strconv.FormatBool(lean), func(t *testing.T) {
				h := startHub(t, func(s *Settings) { s.WebSocket.Epoll = lean })
				var line net.Conn
				client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					var err error
					line, err = new(net.Dialer).DialContext(ctx, network, addr)
					return line, err
				}}}
				conn, _, err := websocket.Dial(t.Context(), h.overTCP(), &websocket.DialOptions{HTTPClient: client})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.CloseNow() }()
				if err := conn.Write(t.Context(), 1, []byte(`{"id":1,"connect":{"token":"alice"}}`)); err != nil {
					t.Fatal(err)
				}
				if _, _, err := conn.Read(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, isLean := h.clients.list()[0].sock.(*leanSocket); isLean != lean {
					t.Fatalf("held by epoll: %v", isLean)
				}
				go func() { // answers close frames
					for {
						if _, _, err := conn.Read(context.Background()); err != nil {
							return
						}
					}
				}()
				tt.end(h, conn, line)
				h.clients.running.Wait()
				if h.ends(tt.want.code, tt.want.reason) != 1 || testutil.CollectAndCount(h.metrics.disconnects) != 1 {
					text, _ := testutil.CollectAndFormat(h.metrics.disconnects, expfmt.TypeTextPlain, "minigate_disconnects_total")
					t.Errorf("want one of %v, got %s", tt.want, text)
				}
				if n := testutil.ToFloat64(h.metrics.unsubscribes.WithLabelValues(leftGone)); n != 2 { // of the channels of openid and unionid
					t.Errorf("%v subscriptions ended with it", n)
				}
			})
		}
	}
}

// Every word the hub has for the end of a connection is its own.
func TestEveryDisconnectHasAWord(t *testing.T) {
	for d, word := range words {
		if word == "" || strings.ContainsAny(word, " -") || d.Code < 3000 {
			t.Errorf("%d %q is counted as %q", d.Code, d.Reason, word)
		}
	}
	if word := (&Disconnect{3501, "bad request"}).word(); word != endBackend {
		t.Errorf("a webhook's bad request is counted as %q", word)
	}
}

// Subscriptions end for reasons, and what waited when a connection ended is
// counted.
func TestLeavingsAreCounted(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	left := func(reason string) float64 { return testutil.ToFloat64(h.metrics.unsubscribes.WithLabelValues(reason)) }
	w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`, `{"id":3,"unsubscribe":{"channel":"feed:a"}}`, `{"id":4,"unsubscribe":{"channel":"feed:a"}}`, `{"id":5,"subscribe":{"channel":"feed:b"}}`)
	w.want(`{"id":2,"subscribe":*`, `{"id":3,*`, `{"id":4,*`, `{"id":5,"subscribe":*`)
	if n := left(leftClient); n != 1 {
		t.Errorf("%v ended by the client", n)
	}
	if err := h.Unsubscribe(t.Context(), "alice", "feed:b", Selection{}); err != nil {
		t.Fatal(err)
	}
	w.want(`*"unsubscribe":{"code":2000,*`)
	if n := left(leftServer); n != 1 {
		t.Errorf("%v ended by the server", n)
	}
}

// Messages that nobody took are counted when their connection is given up.
func TestUnsentAreCounted(t *testing.T) {
	h := startHub(t, nil)
	c := newClient(h.Hub, nil)
	c.out.mu.Lock()
	c.out.begin() // a writer that does not come along
	c.out.mu.Unlock()
	for range 3 {
		c.send([]byte("x"))
	}
	c.shut(true)
	c.out.writer.Done()
	if n := testutil.ToFloat64(h.metrics.dropped.WithLabelValues(droppedUnsent)); n != 3 {
		t.Errorf("%v counted", n)
	}
	if used := h.budget.used.Load(); used != 0 {
		t.Errorf("%d bytes are still counted", used)
	}
}

func websocketDial(t *testing.T, url string, header http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	conn, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPHeader: header})
	if err == nil {
		t.Cleanup(func() { _ = conn.CloseNow() })
	}
	return conn, resp, err
}

// Operators find every reason there is in both guides.
func TestReasonsAreDescribed(t *testing.T) {
	reasons := []string{
		endClient, endNetwork, endCut, endTooBig, endBroken, endSlowWrite, endWrite, endAPI, endSession, endBackend,
		leftClient, leftGone, leftServer, leftExpired, leftInsufficient,
		slowQueue, slowNode, slowBacklog, slowMemory, droppedPresence, droppedRate, droppedUnsent,
		refusedOverload.reason, refusedMemory.reason, refusedPending.reason, refusedRate.reason, refusedIP.reason, refusedLimit.reason, refusedShutdown.reason,
		"upgrade", "origin", "headers", "handshake",
	}
	for d, word := range words {
		if d != DisconnectClosed && d != DisconnectSlow { // nobody uses the one, and the other has reasons of its own
			reasons = append(reasons, word)
		}
	}
	for _, file := range []string{"../docs/operations.md", "../docs/operations.zh-CN.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, reason := range reasons {
			if !strings.Contains(string(text), "`"+reason+"`") {
				t.Errorf("%s says nothing of %s", file, reason)
			}
		}
	}
}
