package serverapi

import (
	"context"
	"sync/atomic"
	"time"
)

// withTimeout is context.WithTimeout for requests, nearly all of which end
// without having waited: the timer is made when somebody first asks for Done.
// Where nobody did there is nothing to cancel.
func withTimeout(ctx context.Context, d time.Duration) *timed {
	return &timed{Context: ctx, deadline: time.Now().Add(d)}
}

// timed ends with the context it is made of, or at its deadline.
type timed struct {
	context.Context
	deadline time.Time
	timer    atomic.Pointer[timer] // nil: not made yet
}

// timer is the context with the timer.
type timer struct {
	context.Context
	stop context.CancelFunc
}

// made returns the context with the timer.
func (c *timed) made() context.Context {
	if t := c.timer.Load(); t != nil {
		return t
	}
	ctx, stop := context.WithDeadline(c.Context, c.deadline)
	t := &timer{ctx, stop}
	if !c.timer.CompareAndSwap(nil, t) { // somebody else asked at the same moment
		stop()
		t = c.timer.Load()
	}
	return t
}

// known returns the context with the timer, or without one what c is made of.
func (c *timed) known() context.Context {
	if t := c.timer.Load(); t != nil {
		return t
	}
	return c.Context
}

func (c *timed) cancel() {
	if t := c.timer.Load(); t != nil {
		t.stop()
	}
}

// Deadline implements context.Context.
func (c *timed) Deadline() (time.Time, bool) {
	if d, ok := c.Context.Deadline(); ok && d.Before(c.deadline) {
		return d, true
	}
	return c.deadline, true
}

// Done implements context.Context.
func (c *timed) Done() <-chan struct{} { return c.made().Done() }

// Err implements context.Context.
func (c *timed) Err() error {
	if !time.Now().Before(c.deadline) {
		return c.made().Err()
	}
	return c.known().Err()
}

// Value implements context.Context. With it package context finds where to
// enter children, which would take a goroutine each otherwise.
func (c *timed) Value(key any) any { return c.known().Value(key) }
