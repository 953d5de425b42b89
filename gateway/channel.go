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

	gate  sync.Mutex // one at a time tells the engine about the first and the last subscriber
	heard bool       // guarded by gate: the engine delivers to us
	gone  bool       // guarded by gate: not in the hub any more

	mu     sync.RWMutex // guards what follows; taken after gate, before outbox.mu
	log    backlog
	subs   []*subscription
	top    engine.Position // of the newest publication in log; no epoch: not known yet
	lost   bool            // what follows top was missed, a refill is under way
	newest uint64          // offset of the newest publication that came while lost
	queued bool            // waits for fan-out

	last   *protocol.Publication // the newest, to tell the next one by its difference; nil where deltas are not allowed
	lastID publicationID
}

// publish appends a publication to the log and returns how many subscribers
// will get it. Calls for one channel come one after the other.
func (ch *channel) publish(pub *protocol.Publication, epoch string) int {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	sameStream := pub.Offset > 0 && epoch == ch.top.Epoch
	switch {
	case sameStream && pub.Offset <= ch.top.Offset: // a refill was faster
	case pub.Offset > 0 && ch.lost:
		ch.newest = max(ch.newest, pub.Offset)
	case sameStream && pub.Offset > ch.top.Offset+1:
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
	if m.offset > 0 {
		ch.top = engine.Position{Offset: m.offset, Epoch: m.epoch}
	}
	if len(ch.subs) == 0 {
		return
	}
	m.channel, m.at = ch, ch.hub.now()
	if m.kind == publication && ch.rules.allowsDelta() {
		ch.follow(m)
	}
	s := &ch.hub.settings.Client
	ch.log.add(m, s.ChannelBacklog, int(s.ChannelBacklogMaxSize))
	if !ch.queued {
		ch.queued = true
		ch.hub.news.push(ch)
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

// refill has what follows top read from the engine; mu is held.
func (ch *channel) refill() {
	if !ch.lost {
		ch.lost, ch.newest = true, 0
		ch.hub.refills.push(ch)
	}
}

// learn notes where the stream stands, for channels that had no publication
// yet since they are heard.
func (ch *channel) learn(p engine.Position) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.top.Epoch == "" {
		ch.top = p
	}
}

// wake marks the channel as news for all its sockets. buf is the caller's, to
// be used again.
func (ch *channel) wake(buf []*subscription) []*subscription {
	ch.mu.Lock()
	ch.queued = false
	buf = append(buf[:0], ch.subs...)
	ch.mu.Unlock()
	for _, s := range buf {
		s.client.mark(s)
	}
	clear(buf)
	return buf
}

// backlogAge is how long messages stay for connections that are behind: longer
// than a write may take, after which such a connection is given up anyway.
const backlogAge = 15 * time.Second

func (ch *channel) expire(now time.Duration) {
	ch.mu.Lock()
	ch.log.expire(now - backlogAge)
	ch.mu.Unlock()
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

func (c *channels) make(h *Hub, name string, r *rules) *channel {
	s := c.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := s.m[name]
	if ch == nil {
		if s.m == nil {
			s.m = make(map[string]*channel)
		}
		ch = &channel{hub: h, name: name, id: h.channelIDs.Add(1), rules: r}
		s.m[name] = ch
		h.metrics.channels.Inc()
	}
	return ch
}

func (c *channels) drop(ch *channel) {
	s := c.shard(ch.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, ch.name)
	ch.hub.metrics.channels.Dec()
}

// each calls f for every channel, without a lock held.
func (c *channels) each(f func(*channel)) {
	var buf []*channel
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		buf = buf[:0]
		for _, ch := range s.m {
			buf = append(buf, ch)
		}
		s.mu.RUnlock()
		for _, ch := range buf {
			f(ch)
		}
	}
}

func (c *channels) counts() (channels, subscribers int) {
	c.each(func(ch *channel) {
		ch.mu.RLock()
		subscribers += len(ch.subs)
		ch.mu.RUnlock()
		channels++
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
		s.channel, s.cursor, s.index = ch, ch.log.next(), len(ch.subs)
		ch.subs = append(ch.subs, s)
		ch.mu.Unlock()
		ch.gate.Unlock()
		h.metrics.subscriptions.Inc()
		return nil
	}
}

// exit ends a subscription of a channel.
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
	ch.mu.Unlock()
	h.metrics.subscriptions.Dec()
	if last > 0 {
		return nil
	}
	// In this order: whoever wants the channel again meanwhile waits at gate
	// and then makes a new one, so that its Subscribe comes after.
	err := h.engine.Unsubscribe(ctx, ch.name)
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
