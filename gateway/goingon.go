package gateway

import (
	"errors"
	"time"

	"github.com/centrifugal/protocol"
	"golang.org/x/sync/errgroup"
)

// Where the backend decides whether what expires goes on, it is asked when the
// time has come, and clients are not told that anything expires: their SDKs
// would look for a token.

const (
	// askWorkers ask. A slow backend holds them up, but nobody else.
	askWorkers = 32
	// askAgain is how long something lives on whose end nobody could decide.
	askAgain = time.Minute
)

// asksConn tells whether the backend decides if connections go on.
func (h *Hub) asksConn() bool { return h.settings.Client.Proxy.Refresh.Enabled }

// asked tells whether the backend decides if the subscription goes on.
func (s *subscription) asked() bool { return s.rules().SubRefreshProxyEnabled }

// connDeadline is when a connection is ended, or the backend asked; 0 never.
func (h *Hub) connDeadline(at time.Time) time.Duration {
	if h.asksConn() {
		return h.deadline(at, 0)
	}
	return h.deadline(at, h.settings.Client.ExpiredDelay)
}

// connTTL is ttl as clients are told of their connections.
func (h *Hub) connTTL(at time.Time) (expires bool, seconds uint32, err error) {
	if expires, seconds, err = ttl(at); h.asksConn() {
		return false, 0, err
	}
	return expires, seconds, err
}

// subDeadline is when a subscription is ended, or the backend asked; 0 never.
func (h *Hub) subDeadline(r *rules, at time.Time) time.Duration {
	if r.SubRefreshProxyEnabled {
		return h.deadline(at, 0)
	}
	return h.deadline(at, h.settings.Client.ExpiredSubDelay)
}

// ttl is ttl as clients are told of their subscriptions.
func (r *rules) ttl(at time.Time) (expires bool, seconds uint32, err error) {
	if expires, seconds, err = ttl(at); r.SubRefreshProxyEnabled {
		return false, 0, err
	}
	return expires, seconds, err
}

// startAsking starts the workers that ask whether connections and subscriptions
// go on.
func (h *Hub) startAsking(g *errgroup.Group) {
	if h.ask == nil {
		return
	}
	for range askWorkers {
		g.Go(func() error {
			for {
				c, ok := h.asks.pop()
				if !ok {
					return nil
				}
				c.askWhatIsDue()
			}
		})
	}
}

// planAsking notes when to ask next; mu is held.
func (c *client) planAsking() {
	a := c.asking
	if a == nil {
		return
	}
	a.at = 0
	soonest := func(at time.Duration) {
		if at > 0 && (a.at == 0 || at < a.at) {
			a.at = at
		}
	}
	if c.hub.asksConn() {
		soonest(c.endAt)
	}
	for s := range c.subs.all() {
		if s.asked() {
			soonest(s.known().endAt)
		}
	}
}

// dueToAsk is the part of due about questions; mu is held.
func (c *client) dueToAsk(now time.Duration, todo *chores) (next time.Duration) {
	a := c.asking
	switch {
	case a == nil || a.at == 0 || a.busy:
		return now + longAway
	case now < a.at:
		return a.at
	}
	a.busy, todo.ask = true, true
	return now + longAway // whoever asks says when to look again
}

// askWhatIsDue asks whether the connection and its subscriptions go on, those
// whose time has come.
func (c *client) askWhatIsDue() {
	if c.asking.ctx.Err() != nil { // it ended while it waited for a worker
		return
	}
	now := c.hub.now()
	c.mu.Lock()
	due := c.hub.asksConn() && c.endAt > 0 && now >= c.endAt
	var subs []*subscription
	for s := range c.subs.all() {
		if t := s.known(); s.asked() && t.endAt > 0 && now >= t.endAt && t.left == nil {
			subs = append(subs, s)
		}
	}
	c.mu.Unlock()
	stays := !due || c.askToGoOn()
	for _, s := range subs {
		stays = stays && c.askSubToGoOn(s)
	}
	if !stays {
		return
	}
	c.mu.Lock()
	c.asking.busy = false
	c.planAsking()
	c.mu.Unlock()
	c.hub.wheel.set(c, c.hub.now())
}

// sentAway tells whether the connection is at its end: by the answer, or
// without it.
func (c *client) sentAway(err error) bool {
	d, ok := errors.AsType[*Disconnect](wordsOf(err))
	if ok {
		c.disconnect(d)
	}
	return ok || c.asking.ctx.Err() != nil
}

// askToGoOn asks whether the connection goes on, and reports whether it does.
func (c *client) askToGoOn() (stays bool) {
	a, err := c.hub.ask.Refresh(c.asking.ctx, c.caller())
	switch {
	case c.sentAway(err):
		return false
	case err == nil && a.Expired:
		c.disconnect(DisconnectExpired)
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.endAt = c.hub.now() + askAgain
		return true
	}
	c.endAt = c.hub.connDeadline(a.Expires)
	if a.Info != nil {
		c.inform(a.Info)
	}
	return true
}

// askSubToGoOn asks whether a subscription goes on. It reports whether the
// connection does.
func (c *client) askSubToGoOn(s *subscription) (stays bool) {
	a, err := c.hub.ask.SubRefresh(c.asking.ctx, s.rules().SubRefreshProxyName, c.caller(), s.name)
	switch {
	case c.sentAway(err):
		return false
	case err == nil && a.Expired:
		ctx, cancel := c.hub.timeout()
		defer cancel()
		return c.expire(ctx, s)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		s.endsAt(c.hub.now() + askAgain)
		return true
	}
	s.endsAt(c.hub.subDeadline(s.rules(), a.Expires))
	if a.Info != nil {
		s.change().info = protocol.Raw(a.Info)
	}
	return true
}
