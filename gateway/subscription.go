package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
)

// subscription is one client in one channel.
type subscription struct {
	client *client
	name   string
	rules  *rules

	serverSide  bool // the server's doing: the client is closed where a lost position would only unsubscribe it
	positioned  bool // publications must follow each other without a gap
	recoverable bool
	joinLeave   bool // wants to be told who comes and goes

	encoding encoding // of what it is sent; read only once it is announced
	filter   *filter  // by tags, nil: it gets everything

	// Closed when a subscription that the server makes while the client is at
	// work is made, or has failed; nil for all others. Until then nobody else
	// touches it.
	settled chan struct{}

	channel *channel // set by Hub.enter
	index   int      // in channel.subs, guarded by channel.mu

	// Set while subscribing; from then on only the client's writer uses them.
	cursor   uint64          // number of the next message in the log
	position engine.Position // of the last publication sent
	sent     *publicationID  // the last publication sent, where deltas are taken
	owed     owed            // what comes before the log

	live  bool // guarded by outbox.mu: the client knows of it, pushes may follow
	dirty bool // guarded by outbox.mu: in outbox.dirty
	again bool // guarded by outbox.mu: the client is to be told of it once more

	info   protocol.Raw  // guarded by client.mu: what others see of the subscription
	data   protocol.Raw  // for the subscribe reply, and to repeat what the server announced; nil once it has served
	endAt  time.Duration // guarded by client.mu: when it is ended unless refreshed; 0: never
	left   chan struct{} // guarded by client.mu: made when the end begins, closed when nothing is left
	joined chan struct{} // guarded by client.mu: made when the others are about to be told, closed when they were
}

// owed is what a subscriber missed and the writer has not sent yet. It is not
// encoded before its turn has come, so that it does not wait in the queue.
type owed struct {
	pubs []*protocol.Publication
	top  engine.Position // where the subscriber stands after them; no epoch: nothing is owed
}

// verdict is how far a look into the log came.
type verdict uint8

const (
	upToDate  verdict = iota
	more              // the frame is full
	behind            // publications are missing that history may still have
	lostTrack         // the position is not part of the stream any more
	tooSlow           // messages are gone and nothing says which
)

// collect adds what is new in the channel to b and moves the cursor. It
// encodes what nobody has been sent yet, and holds no lock while it does.
func (s *subscription) collect(b *batch) verdict {
	if !s.settleUp(b) {
		return more
	}
	for {
		n, v := s.look(b)
		if n == 0 {
			return v
		}
		v = s.take(b.list[:n], b)
		clear(b.list[:n])
		if v != upToDate || n < len(b.list) {
			return v
		}
	}
}

// settleUp adds what is owed to b, as far as there is room, and reports whether
// that was all.
func (s *subscription) settleUp(b *batch) bool {
	if s.owed.top.Epoch == "" {
		return true
	}
	for i, p := range s.owed.pubs {
		if b.full() {
			s.owed.pubs = s.owed.pubs[i:]
			return false
		}
		s.addMissed(p, s.owed.top.Epoch, b)
		s.position.Offset = p.Offset
	}
	s.position, s.owed = s.owed.top, owed{}
	return true
}

// addMissed adds a publication to b that does not come from the log.
func (s *subscription) addMissed(p *protocol.Publication, epoch string, b *batch) {
	data := s.channel.encodeIn(s.encoding, func(v *envelope) {
		copyPublication(&v.pub, p, epoch)
		v.pub.Delta = p.Delta
		v.push.Pub = &v.pub
	})
	if data != nil {
		b.push(data)
	}
}

// look fills b.list with the next messages of the log.
func (s *subscription) look(b *batch) (n int, v verdict) {
	ch := s.channel
	ch.mu.RLock()
	defer ch.mu.RUnlock()
	ms, missed := ch.log.from(s.cursor)
	if missed {
		if !s.positioned {
			return 0, tooSlow
		}
		if ch.rewound.ambiguous(s.position) { // the marker that says so may be gone, too
			return 0, lostTrack
		}
		if len(ms) == 0 && ch.top.Epoch != "" {
			if ch.top.Epoch != s.position.Epoch {
				return 0, lostTrack
			}
			if ch.top.Offset > s.position.Offset {
				return 0, behind
			}
		}
		if s.joinLeave && s.cursor < ch.log.changes {
			ch.hub.metrics.dropped.WithLabelValues(droppedPresence).Inc()
		}
		s.cursor = ch.log.first
	}
	return copy(b.list[:], ms), upToDate
}

// take adds messages to b.
func (s *subscription) take(ms []*message, b *batch) verdict {
	for _, m := range ms {
		if b.full() {
			return more
		}
		send, v := s.accept(m)
		if v != upToDate {
			return v
		}
		if send && (m.kind != publication || s.filter == nil || s.filter.matches(m.pub.Tags)) {
			s.write(m, b)
		}
		s.cursor++
	}
	return upToDate
}

