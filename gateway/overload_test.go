package gateway

import (
	"math"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Only waits that are long throughout a window are overload.
func TestStandingQueueIsOverload(t *testing.T) {
	const limit, long, short = 100 * time.Millisecond, 101 * time.Millisecond, 100 * time.Millisecond
	m := NewMetrics(prometheus.NewRegistry())
	o := overload{limit: limit, metrics: m}
	now := time.Duration(0)
	tick := func(late time.Duration, want bool) {
		t.Helper()
		now += wheelTick
		o.measure(now, late, 0, 0)
		if got := o.refuses() == refusedOverload; got != want || testutil.ToFloat64(m.overloaded) != map[bool]float64{true: 1}[want] {
			t.Fatalf("at %v, %v late: overloaded %v", now, late, got)
		}
	}
	tick(short, false)
	for range overloadWindow/wheelTick - 1 {
		tick(long, false)
	}
	tick(short, false) // it was a burst
	for range overloadWindow/wheelTick - 1 {
		tick(long, false)
	}
	tick(long, true)
	tick(time.Hour, true)
	tick(short, false)
	tick(long, false)
	if n := testutil.ToFloat64(m.overloads); n != 1 {
		t.Errorf("overloaded %v times", n)
	}
	never := overload{metrics: m}
	for now = 0; now < time.Minute; now += wheelTick {
		never.measure(now, time.Hour, 1, 0)
	}
	if never.refuses() != nil {
		t.Error("overloaded without a limit")
	}
}

// How long a queue makes things wait is known without looking at any of them.
func TestProgressOfAQueue(t *testing.T) {
	var p progress
	for i, step := range []struct {
		in, out uint64
		want    time.Duration
	}{
		{0, 0, 0},
		{5, 5, 0},
		{9, 6, 0}, // what is in now waits from now on
		{20, 8, 1},
		{30, 8, 2},
		{40, 9, 0}, // all nine are out; now for the forty
		{41, 39, 1},
		{41, 41, 0},
	} {
		if got := p.wait(time.Duration(i), step.in, step.out); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	q := newQueue[int]()
	q.push(1)
	q.push(2)
	q.pop()
	if in, out := q.progress(); in != 2 || out != 1 {
		t.Errorf("%d in, %d out", in, out)
	}
}

// The middle wait of a second counts, not the mean and not the past.
func TestWaitsForProcessors(t *testing.T) {
	counts := []uint64{0, 1000, 5, 0}
	bounds := []float64{math.Inf(-1), 0, 0.01, 0.3, math.Inf(1)}
	r := runWait{read: func() ([]uint64, []float64) { return counts, bounds }}
	now := time.Duration(0)
	after := func(d time.Duration, add [4]uint64, want time.Duration) {
		t.Helper()
		now += d
		for i, n := range add {
			counts[i] += n
		}
		if got := r.look(now); got != want {
			t.Errorf("%v: %v, want %v", now, got, want)
		}
	}
	const ms = time.Millisecond
	after(0, [4]uint64{}, 0) // the first look has nothing to compare with
	after(time.Second, [4]uint64{0, 50, 50, 1000}, 300*ms)
	after(time.Second-1, [4]uint64{0, 500, 0, 0}, 300*ms) // the window is not over
	after(1, [4]uint64{0, 0, 499, 0}, 0)
	after(time.Second, [4]uint64{0, 49, 51, 0}, 10*ms)
	after(time.Second, [4]uint64{0, 0, 0, fewWaits - 1}, 0)

	counts, bounds = schedulerWaits()()
	if len(bounds) != len(counts)+1 || len(counts) == 0 {
		t.Errorf("the runtime counts %d waits between %d bounds", len(counts), len(bounds))
	}
}

// Goroutines that wait too long for a processor are overload.
func TestProcessorsThatAreShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var long atomic.Bool
		counts := []uint64{0, 0}
		h := startPrepared(t, func(h *Hub) {
			h.overload.runs.read = func() ([]uint64, []float64) {
				if long.Load() {
					counts[1] += fewWaits
				} else {
					counts[0] += fewWaits
				}
				return counts, []float64{0, 0.3, 1}
			}
		}, func(s *Settings) { s.Client.OverloadDelay = 250 * time.Millisecond })
		for _, is := range []bool{false, true, false} {
			long.Store(is)
			time.Sleep(3 * overloadWindow)
			synctest.Wait()
			if h.Overloaded() != is {
				t.Errorf("overloaded: %v, want %v", !is, is)
			}
		}
	})
}

// A fan-out that does not come along is overload; the sockets that are there
// stay, and new ones are taken when it comes along again.
func TestFanOutThatLags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.OverloadDelay = 250 * time.Millisecond })
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":2,"subscribe":*`)
		h.news.mu.Lock() // an item that no worker is told of
		h.news.items, h.news.in = append(h.news.items, pass{ch: h.channels.get("feed:a")}), h.news.in+1
		h.news.mu.Unlock()
		time.Sleep(2*overloadWindow + time.Second)
		if !h.Overloaded() {
			t.Error("not overloaded")
		}
		_, resp, err := h.tryDial(dialOptions{})
		if err == nil || resp.StatusCode != 503 {
			t.Errorf("a new connection is let in: %v", err)
		}
		w.sync()
		h.news.news.Signal()
		time.Sleep(2 * wheelTick)
		if h.Overloaded() {
			t.Error("overloaded for ever")
		}
		h.login("bob")
		w.sync()
	})
}

