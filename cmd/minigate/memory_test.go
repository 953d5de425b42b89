package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestHeapFloor(t *testing.T) {
	for _, c := range []struct {
		live, scanned uint64
		want          int
	}{
		{0, 0, 700}, // of 4 MiB: 32 MiB
		{4 << 20, 0, 700},
		{8 << 20, 0, 300},
		{8 << 20, 4 << 20, 200},
		{8 << 20, 80 << 20, leanPercent},
		{heapFloor / 2, 0, 100},
		{heapFloor / 4 * 3, 0, leanPercent},
		{heapFloor, 0, leanPercent},
		{heapFloor << 9, 1 << 20, leanPercent},
	} {
		if got := gcPercent(c.live, c.scanned, leanPercent); got != c.want {
			t.Errorf("%d bytes live, %d scanned: %d%%, want %d%%", c.live, c.scanned, got, c.want)
		}
		if got := gcPercent(c.live, c.scanned, busyPercent); got != max(c.want, busyPercent) {
			t.Errorf("%d bytes live, %d scanned, busy: %d%%", c.live, c.scanned, got)
		}
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

// While garbage comes fast it is collected half as often.
func TestPaceFollowsGarbage(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	held := make([]byte, heapFloor) // so that the heap is larger than that
	const wasted = 4 * busyRate
	waste := func() {
		for range 4 {
			sink = make([]byte, wasted/4)
		}
		sink = nil
		runtime.GC()
	}
	var p pace
	now := time.Now()
	p.follow(now)
	for _, step := range []struct {
		after time.Duration
		want  int
	}{
		{3 * time.Second, busyPercent},
		{5 * time.Second, leanPercent},
		{time.Second, busyPercent},
	} {
		waste()
		now = now.Add(step.after)
		if p.follow(now); p.set != step.want {
			t.Errorf("garbage after %v: %d%%, want %d%%", step.after, p.set, step.want)
		}
	}
	waste()
	p.rest(now)
	p.follow(now) // one that comes late
	if p.set != leanPercent {
		t.Errorf("at rest %d%%", p.set)
	}
	runtime.KeepAlive(held)
}

// A large heap is collected as often as ever.
func TestPaceOfLargeHeap(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	held := make([]byte, busyHeap) // untouched: it takes no memory
	runtime.GC()
	var p pace
	p.follow(time.Now())
	sink = make([]byte, 2*busyRate)
	sink = nil
	if p.follow(time.Now()); p.set != leanPercent {
		t.Errorf("%d%%", p.set)
	}
	runtime.KeepAlive(held)
}

var sink []byte // keeps the compiler from finding out that it is garbage

// Whoever sets GOGC decides.
func TestPaceLeavesGOGCAlone(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(77))
	new(pace).rest(time.Now())
	if got := debug.SetGCPercent(77); got != 77 {
		t.Errorf("set to %d%%", got)
	}
}
