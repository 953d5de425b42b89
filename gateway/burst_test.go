package gateway

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestBurst(t *testing.T) {
	var b burst
	now, total := time.Duration(0), uint64(0)
	step := func(d time.Duration, came uint64) bool {
		now, total = now+d, total+came
		return b.look(now, total)
	}
	for i, s := range []struct {
		d    time.Duration
		came uint64
		want bool
	}{
		{burstLook, 0, false},
		{burstLook, burstSize - 1, false},
		{burstLook, 0, false}, // too few to matter
		{burstLook, burstSize, false},
		{burstLook - 1, 0, false},         // too soon to tell
		{1, burstRate, false},             // it goes on
		{burstLook, burstRate - 1, false}, // it may be a stall
		{burstLook, burstRate, false},     // it was one
		{burstLook, burstRate - 1, false},
		{burstLook, 0, true},
		{burstLook, 0, false}, // once
		{burstLook, burstSize, false},
		{burstLook, 0, false}, // too soon after the one before
		{burstLook, 0, false},
		{burstPause, 0, false},
		{burstLook, 0, true},
		{burstPause, 0, false},
		{burstLook, burstRate - 1, false}, // steady: never a burst
		{burstLook, burstRate - 1, false},
	} {
		if got := step(s.d, s.came); got != s.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

// The hub says when a burst of connections is over, and once.
func TestCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calm atomic.Int64
		h := startHub(t, nil, func(o *Options) { o.Calm = func() { calm.Add(1) } })
		for range burstSize {
			c := newClient(h.Hub, mute{})
			h.clients.add(c)
			defer h.clients.remove(c)
		}
		time.Sleep(burstLook)
		synctest.Wait()
		if calm.Load() != 0 {
			t.Error("calm in the middle of a burst")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := calm.Load(); n != 1 {
			t.Errorf("%d times calm", n)
		}
	})
}
