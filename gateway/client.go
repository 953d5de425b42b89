package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/fault"
)

// socket is what a client needs of its transport. Calls to write and close
// come from one goroutine at a time, abort from any.
type socket interface {
	// waits tells whether write and close may take as long as the write timeout.
	waits() bool
	// write sends WebSocket frames. A socket that does not wait returns how many
	// bytes it had no room for: it keeps them, as they are if they are shared and
	// else a copy, and calls client.resume when they are sent.
	write(frames []byte, shared bool) (left int, err error)
	// close sends a close frame and ends the connection when the client has
	// answered, or did not for a while.
	close(code uint32, reason string)
	// abort ends the connection at once.
	abort()
}

type clientState uint8

const (
	opened    clientState = iota // nothing but connect is accepted
	rejected                     // connect was answered with an error: nothing is
	connected                    // everything but connect is
	ending                       // a disconnect is due
)

// client is one connection. The transport calls receive for every message, one
// after the other, and gone at the end; everything else may come from anywhere.
// A node has very many that are idle: what few of them need is behind pointers.
type client struct {
	hub      *Hub
	sock     socket
	id       clientID
	ip       string                  // read only
	software unique.Handle[software] // at the other end; guarded by mu once the client is registered
	since    time.Duration           // when it came, on the hub's clock; read only

	asking *asking // nil where no webhook is asked about anything
	calls  *calls  // nil until an rpc runs beside other commands; of the goroutine that reads
	pace   pace    // of commands

	binary  bool // speaks Protobuf instead of JSON; read only
	deflate bool // takes compressed messages; read only
	inside  bool // Arrived was told; of the goroutine that reads

	working atomic.Bool // a message is being handled: pongs may wait behind it
	heard   atomic.Bool // something came since the last ping

	mu       sync.Mutex // guards what follows; taken before outbox.mu
	state    clientState
	jwt      bool     // logged in with a JWT
	doubted  bool     // the session may have ended unheard; see VerifyAll
	enlisted bool     // the engine knows that the user is on this node
	opening  *opening // nil once the reply to connect is on its way
	login    *login   // nil before connect
	rare     *rare    // nil: nothing
	subs     subscriptions
	endAt    time.Duration // when a connection that expired is closed; 0: it does not
	pingAt   time.Duration
	pongBy   time.Duration // 0: no ping is outstanding
	checkAt  time.Duration // when the session is verified again

	seat int32 // in registry.all, from 1; 0: none. Guarded by registry.mu
	slot int32 // of the wheel that it is in; guarded by wheel.mu

	out   outbox
	place place // in the slot
}

// rare is what few clients have.
type rare struct {
	info *protocol.Raw    // what others see of it; nil: the claims of the login
	turn *engine.Position // among the connections of its user, where only one may be
}

// makeRare returns what few clients have, to be set; mu is held.
func (c *client) makeRare() *rare {
	if c.rare == nil {
		c.rare = &rare{}
	}
	return c.rare
}

// software is what a client says that it runs. Many run the same.
type software struct{ agent, name, version string }

var unknownSoftware = unique.Make(software{})

// opening is what is to be known of a client until it is connected.
type opening struct {
	tokens  []string      // of the handshake
	ticket  string        // of the handshake
	verdict *Disconnect   // what the handshake's tokens lead to, if not a login
	stale   time.Duration // when an unconnected socket is closed
	early   []func()      // what the server did before the reply to connect; guarded by mu
}

func newClient(h *Hub, sock socket) *client {
	now := h.now()
	c := &client{hub: h, sock: sock, id: newID(), since: now, software: unknownSoftware}
	c.slot = nowhere
	c.opening = &opening{stale: now + h.settings.Client.StaleCloseDelay}
	return c
}

// protocol is what ConnectionInfo calls it.
func (c *client) protocol() string {
	if c.binary {
		return "protobuf"
	}
	return "json"
}

// user is the openid, "" before connect.
func (c *client) user() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.login == nil {
		return ""
	}
	return c.login.openID
}

// connInfo is what others see of the client everywhere; mu is held.
func (c *client) connInfo() protocol.Raw {
	switch {
	case c.rare != nil && c.rare.info != nil:
		return *c.rare.info
	case c.login != nil:
		return protocol.Raw(c.login.said())
	}
	return nil
}

// infoIn is what others see of the client in a channel.
func (c *client) infoIn(channel string) *protocol.ClientInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	info := &protocol.ClientInfo{Client: c.id.String(), ConnInfo: c.connInfo()}
	if c.login != nil {
		info.User = c.login.openID
	}
	if s := c.subs.get(channel); s != nil {
		info.ChanInfo = s.known().info
	}
	return info
}

// receive handles one WebSocket message: one or more commands, in lines or
// each behind its length. It may be used again by the caller afterwards.
func (c *client) receive(message []byte) {
	c.working.Store(true)
	c.hub.budget.add(len(message))
	defer func() {
		c.hub.budget.add(-len(message))
		c.heard.Store(true) // whatever came meanwhile is read only now
		c.working.Store(false)
	}()
	if string(message) == c.pong() {
		c.handle(&emptyCommand)
		return
	}
	typ := protocol.TypeJSON
	if c.binary {
		typ = protocol.TypeProtobuf
	}
	dec := protocol.GetCommandDecoder(typ, message)
	defer protocol.PutCommandDecoder(typ, dec)
	for {
		cmd, err := dec.Decode()
		if cmd != nil && !c.handle(cmd) {
			return
		}
		if err != nil {
			if !errors.Is(err, io.EOF) || cmd == nil {
				c.disconnect(DisconnectBadRequest)
			}
			return
		}
	}
}

