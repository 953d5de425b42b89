package engine

import (
	"container/heap"
	"slices"
	"time"

	"github.com/centrifugal/protocol"
)

// stream is one channel's history in memory. Its publications carry the
// offsets top-len(pubs)+1 … top.
type stream struct {
	epoch string
	top   uint64
	pubs  []*protocol.Publication
	fresh time.Time // pubs are kept until then
	known time.Time // epoch and top are kept until then, never shorter than pubs

	lasts time.Duration // how long the epoch is kept after the channel was heard, while nothing is published

	version      uint64 // of the last publication that had one
	versionEpoch string

	// Each has at most one entry in the stripe's heap.
	pubsTimed, metaTimed bool
}

// resultKey and result remember the answer to an idempotency key.
type resultKey struct{ channel, key string }

type result struct {
	pos     Position
	expires time.Time
}

// emptyMemoryTTL is how long the epoch of a channel that was read but never
// published to is kept once the node does not hear it, unless a reader asked
// for more.
const emptyMemoryTTL = time.Minute

// stream returns the channel's stream as of now. A new one is kept for a
// moment only, see prolong.
func (s *stripe) stream(channel string, now time.Time) *stream {
	c := s.channel(channel)
	st := c.stream
	switch {
	case st == nil:
		st = &stream{epoch: newEpoch(), lasts: emptyMemoryTTL, known: now.Add(emptyMemoryTTL)}
		c.stream = st
	case !now.Before(st.known) && !c.waits(): // expired, not yet swept: its heap entries live on
		*st = stream{epoch: newEpoch(), lasts: emptyMemoryTTL, known: now.Add(emptyMemoryTTL), pubsTimed: st.pubsTimed, metaTimed: st.metaTimed}
	}
	if !now.Before(st.fresh) {
		st.pubs = nil
	}
	if !st.metaTimed {
		st.metaTimed = true
		heap.Push(&s.due, due{what: dueMeta, at: st.known, channel: channel})
	}
	return st
}

// waits tells whether somebody here waits for a first publication.
func (c *memoryChannel) waits() bool { return c.subscribed && c.stream.top == 0 }

// prolong keeps the position after a read: for metaTTL, or if nothing was
// published yet for keep, or without that for a little while.
func (st *stream) prolong(metaTTL, keep time.Duration, now time.Time) {
	metaTTL = orDefault(metaTTL, DefaultMetaTTL)
	if st.top == 0 {
		metaTTL = min(metaTTL, max(keep, emptyMemoryTTL))
	}
	st.lasts = max(st.lasts, metaTTL)
	if known := now.Add(metaTTL); known.After(st.known) {
		st.known = known
	}
}

// outdated tells whether the version of a publication was there already.
func (st *stream) outdated(o PublishOptions) bool {
	return o.Version > 0 && st.version >= o.Version && (o.VersionEpoch == "" || o.VersionEpoch == st.versionEpoch)
}

// append gives pub the next offset and stores it.
func (s *stripe) append(channel string, st *stream, pub *protocol.Publication, o PublishOptions, now time.Time) Position {
	if st.top == 0 {
		st.known = now // what was kept for readers ends
	}
	st.top++
	pub.Offset = st.top
	if o.Version > 0 {
		st.version, st.versionEpoch = o.Version, o.VersionEpoch
	}
	st.pubs = append(st.pubs, pub)
	if over := len(st.pubs) - o.HistorySize; over > 0 {
		clear(st.pubs[:over]) // the array may live on for a while
		st.pubs = st.pubs[over:]
	}
	st.fresh = now.Add(o.HistoryTTL)
	st.prolong(max(orDefault(o.MetaTTL, DefaultMetaTTL), o.HistoryTTL), 0, now)
	if !st.pubsTimed {
		st.pubsTimed = true
		heap.Push(&s.due, due{what: duePubs, at: st.fresh, channel: channel})
	}
	return Position{Offset: st.top, Epoch: st.epoch}
}

// read selects by q. Offsets have no gaps, so that places can be computed.
func (st *stream) read(q HistoryQuery) []*protocol.Publication {
	if q.Limit == 0 || len(st.pubs) == 0 {
		return nil
	}
	pubs := st.pubs
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

func (s *stripe) result(channel, key string, now time.Time) (Position, bool) {
	if key == "" {
		return Position{}, false
	}
	res, ok := s.results[resultKey{channel, key}]
	if !ok || !now.Before(res.expires) {
		return Position{}, false
	}
	return res.pos, true
}

func (s *stripe) keepResult(channel string, o PublishOptions, pos Position, now time.Time) {
	if o.IdempotencyKey == "" {
		return
	}
	ttl := o.IdempotencyTTL
	if ttl <= 0 {
		ttl = DefaultIdempotencyTTL
	}
	expires := now.Add(ttl)
	s.results[resultKey{channel, o.IdempotencyKey}] = result{pos: pos, expires: expires}
	heap.Push(&s.due, due{what: dueResult, at: expires, channel: channel, key: o.IdempotencyKey})
}

// due says when something in the stripe may have expired. What prolongs the
// life of a stream does not touch its entries: the sweep looks again.
type due struct {
	what    dueKind
	at      time.Time
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
func (s *stripe) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.due) > 0 && !now.Before(s.due[0].at) {
		d := heap.Pop(&s.due).(due)
		if d.what == dueResult {
			key := resultKey{d.channel, d.key}
			if !now.Before(s.results[key].expires) {
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
func (s *stripe) sweepStream(d due, now time.Time) (next time.Time, again bool) {
	c := s.channels[d.channel]
	if c == nil || c.stream == nil {
		return next, false
	}
	st := c.stream
	switch {
	case d.what == duePubs && now.Before(st.fresh):
		return st.fresh, true
	case d.what == duePubs:
		st.pubs, st.pubsTimed = nil, false
	case now.Before(st.known):
		return st.known, true
	case c.waits():
		return now.Add(emptyMemoryTTL), true
	default:
		c.stream = nil
		s.drop(d.channel, c)
	}
	return next, false
}

// dueHeap is a container/heap with the earliest entry first.
type dueHeap []due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(due)) }

func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = due{}
	*h = old[:len(old)-1]
	return last
}
