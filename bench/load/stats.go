//go:build linux

package main

import (
	"math"
	"sync/atomic"
	"time"
)

// stats counts what arrives, by all loops at once.
type stats struct {
	pushes, pings atomic.Int64
	bytes         atomic.Int64 // of messages, as they came
	latency       histogram
}

func (s *stats) arrived(pushes int64, late time.Duration) {
	s.pushes.Add(pushes)
	if late > 0 {
		s.latency.add(late, pushes)
	}
}

// histogram counts durations in steps of about 3 %.
type histogram struct {
	counts [1024]atomic.Int64
	max    atomic.Int64
}

const perDoubling = 24

func (h *histogram) add(d time.Duration, n int64) {
	i := int(math.Log2(float64(max(d, time.Microsecond))/float64(time.Microsecond)) * perDoubling)
	h.counts[min(i, len(h.counts)-1)].Add(n)
	for {
		old := h.max.Load()
		if int64(d) <= old || h.max.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// quantile returns the upper end of the step in which q lies.
func (h *histogram) quantile(q float64) time.Duration {
	var total int64
	for i := range h.counts {
		total += h.counts[i].Load()
	}
	want := int64(math.Ceil(q * float64(total)))
	for i := range h.counts {
		if want -= h.counts[i].Load(); want <= 0 {
			return time.Duration(math.Exp2(float64(i+1)/perDoubling) * float64(time.Microsecond))
		}
	}
	return time.Duration(h.max.Load())
}
