package gateway

import "slices"

// pass is one walk over the subscribers of a channel that has news, or over all
// whom a message for everybody is for. There is one at a time for a channel: what
// comes meanwhile is in the next, together.
type pass struct {
	all *announcement // nil: it is one of a channel

	ch   *channel
	left []*subscription // nil: it has not begun
}

// passPart is how many subscribers are served before it is the turn of another
// channel: a message for one user does not wait behind one for all.
const passPart = 256

// fanOut makes passes, a part at a time.
func (h *Hub) fanOut() {
	buf := make([]*subscription, 0, passPart)
	for {
		p, ok := h.news.pop()
		if !ok {
			return
		}
		if p.all != nil {
			h.tell(p.all)
			continue
		}
		part := p.begin(buf)
		for _, s := range part {
			s.client.mark(s)
		}
		clear(part)
		if len(p.left) > 0 || p.ch.passed() {
			h.news.push(p)
		}
	}
}

// begin takes the next part. buf is the caller's, to be used again.
func (p *pass) begin(buf []*subscription) (part []*subscription) {
	if p.left == nil {
		p.ch.mu.Lock()
		p.ch.again = false
		if len(p.ch.subs) > cap(buf) {
			p.left = slices.Clone(p.ch.subs)
		} else {
			buf = append(buf, p.ch.subs...)
		}
		p.ch.mu.Unlock()
		if p.left == nil {
			return buf
		}
	}
	n := min(len(p.left), cap(buf))
	part, p.left = p.left[:n], p.left[n:]
	if len(p.left) == 0 {
		p.left = nil
	}
	return part
}

// passed ends a pass, and reports whether there has to be another.
func (ch *channel) passed() (again bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.queued = ch.again
	return ch.again
}