// pong is what nearly all clients answer to a ping.
func (c *client) pong() string {
	if c.binary {
		return "\x00"
	}
	return "{}"
}

// emptyCommand is a pong, in the words in which it nearly always comes: idle
// connections say nothing else, and need no command made for each. It is only
// read.
var emptyCommand protocol.Command

// open starts a client whose transport is ready.
func (c *client) open() {
	o := c.opening
	switch {
	case o.verdict == nil:
	case o.verdict == DisconnectTokenExpired:
		// An SDK sends connect at once. Error 109 in answer to that makes it
		// fetch a new token, which the close below would forbid; so wait a
		// moment for it, and close those who say nothing.
		c.mu.Lock()
		o.stale = c.hub.now() + expiredGrace
		c.mu.Unlock()
	default:
		c.disconnect(o.verdict)
	}
	c.hub.wheel.set(c, c.hub.now()) // the first look finds out when to look next
}

const expiredGrace = time.Second

// gone is the end: the transport is closed, nothing comes or goes any more. why
// counts unless somebody had ended the connection before.
func (c *client) gone(why cause) {
	h := c.hub
	h.wheel.remove(c)
	c.mu.Lock()
	c.state = ending
	subs := slices.Collect(c.subs.all())
	c.mu.Unlock()
	if c.shut(true) {
		h.metrics.ended(why)
	}
	c.sock.abort()
	c.endAsking()
	c.endRPCs()
	c.out.writer.Wait()
	h.clients.remove(c)
	c.delist()
	c.depart()
	ctx, cancel := h.timeout()
	defer cancel()
	for _, s := range subs {
		s.settle()
		c.leaveFor(ctx, s, nil, leftGone)
	}
}

// tick does what time asks for and returns when to look again. It runs on the
// hub's clock goroutine and must not wait.
func (c *client) tick(now time.Duration) (next time.Duration) {
	c.mu.Lock()
	next, todo := c.due(now)
	c.mu.Unlock()
	if todo.check {
		c.hub.checks.push(c)
	}
	if todo.ask {
		c.hub.asks.push(c)
	}
	if todo.ping {
		c.send(pings[c.encoding()])
	}
	if todo.bye != nil {
		c.disconnect(todo.bye)
	}
	return next
}

// chores is what time asks for.
type chores struct {
	check, ping, ask bool
	bye              *Disconnect
}

const longAway = time.Hour // for clients that nothing is due for

// due finds out what is due now, and when to ask again; mu is held.
func (c *client) due(now time.Duration) (next time.Duration, todo chores) {
	switch c.state {
	case connected:
	case ending:
		return now + longAway, todo
	default:
		if now < c.opening.stale {
			return c.opening.stale, todo
		}
		todo.bye = DisconnectStale
		if c.opening.verdict != nil {
			todo.bye = c.opening.verdict
		}
		return now + longAway, todo
	}
	if now >= c.checkAt {
		c.checkAt = now + c.hub.settings.Client.SessionCheckInterval
		todo.check = true
	}
	next = min(c.checkAt, c.dueToAsk(now, &todo))
	if c.hub.settings.Client.PingInterval == 0 {
		return next, todo
	}
	return min(next, c.keepAlive(now, &todo)), todo
}

// keepAlive pings and watches for the answer; mu is held. Whatever a client
// sends counts as one: a frozen mini-program sends nothing at all.
func (c *client) keepAlive(now time.Duration, todo *chores) (next time.Duration) {
	s := &c.hub.settings.Client
	switch {
	case c.pongBy == 0:
	case c.working.Load(): // the answer may wait behind a slow command
		c.pongBy = max(c.pongBy, now+wheelTick)
		return c.pongBy
	case c.heard.Load(): // looked at after working: see receive
		c.pongBy = 0
	case now < c.pongBy:
		return c.pongBy
	default:
		todo.bye = DisconnectNoPong
		return now + longAway
	}
	if now < c.pingAt {
		return c.pingAt
	}
	c.pingAt = max(c.pingAt+s.PingInterval, now+wheelTick)
	c.pongBy = now + s.PongTimeout
	c.heard.Store(false)
	todo.ping = true
	return c.pongBy
}

// firstPing spreads the pings of connections that came together; mu is held.
func (c *client) firstPing(now time.Duration) {
	if half := c.hub.settings.Client.PingInterval / 2; half > 0 {
		c.pingAt = now + half + mathrand.N(half)
	}
}

// check verifies the session again, which also extends it, and ends what has
// expired.
func (c *client) check(ctx context.Context) {
	c.mu.Lock()
	c.doubted = false // by what comes now; a doubt from here on is a new one
	c.mu.Unlock()
	c.endExpired(ctx)
	session, err := c.verifyAgain(ctx)
	switch d, ok := errors.AsType[*Disconnect](err); {
	case ok:
		c.disconnect(d)
		return
	case err != nil && fault.Of(err).Kind == fault.Unauthenticated:
		c.disconnect(DisconnectExpired)
		return
	case err != nil:
		slog.Debug("session cannot be verified now", "client", c.id, "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		c.checkAt = min(c.checkAt, c.hub.now()+checkRetry+mathrand.N(checkRetry))
	case c.login == nil || c.login.fingerprint != session.Fingerprint || c.doubted:
		return // another check is due
	default:
		c.login = c.login.renewed(session)
		c.checkAt = c.nextCheck()
	}
	c.hub.wheel.set(c, c.hub.now())
}

// checkRetry is how long a session that could not be verified waits at least
// for another look, and at most twice as long.
const checkRetry = 20 * time.Second