// A clock that does not get to run in time is overload.
func TestClockThatLags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lag atomic.Int64
		h := startPrepared(t, func(h *Hub) { // whatever the clock does takes long
			h.memory.measures = []measure{{"process", 1 << 40, func() (int64, error) { time.Sleep(time.Duration(lag.Load())); return 0, nil }}}
		}, func(s *Settings) { s.Client.OverloadDelay = 250 * time.Millisecond })
		time.Sleep(10 * time.Second)
		if h.Overloaded() {
			t.Error("overloaded while the clock keeps time")
		}
		lag.Store(int64(memoryInterval + wheelTick + h.settings.Client.OverloadDelay))
		time.Sleep(10 * time.Second)
		if !h.Overloaded() {
			t.Error("not overloaded")
		}
		lag.Store(0)
		time.Sleep(10 * time.Second)
		if h.Overloaded() {
			t.Error("overloaded for ever")
		}
	})
}

// Too much memory keeps new connections out; if that and a collection do not
// help, the laziest readers go, a few at a time, and nobody else.
func TestMemoryLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used, collections atomic.Int64
		h := startPrepared(t, func(h *Hub) {
			h.memory.measures = []measure{{"process", 1000 << 20, func() (int64, error) { return used.Load(), nil }}}
			h.memory.collect = func() { collections.Add(1) }
		}, func(s *Settings) { s.Client.PingInterval, s.WebSocket.WriteTimeout = 0, 10*time.Second })
		good, _ := h.login("good")
		slow := func() float64 { return testutil.ToFloat64(h.metrics.slow.WithLabelValues(slowMemory)) }
		refused := func(want bool) {
			t.Helper()
			synctest.Wait()
			if got := h.overload.refuses() == refusedMemory; got != want {
				t.Fatalf("with %d MiB: new connections are refused %v", used.Load()>>20, got)
			}
		}
		used.Store(1000 << 20)
		time.Sleep(memoryInterval)
		refused(false)
		used.Add(1)
		time.Sleep(memoryInterval)
		refused(true)
		used.Store(960 << 20)
		time.Sleep(memoryInterval)
		refused(true) // within, but not by enough
		if collections.Load() != 1 || slow() != 0 {
			t.Errorf("%d collections, %v closed", collections.Load(), slow())
		}
		h.overload.memory.Store(false) // until it is measured again, so that they are let in
		for range 20 {
			h.dial(dialOptions{deaf: true}).send(`{"id":1,"connect":{"token":"lazy"}}`)
		}
		synctest.Wait()
		if _, err := h.Push(t.Context(), PushRequest{All: true, Data: []byte(`"` + strings.Repeat("x", 30<<10) + `"`)}); err != nil {
			t.Fatal(err)
		}
		good.want(`{"push":{"message":*`)
		time.Sleep(memoryPatience - 2*memoryInterval)
		if n := slow(); n != 0 {
			t.Errorf("%v closed before %v are over", n, memoryPatience)
		}
		used.Store(950<<20 + 1) // one byte has to go, and so one reader
		time.Sleep(memoryInterval)
		if n := slow(); n != 1 {
			t.Errorf("%v closed for a byte", n)
		}
		used.Store(1001 << 20) // more has to go than there is
		time.Sleep(memoryInterval)
		if n := slow(); n != 1+3 {
			t.Errorf("%v closed, want an eighth of 19 more", n)
		}
		time.Sleep(memoryInterval)
		if n := slow(); n != 1+3+2 || h.ends(3008, slowMemory) != n {
			t.Errorf("%v closed, want an eighth of 16 more", n)
		}
		good.sync()
		used.Store(949 << 20)
		time.Sleep(memoryInterval)
		refused(false)
		if n := testutil.ToFloat64(h.metrics.memoryUsed.WithLabelValues("process")); n != float64(used.Load()) {
			t.Errorf("%v in use, they say", n)
		}
		if n := collections.Load(); n != 1 {
			t.Errorf("collected %d times within %v", n, collectInterval)
		}
	})
}

// The Go runtime knows all the names, and what they sum up to is in proportion.
func TestAliveMemory(t *testing.T) {
	before, err := aliveMemory()
	if err != nil || before < 1<<20 || before > math.MaxInt32 {
		t.Fatalf("%d bytes, %v", before, err)
	}
}

// The limit of the process is the setting, else nine tenths of GOMEMLIMIT, else
// there is none.
func TestMemoryLimitOfProcess(t *testing.T) {
	old := debug.SetMemoryLimit(math.MaxInt64)
	defer debug.SetMemoryLimit(old)
	limit := func(setting int64) int64 {
		for _, m := range newMemory(setting, NewMetrics(prometheus.NewRegistry())).measures {
			if m.name == "process" {
				return m.limit
			}
		}
		return 0
	}
	if n := limit(0); n != 0 {
		t.Errorf("without any: %d", n)
	}
	debug.SetMemoryLimit(10 << 40)
	if n := limit(0); n != 9<<40 {
		t.Errorf("by GOMEMLIMIT: %d", n)
	}
	if n := limit(77); n != 77 {
		t.Errorf("by the setting: %d", n)
	}
}
