package gateway

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
)

// wanted is what a subscriber wants to know about a stream.
type wanted struct {
	keep    time.Duration   // it may come back with the position it is told, after as long as this
	recover bool            // also what it missed
	cache   bool            // of that only the newest
	from    engine.Position // what it has seen
	limit   int             // of publications
}

// placed is the answer: where the stream stands, and what was missed.
type placed struct {
	top       engine.Position
	pubs      []*protocol.Publication // oldest first
	recovered bool
}

// position finds out where the stream stands, and what the client missed if it
// asks for that.
func (c *client) position(ctx context.Context, s *subscription, req *protocol.SubscribeRequest, res *protocol.SubscribeResult) error {
	if !s.positioned {
		return nil
	}
	w := wanted{
		recover: s.recoverable && (req.Recover || s.rules().AutoCacheRecover),
		cache:   s.rules().cacheMode(),
		limit:   c.hub.settings.Client.RecoveryLimit,
	}
	if s.recoverable {
		w.keep = s.channel.keepsEmpty()
	}
	if w.recover {
		w.from = engine.Position{Offset: req.Offset, Epoch: strings.Clone(req.Epoch)}
	}
	p, err := s.channel.locate(ctx, w)
	if err != nil {
		return err
	}
	s.position = p.top
	res.Epoch, res.Offset = p.top.Epoch, p.top.Offset
	if !w.recover {
		return nil
	}
	res.WasRecovering = true
	if !p.recovered {
		c.hub.metrics.unrecovered.Inc()
		return nil
	}
	// The offset asked for, not the top: SDKs move on from it by applying
	// the publications.
	res.Recovered, res.Publications, res.Offset = true, s.missed(p.pubs, p.top.Epoch), w.from.Offset
	c.hub.metrics.recovered.Inc()
	return nil
}

// locate answers a subscriber that has entered the channel: from memory where
// that is certain, else with a read that many may share.
//
// Memory is certain while the channel is heard without a break and the place
// of the client is within what was heard. The top known here may then be
// behind the engine's by what is on its way to this node. That is no loss:
// whoever is told top gets top+1 next, through the log, which it has been
// reading from since before. A client that is ahead of this node, or comes
// from another epoch, knows more than memory does: for it the engine is asked.
//
// A read that is shared is always one that began after all who share it had
// entered: what it does not have comes through the log.
func (ch *channel) locate(ctx context.Context, w wanted) (placed, error) {
	for waited := false; ; waited = true {
		ch.mu.Lock()
		if p, ok := ch.recall(&w); ok {
			ch.mu.Unlock()
			ch.hub.metrics.placedFromMemory.Inc()
			return p, nil
		}
		under := ch.reading
		if under != nil && !waited {
			// What is read just now may be all that is missing in memory.
			ch.mu.Unlock()
			if err := under.wait(ctx); err != nil {
				return placed{}, err
			}
			continue
		}
		r, mine := ch.join(&w, waited)
		ch.mu.Unlock()
		if mine {
			if under != nil {
				<-under.done // which has a deadline of its own
			}
			ch.read(r)
		} else if err := r.wait(ctx); err != nil {
			return placed{}, err
		}
		if r.err != nil {
			return placed{}, r.err
		}
		ch.hub.metrics.placedFromEngine.Inc()
		return ch.judge(&w, r), nil
	}
}

// recall answers from memory, if that is certain; mu is held.
func (ch *channel) recall(w *wanted) (p placed, ok bool) {
	p.top = ch.top
	from, now := w.from, ch.hub.now()
	if ch.traffic != nil {
		from = from.Under(ch.top, ch.before)
	}
	switch {
	case ch.top.Epoch == "" || ch.lost:
		return p, false
	case ticksUp(w.keep) > ch.kept && ch.top.Offset == 0: // the engine is to know that somebody relies on it
		return p, false
	case !w.recover:
		return p, true
	case w.cache && from == p.top:
		p.recovered = p.top.Offset > 0
		return p, true
	case w.cache:
		p.pubs, ok = ch.recent(1, now)
		p.recovered = ok
		return p, ok || p.top.Offset == 0
	case from.Epoch != "" && from.Epoch != p.top.Epoch || from.Offset > p.top.Offset:
		return p, false
	}
	missed := p.top.Offset - from.Offset
	if ch.traffic != nil && ch.rewound.ambiguous(from) || missed > uint64(min(w.limit, ch.rules.HistorySize)) {
		return p, true // history cannot have it either
	}
	p.pubs, ok = ch.recent(missed, now)
	p.recovered = ok
	return p, ok
}

