package rest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

func trusting(t *testing.T, list ...string) Edge {
	t.Helper()
	p, err := ParseProxies(list)
	if err != nil {
		t.Fatal(err)
	}
	return Edge{TrustedProxies: p}
}

func TestParseProxies(t *testing.T) {
	got, err := ParseProxies([]string{"127.0.0.1", "10.1.2.3/8", "::1", "::ffff:1.2.3.4", "fd00::/8"})
	want := []string{"127.0.0.1/32", "10.0.0.0/8", "::1/128", "1.2.3.4/32", "fd00::/8"}
	for i, w := range want {
		if err != nil || got[i] != netip.MustParsePrefix(w) {
			t.Errorf("%v, %v, want %s", got, err, w)
		}
	}
	for _, bad := range []string{"", "10.0.0.0/33", "example.com", "::ffff:10.0.0.0/104"} {
		if _, err := ParseProxies([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestClientIP(t *testing.T) {
	tests := []struct {
		name, peer string
		forwarded  []string
		realIP     string
		want       string
	}{
		{name: "no proxy", peer: "8.8.8.8:1", want: "8.8.8.8"},
		{name: "stranger's headers", peer: "8.8.8.8:1", forwarded: []string{"1.1.1.1"}, realIP: "1.1.1.1", want: "8.8.8.8"},
		{name: "stranger's real ip", peer: "8.8.8.8:1", realIP: "1.1.1.1", want: "8.8.8.8"},
		{name: "one hop", peer: "10.0.0.1:1", forwarded: []string{"1.1.1.1"}, want: "1.1.1.1"},
		{name: "forged on the left", peer: "10.0.0.1:1", forwarded: []string{"6.6.6.6, 1.1.1.1"}, want: "1.1.1.1"},
		{name: "several proxies and headers", peer: "10.0.0.1:1", forwarded: []string{"6.6.6.6, 1.1.1.1", "10.0.0.2,10.0.0.3"}, want: "1.1.1.1"},
		{name: "all trusted", peer: "10.0.0.1:1", forwarded: []string{"10.0.0.9, 10.0.0.2"}, want: "10.0.0.9"},
		{name: "nonsense", peer: "10.0.0.1:1", forwarded: []string{"1.1.1.1, unknown, 10.0.0.2"}, want: "10.0.0.2"},
		{name: "empty", peer: "10.0.0.1:1", forwarded: []string{""}, realIP: "1.1.1.1", want: "10.0.0.1"},
		{name: "with ports", peer: "[::ffff:10.0.0.1]:1", forwarded: []string{"[2001:db8::1]:443, 10.0.0.2:99"}, want: "2001:db8::1"},
		{name: "mapped", peer: "10.0.0.1:1", forwarded: []string{"::ffff:1.1.1.1"}, want: "1.1.1.1"},
		{name: "real ip", peer: "10.0.0.1:1", realIP: "1.1.1.1", want: "1.1.1.1"},
		{name: "forwarded before real ip", peer: "10.0.0.1:1", forwarded: []string{"2.2.2.2"}, realIP: "1.1.1.1", want: "2.2.2.2"},
		{name: "unix socket", peer: "@", forwarded: []string{"1.1.1.1"}, want: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.peer
			r.Header["X-Forwarded-For"] = tt.forwarded
			r.Header.Set("X-Real-IP", tt.realIP)
			var got string
			h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = ClientIP(r.Context()) })
			trusting(t, "10.0.0.0/8").Wrap(h).ServeHTTP(httptest.NewRecorder(), r)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzForwardedFor(f *testing.F) {
	f.Add("1.1.1.1, 10.0.0.1")
	f.Add("[::1]:80,,unknown")
	e := Edge{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = "10.0.0.1:1"
		r.Header.Set("X-Forwarded-For", header)
		if _, err := netip.ParseAddr(e.clientIP(r, peer(r), e.trusts(peer(r)))); err != nil {
			t.Errorf("%q: %v", header, err)
		}
		if got := e.clientIP(r, peer(r), e.trusts(peer(r))); got != "10.0.0.1" && !strings.Contains(header, ".") && !strings.Contains(header, ":") {
			t.Errorf("%q: %s", header, got)
		}
	})
}

// Nobody sees the same id twice, and a proxy of ours would take it over.
func TestNewRequestIDs(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		id := newRequestID()
		if seen[id] || !validRequestID(id) || len(id) != 20 {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
}

func TestRequestID(t *testing.T) {
	for _, tt := range []struct {
		name, peer, given string
		kept              bool
	}{
		{"trusted", "10.0.0.1:1", "abc-DEF_1.2", true},
		{"stranger", "8.8.8.8:1", "abc", false},
		{"none", "10.0.0.1:1", "", false},
		{"bad byte", "10.0.0.1:1", "a b", false},
		{"longest", "10.0.0.1:1", strings.Repeat("a", 64), true},
		{"too long", "10.0.0.1:1", strings.Repeat("a", 65), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			type key struct{}
			r := httptest.NewRequestWithContext(context.WithValue(t.Context(), key{}, "outer"), "GET", "/", nil)
			r.RemoteAddr = tt.peer
			r.Header.Set("X-Request-Id", tt.given)
			w := httptest.NewRecorder()
			var inside string
			trusting(t, "10.0.0.0/8").Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				inside = RequestID(r.Context())
				if r.Context().Value(key{}) != "outer" {
					t.Error("what the context had before is lost")
				}
				w.Header().Add("X-Request-Id", "from the backend")
				_, _ = w.Write(nil)
			})).ServeHTTP(w, r)
			got := w.Header().Values("X-Request-Id")
			if len(got) != 1 || got[0] != inside || len(inside) < 20 && !tt.kept || (inside == tt.given) != tt.kept {
				t.Errorf("answered %q, inside %q", got, inside)
			}
		})
	}
}

// serve starts h behind e and returns its address. Logs go to the buffer,
// which may be read once done is called: all handlers have returned then.
func serve(t *testing.T, e Edge, h http.HandlerFunc) (addr string, logged func() string) {
	t.Helper()
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(old) })
	ended := make(chan struct{}, 100)
	wrapped := e.Wrap(h)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		wrapped.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), func() string { <-ended; return log.String() }
}