// write adds a message to b as the subscriber takes it.
func (s *subscription) write(m *message, b *batch) {
	e := s.encoding
	if s.sent != nil && m.base != nil && *s.sent == m.baseID {
		e |= asDelta
	}
	f := m.in(e)
	if f.data == nil {
		s.client.hub.metrics.undeliverable.Inc()
		return
	}
	if s.sent != nil && m.kind == publication {
		*s.sent = m.id
	}
	b.share(f)
}

// accept tells whether m is for this subscriber, and moves its position.
func (s *subscription) accept(m *message) (send bool, v verdict) {
	switch {
	case m.kind == joined || m.kind == left:
		return s.joinLeave, upToDate
	case !s.positioned || m.kind == publication && m.offset == 0:
		return m.kind == publication, upToDate
	case m.epoch != s.position.Epoch:
		return false, lostTrack
	case m.offset <= s.position.Offset:
		return false, upToDate
	case m.kind == marker:
		return false, lostTrack
	case m.offset > s.position.Offset+1:
		return false, behind
	}
	s.position.Offset = m.offset
	return true, upToDate
}

// continuous tells whether pubs lead from the position a subscriber has to the
// top of the stream without a gap.
func continuous(from engine.Position, pubs []*protocol.Publication, top engine.Position) bool {
	switch {
	case from.Epoch != "" && from.Epoch != top.Epoch:
		return false
	case len(pubs) == 0:
		return from.Offset == top.Offset
	}
	return pubs[0].Offset == from.Offset+1 && pubs[len(pubs)-1].Offset == top.Offset &&
		uint64(len(pubs)) == top.Offset-from.Offset
}

// repair makes what a subscriber missed owed to it, read from history. Where the
// stream goes on under another epoch, a client that subscribed by itself does
// so again to learn it; one that was subscribed by the server is told. why is
// what collect found: behind or lostTrack.
func (s *subscription) repair(ctx context.Context, why verdict, b *batch) verdict {
	h := s.client.hub
	h.metrics.reads[readRepair].Inc()
	since := s.position // a copy, as History may write the epoch that took over into it
	pubs, top, err := h.engine.History(ctx, s.name, engine.HistoryQuery{
		Since: &since, Limit: h.settings.Client.RecoveryLimit, MetaTTL: s.rules.HistoryMetaTTL, Keep: s.channel.keepsEmpty(),
	})
	switch carried := since.Epoch != s.position.Epoch; {
	case err != nil || !continuous(since, pubs, top):
		return lostTrack
	case carried && s.serverSide && !s.channel.ambiguous(since):
		s.position = since
		b.add(s.announceAgain())
	case carried || why == lostTrack || len(pubs) == 0:
		return lostTrack
	}
	s.owed = owed{s.missed(pubs, top.Epoch), top}
	return upToDate
}

var errRefill = errors.New("publications come faster than history can be read")

// refillFrom reads for all subscribers of a channel at once what the engine
// did not deliver, after it was away or lost something.
func (ch *channel) refillFrom(ctx context.Context, e engine.Engine) error {
	for range 3 { // publications go on meanwhile: what came is in the next read
		ch.mu.Lock()
		if len(ch.subs) == 0 { // nobody misses anything any more
			ch.forget()
		}
		at, wanted, keep := ch.top, ch.lost, ch.kept
		ch.mu.Unlock()
		if !wanted {
			return nil
		}
		ch.hub.metrics.reads[readRefill].Inc()
		from, before := at, engine.Position{} // History may rewrite both
		pubs, top, err := e.History(ctx, ch.name, engine.HistoryQuery{
			Since: &from, Before: &before, Limit: ch.rules.HistorySize, MetaTTL: ch.rules.HistoryMetaTTL, Keep: keep,
		})
		if err != nil {
			return err
		}
		if ch.append(at, from, pubs, top, before) {
			return nil
		}
	}
	return errRefill
}

// append adds what a refill read that began when the channel stood at a
// position, and reports whether nothing is missing now. from is that position
// as the engine calls it.
func (ch *channel) append(at, from engine.Position, pubs []*protocol.Publication, top, before engine.Position) bool {
	whole := continuous(from, pubs, top)
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if !ch.lost || ch.top != at { // the channel has started over meanwhile
		return false
	}
	if top.Epoch == from.Epoch && top.Offset < from.Offset {
		ch.lost = false
		ch.rewind(top)
		return true
	}
	if !whole {
		ch.add(&message{kind: marker, offset: top.Offset, epoch: top.Epoch})
	} else {
		for _, p := range pubs {
			ch.add(newMessage(p, top.Epoch))
		}
	}
	ch.top, ch.before = top, before
	ch.lost = whole && ch.newest > top.Offset
	return !ch.lost
}

// giveUp is the end of a refill that could not be: every subscriber that needs
// a position is sent to recover by itself.
func (ch *channel) giveUp() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.add(&message{kind: marker, offset: 1})
	ch.forget()
}
