package gateway

import (
	"sync/atomic"
	"time"
)

// backlog is the newest messages of a channel, numbered by arrival. Subscribers
// hold no messages, only the number of the next one they want.
type backlog struct {
	first    uint64 // number of messages[0]
	messages []*message
	bytes    atomic.Int64 // of the messages, and of every encoding of them
	changes  uint64       // numbers below it had presence changes among them that are dropped
}

// next is the number the next message will get.
func (b *backlog) next() uint64 { return b.first + uint64(len(b.messages)) }

// from returns the messages from number n on, and whether older ones that
// count as wanted are gone.
func (b *backlog) from(n uint64) (ms []*message, missed bool) {
	if n < b.first {
		return b.messages, true
	}
	return b.messages[min(n-b.first, uint64(len(b.messages))):], false
}

// add appends m and drops the oldest messages beyond count and bytes; m itself
// always stays.
func (b *backlog) add(m *message, count, bytes int) {
	b.messages = append(b.messages, m)
	b.bytes.Add(m.size.Load())
	b.drop(max(len(b.messages)-count, 0))
	for b.bytes.Load() > int64(bytes) && len(b.messages) > 1 {
		b.drop(1)
	}
}

// expire drops the messages that came before t.
func (b *backlog) expire(t time.Duration) {
	n := 0
	for n < len(b.messages) && b.messages[n].at < t {
		n++
	}
	b.drop(n)
}

func (b *backlog) drop(n int) {
	for i := range n {
		if k := b.messages[i].kind; k == joined || k == left {
			b.changes = b.first + uint64(i) + 1
		}
		b.bytes.Add(-b.messages[i].size.Swap(dropped))
		b.messages[i] = nil
	}
	b.first += uint64(n)
	switch left := len(b.messages) - n; {
	case left == 0:
		b.messages = nil
	case left <= n: // few stay: there is room behind them again
		copy(b.messages, b.messages[n:])
		clear(b.messages[left:])
		b.messages = b.messages[:left]
	default:
		b.messages = b.messages[n:]
	}
}
