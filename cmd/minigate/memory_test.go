package main

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"
)

func TestHeapFloor(t *testing.T) {
	for _, c := range []struct {
		live, scanned uint64
		least, want   int
	}{
		{0, 0, leanPercent, 700}, // of 4 MiB: 32 MiB
		{4 << 20, 0, leanPercent, 700},
		{8 << 20, 0, leanPercent, 300},
		{8 << 20, 4 << 20, leanPercent, 200},
		{8 << 20, 80 << 20, leanPercent, leanPercent},
		{heapFloor / 2, 0, leanPercent, 100},
		{heapFloor / 4 * 3, 0, leanPercent, leanPercent},
		{heapFloor / 4 * 3, 0, busyPercent, busyPercent},
		{heapFloor, 0, leanPercent, leanPercent},
		{heapFloor << 9, 1 << 20, leanPercent, leanPercent},
		{heapFloor << 9, 1 << 20, busyPercent, busyPercent},
	} {
		if got := gcPercent(c.live, c.scanned, c.least); got != c.want {
			t.Errorf("%d bytes live, %d scanned, at least %d%%: %d%%, want %d%%", c.live, c.scanned, c.least, got, c.want)
		}
	}
}

// Where memory is taken fast collections are rarer, unless sockets came that took
// it.
func TestBusyPercent(t *testing.T) {
	last := cycle{at: time.Minute, allocated: 1 << 30, upgraded: 100}
	for _, c := range []struct {
		after     time.Duration
		allocated uint64
		upgraded  uint64
		want      int
	}{
		{time.Second, busyRate, 0, busyPercent},
		{time.Second, busyRate - 1, 0, leanPercent},
		{2 * time.Second, busyRate, 0, leanPercent},
		{2 * time.Minute, 0, 0, leanPercent},
		{time.Second, 2000 * 20 << 10, 2000, leanPercent}, // a burst
		{time.Second, 500 * busyHandshake, 500, leanPercent},
		{time.Second, 500*busyHandshake + 1, 500, busyPercent},
	} {
		now := cycle{at: last.at + c.after, allocated: last.allocated + c.allocated, upgraded: last.upgraded + c.upgraded}
		if got := now.percent(last); got != c.want {
			t.Errorf("%v, %d bytes, %d sockets: %d%%, want %d%%", c.after, c.allocated, c.upgraded, got, c.want)
		}
	}
}

// Two collections in a row say nothing: what was decided before holds, and what
// comes between them counts the next time.
func TestPaceIsKept(t *testing.T) {
	p := pace{least: leanPercent}
	for i, c := range []struct {
		at        time.Duration
		allocated uint64
		want      int
	}{
		{busyLook / 2, 100 << 20, leanPercent},
		{busyLook, 100 << 20, busyPercent},
		{busyLook + busyLook/2, 100 << 20, busyPercent},
		{2 * busyLook, 100 << 20, leanPercent},
	} {
		if got := p.look(cycle{at: c.at, allocated: c.allocated}); got != c.want {
			t.Errorf("look %d: %d%%, want %d%%", i, got, c.want)
		}
	}
}

// Of a server's connections those count that become sockets, and no others.
func TestUpgradesAreCounted(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/socket" {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.Close()
		}
	})
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = newHTTPServer(h).ConnState
	s.Start()
	defer s.Close()
	before := upgraded.Load()
	if res, err := s.Client().Get(s.URL + "/plain"); err != nil {
		t.Error(err)
	} else {
		_ = res.Body.Close()
		s.Client().CloseIdleConnections() // a request that fails on one that was used before is sent again
	}
	if n := upgraded.Load() - before; n != 0 {
		t.Errorf("%d sockets, and none came", n)
	}
	if _, err := s.Client().Get(s.URL + "/socket"); err == nil {
		t.Error("an answer without one")
	}
	if n := upgraded.Load() - before; n != 1 {
		t.Errorf("%d sockets of one that came", n)
	}
}

func TestAfterEachCollection(t *testing.T) {
	ran := make(chan struct{}, 1)
	afterEachCollection(func() { // as long as the process lives: it must not wait
		select {
		case ran <- struct{}{}:
		default:
		}
	})
	for range 3 {
		runtime.GC()
		<-ran
	}
}
