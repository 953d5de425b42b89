package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/auth/connjwt"
	"github.com/minigate/minigate/gateway/ask"
)

// identity is whose connection it is, and how that can be asked again.
type identity struct {
	session  *auth.Session
	personal string                // the user's own channel, "": none, or he is known already
	jwt      *connjwt.ConnectToken // instead of a login
	said     *ask.ConnectAnswer    // by the connect proxy, nil: it was not asked or had nothing to say
}

// takesJWT tells whether a connect token is for the verifier of JWTs.
func (h *Hub) takesJWT(token string) bool {
	return h.connectTokens != nil && token != "" && !auth.IsLoginToken(token)
}

// verifyJWT makes an identity out of a connection token. Its user has no
// mini-program, and so never is the same as one who logged in; but blocking the
// openid keeps both out.
func (h *Hub) verifyJWT(ctx context.Context, token string) (identity, error) {
	if h.connectTokens == nil { // to refresh a connection that came without any token
		return identity{}, DisconnectInvalidToken
	}
	t, err := h.connectTokens.Connect(ctx, token)
	if err == nil {
		err = h.checkBlocked(ctx, t.User)
	}
	switch {
	case err != nil:
		return identity{}, err
	case t.User == "" && h.settings.Client.DisallowAnonTokens:
		return identity{}, DisconnectPermissionDenied
	case h.settings.Client.Insecure:
		t.Expires = time.Time{}
	}
	session := &auth.Session{
		Fingerprint: sha256.Sum256([]byte(token)),
		User:        auth.User{OpenID: t.User},
		Created:     time.Now(),
	}
	return identity{session: session, jwt: t}, nil
}

// nobody is the identity of a connection that came without any token: that of
// a JWT that says nothing.
func nobody(client string) identity {
	return identity{
		session: &auth.Session{Fingerprint: sha256.Sum256([]byte(client)), Created: time.Now()},
		jwt:     &connjwt.ConnectToken{},
	}
}

// checkBlocked returns DisconnectBlocked for a user who is kept out. Logins need
// no such question: blocking ends them.
func (h *Hub) checkBlocked(ctx context.Context, user string) error {
	if h.blocked == nil || user == "" {
		return nil
	}
	block, err := h.blocked(ctx, user)
	if err == nil && block != nil {
		return DisconnectBlocked
	}
	return err
}

// ttl is what a client is told about when something expires: in how many whole
// seconds, or never. Zero seconds or less is an error.
func ttl(at time.Time) (expires bool, seconds uint32, err error) {
	if at.IsZero() {
		return false, 0, nil
	}
	left := time.Until(at)
	if left <= 0 {
		return false, 0, ErrExpired
	}
	const longest = 1<<31 - 1 // of a timer in JavaScript, in milliseconds: about 24 days
	return true, uint32(min(max(left.Round(time.Second), time.Second), longest*time.Millisecond) / time.Second), nil
}

// deadline is when something that expires at the given time is ended; 0 never.
// The delay is for a new token: SDKs fetch one only when the time has come.
func (h *Hub) deadline(at time.Time, delay time.Duration) time.Duration {
	if at.IsZero() {
		return 0
	}
	const century = 100 * 365 * 24 * time.Hour // nothing lives so long, and the sum cannot overflow
	return h.now() + min(time.Until(at), century) + delay
}

// refreshJWT is refresh for a connection that began with a JWT.
func (c *client) refreshJWT(ctx context.Context, token string) (*protocol.RefreshResult, error) {
	who, err := c.hub.verifyJWT(ctx, strings.Clone(token))
	if err = refreshError(err); err != nil {
		return nil, err
	}
	expires, seconds, err := c.hub.connTTL(who.jwt.Expires)
	if err != nil {
		return nil, DisconnectExpired
	}
	c.mu.Lock()
	if !c.login.sameUser(who.session) {
		c.mu.Unlock()
		return nil, DisconnectInvalidToken
	}
	c.identify(who)
	c.mu.Unlock()
	c.lookSoon()
	return &protocol.RefreshResult{Expires: expires, Ttl: seconds}, nil
}

// identify notes whose connection it is; mu is held.
func (c *client) identify(who identity) {
	openID := who.session.User.OpenID
	switch {
	case c.login != nil: // of the same user
		openID = c.login.openID
	case who.personal != "": // its name ends with the openid
		openID = who.personal[len(who.personal)-len(openID):]
	}
	c.login = newLogin(who.session, openID)
	if c.rare != nil {
		c.rare.info = nil
	}
	if who.jwt != nil {
		c.jwt = true
		c.inform(who.jwt.Info)
	}
	c.endAt = c.hub.connDeadline(who.expires())
	c.remember(who)
}

// inform sets what others see of the client; mu is held.
func (c *client) inform(info []byte) {
	raw := protocol.Raw(info)
	c.makeRare().info = &raw
}

// lookSoon has deadlines that changed taken into account.
func (c *client) lookSoon() {
	c.mu.Lock()
	c.checkAt = min(c.checkAt, c.nextCheck())
	c.planAsking()
	c.mu.Unlock()
	c.hub.wheel.set(c, c.hub.now())
}

// nextCheck is when check has something to do again; mu is held.
func (c *client) nextCheck() time.Duration {
	at := c.hub.nextCheck(c.login)
	if c.endAt > 0 && !c.hub.asksConn() {
		at = min(at, c.endAt)
	}
	for s := range c.subs.all() {
		if end := s.known().endAt; end > 0 && !s.asked() {
			at = min(at, end)
		}
	}
	return at
}

