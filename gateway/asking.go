package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/auth/connjwt"
	"github.com/minigate/minigate/gateway/ask"
	"github.com/minigate/minigate/internal/fault"
)

// asking is what a connection needs where the backend is asked about it.
type asking struct {
	ctx    context.Context //nolint:containedctx // ends with the connection
	cancel context.CancelFunc

	headers  http.Header // of the handshake; read only
	emulated http.Header // of the connect command; set before anybody else looks

	// Guarded by client.mu.
	meta     json.RawMessage
	answered bool          // connect was asked and had something to say
	at       time.Duration // when to ask whether something goes on; 0: never
	busy     bool          // it is being asked, or waits for a worker
}

// errBackend stands for everything that keeps a question from being answered.
// It is counted, and logged when it begins, by package ask.
var errBackend = fault.New(fault.Unavailable, "backend_unavailable", "The service behind this server cannot say just now: try again.")

// wordsOf makes what the backend said, or failed to, an answer to a command.
func wordsOf(err error) error {
	if err == nil || fault.Of(err).Code == ErrNotAvailable.Code {
		return err
	}
	if e, ok := errors.AsType[*ask.Error](err); ok {
		return &ReplyError{e.Code, e.Message, e.Temporary}
	}
	if d, ok := errors.AsType[*ask.Disconnect](err); ok {
		return &Disconnect{d.Code, plainReason(d.Reason)}
	}
	return errBackend.Because(err)
}

// mayAsk keeps what of a handshake the backend wants to know.
func (c *client) mayAsk(h http.Header) (err error) {
	if c.hub.ask == nil {
		return nil
	}
	c.asking = &asking{}
	c.asking.headers, err = c.hub.ask.Headers(h, c.ip)
	return err
}

func (c *client) beginAsking() {
	if a := c.asking; a != nil {
		a.ctx, a.cancel = context.WithCancel(c.hub.life)
	}
}

// endAsking breaks off whatever the backend is asked about the connection.
func (c *client) endAsking() {
	if c.asking != nil {
		c.asking.cancel()
	}
}

// life is for how long calls to the backend make sense.
func (c *client) life() context.Context {
	if c.asking != nil {
		return c.asking.ctx
	}
	return c.hub.life
}

// patience is how much longer a command may take where the backend is asked.
func (h *Hub) patience(kind command) time.Duration {
	switch kind {
	case cmdConnect, cmdSubscribe, cmdPublish:
		return h.ask.Patience()
	}
	return 0 // rpc has a time of its own
}

// caller describes a connected client to the backend.
func (c *client) caller() *ask.Caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.callerOf(c.login.session(), c.jwt, c.asking.meta)
}

func (c *client) callerOf(s *auth.Session, jwt bool, meta json.RawMessage) *ask.Caller {
	a := &ask.Caller{Client: c.id.String(), Protocol: c.protocol(), Meta: meta, Headers: c.asking.headers, Emulated: c.asking.emulated}
	if s == nil {
		return a
	}
	a.User = s.User.OpenID
	if !jwt {
		a.Login = &ask.Login{AppID: s.User.AppID, UnionID: s.User.UnionID, Device: s.Device, Claims: s.Claims}
	}
	return a
}

// introduce makes sure that it is known whose connection it is: who may be
// nobody yet, whom the backend may know.
func (c *client) introduce(ctx context.Context, who identity, req *protocol.ConnectRequest) (identity, error) {
	p := &c.hub.settings.Client.Proxy.Connect
	if c.asking != nil {
		var err error
		if c.asking.emulated, err = c.hub.ask.Emulated(req.Headers); err != nil {
			return who, DisconnectBadRequest
		}
	}
	if c.asking != nil && (who.session == nil && p.Enabled || who.session != nil && who.jwt == nil && p.ForLogins) {
		a, err := c.askWho(who, req)
		if err != nil {
			return who, err
		}
		if who = c.believe(who, a); who.session != nil {
			err = c.hub.checkBlocked(ctx, who.session.User.OpenID)
		}
		if err != nil {
			return who, err
		}
	}
	if s := &c.hub.settings.Client; who.session == nil && (s.AllowAnonymous || s.Insecure) {
		return nobody(c.id.String()), nil
	}
	if who.session == nil {
		return who, DisconnectBadRequest
	}
	return who, nil
}

func (c *client) askWho(who identity, req *protocol.ConnectRequest) (*ask.ConnectAnswer, error) {
	if !c.mayAskWith(ask.Connect, "", req.Data) {
		return nil, ErrBadRequest
	}
	a, err := c.hub.ask.Connect(c.asking.ctx, c.callerOf(who.session, false, nil), ask.ConnectQuestion{
		Name: clip(req.Name, 16), Version: clip(req.Version, 64), Channels: slices.Sorted(maps.Keys(req.Subs)), Data: req.Data,
	})
	return a, wordsOf(err)
}

// mayAskWith tells whether a webhook can be sent data, which is anything where
// a client speaks Protobuf.
func (c *client) mayAskWith(kind ask.Kind, name string, data []byte) bool {
	return len(data) == 0 || validData(data) || c.hub.ask.Binary(kind, name)
}

// believe adds what the backend says to who it is. Whom it names is like the
// user of a JWT; who logged in stays who he is.
func (c *client) believe(who identity, a *ask.ConnectAnswer) identity {
	if a == nil {
		return who
	}
	if c.hub.settings.Client.Insecure {
		a.Expires = time.Time{}
	}
	who.said = a
	if who.session == nil {
		who.session = &auth.Session{Fingerprint: sha256.Sum256([]byte(c.id.String())), User: auth.User{OpenID: a.User}, Created: time.Now()}
		who.jwt = &connjwt.ConnectToken{User: a.User, Expires: a.Expires, Info: a.Info, Meta: a.Meta}
	}
	return who
}

