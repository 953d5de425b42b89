package gateway

import (
	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
)

// verify compares everything seen with the oracle, and counts what happened.
func (c *modelClient) verify(count map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.follows {
		f.verify(c.w, count)
		count["deltas"] += f.deltas
		count["told again"] += f.repeats
		f.deltas, f.repeats = 0, 0
	}
}

func (f *following) verify(w *world, count map[string]int) {
	at, ok := engine.Position{}, false
	for i, s := range f.seen {
		r := s.reply
		switch {
		case r == nil:
			at = f.verifyPublication(w, at, s, ok)
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

func (f *following) verifyPublication(w *world, at engine.Position, s sighting, known bool) engine.Position {
	p := s.pub
	data := string(p.Data)
	switch {
	case s.filtered && isOdd(data):
		w.t.Errorf("%s: %s passed the filter", f.channel, data)
	case p.Offset == 0:
		if !w.oracle.attempted(f.channel, data) {
			w.t.Errorf("%s: nobody published %s", f.channel, data)
		}
		return at
	case known && s.filtered && p.Offset > at.Offset:
		if even := w.oracle.evenBetween(f.channel, at, p.Offset); even != "" {
			w.t.Errorf("%s: %s between %d and %d was left out", f.channel, even, at.Offset, p.Offset)
		}
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
