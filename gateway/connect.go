package gateway

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

// connect logs a client in and subscribes it to what the server decides. It
// reports whether more commands may follow.
func (c *client) connect(ctx context.Context, cmd *protocol.Command) bool {
	req := cmd.Connect
	who, err := c.authenticate(ctx, req.Token)
	if err == nil {
		who, err = c.introduce(ctx, who, req)
	}
	if err != nil {
		return c.reject(cmd.Id, err)
	}
	who.personal = c.hub.channels.nameOf(c.hub.rules.personalChannel(who.session.User.OpenID))
	c.mu.Lock()
	c.identify(who)
	mine := c.login
	c.software = unique.Make(software{c.software.Value().agent, clip(req.Name, 16), clip(req.Version, 64)})
	c.mu.Unlock()
	if !c.hub.clients.login(c, mine.openID, c.hub.settings.Client.UserConnectionLimit) {
		return c.reject(cmd.Id, DisconnectConnectionLimit)
	}
	c.enlist(ctx, mine.openID)
	subs, results, err := c.subscribeByServer(ctx, who, req.Subs)
	if err != nil {
		return c.reject(cmd.Id, err)
	}
	expires, seconds, err := c.hub.connTTL(who.expires())
	if err != nil {
		return c.reject(cmd.Id, err)
	}
	if err := c.claim(ctx, mine); err != nil {
		return c.reject(cmd.Id, err)
	}
	if !c.welcome() {
		return false
	}
	c.arrive(mine.user())
	s := &c.hub.settings.Client
	res := &protocol.ConnectResult{
		Client:  c.id.String(),
		Version: c.hub.version,
		Subs:    results,
		Expires: expires,
		Ttl:     seconds,
		Data:    who.data(),
		Ping:    uint32(s.PingInterval / time.Second),
		Pong:    s.PingInterval > 0,
	}
	if s.IncludeServerTime {
		res.Time = time.Now().UnixMilli()
	}
	c.reply(c.encodeReply(&protocol.Reply{Id: cmd.Id, Connect: res}), subs...)
	for _, sub := range subs {
		c.hub.announceJoin(sub)
	}
	c.greet()
	return true
}

// reject answers a connect command that failed. After an error reply the
// connection is of no use; the client closes it, or is closed as stale.
func (c *client) reject(id uint32, err error) bool {
	c.mu.Lock()
	if c.state == opened {
		c.state = rejected
	}
	subs := slices.Collect(c.subs.all())
	c.mu.Unlock()
	ctx, cancel := c.hub.timeout()
	defer cancel()
	for _, s := range subs {
		c.leave(ctx, s, nil)
	}
	c.answer(id, err)
	return false
}

// welcome makes the client connected, unless it was ended meanwhile.
func (c *client) welcome() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != opened {
		return false
	}
	now := c.hub.now()
	c.state = connected
	c.firstPing(now)
	c.planAsking()
	c.recheckSession(now)
	return true
}

// recheckSession has the session verified once more, now that EndSession would
// find this client: it may have ended since it was verified. mu is held.
func (c *client) recheckSession(now time.Duration) {
	c.checkAt = now
	c.hub.wheel.set(c, now)
}

// authenticate finds out whose connection it is. Everything that carries a token
// must carry one of the same user. Without any there is no session.
func (c *client) authenticate(ctx context.Context, token string) (who identity, err error) {
	o := c.opening
	if o.verdict != nil {
		return who, ErrTokenExpired // other verdicts have ended the connection already
	}
	if c.hub.takesJWT(token) && len(o.tokens) == 0 && o.ticket == "" {
		who, err = c.hub.verifyJWT(ctx, strings.Clone(token))
		return who, loginError(err)
	}
	tokens := o.tokens
	if token != "" {
		tokens = append(tokens[:len(tokens):len(tokens)], strings.Clone(token))
	}
	for _, t := range tokens {
		s, err := c.hub.verify(ctx, t)
		switch {
		case err != nil:
			return who, loginError(err)
		case who.session != nil && !sameUser(s, who.session):
			return who, DisconnectInvalidToken
		}
		who.session = s
	}
	if o.ticket != "" {
		s, err := c.hub.verifyTicket(ctx, o.ticket)
		switch {
		case err != nil:
			return who, loginError(err)
		case who.session == nil:
			who.session = s
		case !sameUser(s, who.session):
			return who, DisconnectInvalidToken
		}
	}
	return who, nil
}

