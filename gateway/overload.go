package gateway

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// Overload is told by how long work waits, not by how busy processors are: a
// node that is busy and keeps up has room, one that is throttled has none while
// it looks idle. Two waits are measured with every tick of the clock: how late
// the clock itself runs, which is what any goroutine waits for a processor, and
// how long a channel waits for fan-out. A burst makes both long for a moment.
// So it counts how short they were at best, over a while: only a queue that
// stands is overload. That is what CoDel does for packets (RFC 8289), and the
// queueing time is what WeChat's own services shed by ("Overload Control for
// Scaling WeChat Microservices", SoCC 2018).

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
	fanOut := o.news.wait(now, in, out)
	o.metrics.waitClock.Set(late.Seconds())
	o.metrics.waitFanOut.Set(fanOut.Seconds())
	wait := max(late, fanOut)
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
		slog.Warn("overloaded: new connections are refused until work waits less", "clock", late, "fan_out", fanOut, "limit", o.limit)
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

// Overloaded tells whether new connections are refused, because work waits too
// long or memory runs out.
func (h *Hub) Overloaded() bool { return h.overload.refuses() != nil }
