package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
)

// modelClient behaves as an SDK does: it comes back, subscribes again to what
// it wants, and recovers from where it stood.
type modelClient struct {
	w    *world
	user string
	pipe sync.WaitGroup // the goroutines of its connections

	mu      sync.Mutex
	conn    *modelConn // nil while there is none
	home    bool       // wants to be connected
	ids     uint32
	follows map[string]*following
}

// A following is what a client knows and saw of one channel.
type following struct {
	channel string
	server  bool // subscribed by the server
	wanted  bool
	asked   uint32 // id of the command that is under way
	live    bool
	at      engine.Position
	from    engine.Position // what the command under way asked to recover from
	known   bool            // at holds
	seen    []sighting
}

// sighting is one thing a client was told about a channel.
type sighting struct {
	reply      *protocol.SubscribeResult
	asked      engine.Position // where reply was asked to recover from
	recovering bool
	pub        *protocol.Publication
}

func newModelClient(w *world, i int) *modelClient {
	c := &modelClient{w: w, user: "u" + strconv.Itoa(i%3), follows: map[string]*following{}}
	for _, ch := range modelChannels[:4] {
		c.follows[ch] = &following{channel: ch}
	}
	c.follows["#"+c.user] = &following{channel: "#" + c.user, server: true}
	return c
}

// modelConn is one connection: the socket as the hub sees it.
type modelConn struct {
	owner   *modelClient
	hub     *Hub
	inbox   *queue[[]byte]
	mu      sync.Mutex
	room    sync.Cond
	stalled bool
	closed  bool
}

func (s *modelConn) write(message []byte) error {
	s.mu.Lock()
	for s.stalled && !s.closed {
		s.room.Wait()
	}
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return errors.New("closed")
	}
	s.owner.hear(s, string(message))
	return nil
}

func (s *modelConn) close(uint32, string) { s.abort() }

func (s *modelConn) abort() {
	s.mu.Lock()
	s.closed = true
	s.room.Broadcast()
	s.mu.Unlock()
	s.inbox.close()
}

func (c *modelClient) connect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.home = true
	if c.conn == nil {
		c.dial()
	}
}

// dial opens a connection and sends connect and all subscribes at once, as
// SDKs do; mu is held. Which node it is is the balancer's choice.
func (c *modelClient) dial() {
	hubs := c.w.fleet.hubs()
	h := hubs[int(c.ids)%len(hubs)]
	s := &modelConn{owner: c, hub: h, inbox: newQueue[[]byte]()}
	s.room.L = &s.mu
	c.conn = s
	c.pipe.Add(1)
	go s.serve()
	c.ids++
	own := c.follows["#"+c.user]
	connect := &protocol.ConnectRequest{Token: c.user, Subs: map[string]*protocol.SubscribeRequest{}}
	if own.known {
		own.from = own.at
		connect.Subs[own.channel] = &protocol.SubscribeRequest{Recover: true, Offset: own.at.Offset, Epoch: own.at.Epoch}
	}
	own.asked = c.ids
	c.post(&protocol.Command{Id: c.ids, Connect: connect})
	for _, f := range c.follows {
		if f.wanted {
			c.subscribe(f)
		}
	}
}

func (s *modelConn) serve() {
	c := s.owner
	defer c.pipe.Done()
	h := s.hub
	if h.clients.admit(0) {
		client := newClient(h, s)
		if !h.clients.add(client) {
			client.disconnect(DisconnectShutdown)
		}
		client.open()
		for {
			msg, ok := s.inbox.pop()
			if !ok {
				break
			}
			client.receive(msg)
		}
		client.gone()
		h.clients.leave()
	}
	c.lost(s)
}

// lost is the end of a connection; the client comes back at once.
func (c *modelClient) lost(s *modelConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != s {
		return
	}
	c.drop()
	if c.home {
		c.ids++
		c.dial()
	}
}

// drop forgets the connection; mu is held.
func (c *modelClient) drop() {
	c.conn = nil
	for _, f := range c.follows {
		f.live, f.asked = false, 0
	}
}

