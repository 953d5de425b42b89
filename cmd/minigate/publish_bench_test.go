//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"
)

// benchBody is a publish as a backend sends one.
var benchBody = `{"channel":"room:a","data":{"p":"` + strings.Repeat("order-7 ", 12) + `","t":1790000000000000000}}`

// benchPublish is the request that carries it.
func benchPublish(ctx context.Context, b *testing.B) *http.Request {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:9000/api/publish", strings.NewReader(benchBody))
	if err != nil {
		b.Fatal(err)
	}
	r.Header = http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {"Go-http-client/1.1"}, "Accept-Encoding": {"gzip"}, "X-Api-Key": {testAPIKey},
	}
	r.RequestURI, r.RemoteAddr = "/api/publish", "127.0.0.1:54321"
	return r
}

// BenchmarkPublish is one publish by HTTP into a channel that keeps history and
// that nobody hears, through everything the ops listener does:
//
//	handler  without net/http
//	served   by net/http over a socket
//	bare     the same, by a handler that only reads the body and answers
//
// served less bare is what a publish costs of ours.
func BenchmarkPublish(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent(0, 0, busyPercent))) // as the program does
	b.Run("handler", func(b *testing.B) {
		h, body, r := benchOps(b).Handler, strings.NewReader(""), benchPublish(b.Context(), b)
		r.Body = io.NopCloser(body)
		b.ReportAllocs()
		for b.Loop() {
			ctx, cancel := context.WithCancel(b.Context()) // as net/http does
			body.Reset(benchBody)
			w := &benchWriter{header: http.Header{}}
			h.ServeHTTP(w, r.WithContext(ctx))
			cancel()
			if w.status != http.StatusOK {
				b.Fatal(w.status)
			}
		}
	})
	b.Run("served", func(b *testing.B) { benchServed(b, benchOps(b)) })
	b.Run("bare", func(b *testing.B) {
		benchServed(b, newHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"result":{"offset":1000,"epoch":"AbCdEfGh"}}`)
		})))
	})
}

// benchOps is the ops listener of a node that runs.
func benchOps(b *testing.B) *http.Server {
	config := baseConfig(b, "http://127.0.0.1:1") + "channel:\n  namespaces:\n    - {name: room, history_size: 100, history_ttl: 300s}\n"
	cfg, err := loadConfig(writeConfig(b, config), nil)
	if err != nil {
		b.Fatal(err)
	}
	s, err := build(cfg, mode{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.hub.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			b.Error(err)
		}
		s.stores.close()
	})
	return s.ops
}

type benchWriter struct {
	header http.Header
	status int
}

func (w *benchWriter) Header() http.Header         { return w.header }
func (w *benchWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *benchWriter) WriteHeader(status int)      { w.status = status }

// benchServed sends publishes one after the other over one connection.
func benchServed(b *testing.B, s *http.Server) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	b.Cleanup(func() { _ = s.Close() })
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	var request bytes.Buffer
	if err := benchPublish(b.Context(), b).Write(&request); err != nil {
		b.Fatal(err)
	}
	answers, began := bufio.NewReader(conn), benchCPU()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(request.Bytes()); err != nil {
			b.Fatal(err)
		}
		benchAnswer(b, answers)
	}
	b.ReportMetric(float64(benchCPU()-began)/float64(b.N)/1e3, "cpu-µs/op")
}

// benchAnswer reads an answer without the cost of net/http's client.
func benchAnswer(b *testing.B, answers *bufio.Reader) {
	length := 0
	for i := 0; ; i++ {
		line, err := answers.ReadSlice('\n')
		if err != nil || i == 0 && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			b.Fatalf("%q: %v", line, err)
		}
		if n, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			for _, c := range bytes.TrimSpace(n) {
				length = length*10 + int(c-'0')
			}
		}
		if len(line) == 2 {
			break
		}
	}
	if _, err := answers.Discard(length); err != nil {
		b.Fatal(err)
	}
}

// benchCPU is what this process has used, with the client.
func benchCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
