package gateway

import "time"

type messageKind uint8

const (
	publication messageKind = iota
	presenceChange
	// A marker is never written. It says that the stream is known to stand at
	// its position although what leads there cannot be had any more.
	marker
)

// message is one push of a channel, encoded once for all subscribers.
type message struct {
	kind   messageKind
	data   []byte
	offset uint64 // 0: not part of the stream
	epoch  string
	at     time.Duration // on the hub's clock
}

// backlog is the newest messages of a channel, numbered by arrival. Subscribers
// hold no messages, only the number of the next one they want.
type backlog struct {
	first    uint64 // number of messages[0]
	messages []message
	bytes    int
}

// next is the number the next message will get.
func (b *backlog) next() uint64 { return b.first + uint64(len(b.messages)) }

// from returns the messages from number n on, and whether older ones that
// count as wanted are gone.
func (b *backlog) from(n uint64) (ms []message, missed bool) {
	if n < b.first {
		return b.messages, true
	}
	return b.messages[min(n-b.first, uint64(len(b.messages))):], false
}

// add appends m and drops the oldest messages beyond count and bytes; m itself
// always stays.
func (b *backlog) add(m message, count, bytes int) {
	b.messages = append(b.messages, m)
	b.bytes += len(m.data)
	drop := max(len(b.messages)-count, 0)
	size := b.bytes
	for i := range drop {
		size -= len(b.messages[i].data)
	}
	for size > bytes && drop < len(b.messages)-1 {
		size -= len(b.messages[drop].data)
		drop++
	}
	b.drop(drop)
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
		b.bytes -= len(b.messages[i].data)
		b.messages[i] = message{}
	}
	b.first += uint64(n)
	if b.messages = b.messages[n:]; len(b.messages) == 0 {
		b.messages = nil
	}
}
