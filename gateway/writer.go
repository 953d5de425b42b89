package gateway

import (
	"slices"
	"time"

	"github.com/centrifugal/protocol"
)

// kick is the writer's beginning: begin has made the caller the writer. Where
// the socket never waits that is all it takes; no lock may be held, since the
// writer takes those of channels.
func (c *client) kick() {
	if c.sock.waits() {
		go c.write(newBatch(c), true)
		return
	}
	c.write(newBatch(c), false)
}

// write is the writer: it runs until nothing is due, or the socket has no room.
// What may take time is left to a goroutine of its own, if patient does not say
// that it has one.
func (c *client) write(b *batch, patient bool) {
	for {
		s, bye, ok := c.next(b)
		switch {
		case !ok:
			b.release()
			c.out.writer.Done()
			return
		case s != nil:
			v := s.collect(b)
			if !patient && (v == behind || v == lostTrack) {
				go c.writeAfter(s, v, b)
				return
			}
			c.follow(s, v, b)
			if !b.full() {
				continue // there may be more for the same write
			}
		}
		switch {
		case b.count > 0:
			if !c.flush(b) {
				return
			}
		case bye != nil: // the last: writing stays true
			c.farewell(bye)
			b.release()
			c.out.writer.Done()
			return
		}
	}
}

// writeAfter goes on with a subscription that history has to be read for.
func (c *client) writeAfter(s *subscription, v verdict, b *batch) {
	c.follow(s, v, b)
	c.write(b, true)
}

// next adds waiting replies to b and, after the last of them, takes the next
// subscription with news. Without either it returns what ends the connection,
// or ok false: the writer's work is done.
func (c *client) next(b *batch) (s *subscription, bye *Disconnect, ok bool) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.settle()
	c.addReplies(b)
	d := o.pending()
	switch {
	case o.closed:
		o.writing = false
		return nil, nil, false
	case len(d.replies) > 0:
		return nil, nil, true
	case o.bye != nil:
		return nil, o.bye, true
	case len(d.dirty) > 0 && !b.full():
		s = d.dirty[0]
		o.due.dirty = slices.Delete(d.dirty, 0, 1)
		s.dirty = false
		if s.again {
			s.again = false
			b.add(s.announceAgain())
		}
		return s, nil, true
	}
	o.writing = b.count > 0
	return nil, nil, o.writing
}

// addReplies moves replies to b, as many as there is room for; mu is held.
func (c *client) addReplies(b *batch) {
	o := &c.out
	d, n := o.due, 0
	if d == nil || o.closed {
		return
	}
	for n < len(d.replies) && !b.full() {
		b.add(d.replies[n])
		d.size -= len(d.replies[n])
		c.hub.budget.add(-len(d.replies[n])) // counted again by hold, when it is written
		n++
	}
	if n > 0 {
		d.replies = slices.Delete(d.replies, 0, n)
		o.madeRoom()
	}
}

// flush writes a batch, and reports whether the caller is still the writer. A
// lone push is not worth a lock: it is counted in its channel.
func (c *client) flush(b *batch) (goOn bool) {
	own, pushes, shared := b.own(), b.pushes, b.lone != nil
	if own > 0 && c.sock.waits() {
		c.hold(own, c.hub.now())
	}
	left, err := c.sock.write(b.frames(), shared)
	b.reset()
	switch {
	case err != nil:
		b.release()
		c.fail(err)
		c.endWriter()
		return false
	case pushes > 0:
		c.hub.metrics.deliveries.Add(float64(pushes))
	}
	switch {
	case left == 0:
		if own > 0 && c.sock.waits() {
			c.hold(0, c.hub.now())
		}
		return true
	case shared:
		left = 0
	}
	b.limit = tightBatch
	if c.park(left, c.hub.now()) {
		return true
	}
	b.release()
	return false
}

// park lets go of the writer's work until there is room in the socket, which
// holds so many bytes for this client alone, and reports whether there is room
// already. Where there is not, resume goes on.
func (c *client) park(held int, now time.Duration) (goOn bool) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.stand == roomy:
		o.stand = flowing
		return true
	case o.closed: // nobody would come
		c.retire()
	default:
		o.stand = parked
		c.hub.budget.add(held)
		o.writingSize, o.moved = int32(held), now
	}
	return false
}

// resume is called by the socket when it has sent what it had no room for, or
// never will. It does not wait.
func (c *client) resume(err error) {
	o := &c.out
	o.mu.Lock()
	waited := o.stand == parked
	if o.stand = roomy; waited {
		o.stand = flowing
	}
	o.mu.Unlock()
	switch {
	case !waited && err == nil: // the writer finds out
	case err != nil:
		c.fail(err)
		if waited {
			c.endWriter()
		}
	default:
		c.hold(0, c.hub.now())
		b := newBatch(c)
		b.limit = tightBatch
		c.write(b, false)
	}
}

// endWriter is the end of the writer of a connection that is closed.
func (c *client) endWriter() {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.retire()
}

// retire is endWriter with outbox.mu held.
func (c *client) retire() {
	o := &c.out
	c.hub.budget.add(-int(o.writingSize))
	o.writingSize = 0
	o.writer.Done()
}

// follow does what a look into the log led to; it may wait for history.
func (c *client) follow(s *subscription, v verdict, b *batch) {
	if v == behind || v == lostTrack && s.serverSide && s.positioned {
		ctx, cancel := c.hub.timeout()
		v = s.repair(ctx, v, b)
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

// farewell tells the client why, twice: as a push, since many WeChat runtimes
// report every close as 1000 or 1006, and in the close frame.
func (c *client) farewell(d *Disconnect) {
	push := c.encodePush(&protocol.Push{Disconnect: &protocol.Disconnect{Code: d.Code, Reason: d.Reason}})
	frame, _ := frameOf(c.opcode(), push)
	if _, err := c.sock.write(frame, true); err != nil {
		c.sock.abort()
		return
	}
	c.sock.close(d.Code, d.Reason)
}
