package gateway

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/epoll"
)

// outbox is what is due to one client: replies in their order, and which
// subscriptions have news. One at a time writes it to the socket, and only
// while it holds something: whoever has news and finds no writer becomes it.
type outbox struct {
	mu      sync.Mutex
	due     *due        // nil: nothing
	bye     *Disconnect // what ends the connection, once everything else is written
	writing bool        // there is a writer
	stand   stand       // of the writer
	closed  bool
	counted bool // the end of the connection is in the metrics

	writingSize int32         // bytes of the frame that is being written
	moved       time.Duration // when a frame was written last, or the first reply queued

	writer sync.WaitGroup
}

// stand is how a writer and its socket stand to each other.
type stand uint8

const (
	flowing stand = iota
	parked        // the writer is waiting for room in the socket, and nobody's
	roomy         // there was room before it was parked
)

// begin tells whether the caller becomes the writer, and calls kick without any
// lock; mu is held.
func (o *outbox) begin() bool {
	if o.writing || o.closed {
		return false
	}
	o.writing = true
	o.writer.Add(1)
	return true
}

// send queues an encoded message that the client did not ask for. Messages are
// written in the order of the calls. It never waits: a client that lets too
// many of them pile up is closed.
func (c *client) send(msg []byte) (queued bool) { return c.enqueue(msg, false) }

// reply queues the answer to a command. Pushes of the subscriptions that it
// announces flow from then on. It waits while too much is queued, so that
// whoever asks for more than its line carries is slowed down, not cut off:
// one that recovers several large histories would only come back and ask again.
// Only the goroutine that reads, and those of its rpc commands, may call it.
func (c *client) reply(msg []byte, announced ...*subscription) { c.enqueue(msg, true, announced...) }

func (c *client) enqueue(msg []byte, patient bool, announced ...*subscription) (queued bool) {
	limit := int(c.hub.settings.Client.QueueMaxSize)
	o := &c.out
	o.mu.Lock()
	for patient && o.full(limit) {
		o.awaitRoom() // what fills it is being written, or the writer fails in time
	}
	overflow := o.full(limit)
	if queued = o.bye == nil && !o.closed && !overflow; queued {
		c.grow(len(msg), c.hub.now())
		d := o.open()
		d.replies = append(d.replies, msg)
		for _, s := range announced {
			s.live, s.dirty = true, true
			d.dirty = append(d.dirty, s)
		}
	}
	start := o.begin()
	o.mu.Unlock()
	if start {
		c.kick()
	}
	if overflow {
		c.tooSlow(slowQueue)
	}
	return queued
}

// mark notes that a subscription has news.
func (c *client) mark(s *subscription) {
	o := &c.out
	o.mu.Lock()
	start := false
	if s.live && !s.dirty && o.bye == nil && !o.closed {
		s.dirty = true
		d := o.open()
		d.dirty = append(d.dirty, s)
		start = o.begin()
	}
	o.mu.Unlock()
	if start {
		c.kick()
	}
}

// silence ends the pushes of a subscription.
func (c *client) silence(s *subscription) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	s.live = false
	if s.dirty && o.due != nil {
		o.due.dirty = slices.DeleteFunc(o.due.dirty, func(d *subscription) bool { return d == s })
		o.settle()
	}
	s.dirty = false
}

// lose ends a subscription whose client must find out anew where it stands.
// SDKs forget a server-side subscription on any unsubscribe push, so for those
// the connection ends instead.
func (c *client) lose(s *subscription) {
	if s.serverSide {
		c.disconnect(DisconnectInsufficientState)
		return
	}
	ctx, cancel := c.hub.timeout()
	defer cancel()
	c.leaveFor(ctx, s, c.encodePush(&protocol.Push{Channel: s.name, Unsubscribe: &protocol.Unsubscribe{
		Code: unsubscribedInsufficient, Reason: "insufficient state",
	}}), leftInsufficient)
}

// disconnect ends the connection after what is due was written. Only the
// first reason counts, and the result says whether it was this one. It does
// not wait.
func (c *client) disconnect(d *Disconnect) bool { return c.disconnectFor(d, d.word()) }

// disconnectFor is disconnect with a reason of its own in the metrics.
func (c *client) disconnectFor(d *Disconnect, why string) bool {
	c.mu.Lock()
	c.state = ending
	c.mu.Unlock()
	o := &c.out
	o.mu.Lock()
	first := o.bye == nil && !o.closed
	start := false
	if first {
		o.bye = d
		o.madeRoom()
		if d == DisconnectSlow {
			c.drop()
		}
		start = o.begin()
	}
	o.mu.Unlock()
	if first {
		c.hub.metrics.ended(cause{d.Code, why})
		c.endAsking()
	}
	if start {
		c.kick()
	}
	return first
}

// fail ends a connection that cannot be written to any more. Where it was ended
// before, whoever reads knows better why.
func (c *client) fail(err error) {
	if counts := !errors.Is(err, epoll.ErrClosed); c.shut(counts) && counts {
		c.hub.metrics.ended(writeCause(err))
	}
	c.sock.abort()
	c.endAsking()
}

// shut ends all writing at once, and reports whether nothing that counts had
// ended the connection before.
func (c *client) shut(counts bool) bool {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	first := o.bye == nil && !o.counted
	o.closed, o.counted = true, o.counted || counts
	o.madeRoom()
	c.drop()
	if o.due != nil {
		o.due.dirty = nil
	}
	o.settle()
	if o.stand == parked {
		o.stand = flowing
		c.retire()
	}
	return first
}

// timeout bounds work that no request of a client waits for.
func (h *Hub) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), h.settings.Client.RequestTimeout)
}
