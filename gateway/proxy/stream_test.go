package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// readString reads exactly want from r.
func readString(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

// TestAnswerStreams writes each chunk only after the client has the one
// before: any buffering on the way stops it.
func TestAnswerStreams(t *testing.T) {
	next := make(chan struct{})
	for name, header := range map[string]string{"unknown length": "", "known length": "6"} {
		t.Run(name, func(t *testing.T) {
			b := backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if header != "" {
					w.Header().Set("Content-Length", header)
				}
				_ = http.NewResponseController(w).Flush()
				for _, chunk := range []string{"aa", "bb", "cc"} {
					select {
					case <-next:
					case <-r.Context().Done():
						return
					}
					_, _ = io.WriteString(w, chunk)
					_ = http.NewResponseController(w).Flush()
				}
			}))
			g := newGate(t, Options{}, testRoute("/api/", b.URL)).start()
			res, err := g.Client().Do(g.request("GET", "/api/", nil)) // returns on the header, before any chunk
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			for _, chunk := range []string{"aa", "bb", "cc"} {
				next <- struct{}{}
				readString(t, res.Body, chunk)
			}
		})
	}
}

// TestBothWaysStream sends each chunk only after the one before has come back.
func TestBothWaysStream(t *testing.T) {
	b := backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		_ = c.EnableFullDuplex()
		buf := make([]byte, 16)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = c.Flush()
			if err != nil {
				return
			}
		}
	}))
	for name, start := range map[string]func(*gate) *gate{"HTTP/1.1": (*gate).start, "HTTP/2": (*gate).startTLS} {
		t.Run(name, func(t *testing.T) {
			g := start(newGate(t, Options{}, testRoute("/api/", b.URL)))
			body, write := io.Pipe()
			go func() { _, _ = io.WriteString(write, "one") }() // read at the latest when the request ends
			res, err := g.Client().Do(g.request("POST", "/api/", body))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			readString(t, res.Body, "one")
			_, _ = io.WriteString(write, "two")
			readString(t, res.Body, "two")
			_ = write.Close()
			if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
				t.Errorf("after the end: %q, %v", rest, err)
			}
		})
	}
}

func TestClientGoneCancelsTheBackend(t *testing.T) {
	for name, answerFirst := range map[string]bool{"before the answer": false, "during the answer": true} {
		t.Run(name, func(t *testing.T) {
			logged := captureLogs(t)
			started, ended := make(chan struct{}), make(chan struct{})
			b := backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				if answerFirst {
					_, _ = io.WriteString(w, "begin")
					_ = http.NewResponseController(w).Flush()
				}
				close(started)
				<-r.Context().Done()
			}))
			g := newGate(t, Options{}, testRoute("/api/", b.URL)).start()
			r := g.request("GET", "/api/", nil)
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			if !answerFirst {
				go func() {
					<-started
					cancel()
				}()
			}
			res, err := g.Client().Do(r.WithContext(ctx))
			if answerFirst {
				if err != nil {
					t.Fatal(err)
				}
				readString(t, res.Body, "begin")
				cancel()
				_ = res.Body.Close()
			} else if err == nil {
				t.Fatal("there was an answer")
			}
			<-ended
			g.busy.Wait()
			if logged.count("level=") > 0 {
				t.Errorf("a client that left was logged:\n%s", logged.buf.String())
			}
			want := map[bool]string{false: "499", true: "200"}[answerFirst]
			if got := testutil.ToFloat64(g.proxy.places[0].counts.metrics.requests.WithLabelValues("/api/", want)); got != 1 {
				t.Errorf("code %s counted %v times", want, got)
			}
		})
	}
}

// TestClientBreaksItsBody hangs up in the middle of an upload.
func TestClientBreaksItsBody(t *testing.T) {
	logged := captureLogs(t)
	begun, ended := make(chan struct{}), make(chan error, 1)
	b := backend(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 4))
		close(begun)
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
	}))
	g := newGate(t, Options{}, testRoute("/api/", b.URL)).start()
	conn, err := net.Dial("tcp", g.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, head+"Content-Length: 1000\r\n\r\nbody")
	<-begun
	_ = conn.Close()
	if err := <-ended; err == nil {
		t.Error("the backend took half a body for a whole one")
	}
	g.busy.Wait()
	if logged.count("level=") > 0 {
		t.Errorf("a client that left was logged:\n%s", logged.buf.String())
	}
}

// rawBackend answers every connection with the given bytes once it has read
// the request's header, and hangs up.
func rawBackend(t *testing.T, answer string) string {
	return connBackend(t, func(conn net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, answer)
	})
}

func TestBrokenAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing":           "",
		"not HTTP":          "220 smtp ready\r\n",
		"half a header":     "HTTP/1.1 200 OK\r\nContent-",
		"bad length":        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"switches protocol": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"endless header":    "HTTP/1.1 200 OK\r\nA: " + string(make([]byte, 300<<10)) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			logged := captureLogs(t)
			g := newGate(t, Options{}, testRoute("/api/", rawBackend(t, answer))).start()
			res, body := g.do(g.request("POST", "/api/", nil))
			wantError(t, res, body, 502, "backend_broken")
			if logged.count("level=ERROR") != 1 {
				t.Errorf("logged:\n%s", logged.buf.String())
			}
		})
	}
}

func TestAnswerBrokenInTheMiddle(t *testing.T) {
	for name, answer := range map[string]string{
		"by length":  "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
		"by chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"many bytes": "HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(1<<20) + "\r\n\r\nhalf" + string(make([]byte, 1<<19)),
	} {
		t.Run(name, func(t *testing.T) {
			logged := captureLogs(t)
			g := newGate(t, Options{}, testRoute("/api/", rawBackend(t, answer))).start()
			res, err := g.Client().Do(g.request("GET", "/api/", nil))
			if err != nil {
				t.Fatal(err)
			}
			readString(t, res.Body, "half")
			if _, err := io.ReadAll(res.Body); err == nil {
				t.Error("the client takes half an answer for a whole one")
			}
			_ = res.Body.Close()
			g.busy.Wait()
			if logged.count("backend broke off its answer") != 1 || logged.count("level=") != 1 {
				t.Errorf("logged:\n%s", logged.buf.String())
			}
		})
	}
}

// TestEarlyRefusal: a backend that refuses a large body unread is heard.
func TestEarlyRefusal(t *testing.T) {
	b := rawBackend(t, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
	g := newGate(t, Options{}, testRoute("/api/", b)).start()
	body, write := io.Pipe() // nothing is written until the answer is here
	res, err := g.Client().Do(g.request("POST", "/api/", body))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	_ = write.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", res.StatusCode)
	}
}

// TestClientsThatStall opens a connection and then neither sends what it
// announced nor takes what it asked for.
func TestClientsThatStall(t *testing.T) {
	ended := make(chan struct{})
	b := backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			_, _ = io.Copy(io.Discard, r.Body)
			return
		}
		var err error
		for chunk := make([]byte, 1<<20); err == nil; {
			_, err = w.Write(chunk)
		}
		close(ended)
	}))
	g := newGate(t, Options{}, testRoute("/api/", b.URL))
	g.proxy.stall = 50 * time.Millisecond
	g.start()
	dial := func(request string) net.Conn {
		conn, err := net.Dial("tcp", g.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	conn := dial("POST /api/ HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer ann\r\nContent-Length: 9\r\n\r\nhalf")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, res, string(body), http.StatusRequestTimeout, "body_timeout")

	dial("GET /api/ HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer ann\r\n\r\n")
	select {
	case <-ended: // the backend is let go
	case <-time.After(time.Minute):
		t.Error("the backend still writes for a client that takes nothing")
	}
}

// TestBackendsMayThink: a backend that takes its time, longer than a client
// may stall, before it reads on or writes on, is not taken for a client that
// stalls. Nothing here depends on how long exactly it takes.
func TestBackendsMayThink(t *testing.T) {
	const stall = 2 * time.Second
	b := backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 4))
		if r.URL.Path == "/api/reads" {
			time.Sleep(stall + stall/4)
		}
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n, err)
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/api/writes" {
			time.Sleep(stall + stall/4)
		}
		_, _ = io.WriteString(w, " end")
	}))
	var asking sync.WaitGroup
	for name, start := range map[string]func(*gate) *gate{"HTTP/1.1": (*gate).start, "HTTP/2": (*gate).startTLS} {
		for _, path := range []string{"/api/reads", "/api/writes"} {
			// A gate each: uploads over one HTTP/2 connection wait for each other.
			g := newGate(t, Options{}, testRoute("/api/", b.URL))
			g.proxy.stall = stall
			start(g)
			r := g.request("POST", path, bytes.NewReader(make([]byte, 8<<20)))
			asking.Go(func() {
				res, err := g.Client().Do(r)
				if err != nil {
					t.Errorf("%s %s: %v", name, path, err)
					return
				}
				defer func() { _ = res.Body.Close() }()
				body, err := io.ReadAll(res.Body)
				if want := fmt.Sprint(8<<20-4, " <nil> end"); err != nil || string(body) != want {
					t.Errorf("%s %s: %d %q, %v, want %q", name, path, res.StatusCode, body, err, want)
				}
			})
		}
	}
	asking.Wait()
}
