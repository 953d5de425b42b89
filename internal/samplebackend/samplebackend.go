// Package samplebackend is a small business backend, the kind that stands
// behind minigate. `minigate dev` runs it; read it to see what your own
// backend, in whatever language, can count on.
//
// minigate has checked the login before a request arrives here, so there is
// no token to verify: who is asking stands in the X-WX-* headers. They can be
// believed because minigate removes any that a client sends. Let nobody but
// minigate reach your backend, or they can be forged; or verify
// X-Minigate-Identity, which cannot (docs/proxy.md).
package samplebackend

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// New returns the backend.
func New() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/api/whoami", whoami)
	mux.HandleFunc("/api/echo", echo)
	mux.HandleFunc("GET /api/slow", slow)
	return mux
}

// whoami answers who is asking.
func whoami(w http.ResponseWriter, r *http.Request) {
	answer(w, map[string]string{
		"openid":     r.Header.Get("X-WX-OPENID"),
		"unionid":    r.Header.Get("X-WX-UNIONID"), // "" where WeChat gave none
		"appid":      r.Header.Get("X-WX-APPID"),
		"method":     r.Method,
		"path":       r.URL.Path,
		"request_id": r.Header.Get("X-Request-Id"), // the one in minigate's log
	})
}

const maxEcho = 1 << 20 // bytes

// echo answers with what it was sent.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEcho))
	if err != nil {
		http.Error(w, "the body is too large or ended early", http.StatusBadRequest)
		return
	}
	answer(w, map[string]any{
		"method": r.Method,
		"query":  r.URL.Query(),
		"body":   string(body),
	})
}

const (
	slowChunks = 5
	slowPause  = 300 * time.Millisecond
)

// slow streams its answer, a line at a time; minigate passes each on at once.
func slow(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := http.NewResponseController(w)
	for i := 1; i <= slowChunks; i++ {
		if _, err := fmt.Fprintf(w, "chunk %d of %d\n", i, slowChunks); err != nil {
			return // the client is gone
		}
		if err := out.Flush(); err != nil || i == slowChunks {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(slowPause):
		}
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Info("the sample backend could not answer", "error", err)
	}
}
