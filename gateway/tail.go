package gateway

import (
	"bytes"
	"slices"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
)

// tail is the newest publications of a stream, without gaps up to the
// channel's top: what clients that come back are told without asking the
// engine. It is no longer than history, and ends when history does.
type tail struct {
	pubs  []*protocol.Publication // oldest first; shared with the engine, read only
	bytes int
	until time.Duration // on the hub's clock
}

func (t *tail) reset() { *t = tail{} }

// push appends the publication that follows. The newest always stays.
func (t *tail) push(p *protocol.Publication, until time.Duration, count, size int) {
	t.pubs = append(t.pubs, p)
	t.bytes += len(p.Data)
	t.until = until
	drop := max(len(t.pubs)-max(count, 1), 0)
	for i := range t.pubs {
		if i >= drop && (t.bytes <= size || i == len(t.pubs)-1) {
			drop = i
			break
		}
		t.bytes -= len(t.pubs[i].Data)
		t.pubs[i] = nil
	}
	t.pubs = t.pubs[drop:]
}

// prepend puts older publications that were read in front, as far as they
// join: up to top where the tail is empty.
func (t *tail) prepend(pubs []*protocol.Publication, top uint64, until time.Duration, count, size int) {
	next := top + 1
	if len(t.pubs) > 0 {
		next = t.pubs[0].Offset
	}
	var older []*protocol.Publication
	for _, p := range slices.Backward(pubs) {
		if p.Offset >= next {
			continue
		}
		if p.Offset+1 != next || len(older)+len(t.pubs) >= count || t.bytes+len(p.Data) > size {
			break
		}
		older = append(older, p)
		t.bytes += len(p.Data)
		next--
	}
	if len(older) == 0 {
		return
	}
	slices.Reverse(older)
	t.pubs = append(older, t.pubs...)
	t.until = max(t.until, until)
}

// cut drops what stands up to an offset.
func (t *tail) cut(upTo uint64) {
	for len(t.pubs) > 0 && t.pubs[0].Offset <= upTo {
		t.bytes -= len(t.pubs[0].Data)
		t.pubs[0] = nil
		t.pubs = t.pubs[1:]
	}
	if len(t.pubs) == 0 {
		t.reset()
	}
}

// last returns the n newest publications, if there are as many.
func (t *tail) last(n uint64, now time.Duration) ([]*protocol.Publication, bool) {
	if n > uint64(len(t.pubs)) || now >= t.until {
		return nil, n == 0
	}
	return slices.Clone(t.pubs[uint64(len(t.pubs))-n:]), true
}

// at returns the publication with an offset, nil if it is not kept.
func (t *tail) at(offset uint64) *protocol.Publication {
	if len(t.pubs) == 0 || offset < t.pubs[0].Offset || offset > t.pubs[len(t.pubs)-1].Offset {
		return nil
	}
	return t.pubs[offset-t.pubs[0].Offset]
}

// recent returns the n newest publications, if there are as many; mu is held.
func (ch *channel) recent(n uint64, now time.Duration) ([]*protocol.Publication, bool) {
	if ch.traffic == nil {
		return nil, n == 0
	}
	return ch.tail.last(n, now)
}

// removeUpTo notes that history up to a place was removed; mu is held.
func (ch *channel) removeUpTo(p engine.Position) {
	ch.open()
	if p.Epoch == ch.removed.Epoch {
		p.Offset = max(p.Offset, ch.removed.Offset)
	}
	ch.removed = p
	if p.Epoch == ch.top.Epoch {
		ch.tail.cut(p.Offset)
	} else {
		ch.tail.reset()
	}
}

// isRemoved tells whether history has a publication no more; mu is held.
func (ch *channel) isRemoved(epoch string, offset uint64) bool {
	return epoch == ch.removed.Epoch && offset <= ch.removed.Offset
}

// rewound says that a stream fell back within its epoch: the publications from
// low+1 to high that clients may have seen are not those that bear the same
// offsets now.
type rewound struct {
	epoch     string
	low, high uint64
}

// ambiguous tells whether nobody can say which publications a client at p saw.
func (r *rewound) ambiguous(p engine.Position) bool {
	return p.Offset > r.low && p.Offset <= r.high && (p.Epoch == "" || p.Epoch == r.epoch)
}

// ambiguous is rewound.ambiguous for those who do not hold mu.
func (ch *channel) ambiguous(p engine.Position) bool {
	ch.mu.RLock()
	defer ch.mu.RUnlock()
	return ch.traffic != nil && ch.rewound.ambiguous(p)
}

// doubt looks at what is delivered for signs that the stream fell back in its
// epoch, as it does when Redis fails over to a replica that was behind: an
// engine never delivers an offset twice. It reports whether the publication
// was only repeated after all. mu is held.
func (ch *channel) doubt(pub *protocol.Publication, epoch string) (repeated bool) {
	again := epoch == ch.live.Epoch && pub.Offset <= ch.live.Offset
	if again && !ch.lost && epoch == ch.top.Epoch {
		if old := ch.tail.at(pub.Offset); old != nil && bytes.Equal(old.Data, pub.Data) {
			return true
		}
		ch.rewind(engine.Position{Offset: pub.Offset - 1, Epoch: epoch})
	}
	ch.live = engine.Position{Offset: pub.Offset, Epoch: epoch}
	return false
}

// rewind starts over from where a stream fell back to: subscribers that need a
// position are sent to find out anew where they stand, and those that were
// beyond are told that they are not recovered. mu is held.
func (ch *channel) rewind(to engine.Position) {
	ch.open()
	r := rewound{epoch: to.Epoch, low: to.Offset, high: ch.top.Offset}
	if r.epoch == ch.rewound.epoch {
		r.low, r.high = min(r.low, ch.rewound.low), max(r.high, ch.rewound.high)
	}
	ch.rewound = r
	if ch.removed.Epoch == to.Epoch {
		ch.removed.Offset = min(ch.removed.Offset, to.Offset)
	}
	ch.hub.metrics.rewound.Inc()
	ch.add(&message{kind: marker, offset: 1}) // of no epoch: nobody's position leads there
	ch.forget()
	ch.top, ch.have, ch.live = to, to.Offset, to
	ch.last, ch.lastID = nil, publicationID{} // another publication will bear its offset
}
