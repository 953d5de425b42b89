//go:build linux

package main

import (
	"math"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// stats counts what arrives, by all loops at once.
type stats struct {
	pushes, bytes, pings atomic.Int64
	latency              histogram
}

func (s *stats) arrived(pushes, bytes int64, late time.Duration) {
	s.pushes.Add(pushes)
	s.bytes.Add(bytes)
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

// usage is what a process has used.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// usageOf reads /proc (proc(5)); pid 0 is nobody and uses nothing.
func usageOf(pid int) (u usage) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return u
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	pages, _ := strconv.ParseInt(fields[21], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	return usage{time.Duration(user+system) * tick, pages * int64(os.Getpagesize())}
}