func get(t *testing.T, url string) (*http.Response, string, error) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func TestPanicBeforeTheAnswer(t *testing.T) {
	addr, logged := serve(t, Edge{AccessLog: true}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Length", "5")
		panic("oops")
	})
	resp, body, err := get(t, "http://"+addr+"/p?ticket=hush")
	if err != nil || resp.StatusCode != 500 || resp.Header.Get("Content-Encoding") != "" {
		t.Fatalf("%v %v", resp, err)
	}
	var e errorBody
	if json.Unmarshal([]byte(body), &e) != nil || e.Error.Code != "internal" || e.Error.RequestID != resp.Header.Get("X-Request-Id") || strings.Contains(body, "oops") {
		t.Errorf("body %s", body)
	}
	log := logged()
	if !strings.Contains(log, "panic: oops") || !strings.Contains(log, "edge_test.go") || !strings.Contains(log, `"status":500`) || strings.Contains(log, "hush") {
		t.Errorf("log %s", log)
	}
}

func TestPanicWithinTheAnswer(t *testing.T) {
	for name, v := range map[string]any{"panic": "oops", "abort": http.ErrAbortHandler} {
		t.Run(name, func(t *testing.T) {
			addr, logged := serve(t, Edge{}, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "half an ans")
				w.(http.Flusher).Flush()
				panic(v)
			})
			if _, body, err := get(t, "http://"+addr); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the client takes %q for the whole answer: %v", body, err)
			}
			if log := logged(); strings.Contains(log, "panic: oops") != (v == "oops") {
				t.Errorf("log %s", log)
			}
		})
	}
}

