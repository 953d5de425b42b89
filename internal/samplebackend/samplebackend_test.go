package samplebackend

import (
	"bytes"
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhoami(t *testing.T) {
	r := httptest.NewRequest("PUT", "/api/whoami?x=y", nil)
	r.Header.Set("X-WX-OPENID", "o1")
	r.Header.Set("X-WX-UNIONID", "u1")
	r.Header.Set("X-WX-APPID", "wx1")
	r.Header.Set("X-Request-Id", "r1")
	w := httptest.NewRecorder()
	New().ServeHTTP(w, r)
	want := `{"appid":"wx1","method":"PUT","openid":"o1","path":"/api/whoami","request_id":"r1","unionid":"u1"}` + "\n"
	if w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestEcho(t *testing.T) {
	w := httptest.NewRecorder()
	New().ServeHTTP(w, httptest.NewRequest("POST", "/api/echo?a=1&a=2", strings.NewReader("你好")))
	if want := `{"body":"你好","method":"POST","query":{"a":["1","2"]}}` + "\n"; w.Code != 200 || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	New().ServeHTTP(w, httptest.NewRequest("POST", "/api/echo", bytes.NewReader(make([]byte, maxEcho+1))))
	if w.Code != 400 {
		t.Errorf("too large: %d", w.Code)
	}
}

func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		start := time.Now()
		New().ServeHTTP(w, httptest.NewRequest("GET", "/api/slow", nil))
		if got := w.Body.String(); strings.Count(got, "\n") != slowChunks || !strings.HasPrefix(got, "chunk 1 of 5\n") || !w.Flushed {
			t.Errorf("%q", got)
		}
		if took := time.Since(start); took != (slowChunks-1)*slowPause { // fake time
			t.Errorf("took %v", took)
		}
	})
}

func TestSlowEndsWithItsClient(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	New().ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/api/slow", nil))
	if got := strings.Count(w.Body.String(), "\n"); got != 1 {
		t.Errorf("%d chunks for nobody", got)
	}
}