// cut ends the connection as a network does.
func (c *modelClient) cut() {
	c.mu.Lock()
	s := c.conn
	c.mu.Unlock()
	if s != nil {
		s.abort()
	}
}

// leave disconnects and waits until nothing is left.
func (c *modelClient) leave() {
	c.mu.Lock()
	s := c.conn
	c.home = false
	if s != nil {
		c.drop()
	}
	c.mu.Unlock()
	if s != nil {
		s.abort()
	}
	c.pipe.Wait()
}

func (c *modelClient) stall()   { c.setStalled(true) }
func (c *modelClient) unstall() { c.setStalled(false) }

func (c *modelClient) setStalled(on bool) {
	c.mu.Lock()
	s := c.conn
	c.mu.Unlock()
	if s == nil {
		return
	}
	s.mu.Lock()
	s.stalled = on
	s.room.Broadcast()
	s.mu.Unlock()
}

func (c *modelClient) toggle(channel string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.follows[channel]
	f.wanted = !f.wanted
	if c.conn == nil {
		return
	}
	if f.wanted {
		c.subscribe(f)
		return
	}
	c.ids++
	f.live, f.asked = false, 0
	c.post(&protocol.Command{Id: c.ids, Unsubscribe: &protocol.UnsubscribeRequest{Channel: channel}})
}

// subscribe asks for a channel, from where the client stood; mu is held.
func (c *modelClient) subscribe(f *following) {
	c.ids++
	f.asked, f.from = c.ids, f.at
	req := &protocol.SubscribeRequest{Channel: f.channel}
	if f.known {
		req.Recover, req.Offset, req.Epoch = true, f.at.Offset, f.at.Epoch
	}
	c.post(&protocol.Command{Id: c.ids, Subscribe: req})
}

func (c *modelClient) post(cmd *protocol.Command) {
	b, err := json.Marshal(cmd)
	if err != nil {
		panic(err)
	}
	c.conn.inbox.push(b)
}

// hear takes a message of the server.
func (c *modelClient) hear(s *modelConn, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != s {
		return
	}
	for line := range strings.SplitSeq(message, "\n") {
		var r protocol.Reply
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			c.w.t.Errorf("not a reply: %q", line)
			continue
		}
		switch {
		case r.Id != 0:
			c.answered(&r)
		case r.Push != nil:
			c.pushed(r.Push)
		default:
			s.inbox.push([]byte("{}"))
		}
	}
	select {
	case c.w.changed <- struct{}{}:
	default:
	}
}

func (c *modelClient) answered(r *protocol.Reply) {
	for _, f := range c.follows {
		if f.asked != r.Id {
			continue
		}
		f.asked = 0
		switch {
		case r.Error != nil && r.Error.Temporary:
			if r.Subscribe == nil && f.server { // connect was refused: come again
				c.conn.abort()
			} else {
				c.subscribe(f)
			}
		case r.Error != nil:
			c.w.t.Errorf("%s: %v", f.channel, r.Error)
		case r.Connect != nil:
			if sub := r.Connect.Subs[f.channel]; sub != nil {
				f.begin(sub)
			}
		case r.Subscribe != nil:
			f.begin(r.Subscribe)
		}
	}
}

func (c *modelClient) pushed(p *protocol.Push) {
	f := c.follows[p.Channel]
	switch {
	case p.Disconnect != nil:
		if code := p.Disconnect.Code; code >= 3500 && code < 4000 {
			c.w.t.Errorf("sent away: %d %s", code, p.Disconnect.Reason)
		}
	case f == nil:
		c.w.t.Errorf("a push about %q", p.Channel)
	case p.Pub != nil:
		if !f.live {
			if !f.server && (f.asked != 0 || !f.wanted) {
				return // on its way when the client unsubscribed
			}
			c.w.t.Errorf("%s: a publication before the reply", f.channel)
		}
		f.see(p.Pub)
	case p.Unsubscribe != nil:
		c.unsubscribed(f, p.Unsubscribe.Code)
	}
}

