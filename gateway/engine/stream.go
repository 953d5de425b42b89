package engine

import (
	"container/heap"
	"slices"
	"time"

	"github.com/centrifugal/protocol"
)

// stream is one channel's history in memory.
type stream struct {
	epoch string // "": there is no stream
	top   uint64
	known time.Duration // epoch and top are kept until then, never shorter than publications
	lasts time.Duration // how long the epoch is kept after the channel was heard, while nothing is published
	kept  *publications // nil: nothing was ever published

	// Each has at most one entry in the stripe's heap. While somebody waits for
	// the first publication nothing expires, and there is none.
	pubsTimed, metaTimed bool

	subscribed bool // the channel is heard; here, where it takes no room
}

// publications is what a stream has of itself: those with the offsets
// top-len(pubs)+1 … top.
type publications struct {
	pubs  []*protocol.Publication
	fresh time.Duration // they are kept until then

	version      uint64 // of the last publication that had one
	versionEpoch string
}

func (st *stream) position() Position { return Position{Offset: st.top, Epoch: st.epoch} }

// resultKey and result remember the answer to an idempotency key.
type resultKey struct{ channel, key string }

type result struct {
	pos     Position
	expires time.Duration
}

// emptyMemoryTTL is how long the epoch of a channel that was read but never
// published to is kept once the node does not hear it, unless a reader asked
// for more.
const emptyMemoryTTL = time.Minute

// stream returns the channel with its stream as of now. A new one is kept for a
// moment only, see prolong.
func (s *stripe) stream(channel string, now time.Duration) *memoryChannel {
	c := s.channel(channel)
	switch {
	case c.epoch == "":
		s.begin(c, now)
	case now >= c.known && !c.waits(): // expired, not yet swept: its heap entries live on
		s.forget(c)
		s.begin(c, now)
	}
	if c.kept != nil && now >= c.kept.fresh {
		c.kept.pubs = nil
	}
	s.timeMeta(channel, c)
	return c
}

// begin gives a channel a new stream. Streams share an epoch until one of them
// is forgotten: no channel has the same one twice.
func (s *stripe) begin(c *memoryChannel, now time.Duration) {
	if s.epoch == "" {
		s.epoch = newEpoch()
	}
	c.epoch, c.lasts, c.known = s.epoch, emptyMemoryTTL, now+emptyMemoryTTL
}

// forget ends a channel's stream.
func (s *stripe) forget(c *memoryChannel) {
	s.epoch = ""
	c.stream = stream{pubsTimed: c.pubsTimed, metaTimed: c.metaTimed, subscribed: c.subscribed}
}

// timeMeta has the stripe look at a stream when it may have expired.
func (s *stripe) timeMeta(channel string, c *memoryChannel) {
	if c.epoch != "" && !c.metaTimed && !c.waits() {
		c.metaTimed = true
		heap.Push(&s.due, due{what: dueMeta, at: c.known, channel: channel})
	}
}

// waits tells whether somebody here waits for a first publication.
func (c *memoryChannel) waits() bool { return c.subscribed && c.epoch != "" && c.top == 0 }

// prolong keeps the position after a read: for metaTTL, or if nothing was
// published yet for keep, or without that for a little while.
func (st *stream) prolong(metaTTL, keep, now time.Duration) {
	metaTTL = orDefault(metaTTL, DefaultMetaTTL)
	if st.top == 0 {
		metaTTL = min(metaTTL, max(keep, emptyMemoryTTL))
	}
	st.lasts = max(st.lasts, metaTTL)
	st.known = max(st.known, now+metaTTL)
}

// outdated tells whether the version of a publication was there already.
func (st *stream) outdated(o PublishOptions) bool {
	k := st.kept
	return k != nil && o.Version > 0 && k.version >= o.Version && (o.VersionEpoch == "" || o.VersionEpoch == k.versionEpoch)
}

