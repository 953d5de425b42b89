package proxy

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// connBackend has f deal with each connection, one after the other. They are
// closed behind it, and when the test ends.
func connBackend(t *testing.T, f func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			closer := make(chan struct{})
			served := make(chan struct{})
			go func() {
				defer close(closer)
				select {
				case <-ended:
				case <-served:
				}
				_ = conn.Close()
			}()
			f(conn)
			close(served)
			<-closer
		}
	}()
	t.Cleanup(func() {
		close(ended)
		_ = l.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}

// TestBackendTakesNothing: a backend that hangs in the middle of a body, which
// the client would send forever, is given up. Before its answer, that is: what
// comes after that is between it and the client.
func TestBackendTakesNothing(t *testing.T) {
	for name, start := range map[string]func(*gate) *gate{"HTTP/1.1": (*gate).start, "HTTP/2": (*gate).startTLS} {
		t.Run(name, func(t *testing.T) {
			captureLogs(t)
			hang := make(chan struct{})
			b := connBackend(t, func(conn net.Conn) {
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				<-hang
			})
			route := testRoute("/api/", b)
			route.Timeout, route.MaxBody = 50*time.Millisecond, 1<<40
			g := newGate(t, Options{}, route)
			start(g)
			defer close(hang)
			res, body := g.do(g.request("POST", "/api/", endless{}))
			wantError(t, res, body, 504, "backend_timeout")
			target := g.proxy.Targets()[0]
			if n := g.metric("failures", target.address, target.address, "timeout"); n != 1 {
				t.Errorf("%v timeouts of the backend", n)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestSlowAnswerOfAnUnreadBody: a backend may answer for as long as it likes,
// also one that leaves the rest of the body where it is.
func TestSlowAnswerOfAnUnreadBody(t *testing.T) {
	const timeout = 50 * time.Millisecond
	b := connBackend(t, func(conn net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
		time.Sleep(2 * timeout) // the test passes however long it is
		_, _ = io.WriteString(conn, "lf")
	})
	route := testRoute("/api/", b)
	route.Timeout, route.MaxBody = timeout, 1<<40
	g := newGate(t, Options{}, route).start()
	res, err := g.Client().Do(g.request("POST", "/api/", endless{}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	readString(t, res.Body, "half")
}

// TestStallingClientsAreNotTheBackendsFault, whatever their protocol: else a
// few of them would have a good target left out.
func TestStallingClientsAreNotTheBackendsFault(t *testing.T) {
	for name, start := range map[string]func(*gate) *gate{"HTTP/1.1": (*gate).start, "HTTP/2": (*gate).startTLS} {
		t.Run(name, func(t *testing.T) {
			b := backend(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
			g := newGate(t, Options{}, testRoute("/api/", b.URL))
			g.proxy.stall = 50 * time.Millisecond
			start(g)
			body, write := io.Pipe()
			wrote := make(chan struct{})
			go func() {
				defer close(wrote)
				_, _ = io.WriteString(write, "half")
			}()
			res, text := g.do(g.request("POST", "/api/", body))
			<-wrote
			_ = write.Close()
			wantError(t, res, text, http.StatusRequestTimeout, "body_timeout")
			target := g.proxy.Targets()[0]
			if n := g.metric("failures", target.address, target.address, "timeout"); n != 0 || target.fails.Load() != 0 {
				t.Errorf("the backend is blamed: %v timeouts, %d failures in a row", n, target.fails.Load())
			}
		})
	}
}

// TestNoEarlyHintsForOldClients: HTTP/1.0 has no answers before the answer (RFC
// 9110, 15.2), and nginx speaks it unless told otherwise.
func TestNoEarlyHintsForOldClients(t *testing.T) {
	g := newGate(t, Options{}, testRoute("/api/", rawBackend(t, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))).start()
	for proto, want := range map[string]int{"HTTP/1.0": 200, "HTTP/1.1": 103} {
		if status := rawHTTP1(t, g.Listener.Addr().String(), "GET /api/ "+proto+"\r\nHost: gate\r\nAuthorization: Bearer ann\r\n\r\n"); status != want {
			t.Errorf("%s: %d comes first, want %d", proto, status, want)
		}
	}
}

// TestTokenBesideOtherCredentials: a login token is not passed on, also where it
// is the second of two Authorization headers.
func TestTokenBesideOtherCredentials(t *testing.T) {
	s := &seen{}
	route := testRoute("/api/", backend(t, s).URL)
	route.Login = LoginNone
	g := newGate(t, Options{}, route).start()
	const first = "GET /api/ HTTP/1.1\r\nHost: gate\r\nAuthorization: Basic x\r\n"
	for lines, want := range map[string]string{"": "Basic x", "Authorization: Bearer ann\r\n": ""} {
		if status := rawHTTP1(t, g.Listener.Addr().String(), first+lines+"\r\n"); status != 200 {
			t.Fatalf("status %d", status)
		}
		if got := strings.Join(s.last(t).Header["Authorization"], ", "); got != want {
			t.Errorf("with %q the backend saw %q, want %q", lines, got, want)
		}
	}
}

// TestCallOfARefusedStream: a backend that refuses a stream has done nothing
// (RFC 9113, 8.7), so a call is sent again on another.
func TestCallOfARefusedStream(t *testing.T) {
	const headers, settings, reset = 1, 4, 3
	b := connBackend(t, func(conn net.Conn) {
		frame := func(kind, flags byte, stream uint32, payload ...byte) {
			head := []byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, 0}
			binary.BigEndian.PutUint32(head[5:], stream)
			_, _ = conn.Write(append(head, payload...))
		}
		frame(settings, 0, 0)
		if _, err := io.CopyN(io.Discard, conn, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
			t.Error(err)
			return
		}
		refused := false
		for head := make([]byte, 9); ; {
			if _, err := io.ReadFull(conn, head); err != nil {
				return
			}
			if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head[:4])>>8)); err != nil {
				return
			}
			kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
			switch {
			case kind == settings && flags == 0:
				frame(settings, 1, 0)
			case kind == 0 && flags&1 != 0 && !refused: // the body has ended
				refused = true
				frame(reset, 0, stream, 0, 0, 0, 7)
			case kind == 0 && flags&1 != 0:
				frame(headers, 5, stream, 0x88) // :status 200, and that is all
			}
		}
	})
	s := group("app", b)
	s.H2C = true
	rpc := RPCSettings{Upstream: "app", Path: "/rpc/{method}", Timeout: time.Minute, MaxAnswer: 1 << 10}
	g := newGateOf(t, Options{RPC: rpc}, Settings{Upstreams: []UpstreamSettings{s}})
	if answer, err := g.proxy.Call(t.Context(), Call{Method: "m"}); err != nil || len(answer) > 0 {
		t.Errorf("%q, %v", answer, err)
	}
}