// verifyAgain finds out whether a connected client is still who it was.
func (c *client) verifyAgain(ctx context.Context) (*auth.Session, error) {
	c.mu.Lock()
	l, jwt, endAt := c.login, c.jwt, c.endAt
	c.mu.Unlock()
	switch {
	case endAt > 0 && !c.hub.asksConn() && c.hub.now() >= endAt:
		return nil, ErrExpired
	case jwt:
		return &auth.Session{Fingerprint: l.fingerprint, User: l.user()}, c.hub.checkBlocked(ctx, l.openID)
	}
	return c.hub.alive(ctx, l.fingerprint)
}

// grant verifies the token of a subscribe request; nil where there is none, or
// it is for the backend, and others decide.
func (c *client) grant(ctx context.Context, channel, token string, r *rules) (*connjwt.SubscribeToken, error) {
	switch {
	case token == "" && isPrivate(channel):
		return nil, ErrPermissionDenied
	case token == "", c.hub.subscribeTokens == nil && r.SubscribeProxyEnabled:
		return nil, nil
	case c.hub.subscribeTokens == nil:
		return nil, ErrPermissionDenied
	}
	t, err := c.hub.subscribeTokens.Subscribe(ctx, token)
	if errors.Is(err, connjwt.ErrInvalid) {
		return nil, ErrPermissionDenied
	}
	if err != nil {
		return nil, err
	}
	return t, c.fits(t, channel)
}

// fits tells whether a subscription token was made for this user, connection
// and channel.
func (c *client) fits(t *connjwt.SubscribeToken, channel string) error {
	if t.Channel != channel || t.User != c.user() || t.Client != "" && !c.id.is(t.Client) {
		return DisconnectInvalidToken
	}
	return nil
}

// subRefresh replaces the token of a subscription, which lets it live longer.
func (c *client) subRefresh(ctx context.Context, req *protocol.SubRefreshRequest) (*protocol.SubRefreshResult, error) {
	channel, r, subscribed, err := c.target(req.Channel)
	switch {
	case err != nil:
		return nil, err
	case !subscribed:
		return nil, ErrPermissionDenied
	case req.Token == "":
		return nil, ErrBadRequest
	case c.hub.subscribeTokens == nil:
		return nil, ErrPermissionDenied
	}
	t, err := c.hub.subscribeTokens.Subscribe(ctx, req.Token)
	if err == nil {
		err = c.fits(t, channel)
	}
	if err != nil {
		return nil, subRefreshError(err)
	}
	expires, seconds, err := r.ttl(t.Expires)
	if err != nil {
		return nil, subRefreshError(err)
	}
	c.mu.Lock()
	if s := c.subs.get(channel); s != nil {
		s.endsAt(c.hub.subDeadline(s.rules(), t.Expires))
	}
	c.mu.Unlock()
	c.lookSoon()
	return &protocol.SubRefreshResult{Expires: expires, Ttl: seconds}, nil
}

// subRefreshError ends connections whose tokens are no good: here SDKs would
// take an error for the end of the subscription.
func subRefreshError(err error) error {
	switch {
	case errors.Is(err, connjwt.ErrInvalid):
		return DisconnectInvalidToken
	case errors.Is(err, connjwt.ErrExpired), errors.Is(err, ErrExpired):
		return DisconnectSubscriptionExpired
	}
	return err
}

// endExpired ends subscriptions whose tokens were not replaced. Their clients
// subscribe again, with a new token if they get one.
func (c *client) endExpired(ctx context.Context) {
	now := c.hub.now()
	var expired []*subscription
	c.mu.Lock()
	for s := range c.subs.all() {
		if end := s.known().endAt; end > 0 && !s.asked() && now >= end {
			expired = append(expired, s)
		}
	}
	c.mu.Unlock()
	for _, s := range expired {
		if !c.expire(ctx, s) {
			return
		}
	}
}

// expire ends a subscription, or else the connection, and reports which.
func (c *client) expire(ctx context.Context, s *subscription) (stays bool) {
	if s.serverSide { // SDKs would forget it
		c.disconnect(DisconnectSubscriptionExpired)
		return false
	}
	c.leaveFor(ctx, s, c.encodePush(&protocol.Push{Channel: s.name, Unsubscribe: &protocol.Unsubscribe{
		Code: unsubscribedExpired, Reason: "subscription expired",
	}}), leftExpired)
	return true
}

// adjust returns rules with what a token overrides. Without history nothing can
// be recovered, whatever a token says.
func (r *rules) adjust(o connjwt.Override) *rules {
	if o == (connjwt.Override{}) {
		return r
	}
	adjusted := *r
	for _, v := range []struct {
		to   *bool
		from *bool
		may  bool
	}{
		{&adjusted.Presence, o.Presence, true},
		{&adjusted.JoinLeave, o.JoinLeave, true},
		{&adjusted.ForcePushJoinLeave, o.ForcePushJoinLeave, true},
		{&adjusted.ForceRecovery, o.ForceRecovery, r.keepsHistory()},
		{&adjusted.ForcePositioning, o.ForcePositioning, r.keepsHistory()},
	} {
		if v.from != nil && v.may {
			*v.to = *v.from
		}
	}
	return &adjusted
}
