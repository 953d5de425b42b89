package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/centrifugal/fdelta"
	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
)

// modelClient behaves as an SDK does: it comes back, subscribes again to what
// it wants, and recovers from where it stood.
type modelClient struct {
	w        *world
	user     string
	binary   bool           // speaks Protobuf
	delta    bool           // asks for deltas
	filtered bool           // wants the even publications only
	pipe     sync.WaitGroup // the goroutines of its connections

	mu      sync.Mutex
	conn    *modelConn // nil while there is none
	home    bool       // wants to be connected
	ids     uint32
	asks    map[uint32]*following // subscribe commands of this connection
	follows map[string]*following
}

// A following is what a client knows and saw of one channel.
type following struct {
	channel string
	server  bool // subscribed by the server
	api     bool // by its API, at times
	wanted  bool
	id      int64  // stands for the channel in pushes, 0: nothing does
	delta   bool   // data comes as the reply said
	base    []byte // what the next delta is made of
	asked   uint32 // id of the command that is under way
	live    bool
	at      engine.Position
	from    engine.Position // what the command under way asked to recover from
	known   bool            // at holds
	seen    []sighting

	deltas, repeats int // since the last verify
}

// sighting is one thing a client was told about a channel.
type sighting struct {
	reply      *protocol.SubscribeResult
	asked      engine.Position // where reply was asked to recover from
	recovering bool
	pub        *protocol.Publication
	filtered   bool // odd publications are left out
}

func newModelClient(w *world, i int) *modelClient {
	c := &modelClient{
		w: w, user: "u" + strconv.Itoa(i%3), binary: i&1 > 0, delta: i&2 > 0, filtered: i >= 8,
		follows: map[string]*following{apiChannel: {channel: apiChannel, server: true, api: true}},
	}
	for _, ch := range modelChannels[:4] {
		c.follows[ch] = &following{channel: ch}
	}
	c.follows["#"+c.user] = &following{channel: "#" + c.user, server: true}
	return c
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
	s := &modelConn{owner: c, hub: h, inbox: newQueue[[]byte](), lean: c.ids%2 == 0}
	s.room.L = &s.mu
	c.conn, c.asks = s, map[uint32]*following{}
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
	if api := c.follows[apiChannel]; api.wanted {
		api.asked, api.from = c.ids, api.at
		connect.Subs[apiChannel] = &protocol.SubscribeRequest{Recover: true, Offset: api.at.Offset, Epoch: api.at.Epoch}
	}
	c.post(&protocol.Command{Id: c.ids, Connect: connect})
	for _, f := range c.follows {
		if f.wanted && !f.server {
			c.subscribe(f)
		}
	}
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
		f.live, f.asked, f.id = false, 0, 0
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
	if s != nil {
		s.stall(on)
	}
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
	f.asked, f.from, c.asks[c.ids] = c.ids, f.at, f
	req := &protocol.SubscribeRequest{Channel: f.channel, Flag: flagChannelIDs}
	if c.delta {
		req.Delta = fossil
	}
	if c.filtered {
		req.Tf = &protocol.FilterNode{Key: "p", Cmp: "neq", Val: "odd"}
	}
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
	if c.binary {
		b = pack(c.w.t, b)
	}
	c.conn.inbox.push(b)
}

// hear takes a message of the server.
func (c *modelClient) hear(s *modelConn, message []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != s {
		return
	}
	for _, r := range c.replies(message) {
		switch {
		case r.Id != 0:
			c.answered(r)
		case r.Push != nil:
			c.pushed(r.Push)
		case c.binary:
			s.inbox.push([]byte{0})
		default:
			s.inbox.push([]byte("{}"))
		}
	}
	select {
	case c.w.changed <- struct{}{}:
	default:
	}
}

// replies takes a message apart.
func (c *modelClient) replies(message []byte) (list []*protocol.Reply) {
	if c.binary {
		dec := protocol.NewProtobufReplyDecoder(message)
		for {
			r, err := dec.Decode()
			if r != nil {
				list = append(list, r)
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					c.w.t.Errorf("not replies: %q: %v", message, err)
				}
				return list
			}
		}
	}
	for line := range strings.SplitSeq(string(message), "\n") {
		r := &protocol.Reply{}
		if err := json.Unmarshal([]byte(line), r); err != nil {
			c.w.t.Errorf("not a reply: %q", line)
			continue
		}
		list = append(list, r)
	}
	return list
}