func (c *modelClient) unsubscribed(f *following, code uint32) {
	if !f.live {
		return
	}
	f.live = false
	if code < 2500 {
		f.wanted = false
		return
	}
	if f.wanted {
		c.subscribe(f)
	}
}

func (f *following) begin(r *protocol.SubscribeResult) {
	f.live = true
	f.seen = append(f.seen, sighting{reply: r, asked: f.from, recovering: f.known})
	if !r.Recovered {
		f.at = engine.Position{Offset: r.Offset, Epoch: r.Epoch}
		f.known = true
	}
	for _, p := range r.Publications {
		f.see(p)
	}
}

func (f *following) see(p *protocol.Publication) {
	f.seen = append(f.seen, sighting{pub: p})
	if p.Offset > 0 {
		f.at.Offset = p.Offset
		if p.Epoch != "" {
			f.at.Epoch = p.Epoch
		}
	}
}

// unsettled tells what a client still waits for, and enters it into present.
func (c *modelClient) unsettled(present map[string]int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.home {
		return ""
	}
	for _, f := range c.follows {
		if !f.server && !f.wanted {
			continue
		}
		if top := c.w.oracle.top(f.channel); !f.live || f.at != top {
			return fmt.Sprintf("%s in %s: live %v at %v, want %v", c.user, f.channel, f.live, f.at, top)
		}
		present[f.channel]++
	}
	return ""
}

// verify compares everything seen with the oracle, and counts what happened.
func (c *modelClient) verify(count map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.follows {
		f.verify(c.w, count)
	}
}

func (f *following) verify(w *world, count map[string]int) {
	at, ok := engine.Position{}, false
	for i, s := range f.seen {
		r := s.reply
		switch {
		case r == nil:
			at = f.verifyPublication(w, at, s.pub, ok)
			continue
		case !s.recovering && (r.Recovered || r.WasRecovering):
			w.t.Errorf("%s: recovered without being asked", f.channel)
		case s.recovering && !r.WasRecovering:
			w.t.Errorf("%s: was_recovering is missing", f.channel)
		case r.Recovered:
			count["recovered"]++
			if r.Epoch != s.asked.Epoch || r.Offset != s.asked.Offset {
				w.t.Errorf("%s: asked to recover from %v, answered %d %q", f.channel, s.asked, r.Offset, r.Epoch)
			}
			if i > 0 && ok && at != s.asked {
				w.t.Errorf("%s: recovers from %v, was at %v", f.channel, s.asked, at)
			}
		case s.recovering:
			count["unrecovered"]++
			if w.oracle.recoverable(f.channel, s.asked, engine.Position{Offset: r.Offset, Epoch: r.Epoch}) {
				w.t.Errorf("%s: could have been recovered from %v to %d", f.channel, s.asked, r.Offset)
			}
		}
		at, ok = engine.Position{Offset: r.Offset, Epoch: r.Epoch}, true
	}
	f.seen = f.seen[:0]
	if ok || f.known { // the next round begins where this one ended
		f.seen = append(f.seen, sighting{reply: &protocol.SubscribeResult{Offset: f.at.Offset, Epoch: f.at.Epoch}})
	}
}

func (f *following) verifyPublication(w *world, at engine.Position, p *protocol.Publication, known bool) engine.Position {
	data := string(p.Data)
	switch {
	case p.Offset == 0:
		if !w.oracle.attempted(f.channel, data) {
			w.t.Errorf("%s: nobody published %s", f.channel, data)
		}
		return at
	case known && p.Offset != at.Offset+1:
		w.t.Errorf("%s: offset %d follows %d", f.channel, p.Offset, at.Offset)
	}
	at.Offset = p.Offset
	if p.Epoch != "" && p.Epoch != at.Epoch {
		w.t.Errorf("%s: a publication of epoch %q in a stream of %q", f.channel, p.Epoch, at.Epoch)
	}
	if !w.oracle.has(f.channel, at, data) {
		w.t.Errorf("%s: %s stands at %d of %q", f.channel, data, at.Offset, at.Epoch)
	}
	return at
}
