package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/auth/connjwt"
	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/fault"
)

// What nodes ask each other; the answers are numbers of connections concerned,
// and of subscribe a subscribed.
const (
	opDisconnect  = "disconnect"
	opUnsubscribe = "unsubscribe"
	opSubscribe   = "subscribe"
	opRefresh     = "refresh"
	opSingle      = "single"
	opMessage     = "message"
	opForget      = "forget" // the payload is a removal
)

var errNotSubscribed = fault.New(fault.Unavailable, "not_subscribed", "None of the user's connections could be subscribed now.")

// userRequest is an operation on the connections of one user.
type userRequest struct {
	User      string   `json:"user"`
	Client    string   `json:"client,omitempty"`
	Session   string   `json:"session,omitempty"`
	Channel   string   `json:"channel,omitempty"` // unsubscribe: "" is all
	Code      uint32   `json:"code,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	Whitelist []string `json:"whitelist,omitempty"`

	Subscribe *SubscribeOptions `json:"subscribe,omitempty"`
	Refresh   *RefreshOptions   `json:"refresh,omitempty"`
	Device    string            `json:"device,omitempty"` // single: "" is every device
	Turn      engine.Position   `json:"turn,omitzero"`    // single: of the newer connection
}

// Selection narrows down which connections of a user are meant. The zero value
// means all of them.
type Selection struct {
	Client  string // only this connection
	Session string // only connections of this session, as in ConnectionInfo.Session
}

// SubscribeOptions are how a subscription made by the server differs from what
// its namespace says.
type SubscribeOptions struct {
	Info     json.RawMessage  `json:"info,omitempty"` // what others see of it (chan_info); nil: nothing
	Data     json.RawMessage  `json:"data,omitempty"` // for the client, with the subscription; nil: nothing
	Override connjwt.Override `json:"override,omitzero"`
	ExpireAt time.Time        `json:"expire_at,omitzero"` // when the subscription ends; zero: never
	Since    *engine.Position `json:"since,omitempty"`    // give what was published after it, too; nil: nothing
}

// RefreshOptions say how long connections go on.
type RefreshOptions struct {
	Expired  bool            `json:"expired,omitempty"`  // now is the end
	ExpireAt time.Time       `json:"expire_at,omitzero"` // the end unless refreshed; zero: never
	Info     json.RawMessage `json:"info,omitempty"`     // what others see of them from now on; nil leaves it
}

// Subscribe subscribes connections of a user to a channel, on all nodes. Those
// that are subscribed by the server already are told once more, with the
// position they have; those that have subscribed themselves stay as they are.
// That there are none is no error: a user who is to be in a channel whenever he
// connects belongs there by login or token. It is an error if there are some and
// none of them could be subscribed.
func (h *Hub) Subscribe(ctx context.Context, user, channel string, which Selection, o SubscribeOptions) error {
	switch _, err := h.rules.find(channel); {
	case err != nil:
		return err
	case len(o.Info) > 0 && !validData(o.Info), len(o.Data) > 0 && !validData(o.Data):
		return errBadData
	case !o.ExpireAt.IsZero() && time.Until(o.ExpireAt) <= 0:
		return ErrExpired
	}
	answers, err := h.askUser(ctx, opSubscribe, &userRequest{
		User: user, Client: which.Client, Session: which.Session, Channel: channel, Subscribe: &o,
	})
	if err != nil {
		return err
	}
	var sum subscribed
	for _, a := range answers {
		var n subscribed
		if json.Unmarshal(a, &n) == nil { // nil from a node that does not know op
			sum.Done, sum.Failed = sum.Done+n.Done, sum.Failed+n.Failed
		}
	}
	if sum.Done == 0 && sum.Failed > 0 {
		return errNotSubscribed
	}
	return nil
}

// Unsubscribe takes connections of a user out of a channel, or with "" out of
// all channels, on all nodes.
func (h *Hub) Unsubscribe(ctx context.Context, user, channel string, which Selection) error {
	if channel != "" {
		if _, err := h.rules.find(channel); err != nil {
			return err
		}
	}
	_, err := h.surveyUser(ctx, opUnsubscribe, &userRequest{
		User: user, Client: which.Client, Session: which.Session, Channel: channel,
	})
	return err
}

// Refresh says anew how long connections of a user go on, on all nodes. One
// that has expired is closed with 3005, after which its client comes back with
// a new token if it gets one.
func (h *Hub) Refresh(ctx context.Context, user string, which Selection, o RefreshOptions) error {
	if len(o.Info) > 0 && !validData(o.Info) {
		return errBadData
	}
	_, err := h.surveyUser(ctx, opRefresh, &userRequest{
		User: user, Client: which.Client, Session: which.Session, Refresh: &o,
	})
	return err
}

// serveUser does what another node, or this one, asks for, and returns how many
// connections that concerned.
func (h *Hub) serveUser(op string, req *userRequest) int {
	if op == opSingle {
		return h.keepOne(req)
	}
	list := h.concerned(req)
	var work sync.WaitGroup // a connection may have to wait for the engine
	for _, c := range list {
		switch op {
		case opDisconnect:
			c.disconnectFor(&Disconnect{req.Code, req.Reason}, endAPI)
		case opUnsubscribe:
			work.Go(func() { c.unsubscribeByServer(req.Channel) })
		case opRefresh:
			work.Go(func() { c.whenWelcome(func() { c.refreshByAPI(req.Refresh) }) })
		}
	}
	work.Wait()
	return len(list)
}

// subscribed is what became of an operation to subscribe connections. Those that
// ended meanwhile are in neither number.
type subscribed struct {
	Done   int `json:"done"`
	Failed int `json:"failed"`
}

// subscribeUser subscribes the local connections that a request is about.
func (h *Hub) subscribeUser(req *userRequest) subscribed {
	var mu sync.Mutex
	var sum subscribed // no named result: that would be read after mu is let go
	var work sync.WaitGroup
	for _, c := range h.concerned(req) {
		work.Go(func() {
			c.whenWelcome(func() {
				err := c.subscribeByAPI(req.Channel, req.Subscribe)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					sum.Done++
				case !errors.Is(err, errGone):
					sum.Failed++
					slog.Warn("subscription made by the server failed", "channel", req.Channel, "client", c.id, "error", err)
				}
			})
		})
	}
	work.Wait()
	mu.Lock() // whoever waited long enough for a connect command may still come
	defer mu.Unlock()
	return sum
}

// concerned lists the local connections a request is about.
func (h *Hub) concerned(req *userRequest) []*client {
	return slices.DeleteFunc(h.clients.ofUser(req.User), func(c *client) bool {
		_, ok := c.describe()
		return !ok || req.Client != "" && !c.id.is(req.Client) ||
			req.Session != "" && !c.inSession(req.Session) ||
			len(req.Whitelist) > 0 && slices.Contains(req.Whitelist, c.id.String())
	})
}

// isSession tells whether a session is meant: by its fingerprint, or by the
// shorter id that operators see.
func isSession(fp auth.Fingerprint, meant string) bool {
	return meant == fp.String() || meant == fp.ID()
}

// isOf tells whether the client has logged in with a session.
func (c *client) isOf(fp auth.Fingerprint) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.login != nil && c.login.fingerprint == fp
}

func (c *client) inSession(meant string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.login != nil && isSession(c.login.fingerprint, meant)
}

// maxEarly is how many operations may wait for one connect command.
const maxEarly = 128

// earlyWait is how long an operation waits for a connect command, so that it is
// done when its caller is told so: less than nodes wait for each other.
const earlyWait = time.Second

// whenWelcome calls f now or, for a client whose connect command is being
// handled, right after its reply, on the goroutine that reads. A client that is
// turned away or gone needs nothing any more.
func (c *client) whenWelcome(f func()) {
	c.mu.Lock()
	done := make(chan struct{})
	o := c.opening
	wait := o != nil && (c.state == opened || c.state == connected) && len(o.early) < maxEarly
	if wait {
		o.early = append(o.early, func() { defer close(done); f() })
	}
	now := c.state == connected && o == nil
	c.mu.Unlock()
	if now {
		f()
	}
	if !wait {
		return
	}
	limit := time.NewTimer(earlyWait)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	}
}

// greet does what had to wait for the reply to connect.
func (c *client) greet() {
	c.mu.Lock()
	early := c.opening.early
	c.opening = nil
	c.mu.Unlock()
	for _, f := range early {
		f()
	}
}

// subscribeByAPI subscribes a connected client to a channel.
func (c *client) subscribeByAPI(channel string, o *SubscribeOptions) error {
	r, err := c.hub.rules.find(channel)
	switch {
	case err != nil: // this node has other rules
		return err
	case o == nil:
		return ErrBadRequest
	}
	ctx, cancel := c.hub.timeout()
	defer cancel()
	req := &protocol.SubscribeRequest{}
	if o.Since != nil {
		req.Recover, req.Offset, req.Epoch = true, o.Since.Offset, o.Since.Epoch
	}
	s := c.newSubscription(channel, r, req, connjwt.SubscribeOptions{Info: o.Info, Data: o.Data, Override: o.Override})
	settled := make(chan struct{})
	s.serverSide, s.change().settled = true, settled
	defer close(settled)
	switch old, err := c.reserveByAPI(s); {
	case old != nil:
		c.repeat(old)
		return nil
	case errors.Is(err, errGone):
		return err
	case err != nil:
		c.disconnect(DisconnectChannelLimit)
		return err
	}
	res, err := c.attach(ctx, s, req)
	if err != nil {
		return err
	}
	c.announce(s, res)
	if !o.ExpireAt.IsZero() {
		c.mu.Lock()
		s.endsAt(c.hub.subDeadline(s.rules(), o.ExpireAt))
		c.mu.Unlock()
		c.lookSoon()
	}
	c.hub.announceJoin(s)
	return nil
}

// reserveByAPI is reserve for a client that is connected, and finds the
// subscription it has already.
func (c *client) reserveByAPI(s *subscription) (old *subscription, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old = c.subs.get(s.name); old != nil || c.state != connected {
		return old, errGone
	}
	return nil, c.take(s)
}

// announce tells a client that the server has subscribed it. What was published
// since the position asked for, and what follows, flows from then on.
func (c *client) announce(s *subscription, res *protocol.SubscribeResult) {
	if len(res.Publications) > 0 {
		s.specially().owed = owed{res.Publications, s.position}
		s.position.Offset = res.Offset
	}
	c.enqueue(encodeSubscribed(s, res), false, s)
}

// repeat tells a client once more that the server has subscribed it, and the
// position it has.
func (c *client) repeat(s *subscription) {
	if !s.serverSide || !s.isSettled() || !c.isLive(s) {
		return // its own doing, or it is being told just now
	}
	o := &c.out
	o.mu.Lock()
	s.again = true
	o.mu.Unlock()
	c.mark(s)
}

// announceAgain is the push that repeat asks for. Only the writer can make it:
// the position is that of what it has sent.
func (s *subscription) announceAgain() []byte {
	res := &protocol.SubscribeResult{
		Recoverable: s.recoverable, Positioned: s.positioned, Epoch: s.position.Epoch, Offset: s.position.Offset,
	}
	if special := s.special(); special != nil {
		res.Data = special.data
	}
	return encodeSubscribed(s, res)
}

func encodeSubscribed(s *subscription, res *protocol.SubscribeResult) []byte {
	return s.client.encodePush(&protocol.Push{Channel: s.name, Subscribe: &protocol.Subscribe{
		Recoverable: res.Recoverable, Positioned: res.Positioned, Epoch: res.Epoch, Offset: res.Offset, Data: res.Data,
	}})
}

// isSettled tells whether nobody is making the subscription just now.
func (s *subscription) isSettled() bool {
	settled := s.making()
	if settled == nil {
		return true
	}
	select {
	case <-settled:
		return true
	default:
		return false
	}
}

// making returns terms.settled; nil where the goroutine that reads makes s.
func (s *subscription) making() chan struct{} {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	return s.known().settled
}

// settle waits until nobody is making the subscription any more: that takes at
// most request_timeout.
func (s *subscription) settle() {
	if settled := s.making(); settled != nil {
		<-settled
	}
}

// unsubscribeByServer takes a client out of a channel, or with "" out of all.
func (c *client) unsubscribeByServer(channel string) {
	c.mu.Lock()
	var subs []*subscription
	for s := range c.subs.all() {
		if channel == "" || channel == s.name {
			subs = append(subs, s)
		}
	}
	c.mu.Unlock()
	ctx, cancel := c.hub.timeout()
	defer cancel()
	for _, s := range subs {
		s.settle()
		if !c.isLive(s) { // the client does not know of it yet
			continue
		}
		c.leaveFor(ctx, s, c.encodePush(&protocol.Push{Channel: s.name, Unsubscribe: &protocol.Unsubscribe{
			Code: unsubscribedByServer, Reason: "server unsubscribe",
		}}), leftServer)
	}
}

func (c *client) isLive(s *subscription) bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return s.live
}

// refreshByAPI says anew how long the connection goes on, and tells its client.
func (c *client) refreshByAPI(o *RefreshOptions) {
	if o == nil {
		return
	}
	expires, seconds, err := c.hub.connTTL(o.ExpireAt)
	if o.Expired || err != nil {
		c.disconnect(DisconnectExpired)
		return
	}
	c.mu.Lock()
	c.endAt = c.hub.connDeadline(o.ExpireAt)
	if len(o.Info) > 0 {
		c.inform(o.Info)
	}
	c.mu.Unlock()
	c.lookSoon()
	c.send(c.encodePush(&protocol.Push{Refresh: &protocol.Refresh{Expires: expires, Ttl: seconds}}))
}
