package gateway

import (
	"slices"
	"sync"
)

// pass is one walk over the subscribers of a channel that has news, or over all
// whom a message for everybody is for. There is one at a time for a channel: what
// comes meanwhile is in the next, together.
type pass struct {
	all *announcement // nil: it is one of a channel

	ch   *channel
	walk *walk // nil: it has not begun, or is a single part
}

// walk is what those share who serve a pass in parts at the same time. The next
// part is for who took the pass from the queue.
type walk struct {
	mu    sync.Mutex
	left  []*subscription // in no part yet
	parts int             // that are being served
}

// passPart is how many subscribers are served before it is the turn of another
// channel: a message for one user waits for a part of one for all, not for all of it.
const passPart = 256

// fanOut makes passes, a part at a time.
func (h *Hub) fanOut() {
	buf := make([]*subscription, 0, passPart)
	for {
		p, ok := h.news.pop()
		switch {
		case !ok:
			return
		case p.all != nil:
			h.tell(p.all)
		default:
			h.serveNext(p, buf)
		}
	}
}

// serveNext serves the next part of a pass. Whoever comes to the pass in the queue
// may serve the one behind it meanwhile, unless there is more news already: then one
// that takes its time saves writes, since the next brings all that came together.
// buf is the caller's, to be used again.
func (h *Hub) serveNext(p pass, buf []*subscription) {
	part, more := p.next(buf)
	shared := more && !p.ch.hasNews()
	if shared {
		h.news.push(p)
	}
	for _, s := range part {
		s.client.mark(s)
	}
	clear(part)
	switch {
	case p.walk.served() && p.ch.passed():
		h.news.push(pass{ch: p.ch})
	case more && !shared:
		h.news.push(p)
	}
}

// next takes the next part, and reports whether there are more.
func (p *pass) next(buf []*subscription) (part []*subscription, more bool) {
	if p.walk == nil {
		p.ch.mu.Lock()
		p.ch.again = false
		if len(p.ch.subs) > cap(buf) {
			p.walk = &walk{left: slices.Clone(p.ch.subs)}
		} else {
			buf = append(buf, p.ch.subs...)
		}
		p.ch.mu.Unlock()
	}
	if p.walk == nil {
		return buf, false
	}
	return p.walk.next()
}

func (w *walk) next() (part []*subscription, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.left), passPart)
	part, w.left = w.left[:n], w.left[n:]
	w.parts++
	return part, len(w.left) > 0
}

// served ends a part, and reports whether it was the last.
func (w *walk) served() (over bool) {
	if w == nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.parts--
	return w.parts == 0 && len(w.left) == 0
}

// hasNews tells whether something came since the pass began.
func (ch *channel) hasNews() bool {
	ch.mu.RLock()
	defer ch.mu.RUnlock()
	return ch.again
}

// passed ends a pass, and reports whether there has to be another.
func (ch *channel) passed() (again bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.queued = ch.again
	return ch.again
}