func sameUser(a, b *auth.Session) bool {
	return a.User.OpenID == b.User.OpenID && a.User.AppID == b.User.AppID
}

// loginError tells a token that cannot be one from one that is none any more,
// which SDKs replace when they are told 109.
func loginError(err error) error {
	if err == nil {
		return nil
	}
	e := fault.Of(err)
	if e.Code == "ticket_expired" || e.Code == "ticket_used" {
		return ErrTokenExpired
	}
	if e.Kind == fault.Unauthenticated && e.Code != ErrTokenExpired.Code {
		return DisconnectInvalidToken
	}
	return err
}

// subscribeByServer subscribes a client to its personal channels, to those its
// token names, and to those it asks for and may have.
func (c *client) subscribeByServer(ctx context.Context, who identity, asked map[string]*protocol.SubscribeRequest) ([]*subscription, map[string]*protocol.SubscribeResult, error) {
	wanted, err := c.serverChannels(who, asked)
	if err != nil {
		return nil, nil, err
	}
	var subs []*subscription
	results := make(map[string]*protocol.SubscribeResult, len(wanted))
	for _, channel := range wanted {
		r, err := c.hub.rules.find(channel)
		if err != nil {
			return nil, nil, err
		}
		req := asked[channel]
		if req == nil {
			req = &protocol.SubscribeRequest{}
		}
		s, err := c.newServerSubscription(channel, r, req, who.sub(channel))
		if err != nil {
			return nil, nil, err
		}
		if err := c.reserve(s); errors.Is(err, ErrLimitExceeded) {
			return nil, nil, DisconnectChannelLimit
		} else if err != nil {
			return nil, nil, err
		}
		res, err := c.attach(ctx, s, req)
		if err != nil {
			return nil, nil, err
		}
		subs, results[channel] = append(subs, s), res
	}
	return subs, results, nil
}

// refresh replaces the session of a connection by another one of the same
// user. SDKs do it on their own only where a connection expires, which ours do
// not: traffic extends the login.
func (c *client) refresh(ctx context.Context, req *protocol.RefreshRequest) (*protocol.RefreshResult, error) {
	if req.Token == "" {
		return nil, DisconnectBadRequest
	}
	if c.jwt { // set by connect, on this goroutine
		return c.refreshJWT(ctx, req.Token)
	}
	session, err := c.hub.verify(ctx, strings.Clone(req.Token))
	if err = refreshError(err); err != nil {
		return nil, err
	}
	c.mu.Lock()
	if !c.login.sameUser(session) {
		c.mu.Unlock()
		return nil, DisconnectInvalidToken
	}
	info, endAt := c.connInfo(), c.endAt
	c.identify(identity{session: session})
	if c.asking != nil && c.asking.answered { // what the backend said outlives its login
		c.makeRare().info, c.endAt = &info, endAt
		c.planAsking()
	}
	c.mu.Unlock()
	c.mu.Lock()
	c.recheckSession(c.hub.now())
	c.mu.Unlock()
	return &protocol.RefreshResult{}, nil
}

// refreshError is loginError for refresh, which must never be answered with
// 109: SDKs take that as the end.
func refreshError(err error) error {
	if err == nil {
		return nil
	}
	if err = loginError(err); errors.Is(err, ErrTokenExpired) {
		return DisconnectExpired
	}
	return err
}

// nextCheck is when a session has to be verified again.
func (h *Hub) nextCheck(l *login) time.Duration {
	at := h.settings.Client.SessionCheckInterval
	if l.expires != 0 {
		at = min(at, max(time.Until(time.Unix(0, l.expires)), time.Second))
	}
	return h.now() + at
}

func clip(s string, limit int) string { return strings.Clone(s[:min(len(s), limit)]) }
