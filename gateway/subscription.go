package gateway

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
)

// subscription is one client in one channel. There are more of them than of
// anything else: what few need is in extras, made when needed.
type subscription struct {
	client  *client
	channel *channel // set by Hub.enter
	name    string
	next    *subscription // in client.subs, guarded by client.mu

	serverSide  bool // the server's doing: the client is closed where a lost position would only unsubscribe it
	positioned  bool // publications must follow each other without a gap
	recoverable bool
	joinLeave   bool     // wants to be told who comes and goes
	encoding    encoding // of what it is sent; read only once it is announced

	live  bool // guarded by outbox.mu: the client knows of it, pushes may follow
	dirty bool // guarded by outbox.mu: in outbox.dirty
	again bool // guarded by outbox.mu: the client is to be told of it once more

	index int32 // in channel.subs, guarded by channel.mu
	rule  int32 // number of its namespace's rules; read only

	// Set while subscribing; from then on only the client's writer uses them.
	cursor   uint64          // number of the next message in the log
	position engine.Position // of the last publication sent

	extras atomic.Pointer[extras] // nil: none
}

// rules are what holds for s: its namespace's, or its own.
func (s *subscription) rules() *rules {
	if e := s.extras.Load(); e != nil && e.rules != nil {
		return e.rules
	}
	return s.client.hub.rules.all[s.rule]
}

// extras are what few subscriptions have.
type extras struct {
	special *special // nil: nothing is special about what it is sent
	terms   *terms   // guarded by client.mu; nil: nothing is set
	rules   *rules   // nil: those of its namespace; read only
}

// more returns the extras, to be set. The parts are not guarded by the same
// mutex, so several may need them at once.
func (s *subscription) more() *extras {
	if e := s.extras.Load(); e != nil {
		return e
	}
	s.extras.CompareAndSwap(nil, &extras{})
	return s.extras.Load()
}

// special is how what a subscriber is sent differs from what others are.
type special struct {
	filter *filter        // by tags, nil: it gets everything
	sent   *publicationID // the last publication sent, where deltas are taken
	owed   owed           // what comes before the log
	data   protocol.Raw   // for the subscribe reply, and to repeat what the server announced; nil once it has served
}

// special returns what is special about s, nil for nothing. Until it is announced
// that is for who makes s, and from then on for the client's writer.
func (s *subscription) special() *special {
	if e := s.extras.Load(); e != nil {
		return e.special
	}
	return nil
}

// specially returns what is special about s, to be changed.
func (s *subscription) specially() *special {
	e := s.more()
	if e.special == nil {
		e.special = &special{}
	}
	return e.special
}

// terms are what else is to be known about a subscription; guarded by client.mu.
type terms struct {
	info  protocol.Raw  // what others see of the subscription
	endAt time.Duration // when it is ended unless refreshed; 0: never

	// Closed when a subscription that the server makes while the client is at
	// work is made, or has failed; nil for all others. Until then nobody else
	// touches it.
	settled chan struct{}

	left   chan struct{} // made when the end begins, closed when nothing is left
	joined chan struct{} // made when the others are about to be told, closed when they were
}

var noTerms terms // read only

// known returns the terms of s, to be read; client.mu is held.
func (s *subscription) known() *terms {
	if e := s.extras.Load(); e != nil && e.terms != nil {
		return e.terms
	}
	return &noTerms
}

// change returns the terms of s, to be changed; client.mu is held, or nobody
// else knows s yet.
func (s *subscription) change() *terms {
	e := s.more()
	if e.terms == nil {
		e.terms = &terms{}
	}
	return e.terms
}

