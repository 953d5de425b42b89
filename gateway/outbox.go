package gateway

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/centrifugal/protocol"
)

// outbox is what is due to one client: replies in their order, and which
// subscriptions have news. There is a writer goroutine only while it holds
// something.
type outbox struct {
	mu      sync.Mutex
	replies [][]byte
	size    int // bytes in replies
	dirty   []*subscription
	bye     *Disconnect // what ends the connection, once everything else is written
	writing bool
	closed  bool

	budget      *budget       // of the node; read only
	writingSize int64         // bytes of the frame that is being written
	moved       time.Duration // when a frame was written last, or the first reply queued

	room   sync.Cond // something was taken from replies, or nothing more will be
	writer sync.WaitGroup
	run    func() // client.write, made once: "go c.write()" allocates each time
}

// begin tells whether the caller has to start a writer; mu is held.
func (o *outbox) begin() bool {
	if o.writing || o.closed {
		return false
	}
	o.writing = true
	o.writer.Add(1)
	return true
}

// full tells whether limit bytes wait already; mu is held.
func (o *outbox) full(limit int) bool { return o.size >= limit && o.bye == nil && !o.closed }

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
		o.room.Wait() // what fills it is being written, or the writer fails in time
	}
	overflow := o.full(limit)
	if queued = o.bye == nil && !o.closed && !overflow; queued {
		o.replies = append(o.replies, msg)
		o.grow(len(msg), c.hub.now())
		for _, s := range announced {
			s.live, s.dirty = true, true
			o.dirty = append(o.dirty, s)
		}
	}
	start := o.begin()
	o.mu.Unlock()
	if start {
		go c.out.run()
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
		o.dirty = append(o.dirty, s)
		start = o.begin()
	}
	o.mu.Unlock()
	if start {
		go c.out.run()
	}
}

// silence ends the pushes of a subscription.
func (c *client) silence(s *subscription) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	s.live = false
	if s.dirty {
		s.dirty = false
		o.dirty = slices.DeleteFunc(o.dirty, func(d *subscription) bool { return d == s })
	}
}

// next adds waiting replies to f and, after the last of them, takes the next
// subscription with news. Without either it returns what ends the connection,
// or ok false: the writer's work is done.
func (o *outbox) next(f *frame) (s *subscription, bye *Disconnect, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for n < len(o.replies) && !f.full() && !o.closed {
		f.add(o.replies[n])
		o.size -= len(o.replies[n])
		o.budget.add(-len(o.replies[n])) // counted again by hold, when it is written
		n++
	}
	if o.replies = slices.Delete(o.replies, 0, n); len(o.replies) == 0 {
		o.replies = nil
	}
	if n > 0 {
		o.room.Broadcast()
	}
	switch {
	case o.closed:
		o.writing = false
		return nil, nil, false
	case len(o.replies) > 0:
		return nil, nil, true
	case o.bye != nil:
		return nil, o.bye, true
	case len(o.dirty) > 0 && !f.full():
		s = o.dirty[0]
		o.dirty = slices.Delete(o.dirty, 0, 1)
		s.dirty = false
		if s.again {
			s.again = false
			f.add(s.announceAgain())
		}
		return s, nil, true
	}
	o.writing = f.count > 0
	return nil, nil, o.writing
}

// write is the writer: it runs until nothing is due.
func (c *client) write() {
	defer c.out.writer.Done()
	f := frames.Get().(*frame)
	f.binary = c.binary
	defer f.release()
	for {
		s, bye, ok := c.out.next(f)
		switch {
		case !ok:
			return
		case s != nil:
			c.gather(s, f)
			if !f.full() {
				continue // there may be more for the same frame
			}
		}
		if f.count > 0 {
			if err := c.writeFrame(f); err != nil {
				c.fail(DisconnectWriteError)
				return
			}
			c.hub.metrics.deliveries.Add(float64(f.pushes))
			f.reset()
			continue
		}
		if bye != nil {
			c.farewell(bye)
			return
		}
	}
}

// writeFrame counts what a frame holds for as long as it is being written.
func (c *client) writeFrame(f *frame) error {
	own := f.own()
	if own == 0 { // a lone push: not worth a lock
		return c.sock.write(f.bytes())
	}
	c.out.hold(own, c.hub.now())
	defer func() { c.out.hold(0, c.hub.now()) }()
	return c.sock.write(f.bytes())
}

// gather adds the news of a subscription to f.
func (c *client) gather(s *subscription, f *frame) {
	v := s.collect(f)
	if v == behind || v == lostTrack && s.serverSide && s.positioned {
		ctx, cancel := c.hub.timeout()
		v = s.repair(ctx, v, f)
		cancel()
		if v == upToDate {
			v = more // look into the log again, from the new position
		}
	}
	if v == upToDate || !c.isLive(s) { // with who left meanwhile, its messages may have gone
		return
	}
	switch v {
	case more:
		c.mark(s)
	case lostTrack:
		c.lose(s)
	case tooSlow:
		c.tooSlow(slowBacklog)
	}
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
	c.leave(ctx, s, c.encodePush(&protocol.Push{Channel: s.name, Unsubscribe: &protocol.Unsubscribe{
		Code: unsubscribedInsufficient, Reason: "insufficient state",
	}}))
}

// disconnect ends the connection after what is due was written. Only the
// first reason counts, and the result says whether it was this one. It does
// not wait.
func (c *client) disconnect(d *Disconnect) bool {
	c.mu.Lock()
	c.state = ending
	c.mu.Unlock()
	o := &c.out
	o.mu.Lock()
	first := o.bye == nil && !o.closed
	start := false
	if first {
		o.bye = d
		if d == DisconnectSlow {
			o.drop()
		}
		o.room.Broadcast()
		start = o.begin()
	}
	o.mu.Unlock()
	if first {
		c.hub.metrics.disconnected(d.Code)
		c.endAsking()
	}
	if start {
		go c.out.run()
	}
	return first
}

// farewell tells the client why, twice: as a push, since many WeChat runtimes
// report every close as 1000 or 1006, and in the close frame.
func (c *client) farewell(d *Disconnect) {
	push := c.encodePush(&protocol.Push{Disconnect: &protocol.Disconnect{Code: d.Code, Reason: d.Reason}})
	if c.sock.write(push) != nil {
		c.sock.abort()
		return
	}
	c.sock.close(d.Code, d.Reason)
}

// fail ends a connection that cannot be written to any more.
func (c *client) fail(d *Disconnect) {
	if c.out.shut() {
		c.hub.metrics.disconnected(d.Code)
	}
	c.sock.abort()
	c.endAsking()
}

// shut ends all writing at once, and reports whether nothing had ended the
// connection before.
func (o *outbox) shut() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := o.bye == nil && !o.closed
	o.closed = true
	o.drop()
	o.dirty = nil
	o.room.Broadcast()
	return first
}

// timeout bounds work that no request of a client waits for.
func (h *Hub) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), h.settings.Client.RequestTimeout)
}
