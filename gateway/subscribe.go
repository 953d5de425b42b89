package gateway

import (
	"context"
	"log/slog"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/auth/connjwt"
)

// Flags of a subscribe command.
const (
	flagChannelIDs        = 1 << 0 // the client can do with a number instead of the channel's name
	flagRejectUnrecovered = 1 << 1 // asks for error 112 instead of a subscription that could not be recovered; not in cache mode
)

func (c *client) subscribe(ctx context.Context, id uint32, req *protocol.SubscribeRequest) error {
	s, t, err := c.admit(ctx, req)
	if err != nil {
		return err
	}
	res, err := c.attach(ctx, s, req)
	if err != nil {
		return err
	}
	if res.Expires, res.Ttl, err = s.rules().ttl(t.Expires); err != nil {
		c.leave(ctx, s, nil)
		return err
	}
	if s.recoverable && !s.rules().cacheMode() && res.WasRecovering && !res.Recovered && req.Flag&flagRejectUnrecovered != 0 {
		c.leave(ctx, s, nil)
		return ErrUnrecoverable
	}
	if special := s.special(); special != nil {
		special.data = nil // it has served, and may be large
	}
	c.reply(c.encodeReply(&protocol.Reply{Id: id, Subscribe: res}), s)
	if !t.Expires.IsZero() {
		c.lookSoon()
	}
	c.hub.announceJoin(s)
	return nil
}

// admit decides whether a client may subscribe, and reserves the channel. The
// token it returns is empty where the rules of the channel decided.
func (c *client) admit(ctx context.Context, req *protocol.SubscribeRequest) (*subscription, *connjwt.SubscribeToken, error) {
	if req.Channel == "" || req.Delta != "" && req.Delta != fossil {
		return nil, nil, DisconnectBadRequest
	}
	c.awaitLeft(ctx, req.Channel)
	if err := c.mayReserve(req.Channel); err != nil {
		return nil, nil, err
	}
	channel, r, _, err := c.target(req.Channel)
	switch {
	case err != nil:
		return nil, nil, err
	case req.Type != 0:
		return nil, nil, ErrPermissionDenied // no other kinds of subscriptions
	}
	t, err := c.grant(ctx, channel, req.Token, r)
	if err == nil && t == nil && r.asksToSubscribe(channel, c.user()) {
		t, err = c.askToSubscribe(channel, r, req)
	}
	if err != nil {
		return nil, nil, err
	}
	granted := t != nil
	if !granted {
		t = &connjwt.SubscribeToken{}
	}
	s := c.newSubscription(channel, r, req, t.SubscribeOptions)
	s.endsAt(c.hub.subDeadline(r, t.Expires))
	if err := c.reserve(s); err != nil {
		return nil, nil, err
	}
	if !granted && !r.insecure && !r.maySubscribe(channel, c.user()) {
		c.release(s)
		return nil, nil, ErrPermissionDenied
	}
	if req.Tf != nil {
		if s.specially().filter, err = r.tagsFilter(req.Tf); err != nil {
			c.release(s)
			return nil, nil, err
		}
	}
	return s, t, nil
}

// tagsFilter returns the filter that a subscriber asks for.
func (r *rules) tagsFilter(n *protocol.FilterNode) (*filter, error) {
	if !r.AllowTagsFilter {
		return nil, ErrBadRequest
	}
	f, err := newFilter(n)
	if err != nil {
		return nil, ErrBadRequest.Because(err)
	}
	return f, nil
}

// newSubscription settles what the subscriber gets of what it asked for.
func (c *client) newSubscription(channel string, r *rules, req *protocol.SubscribeRequest, o connjwt.SubscribeOptions) *subscription {
	user := c.user()
	namespace := r
	r = r.adjust(o.Override)
	mayHistory := r.keepsHistory() && r.mayReadHistory(channel, user, true)
	s := &subscription{client: c, name: c.hub.channels.nameOf(channel), rule: r.number, encoding: c.encoding()}
	if r != namespace {
		s.more().rules = r
	}
	if o.Info != nil {
		s.change().info = protocol.Raw(o.Info)
	}
	if o.Data != nil {
		s.specially().data = protocol.Raw(o.Data)
	}
	if req.Delta == fossil && req.Tf == nil && r.allowsDelta() { // a filter would tear the chain of deltas
		s.encoding |= forDelta
		s.specially().sent = new(publicationID)
	}
	s.recoverable = r.ForceRecovery || req.Recoverable && (r.AllowRecovery || mayHistory)
	s.positioned = s.recoverable || r.ForcePositioning || req.Positioned && (r.AllowPositioning || mayHistory)
	s.joinLeave = r.JoinLeave && (r.ForcePushJoinLeave || req.JoinLeave && r.mayReadPresence(channel, user, true))
	return s
}

// awaitLeft waits for the end of a subscription that the server is ending: the
// client may have been told already, and comes back before all is done.
func (c *client) awaitLeft(ctx context.Context, channel string) {
	left := c.leaving(channel)
	if left == nil {
		return
	}
	select {
	case <-left:
	case <-ctx.Done():
	}
}

