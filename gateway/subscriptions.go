package gateway

import "iter"

// subscriptions is those of one client by channel. There are hardly ever more
// than a few, and a map takes some 300 bytes.
type subscriptions struct {
	few  *subscription // linked by subscription.next
	many map[string]*subscription
	n    int32
}

// fewSubscriptions is up to how many are searched one by one.
const fewSubscriptions = 16

func (l *subscriptions) len() int { return int(l.n) }

// get returns the subscription of a channel, nil if there is none.
func (l *subscriptions) get(channel string) *subscription {
	if l.many != nil {
		return l.many[channel]
	}
	for s := l.few; s != nil; s = s.next {
		if s.name == channel {
			return s
		}
	}
	return nil
}

// add enters a subscription of a channel that has none.
func (l *subscriptions) add(s *subscription) {
	if l.n++; l.n > fewSubscriptions && l.many == nil {
		l.many = make(map[string]*subscription, 2*fewSubscriptions)
		for l.few != nil {
			first := l.few
			l.many[first.name] = first
			l.few, first.next = first.next, nil
		}
	}
	if l.many != nil {
		l.many[s.name] = s
		return
	}
	s.next, l.few = l.few, s
}

// remove takes a subscription out, if it is there.
func (l *subscriptions) remove(s *subscription) {
	if l.get(s.name) != s {
		return
	}
	l.n--
	if l.many != nil {
		delete(l.many, s.name)
		return
	}
	at := &l.few
	for *at != s {
		at = &(*at).next
	}
	*at, s.next = s.next, nil
}

// all yields every subscription; none may be added or removed meanwhile.
func (l *subscriptions) all() iter.Seq[*subscription] {
	return func(yield func(*subscription) bool) {
		for _, s := range l.many {
			if !yield(s) {
				return
			}
		}
		for s := l.few; s != nil; s = s.next {
			if !yield(s) {
				return
			}
		}
	}
}