// endsAt sets when the subscription ends, 0 for never; as for change.
func (s *subscription) endsAt(t time.Duration) {
	if t != s.known().endAt {
		s.change().endAt = t
	}
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
		n, alone, v := s.look(b)
		if n == 0 {
			return v
		}
		if alone && b.count == 0 { // all that was taken before has been written
			s.letGo()
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
	special := s.special()
	if special == nil || special.owed.top.Epoch == "" {
		return true
	}
	o := &special.owed
	for i, p := range o.pubs {
		if b.full() {
			o.pubs = o.pubs[i:]
			return false
		}
		s.addMissed(p, o.top.Epoch, b)
		s.position.Offset = p.Offset
	}
	s.position, *o = o.top, owed{}
	return true
}

// addMissed adds a publication to b that does not come from the log.
func (s *subscription) addMissed(p *protocol.Publication, epoch string, b *batch) {
	s.channel.encodeIn(s.encoding, func(v *envelope) {
		copyPublication(&v.pub, p, epoch)
		v.pub.Delta = p.Delta
		v.push.Pub = &v.pub
	}, b.push)
}

// letGo drops what s has been sent from the log, unless somebody else is there who
// may need it. Most channels are a user's own, whose messages would all wait
// there to grow old. It comes with the next message, not as soon as one is
// written: what the socket has no room for is counted in the channel.
func (s *subscription) letGo() {
	ch := s.channel
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if len(ch.subs) == 1 && ch.subs[0] == s && s.cursor > ch.log.first {
		ch.log.drop(int(s.cursor - ch.log.first))
	}
}

// look fills b.list with the next messages of the log, and tells whether those
// before them are there for s alone.
func (s *subscription) look(b *batch) (n int, alone bool, v verdict) {
	ch := s.channel
	ch.mu.RLock()
	defer ch.mu.RUnlock()
	if ch.traffic == nil {
		return 0, false, upToDate
	}
	ms, missed := ch.log.from(s.cursor)
	if missed {
		if !s.positioned {
			return 0, false, tooSlow
		}
		if ch.rewound.ambiguous(s.position) { // the marker that says so may be gone, too
			return 0, false, lostTrack
		}
		if len(ms) == 0 && ch.top.Epoch != "" {
			if ch.top.Epoch != s.position.Epoch {
				return 0, false, lostTrack
			}
			if ch.top.Offset > s.position.Offset {
				return 0, false, behind
			}
		}
		if s.joinLeave && s.cursor < ch.log.changes {
			ch.hub.metrics.dropped.WithLabelValues(droppedPresence).Inc()
		}
		s.cursor = ch.log.first
	}
	return copy(b.list[:], ms), len(ch.subs) == 1 && s.cursor > ch.log.first, upToDate
}

// take adds messages to b.
func (s *subscription) take(ms []*message, b *batch) verdict {
	special := s.special()
	for _, m := range ms {
		if b.full() {
			return more
		}
		send, v := s.accept(m)
		if v != upToDate {
			return v
		}
		if send && (m.kind != publication || special == nil || special.wants(m.pub)) {
			s.write(m, b)
		}
		s.cursor++
	}
	return upToDate
}

// wants tells whether the filter lets a publication through.
func (s *special) wants(p *protocol.Publication) bool {
	return s.filter == nil || s.filter.matches(p.Tags)
}

// write adds a message to b as the subscriber takes it.
func (s *subscription) write(m *message, b *batch) {
	e := s.encoding
	var sent *publicationID
	if special := s.special(); special != nil {
		sent = special.sent
	}
	if sent != nil && m.base != nil && *sent == m.baseID {
		e |= asDelta
	}
	f := m.in(e)
	if f.data == nil {
		s.client.hub.metrics.undeliverable.Inc()
		return
	}
	if sent != nil && m.kind == publication {
		*sent = m.id
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
		Since: &since, Limit: h.settings.Client.RecoveryLimit, MetaTTL: s.rules().HistoryMetaTTL, Keep: s.channel.keepsEmpty(),
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
	s.specially().owed = owed{s.missed(pubs, top.Epoch), top}
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
		at, wanted, keep := ch.top, ch.lost, ch.kept.duration()
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
	ch.open()
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
