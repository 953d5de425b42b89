package gateway

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
)

// channel is what this node knows about a channel with local subscribers.
type channel struct {
	hub   *Hub
	name  string
	id    int64 // instead of the name, for clients that can do with a number; never 0
	rules *rules

	gate sync.Mutex // one at a time tells the engine about the first and the last subscriber

	mu         sync.RWMutex // guards what follows; taken after gate, before outbox.mu
	subs       []*subscription
	positioned int32           // how many of subs need a position
	lost       bool            // what follows top was missed, a refill is under way
	queued     bool            // waits for fan-out, or is at it
	again      bool            // something came since its pass began
	checking   bool            // waits for a position check
	retiring   bool            // waits for retire
	heard      bool            // guarded by gate, not by mu: the engine delivers to us
	gone       bool            // guarded by gate, not by mu: not in the hub any more
	kept       ticks           // how long the engine keeps a position that subscribers were told, also where nothing was published yet
	verified   ticks           // when top was last seen to be the top of the stream
	idle       ticks           // since when there are no subscribers
	top        engine.Position // of the newest publication this node knows of; no epoch: not known yet
	reading    *reading        // of the stream, under way

	*traffic // nil: nothing has come yet
}

// traffic is what a channel keeps once something went through it: most are
// personal ones, where nothing ever does. It stays until the channel goes.
type traffic struct {
	log     backlog
	tail    tail
	removed engine.Position // history up to there was removed: no read or delivery that was under way brings it back
	before  engine.Position // end of the epoch before top's, where the engine told; no epoch: not known
	have    uint64          // offset of the newest publication in top's epoch that went through log
	live    engine.Position // of the newest publication the engine delivered
	newest  uint64          // offset of the newest publication that came while lost
	tries   int             // refills that failed since lost
	rewound rewound

	last   *protocol.Publication // the newest, to tell the next one by its difference; nil where deltas are not allowed
	lastID publicationID
}

// open makes room for what comes; mu is held.
func (ch *channel) open() {
	if ch.traffic == nil {
		ch.traffic = &traffic{}
	}
}

// nextNumber is the number the next message will get; mu is held.
func (ch *channel) nextNumber() uint64 {
	if ch.traffic == nil {
		return 0
	}
	return ch.log.next()
}

// publish appends a publication to the log and returns how many subscribers
// will get it. Calls for one channel come one after the other.
func (ch *channel) publish(pub *protocol.Publication, epoch string) int {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.open()
	if pub.Offset > 0 && ch.doubt(pub, epoch) {
		return len(ch.subs)
	}
	sameStream := pub.Offset > 0 && epoch == ch.top.Epoch
	switch {
	case sameStream && pub.Offset <= ch.have: // a refill was faster
	case pub.Offset > 0 && ch.lost:
		ch.newest = max(ch.newest, pub.Offset)
	case sameStream && pub.Offset > ch.top.Offset+1:
		if len(ch.subs) == 0 { // nobody misses it: just start over from here
			ch.forget()
			ch.add(newMessage(pub, epoch))
			break
		}
		ch.refill()
		ch.newest = pub.Offset
	default:
		ch.add(newMessage(pub, epoch))
	}
	return len(ch.subs)
}

func (ch *channel) announce(kind messageKind, info *protocol.ClientInfo) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.add(&message{kind: kind, info: info})
}

// add appends m to the log and queues the channel for fan-out; mu is held.
func (ch *channel) add(m *message) {
	ch.open()
	m.channel, m.at = ch, ch.hub.now()
	if m.offset > 0 || m.kind == marker { // an empty stream, too, may have taken over
		ch.advance(m)
	}
	if len(ch.subs) == 0 {
		return
	}
	if m.kind == publication && ch.rules.allowsDelta() {
		ch.follow(m)
	}
	s := &ch.hub.settings.Client
	ch.log.add(m, s.ChannelBacklog, int(s.ChannelBacklogMaxSize))
	ch.again = ch.queued
	if !ch.queued {
		ch.queued = true
		ch.hub.news.push(pass{ch: ch})
	}
}

