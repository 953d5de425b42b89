package serverapi

import (
	"context"
	"sync"
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

	mu   sync.Mutex
	real context.Context // the one with the timer, nil: not made yet; guarded by mu
	stop func()          // of real; guarded by mu
}

// made returns the context with the timer.
func (c *timed) made() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		c.real, c.stop = context.WithDeadline(c.Context, c.deadline)
	}
	return c.real
}

// known returns the context with the timer, or without one what c is made of.
func (c *timed) known() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		return c.Context
	}
	return c.real
}

func (c *timed) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop != nil {
		c.stop()
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
