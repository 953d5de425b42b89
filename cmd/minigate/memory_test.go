package main

import (
	"runtime"
	"testing"
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
		if got := gcPercent(c.live, c.scanned); got != c.want {
			t.Errorf("%d bytes live, %d scanned: %d%%, want %d%%", c.live, c.scanned, got, c.want)
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
