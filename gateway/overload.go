package gateway

import (
	"log/slog"
	"runtime/metrics"
	"slices"
	"sync/atomic"
	"time"
)

// Overload is told by how long work waits, not by how busy processors are: a
// node that is busy and keeps up has room, one that is throttled has none while
// it looks idle. Three waits are measured: of goroutines for a processor, the
// middle one of all that waited in the last second; of the clock, which is late
// where the process as a whole does not get to run; and of channels for fan-out.
// The clock alone would not do: the scheduler lets what a timer wakes go first.
// A burst makes waits long for a moment. So it counts how short they were at
// best, over a while: only a queue that stands is overload. That is what CoDel
// does for packets (RFC 8289), and the queueing time is what WeChat's own
// services shed by ("Overload Control for Scaling WeChat Microservices", SoCC
// 2018).

const (
	// overloadWindow is for how long waits must not have been short once.
	overloadWindow = time.Second
	// overloadNotice is how often the log says at most that it has begun.
	overloadNotice = time.Minute
)

// overload decides whether new connections are refused. The clock measures,
// handshakes ask.
type overload struct {
	limit   time.Duration // of waits, 0: none; read only
	metrics *Metrics

	fine    time.Duration // when waits were last within limit; of the clock
	noticed time.Duration // when the log was told; of the clock
	news    progress      // of fan-out; of the clock
	runs    runWait       // of goroutines; of the clock

	slow   atomic.Bool
	memory atomic.Bool // see memory
}

// refuses tells why a new connection is refused; nil: it is not.
func (o *overload) refuses() *refusal {
	switch {
	case o.slow.Load():
		return refusedOverload
	case o.memory.Load():
		return refusedMemory
	}
	return nil
}

// measure is called with every tick: late is how late.
func (o *overload) measure(now, late time.Duration, in, out uint64) {
	fanOut, run := o.news.wait(now, in, out), o.runs.look(now)
	o.metrics.waitClock.Set(late.Seconds())
	o.metrics.waitFanOut.Set(fanOut.Seconds())
	o.metrics.waitProcessor.Set(run.Seconds())
	wait := max(late, fanOut, run)
	if o.limit == 0 || wait <= o.limit {
		o.fine = now
	}
	slow := now-o.fine >= overloadWindow
	if slow == o.slow.Load() {
		return
	}
	o.slow.Store(slow)
	o.metrics.overloaded.Set(0)
	if slow {
		o.metrics.overloaded.Set(1)
		o.metrics.overloads.Inc()
	}
	if slow && (o.noticed == 0 || now-o.noticed >= overloadNotice) {
		o.noticed = now
		slog.Warn("overloaded: new connections are refused until work waits less", "processor", run, "clock", late, "fan_out", fanOut, "limit", o.limit)
	}
}

// progress tells how long a queue makes things wait without looking at any of
// them: it notes how many had been put in, and looks when as many have come out.
type progress struct {
	mark uint64
	at   time.Duration
}

// wait is how long what was put in last at the mark has been waiting.
func (p *progress) wait(now time.Duration, in, out uint64) time.Duration {
	if out >= p.mark {
		p.mark, p.at = in, now
	}
	if out >= p.mark { // nothing waits
		return 0
	}
	return now - p.at
}

// runWait is how long goroutines wait for a processor.
type runWait struct {
	read   func() ([]uint64, []float64) // counts of waits, and the seconds between which each count lies; nil: not measured
	before []uint64
	at     time.Duration
	middle time.Duration
}

// fewWaits are too few to say anything.
const fewWaits = 100

// look returns the middle one of the waits of the last window.
func (r *runWait) look(now time.Duration) time.Duration {
	if r.read == nil || r.before != nil && now-r.at < overloadWindow {
		return r.middle
	}
	counts, bounds := r.read()
	if r.before == nil { // the first look
		r.before = slices.Clone(counts)
	}
	var all, sum uint64
	for i, n := range counts {
		all += n - r.before[i]
	}
	r.middle = 0
	for i, n := range counts {
		if sum += n - r.before[i]; all >= fewWaits && sum*2 >= all {
			r.middle = time.Duration(max(bounds[i], 0) * float64(time.Second))
			break
		}
	}
	r.at = now
	copy(r.before, counts)
	return r.middle
}

// schedulerWaits reads what the Go runtime counts, one wait in eight.
func schedulerWaits() func() ([]uint64, []float64) {
	sample := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	return func() ([]uint64, []float64) {
		metrics.Read(sample)
		h := sample[0].Value.Float64Histogram()
		return h.Counts, h.Buckets
	}
}

// Overloaded tells whether new connections are refused, because work waits too
// long or memory runs out.
func (h *Hub) Overloaded() bool { return h.overload.refuses() != nil }
