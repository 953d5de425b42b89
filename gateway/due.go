package gateway

import "sync"

// due is what an outbox holds while it holds something. Very many clients are
// idle, and theirs hold nothing.
type due struct {
	replies [][]byte
	size    int // bytes in replies
	dirty   []*subscription
	room    *sync.Cond // something was taken from replies, or nothing more will be; nil while nobody has waited for that
}

// fewDue is how long the lists of one that is used again may be.
const fewDue = 16

var dues = sync.Pool{New: func() any { return new(due) }}

// open returns what is due, to be added to; mu is held.
func (o *outbox) open() *due {
	if o.due == nil {
		o.due = dues.Get().(*due)
	}
	return o.due
}

// pending returns what is due, to be looked at; mu is held.
func (o *outbox) pending() due {
	if o.due == nil {
		return due{}
	}
	return *o.due
}

// settle lets go of what is not due any more; mu is held.
func (o *outbox) settle() {
	d := o.due
	if d == nil || len(d.replies)+len(d.dirty) > 0 {
		return
	}
	o.due, d.room = nil, nil // who waited for room was told
	if cap(d.replies) <= fewDue && cap(d.dirty) <= fewDue {
		dues.Put(d)
	}
}

// full tells whether limit bytes wait already; mu is held.
func (o *outbox) full(limit int) bool {
	return o.due != nil && o.due.size >= limit && o.bye == nil && !o.closed
}

// awaitRoom waits until there may be room; mu is held.
func (o *outbox) awaitRoom() {
	d := o.open()
	if d.room == nil {
		d.room = sync.NewCond(&o.mu)
	}
	d.room.Wait()
}

// madeRoom tells those who wait; mu is held.
func (o *outbox) madeRoom() {
	if o.due != nil && o.due.room != nil {
		o.due.room.Broadcast()
	}
}