func (c *modelClient) answered(r *protocol.Reply) {
	if f := c.asks[r.Id]; f != nil && r.Subscribe != nil {
		f.id = r.Subscribe.Id // even where the client has changed its mind since
	}
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
				c.begin(f, sub)
			}
		case r.Subscribe != nil:
			c.begin(f, r.Subscribe)
			if want := c.delta && !c.filtered; r.Subscribe.Delta != want {
				c.w.t.Errorf("%s: delta %v, want %v", f.channel, r.Subscribe.Delta, want)
			}
		}
	}
}

func (c *modelClient) pushed(p *protocol.Push) {
	f := c.follows[p.Channel]
	for _, by := range c.follows {
		if p.Id != 0 && by.id == p.Id {
			f = by
		}
	}
	switch {
	case p.Disconnect != nil:
		if code := p.Disconnect.Code; code >= 3500 && code < 4000 {
			c.w.t.Errorf("sent away: %d %s", code, p.Disconnect.Reason)
		}
	case f == nil:
		c.w.t.Errorf("a push about %q, %d", p.Channel, p.Id)
	case p.Pub != nil:
		if !f.live {
			if !f.server && (f.asked != 0 || !f.wanted) {
				return // on its way when the client unsubscribed
			}
			c.w.t.Errorf("%s: a publication before the reply", f.channel)
		}
		c.see(f, p.Pub)
	case p.Subscribe != nil:
		c.subscribed(f, p.Subscribe)
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

// subscribed hears that the server has subscribed the client, or has done so
// before.
func (c *modelClient) subscribed(f *following, p *protocol.Subscribe) {
	switch {
	case !f.api:
		c.w.t.Errorf("%s: subscribed by the server", f.channel)
	case f.live:
		if at := (engine.Position{Offset: p.Offset, Epoch: p.Epoch}); at != f.at {
			c.w.t.Errorf("%s: told %v again, is at %v", f.channel, at, f.at)
		}
		f.repeats++
	default:
		f.wanted, f.known = true, false
		c.begin(f, &protocol.SubscribeResult{Offset: p.Offset, Epoch: p.Epoch})
	}
}

func (c *modelClient) begin(f *following, r *protocol.SubscribeResult) {
	f.live, f.delta, f.base = true, r.Delta, nil
	f.seen = append(f.seen, sighting{reply: r, asked: f.from, recovering: f.known})
	if !r.Recovered {
		f.at = engine.Position{Offset: r.Offset, Epoch: r.Epoch}
		f.known = true
	}
	for _, p := range r.Publications {
		c.see(f, p)
	}
}

// see takes a publication: from deltas it makes the whole.
func (c *modelClient) see(f *following, p *protocol.Publication) {
	if f.delta {
		c.undelta(f, p)
	}
	f.seen = append(f.seen, sighting{pub: p, filtered: c.filtered && !f.server})
	if p.Offset > 0 {
		f.at.Offset = p.Offset
		if p.Epoch != "" {
			f.at.Epoch = p.Epoch
		}
	}
}

func (c *modelClient) undelta(f *following, p *protocol.Publication) {
	data := []byte(p.Data)
	if !c.binary { // all data is in strings
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			c.w.t.Errorf("%s: %q is not a string", f.channel, data)
		}
		data = []byte(text)
	}
	if p.Delta {
		f.deltas++
		whole, err := fdelta.Apply(f.base, data)
		if err != nil || f.base == nil {
			c.w.t.Errorf("%s: delta %q of %q: %v", f.channel, data, f.base, err)
		}
		data = whole
	}
	f.base, p.Data = data, data
}

// unsettled tells what a client still waits for, and enters it into present.
func (c *modelClient) unsettled(present map[string]int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.home {
		return ""
	}
	for _, f := range c.follows {
		if !f.wanted && (!f.server || f.api) {
			continue
		}
		if top := c.w.oracle.top(f.channel); !f.live || f.at != top {
			return fmt.Sprintf("%s in %s: live %v at %v, want %v", c.user, f.channel, f.live, f.at, top)
		}
		present[f.channel]++
	}
	return ""
}
