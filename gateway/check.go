package gateway

import (
	"errors"
	"fmt"
)

// Check looks for contradictions between what the hub keeps in different
// places, and returns all it finds. It is exact only while nothing happens:
// for tests, after the storm. A hub at work has Inspect.
func (h *Hub) Check() error {
	var all []error
	k := complaints{add: func(text string) { all = append(all, errors.New(text)) }}
	h.checkAll(k)
	for _, c := range h.clients.list() {
		h.checkClient(c, k)
	}
	h.channels.each(func(ch *channel) { h.checkChannel(ch, k) })
	return errors.Join(all...)
}

// checkAll checks what only all clients together tell.
func (h *Hub) checkAll(k complaints) {
	h.checkRegistry(k)
	h.checkWheel(k)
	h.checkBudget(k)
	h.checkAddresses(k)
	h.checkSockets(k)
	h.checkAnnouncements(k)
	if n := h.pending.n.Load(); n != 0 {
		k.odd("%d handshakes or connect commands are under way", n)
	}
}

// checkAnnouncements looks for room that was not given back. To know it takes
// all there is, which a hub at work needs.
func (h *Hub) checkAnnouncements(k complaints) {
	switch {
	case k.live:
	case !h.announcements.none():
		k.bad("messages for everybody are going out")
	case h.announcements.room.TryAcquire(maxAnnouncements):
		h.announcements.room.Release(maxAnnouncements)
	default:
		k.bad("messages for everybody went out and left no room")
	}
}

// complaints take what a check finds.
type complaints struct {
	live  bool // the hub is at work
	limit int  // subscribers of a channel to look at; 0: all
	add   func(text string)
}

// bad is a contradiction. In a hub at work it may be one of a moment.
func (k complaints) bad(format string, args ...any) { k.add(fmt.Sprintf(format, args...)) }

// odd is one only where nothing happens.
func (k complaints) odd(format string, args ...any) {
	if !k.live {
		k.bad(format, args...)
	}
}

// checkRegistry looks from the sets at the clients. No other lock is taken
// while that of the registry is held.
func (h *Hub) checkRegistry(k complaints) {
	r := h.clients
	r.mu.RLock()
	if r.admitted < len(r.all) {
		k.bad("%d clients, but %d admitted", len(r.all), r.admitted)
	} else if r.admitted > len(r.all) {
		k.odd("%d admitted, but %d clients", r.admitted, len(r.all))
	}
	type entry struct {
		c          *client
		registered bool
	}
	users := make(map[string][]entry, len(r.users))
	for user, set := range r.users {
		if set.len() == 0 {
			k.bad("user %s is kept without clients", user)
		}
		for _, c := range set.list() {
			users[user] = append(users[user], entry{c, r.has(c)})
		}
	}
	for i, c := range r.all {
		if int(c.seat) != i+1 {
			k.bad("client %s sits at %d and thinks it is %d", c.id, i+1, c.seat)
		}
	}
	r.mu.RUnlock()
	for user, entries := range users {
		for _, e := range entries {
			if !e.registered {
				k.bad("client %s of user %s is not registered", e.c.id, user)
			} else if is := e.c.user(); is != user {
				k.bad("client %s is registered as %s and is %s", e.c.id, user, is)
			}
		}
	}
}

// checkClient looks from a client at everything that knows of it. One that is
// gone has nothing to answer for.
func (h *Hub) checkClient(c *client, k complaints) {
	if !h.checkRegistered(c, k) {
		return
	}
	h.checkPlace(c, k)
	h.checkSubscriptions(c, k)
	c.checkOutbox(k)
	if lean, ok := c.sock.(*leanSocket); ok {
		if err := lean.conn().Check(); err != nil {
			k.bad("client %s: %v", c.id, err)
		}
	}
}

func (h *Hub) checkSubscriptions(c *client, k complaints) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.subs.all() {
		name := s.name
		switch {
		case s.client != c || c.subs.get(name) != s:
			k.bad("client %s holds a subscription of another in %s", c.id, name)
		case k.live && !c.isLive(s): // it is somebody else's to change still, or no more
		case s.channel == nil || s.known().left != nil:
			k.odd("client %s is on its way into or out of %s", c.id, name)
		case h.channels.get(name) != s.channel:
			k.bad("client %s is subscribed to a channel %s that is not in the hub", c.id, name)
		}
	}
}

