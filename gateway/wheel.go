package gateway

import (
	"sync"
	"time"
)

const (
	wheelTick  = 200 * time.Millisecond // each wakes the process, and pings go out in flocks
	wheelSlots = 512                    // about 100 seconds; who waits longer is looked at early

	nowhere = -1 // not in the wheel now
	removed = -2 // never again
)

// wheel calls clients when they asked for it. One wheel with one ticker serves
// all connections, so that an idle one costs no timer.
type wheel struct {
	mu    sync.Mutex
	slots [wheelSlots]*client // each the first of a list through client.place
	done  int64               // the last tick that was served
}

// place is where a client sits in a slot of the wheel; guarded by wheel.mu.
type place struct{ prev, next *client }

// set has c looked at once at is past. It replaces an earlier call.
func (w *wheel) set(c *client, at time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.slot == removed {
		return
	}
	w.take(c)
	w.put(c, at)
}

// put places a client that is nowhere; mu is held.
func (w *wheel) put(c *client, at time.Duration) {
	tick := max(int64((at+wheelTick-1)/wheelTick), w.done+1)
	tick = min(tick, w.done+wheelSlots-1)
	slot := int32(tick % wheelSlots)
	next := w.slots[slot]
	c.slot, c.place = slot, place{next: next}
	if next != nil {
		next.place.prev = c
	}
	w.slots[slot] = c
}

// again is set for a client that was looked at just now. Where somebody asked
// for another look meanwhile, that one stays: it is sooner.
func (w *wheel) again(c *client, at time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.slot == nowhere {
		w.put(c, at)
	}
}

func (w *wheel) remove(c *client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.take(c)
	c.slot = removed
}

func (w *wheel) take(c *client) {
	p := c.place
	if c.slot < 0 {
		return
	}
	if p.prev == nil {
		w.slots[c.slot] = p.next
	} else {
		p.prev.place.next = p.next
	}
	if p.next != nil {
		p.next.place.prev = p.prev
	}
	c.slot, c.place = nowhere, place{}
}

// advance returns the clients whose time has come.
func (w *wheel) advance(now time.Duration, due []*client) []*client {
	w.mu.Lock()
	defer w.mu.Unlock()
	for tick := int64(now / wheelTick); w.done < tick; {
		w.done++
		slot := &w.slots[w.done%wheelSlots]
		for c := *slot; c != nil; {
			next := c.place.next
			c.slot, c.place = nowhere, place{}
			due = append(due, c)
			c = next
		}
		*slot = nil
	}
	return due
}

// turn serves the clients that are due. due is the caller's, to be used again.
func (w *wheel) turn(now time.Duration, due []*client) []*client {
	due = w.advance(now, due[:0])
	for _, c := range due {
		w.again(c, c.tick(now))
	}
	clear(due)
	return due
}