// leaving returns what is closed once the end of a subscription that has begun
// is complete; nil where none has.
func (c *client) leaving(channel string) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.subs.get(channel); s != nil {
		return s.known().left
	}
	return nil
}

// mayReserve tells what reserve would, before anything else is asked: as with
// the protocol's own server, who is subscribed is told so whatever it sends.
func (c *client) mayReserve(channel string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.full(channel)
}

// full tells why there is no place for a channel, or nil; mu is held.
func (c *client) full(channel string) error {
	switch {
	case c.subs.get(channel) != nil:
		return ErrAlreadySubscribed
	case c.subs.len() >= c.hub.settings.Client.ChannelLimit && len(channel) <= c.hub.settings.Channel.MaxLength:
		return ErrLimitExceeded
	}
	return nil
}

// reserve takes a place among the client's channels.
func (c *client) reserve(s *subscription) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs.get(s.name) != nil {
		return ErrAlreadySubscribed
	}
	return c.take(s)
}

// take is the second half of reserve; mu is held.
func (c *client) take(s *subscription) error {
	if err := c.full(s.name); err != nil {
		return err
	}
	c.subs.add(s)
	return nil
}

func (c *client) release(s *subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs.remove(s)
}

// attach makes a reserved subscription hear its channel and finds out where it
// stands. Pushes begin with the reply that announces it.
//
// Nothing published meanwhile is lost or doubled: the channel is heard, and
// its log kept, from before history is read, and what the log has up to the
// position read is passed over.
func (c *client) attach(ctx context.Context, s *subscription, req *protocol.SubscribeRequest) (*protocol.SubscribeResult, error) {
	if err := c.hub.enter(ctx, s.name, s.rules(), s); err != nil {
		c.release(s)
		return nil, err
	}
	res := &protocol.SubscribeResult{
		Recoverable: s.recoverable, Positioned: s.positioned, WasRecovering: req.Recover, Delta: s.encoding&forDelta != 0,
	}
	if special := s.special(); special != nil {
		res.Data = special.data
	}
	if req.Flag&flagChannelIDs != 0 && c.takesChannelIDs() && !s.serverSide {
		s.encoding |= byID
		res.Id = s.channel.id
	}
	if err := c.position(ctx, s, req, res); err != nil {
		c.leave(ctx, s, nil)
		return nil, err
	}
	if s.rules().Presence {
		if err := c.hub.engine.AddPresence(ctx, s.name, c.id.String(), c.infoIn(s.name)); err != nil {
			c.leave(ctx, s, nil)
			return nil, err
		}
	}
	return res, nil
}

// takesChannelIDs tells whether a subscription that asks for a number instead
// of its channel's name may be given one. Not so in Protobuf: there the stock
// SDK for JavaScript asks, but reads the number as an object that is never
// equal to another, and loses every publication. Nor is one ever given to a
// subscription of the server, which no SDK finds by its number.
func (c *client) takesChannelIDs() bool {
	return !c.binary && c.hub.settings.Client.AllowChannelCompaction
}

// leave ends a subscription everywhere, sends notice if there is one, and
// reports whether it was this call that did. The name stays reserved until all
// of it is done, so that the old one's end cannot remove the presence of a new
// subscription, nor its notice be taken for one about that.
func (c *client) leave(ctx context.Context, s *subscription, notice []byte) bool {
	c.mu.Lock()
	t := s.change()
	first, joined := t.left == nil, t.joined
	if first {
		t.left = make(chan struct{})
		defer close(t.left)
	}
	c.mu.Unlock()
	if !first {
		return false
	}
	c.silence(s)
	h := c.hub
	if s.channel != nil {
		if err := h.exit(ctx, s); err != nil {
			slog.Debug("engine did not unsubscribe", "channel", s.name, "error", err)
		}
	}
	info := c.infoIn(s.name)
	if s.rules().Presence {
		if err := h.engine.RemovePresence(ctx, s.name, c.id.String()); err != nil {
			slog.Debug("presence not removed", "channel", s.name, "error", err) // its lease ends with the node's
		}
	}
	if joined != nil {
		<-joined // the leave comes after the join
		if err := h.engine.PublishLeave(ctx, s.name, info); err != nil {
			slog.Debug("leave not published", "channel", s.name, "error", err)
		}
	}
	if notice != nil {
		c.send(notice)
	}
	c.release(s)
	return true
}

// announceJoin tells the other subscribers, and the client itself.
func (h *Hub) announceJoin(s *subscription) {
	if !s.rules().JoinLeave {
		return
	}
	c := s.client
	c.mu.Lock()
	t := s.change()
	gone := t.left != nil
	if !gone {
		t.joined = make(chan struct{})
		defer close(t.joined)
	}
	c.mu.Unlock()
	if gone {
		return
	}
	ctx, cancel := h.timeout() // the command may have used up its own, waiting for room
	defer cancel()
	if err := h.engine.PublishJoin(ctx, s.name, c.infoIn(s.name)); err != nil {
		slog.Debug("join not published", "channel", s.name, "error", err)
	}
}