func (h *Hub) checkChannel(ch *channel, k complaints) {
	if !k.live {
		ch.gate.Lock()
	} else if !ch.gate.TryLock() {
		return // the engine is being talked to, and things are on their way
	}
	defer ch.gate.Unlock()
	subs := ch.checkStream(k)
	listed := h.channels.get(ch.name) == ch // still: it may have ended since
	if ch.gone == listed || (ch.gone || !ch.heard) && len(subs) > 0 {
		k.bad("channel %s: gone %v, heard %v, %d subscribers", ch.name, ch.gone, ch.heard, len(subs))
	}
	for _, s := range subs {
		c := s.client
		c.mu.Lock()
		if c.subs.get(ch.name) != s {
			k.bad("channel %s has a subscriber %s that does not know", ch.name, c.id)
		}
		c.mu.Unlock()
		h.clients.mu.RLock()
		ok := h.clients.has(c)
		h.clients.mu.RUnlock()
		if !ok { // it leaves its channels after that, and the engine may be slow
			k.odd("channel %s has a subscriber %s that is gone", ch.name, c.id)
		}
	}
}

// checkStream checks what a channel keeps itself, and returns its subscribers.
func (ch *channel) checkStream(k complaints) []*subscription {
	ch.mu.RLock()
	defer ch.mu.RUnlock()
	positioned := 0
	from, to := k.window(len(ch.subs))
	for i, s := range ch.subs {
		if s.positioned {
			positioned++
		}
		if i < from || i >= to {
			continue
		}
		if int(s.index) != i || s.channel != ch {
			k.bad("channel %s: subscriber %d thinks it is %d", ch.name, i, s.index)
		}
		ch.checkNews(s, k)
	}
	if positioned != int(ch.positioned) {
		k.bad("channel %s: %d of %d positioned subscribers counted", ch.name, ch.positioned, positioned)
	}
	if ch.reading != nil {
		k.odd("channel %s: a read is under way", ch.name)
	}
	if ch.traffic != nil {
		ch.checkTraffic(k)
	}
	return append([]*subscription(nil), ch.subs[from:to]...)
}

func (ch *channel) checkTraffic(k complaints) {
	next, size := ch.top.Offset, 0
	for i := len(ch.tail.pubs) - 1; i >= 0; i-- {
		if ch.tail.pubs[i].Offset != next {
			k.bad("channel %s: offset %d in the tail where %d belongs", ch.name, ch.tail.pubs[i].Offset, next)
		}
		next--
		size += len(ch.tail.pubs[i].Data)
	}
	if size != ch.tail.bytes {
		k.bad("channel %s: tail of %d bytes counted as %d", ch.name, size, ch.tail.bytes)
	}
	logged := int64(0)
	for _, m := range ch.log.messages {
		logged += m.size.Load()
	}
	if counted := ch.log.bytes.Load(); logged != counted {
		k.bad("channel %s: log of %d bytes counted as %d", ch.name, logged, counted)
	}
}

func (h *Hub) checkWheel(k complaints) {
	h.clients.mu.RLock()
	defer h.clients.mu.RUnlock()
	h.wheel.mu.Lock()
	defer h.wheel.mu.Unlock()
	for slot, first := range h.wheel.slots {
		var prev *client
		for c := first; c != nil; prev, c = c, c.place.next {
			if int(c.slot) != slot || c.place.prev != prev {
				k.bad("client %s sits in slot %d of the wheel and thinks it is %d", c.id, slot, c.slot)
			}
			if !h.clients.has(c) {
				k.bad("client %s in the wheel is gone", c.id)
			}
		}
	}
	for _, c := range h.clients.all {
		switch c.slot {
		case nowhere:
			k.bad("client %s is not in the wheel", c.id)
		case removed: // it is ending, which may take as long as its calls do
			k.odd("client %s is not in the wheel any more", c.id)
		}
	}
}

func (h *Hub) checkBudget(k complaints) {
	var held int64
	for _, c := range h.clients.list() {
		held += c.out.waiting().bytes
	}
	switch used := h.budget.used.Load(); {
	case used < held:
		k.bad("%d bytes wait, %d are counted", held, used)
	case used > held: // commands that are being handled, too
		k.odd("%d bytes wait, %d are counted", held, used)
	}
}
