package gateway

import (
	"sync"
	"time"
)

// checksPerSecond bounds what VerifyAll asks of the session store, which has
// probably just come back and has others to serve as well.
const checksPerSecond = 5000

// doubts hands out the moments at which sessions in doubt are verified.
type doubts struct {
	mu   sync.Mutex
	next time.Duration // the first moment that nobody has
}

// take returns the next moment that is free, not before now.
func (d *doubts) take(now time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := max(d.next, now)
	d.next = at + time.Second/checksPerSecond
	return at
}

// VerifyAll has the sessions of all connections of this node verified again,
// beginning at once and at most checksPerSecond of them: to be called when ends
// of sessions, or blocks, may have gone unheard. Connections that wait for
// their turn already keep it. It does not wait for the outcome.
func (h *Hub) VerifyAll() {
	for _, c := range h.clients.list() {
		c.doubt()
	}
}

func (c *client) doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Who is not connected yet is verified when it is; see welcome.
	if c.state != connected || c.doubted {
		return
	}
	now := c.hub.now()
	c.doubted = true
	c.checkAt = min(c.checkAt, c.hub.doubts.take(now))
	c.hub.wheel.set(c, now) // the next look finds out when to look again
}