// follow notes of which publication m is the successor; mu is held.
func (ch *channel) follow(m *message) {
	if m.offset > 0 {
		m.id = publicationID{epoch: m.epoch, offset: m.offset}
	} else {
		m.id = publicationID{number: ch.log.next() + 1}
	}
	if m.pub.Delta {
		m.base, m.baseID = ch.last, ch.lastID
	}
	ch.last, ch.lastID = m.pub, m.id
}

// advance moves top, and the tail with it, to a message of the stream; mu is
// held.
func (ch *channel) advance(m *message) {
	at := engine.Position{Offset: m.offset, Epoch: m.epoch}
	ch.verified = ticksDown(m.at)
	switch {
	case m.kind == marker:
		ch.tail.reset()
		ch.top, ch.have, ch.before = at, at.Offset, engine.Position{}
	case at.Epoch != ch.top.Epoch:
		ch.tail.reset()
		ch.top, ch.have, ch.before = at, at.Offset, engine.Position{}
		ch.keep(m)
	case at.Offset > ch.top.Offset:
		if at.Offset > ch.top.Offset+1 { // only while nobody needs a position
			ch.tail.reset()
		}
		ch.top, ch.have = at, at.Offset
		ch.keep(m)
	default: // what a read of the stream has told already comes late
		ch.have = max(ch.have, at.Offset)
	}
}

// keep adds a publication to the tail; mu is held.
func (ch *channel) keep(m *message) {
	if ch.isRemoved(m.epoch, m.offset) {
		ch.tail.reset()
		return
	}
	count, size := ch.tailLimits()
	ch.tail.push(m.pub, m.at+ch.rules.HistoryTTL, count, size)
}

// keepsEmpty is how long a subscriber that can recover may stay away from a
// channel that nothing was published to yet, and still get the first
// publication. Anybody may make up names in an open namespace, and many: there
// it is as long as history lasts.
func (ch *channel) keepsEmpty() time.Duration {
	if ch.rules.isOpen(ch.name) {
		return ch.rules.HistoryTTL
	}
	return ch.rules.HistoryMetaTTL
}

func (ch *channel) tailLimits() (count, size int) {
	s := &ch.hub.settings.Client
	// Never more than history keeps: who missed more is not recovered, here as
	// on any other node.
	return min(s.ChannelTail, ch.rules.HistorySize), int(s.ChannelTailMaxSize)
}

// forget lets go of what is known about the stream; mu is held.
func (ch *channel) forget() {
	ch.top, ch.lost = engine.Position{}, false
	if ch.traffic != nil {
		ch.before, ch.have, ch.tries = engine.Position{}, 0, 0
		ch.tail.reset()
	}
}

// refill has what follows top read from the engine; mu is held.
func (ch *channel) refill() {
	if !ch.lost {
		ch.open()
		ch.lost, ch.newest, ch.tries = true, 0, 0
		ch.hub.refills.push(ch)
	}
}

// channels is the channels of a hub by name.
type channels struct {
	seed   maphash.Seed
	shards [64]channelShard
}

type channelShard struct {
	mu sync.RWMutex
	m  map[string]*channel
}

func (c *channels) shard(name string) *channelShard {
	return &c.shards[maphash.String(c.seed, name)%uint64(len(c.shards))]
}

func (c *channels) get(name string) *channel {
	s := c.shard(name)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.m[name]
}

// nameOf returns the name that a channel has already, so that its subscribers
// share one string, or else the one given.
func (c *channels) nameOf(name string) string {
	if ch := c.get(name); ch != nil {
		return ch.name
	}
	return name
}

func (c *channels) make(h *Hub, name string, r *rules) *channel {
	s := c.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := s.m[name]
	if ch == nil {
		if s.m == nil {
			s.m = make(map[string]*channel)
		}
		ch = &channel{hub: h, name: name, id: h.channelIDs.Add(1), rules: r, idle: ticksUp(h.now())}
		s.m[name] = ch
		h.metrics.lingering.Inc()
	}
	return ch
}

func (c *channels) drop(ch *channel) {
	s := c.shard(ch.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, ch.name)
	ch.hub.metrics.lingering.Dec()
}

// each calls f for every channel, without a lock held.
func (c *channels) each(f func(*channel)) {
	var buf []*channel
	for i := range c.shards {
		buf = c.shards[i].list(buf)
		for _, ch := range buf {
			f(ch)
		}
	}
}