// append gives pub the next offset and stores it.
func (s *stripe) append(channel string, c *memoryChannel, pub *protocol.Publication, o PublishOptions, now time.Duration) {
	if c.top == 0 {
		c.known = now // what was kept for readers ends
	}
	if c.kept == nil {
		c.kept = &publications{}
	}
	k := c.kept
	c.top++
	pub.Offset = c.top
	if o.Version > 0 {
		k.version, k.versionEpoch = o.Version, o.VersionEpoch
	}
	k.pubs = append(k.pubs, pub)
	if over := len(k.pubs) - o.HistorySize; over > 0 {
		clear(k.pubs[:over]) // the array may live on for a while
		k.pubs = k.pubs[over:]
	}
	k.fresh = now + o.HistoryTTL
	c.prolong(max(orDefault(o.MetaTTL, DefaultMetaTTL), o.HistoryTTL), 0, now)
	if !c.pubsTimed {
		c.pubsTimed = true
		heap.Push(&s.due, due{what: duePubs, at: k.fresh, channel: channel})
	}
	s.timeMeta(channel, c)
}

// read selects by q. Offsets have no gaps, so that places can be computed.
func (st *stream) read(q HistoryQuery) []*protocol.Publication {
	if q.Limit == 0 || st.kept == nil || len(st.kept.pubs) == 0 {
		return nil
	}
	pubs := st.kept.pubs
	if q.Since != nil {
		before := st.top - uint64(len(pubs)) // the offset before the first kept one
		if q.Reverse {
			pubs = pubs[:clamp(q.Since.Offset, before+1, st.top+1)-before-1]
		} else {
			pubs = pubs[clamp(q.Since.Offset, before, st.top)-before:]
		}
	}
	n := len(pubs)
	if q.Limit > 0 {
		n = min(n, q.Limit)
	}
	if !q.Reverse {
		return slices.Clone(pubs[:n])
	}
	pubs = slices.Clone(pubs[len(pubs)-n:])
	slices.Reverse(pubs)
	return pubs
}

func clamp(v, low, high uint64) uint64 { return min(max(v, low), high) }

func (s *stripe) result(channel, key string, now time.Duration) (Position, bool) {
	if key == "" {
		return Position{}, false
	}
	res, ok := s.results[resultKey{channel, key}]
	if !ok || now >= res.expires {
		return Position{}, false
	}
	return res.pos, true
}

func (s *stripe) keepResult(channel string, o PublishOptions, pos Position, now time.Duration) {
	if o.IdempotencyKey == "" {
		return
	}
	ttl := o.IdempotencyTTL
	if ttl <= 0 {
		ttl = DefaultIdempotencyTTL
	}
	expires := now + ttl
	s.results[resultKey{channel, o.IdempotencyKey}] = result{pos: pos, expires: expires}
	heap.Push(&s.due, due{what: dueResult, at: expires, channel: channel, key: o.IdempotencyKey})
}

// due says when something in the stripe may have expired. What prolongs the
// life of a stream does not touch its entries: the sweep looks again.
type due struct {
	what    dueKind
	at      time.Duration
	channel string
	key     string // of a result
}

type dueKind uint8

const (
	dueResult dueKind = iota
	duePubs
	dueMeta
)

// sweep frees what has expired.
func (s *stripe) sweep(now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.due) > 0 && now >= s.due[0].at {
		d := heap.Pop(&s.due).(due)
		if d.what == dueResult {
			key := resultKey{d.channel, d.key}
			if now >= s.results[key].expires {
				delete(s.results, key)
			}
		} else if next, again := s.sweepStream(d, now); again {
			d.at = next
			heap.Push(&s.due, d)
		}
	}
}

// sweepStream frees the part of a stream that d names, or says when to look
// again.
func (s *stripe) sweepStream(d due, now time.Duration) (next time.Duration, again bool) {
	c := s.channels[d.channel]
	if c == nil {
		return next, false
	}
	switch {
	case d.what == duePubs && c.kept != nil && now < c.kept.fresh:
		return c.kept.fresh, true
	case d.what == duePubs:
		c.pubsTimed = false
		if c.kept != nil {
			c.kept.pubs = nil
		}
	case c.waits(): // Unsubscribe times it again
		c.metaTimed = false
	case now < c.known:
		return c.known, true
	default:
		c.metaTimed = false
		s.forget(c)
		s.drop(d.channel, c)
	}
	return next, false
}

// dueHeap is a container/heap with the earliest entry first.
type dueHeap []due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(due)) }

func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = due{}
	*h = old[:len(old)-1]
	return last
}
