package gateway

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/prometheus/client_golang/prometheus"
)

// pace limits the commands of a connection: a token bucket kept as the moment
// at which it is full again, so that it needs no timer. Only the goroutine
// that reads uses it.
type pace struct {
	full    time.Duration // on the hub's clock
	refused int           // since the bucket was full
}

// take tells whether one more command may be, at rate per second and burst at
// once.
func (p *pace) take(now time.Duration, rate, burst int) bool {
	if rate <= 0 {
		return true
	}
	if p.full <= now {
		p.full, p.refused = now, 0
	}
	cost := time.Second / time.Duration(rate)
	if p.full+cost-now > cost*time.Duration(burst) {
		p.refused++
		return false
	}
	p.full += cost
	return true
}

// tooFast handles a command that is over the limit, and reports whether the
// next may follow. A client that goes on, until as many were refused as it may
// send at once, is closed: what is refused costs time too.
func (c *client) tooFast(cmd *protocol.Command, kind command) bool {
	switch {
	case c.pace.refused > c.hub.settings.Client.CommandRateBurst:
		c.disconnect(DisconnectTooManyRequests)
		return false
	case kind == cmdPong:
		return true
	case cmd.Id == 0: // nobody waits for an answer
		c.hub.metrics.dropped.WithLabelValues(droppedRate).Inc()
		return true
	}
	return c.answer(cmd.Id, ErrTooManyRequests)
}

// budget counts the bytes that commands and replies hold on this node.
type budget struct {
	limit int64 // 0: none
	used  atomic.Int64
	over  chan struct{} // holds one while somebody should shed

	lost prometheus.Counter // messages that went with their connections; nil: nobody counts
}

func newBudget(limit int64) *budget { return &budget{limit: limit, over: make(chan struct{}, 1)} }

// unsent notes that n messages are not written any more.
func (b *budget) unsent(n int) {
	if n > 0 && b.lost != nil {
		b.lost.Add(float64(n))
	}
}

// add takes n bytes, or gives them back where n is negative. It never waits.
func (b *budget) add(n int) {
	used := b.used.Add(int64(n))
	if n > 0 && b.limit > 0 && used > b.limit {
		select {
		case b.over <- struct{}{}:
		default:
		}
	}
}

// excess is how many bytes have to go: a little more than the limit asks, so
// that the next message does not bring it all about again.
func (b *budget) excess() int64 { return b.used.Load() - b.limit + b.limit/8 }

// holder is a client for which bytes wait.
type holder struct {
	c     *client
	held  int64
	since time.Duration // nothing has moved
	sloth float64
}

// holders lists the clients for which bytes wait, the laziest first, and how
// many bytes are on their way out already. Whoever leaves no room in its socket
// holds kept bytes more.
func (h *Hub) holders(now time.Duration, kept int64) (list []holder, going int64) {
	for _, c := range h.clients.list() {
		w := c.out.waiting()
		held := w.bytes
		if w.parked {
			held += kept
		}
		switch {
		case w.ending:
			going += held
		case held > 0:
			list = append(list, holder{c, held, w.since, float64(held) * float64(now-w.since+time.Millisecond)})
		}
	}
	slices.SortFunc(list, func(a, b holder) int { return cmp.Compare(b.sloth, a.sloth) })
	return list, going
}

// shedLaziest closes those that hold the most bytes for the longest time,
// until what is left is within the budget.
func (h *Hub) shedLaziest() {
	if h.budget.used.Load() <= h.budget.limit {
		return
	}
	excess := h.budget.excess()
	holders, going := h.holders(h.now(), 0)
	excess -= going
	for _, l := range holders {
		if excess <= 0 {
			return
		}
		excess -= l.held
		l.c.tooSlow(slowNode)
	}
}

// tooSlow closes a client for which too much waits, and counts why.
func (c *client) tooSlow(reason string) {
	if c.disconnectFor(DisconnectSlow, reason) {
		c.hub.metrics.slow.WithLabelValues(reason).Inc()
	}
}

// waiting is what a client has not taken.
type waiting struct {
	bytes  int64         // that are for it alone, those in the frame being written among them
	since  time.Duration // nothing has moved
	parked bool          // its socket has no room
	ending bool          // the end of the connection is on its way
}

func (o *outbox) waiting() waiting {
	o.mu.Lock()
	defer o.mu.Unlock()
	return waiting{int64(o.pending().size) + int64(o.writingSize), o.moved, o.stand == parked, o.bye != nil || o.closed}
}

// grow notes that n bytes more wait for the client, or -n fewer; outbox.mu is held.
func (c *client) grow(n int, now time.Duration) {
	o := &c.out
	d := o.open()
	if d.size == 0 && o.writingSize == 0 {
		o.moved = now
	}
	d.size += n
	c.hub.budget.add(n)
}

// drop forgets what waits; outbox.mu is held, and who waits for room was told:
// nobody could tell him after.
func (c *client) drop() {
	o := &c.out
	d := o.due
	if d == nil {
		return
	}
	c.hub.budget.unsent(len(d.replies))
	c.hub.budget.add(-d.size)
	d.replies, d.size = nil, 0
	o.settle()
}

// hold notes how many bytes of its own the frame has that is written now; 0
// says that it was.
func (c *client) hold(n int, now time.Duration) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	c.hub.budget.add(n - int(o.writingSize))
	o.writingSize, o.moved = int32(n), now
}