// judge answers from what was read.
func (ch *channel) judge(w *wanted, r *reading) placed {
	p := placed{top: r.top}
	from := w.from.Under(r.top, r.before)
	switch {
	case !w.recover:
	case w.cache && from == r.top:
		p.recovered = r.top.Offset > 0
	case w.cache:
		if n := len(r.pubs); n > 0 && r.pubs[n-1].Offset == r.top.Offset {
			p.recovered, p.pubs = true, []*protocol.Publication{r.pubs[n-1]}
		}
	default:
		missed := r.pubs[len(r.pubs)-countAfter(r.pubs, from.Offset):]
		if !ch.ambiguous(from) && len(missed) <= w.limit && continuous(from, missed, r.top) {
			p.recovered, p.pubs = true, slices.Clone(missed)
		}
	}
	return p
}

// countAfter counts the publications beyond an offset.
func countAfter(pubs []*protocol.Publication, offset uint64) (n int) {
	for n < len(pubs) && pubs[len(pubs)-1-n].Offset > offset {
		n++
	}
	return n
}

// reading is one read of a stream from the engine that answers all who wait
// for it.
type reading struct {
	query engine.HistoryQuery
	since engine.Position // of query.Since
	wide  bool            // the newest publications, whatever anybody has seen

	next *reading // that follows; guarded by channel.mu

	done   chan struct{} // closed when what follows is set
	pubs   []*protocol.Publication
	top    engine.Position
	before engine.Position // end of the epoch before
	err    error
}

func (r *reading) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join returns a read that has not begun, with w added to what it reads, and
// whether the caller is the one to do it. crowd says that others have come for
// the same channel. mu is held.
func (ch *channel) join(w *wanted, crowd bool) (r *reading, mine bool) {
	at := &ch.reading
	if ch.reading != nil {
		at = &ch.reading.next
	}
	if r = *at; r == nil {
		r = &reading{done: make(chan struct{}), since: w.from}
		*at, mine = r, true
	}
	r.query.Keep = max(r.query.Keep, w.keep)
	if !w.recover {
		return r, mine
	}
	switch q := &r.query; {
	case w.cache:
		r.wide = true
		q.Limit = max(q.Limit, 1)
	case crowd || ch.top.Epoch != "": // many places at once: the newest publications have them all
		r.wide = true
		q.Limit = max(q.Limit, min(w.limit, max(ch.rules.HistorySize, 1)))
	case mine:
		q.Since, q.Limit = &r.since, w.limit
	}
	return r, mine
}

// read does a read and lets go of those who wait for it. One for a channel is
// under way at a time.
func (ch *channel) read(r *reading) {
	ctx, cancel := ch.hub.timeout()
	defer cancel()
	ch.mu.Lock()
	before := ch.top
	q := r.query // nobody joins any more
	q.Keep = max(q.Keep, ch.kept.duration())
	ch.mu.Unlock()
	if r.wide {
		q.Since, q.Reverse = nil, true
	}
	q.MetaTTL, q.Before = ch.rules.HistoryMetaTTL, &r.before
	ch.hub.metrics.reads[readSubscribe].Inc()
	r.pubs, r.top, r.err = ch.hub.engine.History(ctx, ch.name, q)
	if r.wide {
		slices.Reverse(r.pubs)
	}
	ch.mu.Lock()
	if r.err == nil {
		ch.kept = ticksUp(q.Keep)
		ch.learn(before, r.top, r.pubs)
		if r.top.Epoch == ch.top.Epoch && (ch.traffic != nil || r.before != engine.Position{}) {
			ch.open()
			ch.before = r.before
		}
	}
	ch.reading, r.next = r.next, nil
	ch.mu.Unlock()
	close(r.done)
}

// learn compares where the engine says the stream stands with what this node
// knew before it asked; mu is held.
func (ch *channel) learn(before, top engine.Position, pubs []*protocol.Publication) (verdict checkResult) {
	now := ch.hub.now()
	switch {
	case ch.lost: // the refill under way will settle it
		return checkRepaired
	case ch.top.Epoch == "":
		ch.top, ch.verified = top, ticksDown(now)
		if ch.traffic != nil {
			ch.have = 0
		}
	case before.Epoch == "" || before.Epoch != ch.top.Epoch: // known since, or changed meanwhile
	case top.Epoch != before.Epoch:
		ch.refill() // which finds nothing to join the two, and says so
		return checkLost
	case top.Offset < before.Offset:
		ch.rewind(top)
		return checkLost
	case top.Offset > ch.top.Offset:
		verdict = checkRepaired
	default:
		ch.verified = ticksDown(now)
	}
	if top.Epoch == ch.top.Epoch && len(pubs) > 0 && pubs[len(pubs)-1].Offset == top.Offset && top.Offset <= ch.top.Offset {
		ch.open()
		if top.Epoch == ch.removed.Epoch {
			pubs = pubs[len(pubs)-countAfter(pubs, ch.removed.Offset):]
		}
		count, size := ch.tailLimits()
		// When they were published is not known; so not for as long as history
		// may still have them, but over the first rush.
		ch.tail.prepend(pubs, ch.top.Offset, now+min(ch.rules.HistoryTTL, readTailAge), count, size)
	}
	return verdict
}

const readTailAge = 30 * time.Second
