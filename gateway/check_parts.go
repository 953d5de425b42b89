package gateway

import (
	mathrand "math/rand/v2"
	"slices"
)

// window is which of n subscribers to look at.
func (k complaints) window(n int) (from, to int) {
	if k.limit == 0 || n <= k.limit {
		return 0, n
	}
	from = mathrand.N(n - k.limit + 1)
	return from, from + k.limit
}

// checkRegistered looks from a client at the registry, and reports whether the
// client is there at all.
func (h *Hub) checkRegistered(c *client, k complaints) bool {
	c.mu.Lock()
	l, state := c.login, c.state
	c.mu.Unlock()
	r := h.clients
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.has(c) {
		return false
	}
	if l == nil || state != connected {
		return true
	}
	if !r.users[l.openID].has(c) {
		k.bad("client %s is not registered as %s", c.id, l.openID)
	}
	return true
}

// checkPlace looks from a client at the wheel.
func (h *Hub) checkPlace(c *client, k complaints) {
	w := &h.wheel
	w.mu.Lock()
	defer w.mu.Unlock()
	p := c.place
	if c.slot < 0 {
		return // see checkWheel
	}
	before := w.slots[c.slot]
	if p.prev != nil {
		before = p.prev.place.next
	}
	if before != c || p.next != nil && p.next.place.prev != c {
		k.bad("client %s thinks it sits in slot %d of the wheel", c.id, c.slot)
	}
}

// checkOutbox looks at what is due to a client: somebody writes it, and it is
// counted as what it is.
func (c *client) checkOutbox(k complaints) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	size := 0
	d := o.pending()
	for _, r := range d.replies {
		size += len(r)
	}
	if size != d.size {
		k.bad("client %s: %d bytes of replies counted as %d", c.id, size, d.size)
	}
	if !o.writing && !o.closed && (len(d.replies) > 0 || len(d.dirty) > 0 || o.bye != nil) {
		k.bad("client %s: nobody writes %d replies and the news of %d subscriptions", c.id, len(d.replies), len(d.dirty))
	}
	for _, s := range d.dirty {
		if s.client != c || !s.dirty {
			k.bad("client %s: %s waits to be written and does not know", c.id, s.name)
		}
	}
}

// checkNews looks for a subscriber that was not woken: it is behind the log, and
// neither its writer nor fan-out is about to find out. The cursor is in the text:
// one that moves is no complaint. mu is held.
func (ch *channel) checkNews(s *subscription, k complaints) {
	o := &s.client.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.dirty && !o.closed && !slices.Contains(o.pending().dirty, s) {
		k.bad("client %s: %s has news that nobody writes", s.client.id, s.name)
	}
	if !s.live || s.dirty || o.writing || o.closed || o.bye != nil || ch.queued {
		return
	}
	if next := ch.nextNumber(); s.cursor < next { // nobody writes, so nobody moves it
		k.bad("client %s: nobody woke %s, which stands at %d of %d", s.client.id, s.name, s.cursor, next)
	}
}

// checkAddresses counts the clients of each network anew.
func (h *Hub) checkAddresses(k complaints) {
	a := &h.addresses
	if a.limit == 0 {
		return
	}
	found := make(map[uint64]int32)
	for _, c := range h.clients.list() {
		if key, ok := networkKey(c.ip); ok {
			found[key]++
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, counted := range a.counts {
		if n := found[key]; n < counted { // who ends is counted until nothing is left
			k.odd("network %x: %d clients, %d counted", key, n, counted)
		}
	}
	for key, n := range found {
		if counted := a.counts[key]; n > counted {
			k.bad("network %x: %d clients, %d counted", key, n, counted)
		}
	}
}

// checkSockets compares what is watched by epoll with the clients that are.
func (h *Hub) checkSockets(k complaints) {
	h.lean.mu.Lock()
	poller := h.lean.poller
	h.lean.mu.Unlock()
	if poller == nil {
		return
	}
	lean := 0
	for _, c := range h.clients.list() {
		if _, ok := c.sock.(*leanSocket); ok {
			lean++
		}
	}
	switch watched := poller.Len(); {
	case watched > lean:
		k.bad("%d connections are under epoll, %d clients", watched, lean)
	case watched < lean: // who ends is a client for a while
		k.odd("%d connections are under epoll, %d clients", watched, lean)
	}
}