// remember keeps what the backend may be told or has said; mu is held.
func (c *client) remember(who identity) {
	a := c.asking
	if a == nil {
		return
	}
	switch {
	case who.said != nil:
		a.answered, a.meta = true, who.said.Meta
		if who.said.Info != nil {
			c.inform(who.said.Info)
		}
	case who.jwt != nil:
		a.meta = who.jwt.Meta
	}
	c.planAsking()
}

// expires is when the connection does; zero is never: logins slide.
func (who identity) expires() time.Time {
	switch {
	case who.said != nil:
		return who.said.Expires
	case who.jwt != nil:
		return who.jwt.Expires
	}
	return time.Time{}
}

// channels are those that a JWT or the connect proxy names.
func (who identity) channels() []string {
	switch {
	case who.said != nil:
		return slices.Sorted(maps.Keys(who.said.Subs))
	case who.jwt != nil:
		return slices.Sorted(maps.Keys(who.jwt.Subs))
	}
	return nil
}

// sub is what was said about a channel of its own.
func (who identity) sub(channel string) ask.Sub {
	switch {
	case who.said != nil:
		return who.said.Subs[channel]
	case who.jwt != nil:
		return ask.Sub{SubscribeOptions: who.jwt.Subs[channel]}
	}
	return ask.Sub{}
}

// data is for the client, in the connect reply.
func (who identity) data() protocol.Raw {
	if who.said == nil {
		return nil
	}
	return protocol.Raw(who.said.Data)
}

// newServerSubscription is newSubscription for one that the server makes while
// the client connects.
func (c *client) newServerSubscription(channel string, r *rules, req *protocol.SubscribeRequest, o ask.Sub) (*subscription, error) {
	if o.CacheRecover && r.cacheMode() {
		cached := *r
		cached.AutoCacheRecover = true
		r = &cached
	}
	s := c.newSubscription(channel, r, req, o.SubscribeOptions)
	s.serverSide = true
	s.endsAt(c.hub.subDeadline(r, o.Expires))
	_, _, err := ttl(o.Expires)
	return s, err
}

// asksToSubscribe tells whether the backend decides who may subscribe. It never
// opens channels that are limited to other users, and those limited to this one
// need nobody's leave.
func (r *rules) asksToSubscribe(channel, user string) bool {
	return r.SubscribeProxyEnabled && !outsider(channel, user) && (!isUserLimited(channel) || !r.AllowUserLimitedChannels)
}

// askToSubscribe asks whether a client may subscribe. What it returns counts as
// a token.
func (c *client) askToSubscribe(channel string, r *rules, req *protocol.SubscribeRequest) (*connjwt.SubscribeToken, error) {
	if !c.mayAskWith(ask.Subscribe, r.SubscribeProxyName, req.Data) {
		return nil, ErrBadRequest
	}
	s, err := c.hub.ask.Subscribe(c.life(), r.SubscribeProxyName, c.callerNow(), channel, req.Token, req.Data)
	if err != nil {
		return nil, wordsOf(err)
	}
	return &connjwt.SubscribeToken{Expires: s.Expires, SubscribeOptions: s.SubscribeOptions}, nil
}

// callerNow is caller; nil where there is nobody to ask, who says so.
func (c *client) callerNow() *ask.Caller {
	if c.asking == nil {
		return nil
	}
	return c.caller()
}

// publishAsked publishes what the backend makes of it.
func (c *client) publishAsked(ctx context.Context, channel string, r *rules, data []byte) (*protocol.PublishResult, error) {
	if !c.mayAskWith(ask.Publish, r.PublishProxyName, data) {
		return nil, ErrBadRequest
	}
	a, err := c.hub.ask.Publish(c.life(), r.PublishProxyName, c.callerNow(), channel, data)
	if err != nil {
		return nil, wordsOf(err)
	}
	if len(a.Data) > 0 {
		data = a.Data
	}
	if !r.takes(data) {
		return nil, errBackend.Because(errors.New("its data is none that the channel takes"))
	}
	_, err = c.hub.publishBy(ctx, c.infoIn(channel), channel, r, data, PublishOptions{
		SkipHistory: a.SkipHistory, Tags: a.Tags, Delta: a.Delta, IdempotencyKey: a.IdempotencyKey, Version: a.Version, VersionEpoch: a.VersionEpoch,
	})
	if err != nil {
		return nil, err
	}
	return &protocol.PublishResult{}, nil
}

// rpcHandler answers the methods of one namespace.
type rpcHandler struct {
	run    RPCFunc
	binary bool // takes and gives what is not JSON, to those who speak Protobuf
}

// rpcHandler finds who answers a method: the webhook of its namespace, or
// whatever else there is.
func (c *client) rpcHandler(method string) (rpcHandler, error) {
	h := c.hub
	r, known := h.settings.RPC.Rules(method)
	switch {
	case r.ProxyEnabled:
		return rpcHandler{func(ctx context.Context, call RPC) (json.RawMessage, error) {
			data, err := h.ask.RPC(ctx, r.ProxyName, c.callerNow(), call.Method, call.Data)
			return data, wordsOf(err)
		}, h.ask.Binary(ask.RPC, r.ProxyName)}, nil
	case h.rpc != nil:
		return rpcHandler{run: h.rpc}, nil
	case !known && len(h.settings.RPC.Namespaces) > 0:
		return rpcHandler{}, ErrMethodNotFound
	}
	return rpcHandler{}, ErrNotAvailable
}