// list returns the channels of a shard. buf is the caller's, to be used again.
func (s *channelShard) list(buf []*channel) []*channel {
	s.mu.RLock()
	defer s.mu.RUnlock()
	buf = buf[:0]
	for _, ch := range s.m {
		buf = append(buf, ch)
	}
	return buf
}

// counts counts the channels that have subscribers, and those.
func (c *channels) counts() (channels, subscribers int) {
	c.each(func(ch *channel) {
		ch.mu.RLock()
		subscribers += len(ch.subs)
		if len(ch.subs) > 0 {
			channels++
		}
		ch.mu.RUnlock()
	})
	return channels, subscribers
}

// enter makes s a subscriber of its channel: everything delivered from now on
// is in the log behind s.cursor.
func (h *Hub) enter(ctx context.Context, name string, r *rules, s *subscription) error {
	for {
		ch := h.channels.make(h, name, r)
		ch.gate.Lock()
		if ch.gone { // its last subscriber left just now
			ch.gate.Unlock()
			continue
		}
		if !ch.heard {
			if err := h.engine.Subscribe(ctx, name); err != nil {
				h.abandon(ch)
				ch.gate.Unlock()
				return err
			}
			ch.heard = true
		}
		ch.mu.Lock()
		s.channel, s.cursor, s.index = ch, ch.nextNumber(), int32(len(ch.subs))
		ch.subs = append(ch.subs, s)
		if s.positioned {
			ch.positioned++
		}
		first := len(ch.subs) == 1
		ch.mu.Unlock()
		ch.gate.Unlock()
		if first {
			h.metrics.channels.Inc()
			h.metrics.lingering.Dec()
		}
		h.metrics.subscriptions.Inc()
		return nil
	}
}

// exit ends a subscription of a channel. After its last one a channel is heard
// on for a while: a client that comes back at once then finds the tail, and
// costs the engine nothing.
func (h *Hub) exit(ctx context.Context, s *subscription) error {
	ch := s.channel
	ch.gate.Lock()
	defer ch.gate.Unlock()
	ch.mu.Lock()
	last := len(ch.subs) - 1
	ch.subs[s.index] = ch.subs[last]
	ch.subs[s.index].index = s.index
	ch.subs[last] = nil
	ch.subs = ch.subs[:last]
	if s.positioned {
		ch.positioned--
	}
	if last == 0 {
		ch.subs, ch.idle = nil, ticksUp(h.now())
		if ch.traffic != nil {
			ch.log.drop(len(ch.log.messages)) // nobody is behind any more
		}
	}
	ch.mu.Unlock()
	h.metrics.subscriptions.Dec()
	if last > 0 {
		return nil
	}
	h.metrics.channels.Dec()
	h.metrics.lingering.Inc()
	if h.settings.Client.ChannelLinger > 0 {
		return nil // the sweep calls retire
	}
	return h.retireHeld(ctx, ch)
}

// retire ends a channel that has been without subscribers for long enough.
func (h *Hub) retire(ctx context.Context, ch *channel) error {
	ch.gate.Lock()
	defer ch.gate.Unlock()
	ch.mu.Lock()
	ch.retiring = false
	stays := !ch.lingered(h.now())
	ch.mu.Unlock()
	if stays || ch.gone {
		return nil
	}
	return h.retireHeld(ctx, ch)
}

// lingered tells whether the channel has outlived its subscribers long enough;
// mu is held.
func (ch *channel) lingered(now time.Duration) bool {
	return len(ch.subs) == 0 && now-ch.idle.duration() >= ch.hub.settings.Client.ChannelLinger
}

// retireHeld is retire with gate held. In this order: whoever wants the
// channel again meanwhile waits at gate and then makes a new one, so that its
// Subscribe comes after.
func (h *Hub) retireHeld(ctx context.Context, ch *channel) error {
	var err error
	if ch.heard {
		err = h.engine.Unsubscribe(ctx, ch.name)
	}
	h.abandon(ch)
	return err
}

// abandon takes a channel without subscribers out of the hub; gate is held.
func (h *Hub) abandon(ch *channel) {
	if !ch.gone {
		ch.gone = true
		h.channels.drop(ch)
	}
}