func TestAbortBeforeTheAnswer(t *testing.T) {
	addr, logged := serve(t, Edge{}, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if resp, _, err := get(t, "http://"+addr); err == nil {
		t.Errorf("answered %v", resp)
	}
	if log := logged(); log != "" {
		t.Errorf("log %s", log)
	}
}

func TestAccessLog(t *testing.T) {
	tests := map[string]struct {
		handler http.HandlerFunc
		status  int
		bytes   int
	}{
		"written": {func(w http.ResponseWriter, r *http.Request) {
			r.Method, r.URL.Path = "PUT", "/rewritten"
			w.WriteHeader(103)
			w.WriteHeader(201)
			_, _ = io.WriteString(w, "12345")
		}, 201, 5},
		"copied":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, strings.NewReader("123")) }, 200, 3},
		"nothing": {func(http.ResponseWriter, *http.Request) {}, 200, 0},
		"error":   {Handler(func(http.ResponseWriter, *http.Request) error { return fault.New(fault.Invalid, "path_invalid", "") }).ServeHTTP, 400, -1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			addr, logged := serve(t, Edge{AccessLog: true}, tt.handler)
			resp, body, err := get(t, "http://"+addr+"/a%20b?token=hush")
			if err != nil {
				t.Fatal(err)
			}
			if tt.bytes < 0 {
				tt.bytes = len(body)
			}
			var line struct {
				Msg, Level, Method, Path, Client string
				Status, Bytes                    int
				Duration                         int64
				RequestID                        string `json:"request_id"`
			}
			log := logged()
			if err := json.Unmarshal([]byte(log), &line); err != nil || strings.Contains(log, "hush") {
				t.Fatalf("%v: %s", err, log)
			}
			if line.Msg != "request" || line.Method != "GET" || line.Path != "/a b" || line.Client != "127.0.0.1" ||
				line.Status != tt.status || line.Bytes != tt.bytes || line.Duration <= 0 || line.RequestID != resp.Header.Get("X-Request-Id") {
				t.Errorf("%s", log)
			}
		})
	}
}

// The optional methods of net/http's own ResponseWriter must all be reached.
func TestRecorderKeepsAbilities(t *testing.T) {
	addr, _ := serve(t, Edge{}, func(w http.ResponseWriter, _ *http.Request) {
		rc := http.NewResponseController(w)
		for name, err := range map[string]error{
			"Flush": rc.Flush(), "SetReadDeadline": rc.SetReadDeadline(time.Time{}),
			"SetWriteDeadline": rc.SetWriteDeadline(time.Time{}), "EnableFullDuplex": rc.EnableFullDuplex(),
		} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, ok := w.(io.ReaderFrom); !ok {
			t.Error("no ReadFrom")
		}
	})
	if _, _, err := get(t, "http://"+addr); err != nil {
		t.Fatal(err)
	}
}

func TestRecorderReadFromReachesTheConnection(t *testing.T) {
	inner := &readerFrom{ResponseWriter: httptest.NewRecorder()}
	rec := &recorder{ResponseWriter: inner}
	n, err := rec.ReadFrom(io.LimitReader(strings.NewReader("abcdef"), 4))
	if n != 4 || err != nil || !inner.called || rec.bytes != 4 || rec.status != 200 {
		t.Errorf("%d, %v, %+v", n, err, rec)
	}
}

type readerFrom struct {
	http.ResponseWriter
	called bool
}

func (w *readerFrom) ReadFrom(src io.Reader) (int64, error) {
	w.called = true
	return io.Copy(w.ResponseWriter, src)
}

func TestHijack(t *testing.T) {
	addr, logged := serve(t, Edge{AccessLog: true}, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\nhello")
		_ = conn.Close()
	})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	br := bufio.NewReader(conn)
	if text, err := io.ReadAll(br); err != nil || !strings.HasSuffix(string(text), "\r\n\r\nhello") {
		t.Errorf("%q, %v", text, err)
	}
	if log := logged(); !strings.Contains(log, `"status":101`) {
		t.Errorf("log %s", log)
	}
}
