package gateway

import (
	"sync"
	"time"
)

const (
	wheelTick  = 100 * time.Millisecond
	wheelSlots = 1024 // about 100 seconds; who waits longer is looked at early

	nowhere = -1 // not in the wheel now
	removed = -2 // never again
)

// wheel calls clients when they asked for it. One wheel with one ticker serves
// all connections, so that an idle one costs no timer.
type wheel struct {
	mu    sync.Mutex
	slots [wheelSlots][]*client
	done  int64 // the last tick that was served
}

// place is where a client sits in the wheel; guarded by wheel.mu.
type place struct{ slot, index int }

// set has c looked at once at is past. It replaces an earlier call.
func (w *wheel) set(c *client, at time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.place.slot == removed {
		return
	}
	w.take(c)
	w.put(c, at)
}

// put places a client that is nowhere; mu is held.
func (w *wheel) put(c *client, at time.Duration) {
	tick := max(int64((at+wheelTick-1)/wheelTick), w.done+1)
	tick = min(tick, w.done+wheelSlots-1)
	slot := int(tick % wheelSlots)
	c.place = place{slot, len(w.slots[slot])}
	w.slots[slot] = append(w.slots[slot], c)
}

// again is set for a client that was looked at just now. Where somebody asked
// for another look meanwhile, that one stays: it is sooner.
func (w *wheel) again(c *client, at time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.place.slot == nowhere {
		w.put(c, at)
	}
}

func (w *wheel) remove(c *client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.take(c)
	c.place.slot = removed
}

func (w *wheel) take(c *client) {
	if c.place.slot < 0 {
		return
	}
	s := w.slots[c.place.slot]
	last := s[len(s)-1]
	s[c.place.index] = last
	last.place.index = c.place.index
	s[len(s)-1] = nil
	w.slots[c.place.slot] = s[:len(s)-1]
	c.place.slot = nowhere
}

// advance returns the clients whose time has come.
func (w *wheel) advance(now time.Duration, due []*client) []*client {
	w.mu.Lock()
	defer w.mu.Unlock()
	for tick := int64(now / wheelTick); w.done < tick; {
		w.done++
		slot := &w.slots[w.done%wheelSlots]
		for _, c := range *slot {
			c.place.slot = nowhere
			due = append(due, c)
		}
		clear(*slot)
		*slot = (*slot)[:0]
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
