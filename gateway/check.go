package gateway

import (
	"errors"
	"fmt"
)

// Check looks for contradictions between what the hub keeps in different
// places, and returns all it finds. It is exact only while nothing happens:
// for tests, after the storm.
func (h *Hub) Check() error {
	var all []error
	bad := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	h.checkRegistry(bad)
	for _, c := range h.clients.list() {
		h.checkClient(c, bad)
	}
	h.channels.each(func(ch *channel) { h.checkChannel(ch, bad) })
	h.checkWheel(bad)
	h.checkBudget(bad)
	return errors.Join(all...)
}

type complain func(format string, args ...any)

func (h *Hub) checkRegistry(bad complain) {
	r := h.clients
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.admitted < len(r.all) {
		bad("%d clients, but %d admitted", len(r.all), r.admitted)
	}
	for user, set := range r.users {
		if set.len() == 0 {
			bad("user %s is kept without clients", user)
		}
		for _, c := range set.list() {
			if _, ok := r.all[c]; !ok {
				bad("client %s of user %s is not registered", c.id, user)
			} else if c.user() != user {
				bad("client %s is registered as %s and is %s", c.id, user, c.user())
			}
		}
	}
	for fp, set := range r.sessions {
		if set.len() == 0 {
			bad("session %s is kept without clients", fp)
		}
		for _, c := range set.list() {
			if _, ok := r.all[c]; !ok {
				bad("client %s of session %s is not registered", c.id, fp)
			}
		}
	}
}

func (h *Hub) checkClient(c *client, bad complain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, s := range c.subs {
		switch {
		case s.client != c || s.name != name:
			bad("client %s holds a subscription of another in %s", c.id, name)
		case s.channel == nil || s.left != nil:
			bad("client %s is on its way into or out of %s", c.id, name)
		case h.channels.get(name) != s.channel:
			bad("client %s is subscribed to a channel %s that is not in the hub", c.id, name)
		}
	}
}

func (h *Hub) checkChannel(ch *channel, bad complain) {
	ch.gate.Lock()
	defer ch.gate.Unlock()
	subs := ch.checkStream(bad)
	if ch.gone || !ch.heard && len(subs) > 0 {
		bad("channel %s: gone %v, heard %v, %d subscribers", ch.name, ch.gone, ch.heard, len(subs))
	}
	for _, s := range subs {
		c := s.client
		c.mu.Lock()
		if c.subs[ch.name] != s {
			bad("channel %s has a subscriber %s that does not know", ch.name, c.id)
		}
		c.mu.Unlock()
		h.clients.mu.RLock()
		if _, ok := h.clients.all[c]; !ok {
			bad("channel %s has a subscriber %s that is gone", ch.name, c.id)
		}
		h.clients.mu.RUnlock()
	}
}

// checkStream checks what a channel keeps itself, and returns its subscribers.
func (ch *channel) checkStream(bad complain) []*subscription {
	ch.mu.RLock()
	defer ch.mu.RUnlock()
	positioned := 0
	for i, s := range ch.subs {
		if s.index != i || s.channel != ch {
			bad("channel %s: subscriber %d thinks it is %d", ch.name, i, s.index)
		}
		if s.positioned {
			positioned++
		}
	}
	if positioned != ch.positioned {
		bad("channel %s: %d of %d positioned subscribers counted", ch.name, ch.positioned, positioned)
	}
	next, size := ch.top.Offset, 0
	for i := len(ch.tail.pubs) - 1; i >= 0; i-- {
		if ch.tail.pubs[i].Offset != next {
			bad("channel %s: offset %d in the tail where %d belongs", ch.name, ch.tail.pubs[i].Offset, next)
		}
		next--
		size += len(ch.tail.pubs[i].Data)
	}
	if size != ch.tail.bytes {
		bad("channel %s: tail of %d bytes counted as %d", ch.name, size, ch.tail.bytes)
	}
	logged := int64(0)
	for _, m := range ch.log.messages {
		logged += m.size.Load()
	}
	if counted := ch.log.bytes.Load(); logged != counted {
		bad("channel %s: log of %d bytes counted as %d", ch.name, logged, counted)
	}
	if ch.now != nil || ch.next != nil {
		bad("channel %s: a read is under way", ch.name)
	}
	return append([]*subscription(nil), ch.subs...)
}

func (h *Hub) checkWheel(bad complain) {
	h.clients.mu.RLock()
	defer h.clients.mu.RUnlock()
	h.wheel.mu.Lock()
	defer h.wheel.mu.Unlock()
	for slot, list := range h.wheel.slots {
		for i, c := range list {
			if c.place != (place{slot, i}) {
				bad("client %s sits at %v of the wheel and thinks it is %v", c.id, place{slot, i}, c.place)
			}
			if _, ok := h.clients.all[c]; !ok {
				bad("client %s in the wheel is gone", c.id)
			}
		}
	}
	for c := range h.clients.all {
		if c.place.slot < 0 {
			bad("client %s is not in the wheel", c.id)
		}
	}
}

func (h *Hub) checkBudget(bad complain) {
	var held int64
	for _, c := range h.clients.list() {
		n, _, _ := c.out.holds()
		held += n
	}
	if used := h.budget.used.Load(); used != held {
		bad("%d bytes wait, %d are counted", held, used)
	}
}
