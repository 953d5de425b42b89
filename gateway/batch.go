package gateway

import (
	"sync"

	"github.com/minigate/minigate/gateway/epoll"
)

// How many bytes are gathered before they are written: about as many as a socket
// has room for, and fewer where it was full, since what it has no room for is
// kept for one client alone.
const (
	fullBatch  = 16 << 10
	tightBatch = 4 << 10
)

// batch is what is written to one socket in one go: WebSocket frames. Messages
// are joined in one frame, in JSON by newlines, in Protobuf as they are, since
// there every message begins with its length. A compressed one has a frame of
// its own, which all share that take it, and so has one that is alone: nothing
// is copied then.
type batch struct {
	op    epoll.Opcode
	least int // bytes of a message that is worth compressing; 0: none is
	limit int // bytes to gather

	lone *form  // the only message, where others share it
	buf  []byte // else the frames
	open int    // where the payload of the frame in buf begins that more may be joined to; 0: there is none

	count  int // messages
	pushes int // how many of them count as deliveries

	list [64]*message // room for subscription.collect
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// newBatch returns an empty batch for a client; release gives it back.
func newBatch(c *client) *batch {
	b := batches.Get().(*batch)
	b.op, b.least, b.limit = c.opcode(), 0, fullBatch
	if c.deflate {
		b.least = max(int(c.hub.settings.WebSocket.CompressionMinSize), 1)
	}
	return b
}

// add adds a message that only this client gets.
func (b *batch) add(msg []byte) {
	b.settle()
	b.join(msg)
	b.count++
}

// push adds a message that counts as a delivery, and copies it.
func (b *batch) push(msg []byte) {
	b.add(msg)
	b.pushes++
}

// share adds a push that others get, too.
func (b *batch) share(f *form) {
	if b.count == 0 {
		b.lone = f
	} else {
		b.settle()
		b.include(f)
	}
	b.count++
	b.pushes++
}

// settle makes room behind a lone message.
func (b *batch) settle() {
	if f := b.lone; f != nil {
		b.lone = nil
		b.include(f)
	}
}

func (b *batch) include(f *form) {
	if packed := f.compressed(b.least); packed != nil {
		b.close()
		b.buf = append(b.buf, packed...)
		return
	}
	b.join(f.data)
}

// shortHeader is what is kept free for the header of a frame.
const shortHeader = 4

func (b *batch) join(msg []byte) {
	switch {
	case b.open == 0:
		b.buf = append(b.buf, make([]byte, shortHeader)...)
		b.open = len(b.buf)
	case b.op == epoll.Text:
		b.buf = append(b.buf, '\n')
	}
	b.buf = append(b.buf, msg...)
}

// close ends the frame that more may be joined to: now its length is known.
func (b *batch) close() {
	if b.open == 0 {
		return
	}
	var room [epoll.MaxHeader]byte
	payload := len(b.buf) - b.open
	head := epoll.AppendHeader(room[:0], b.op, payload)
	from := b.open - shortHeader
	if missing := len(head) - shortHeader; missing > 0 { // over 64 KiB
		b.buf = append(b.buf, room[:missing]...)
	}
	copy(b.buf[from+len(head):], b.buf[b.open:b.open+payload])
	copy(b.buf[from:], head)
	b.buf = b.buf[:from+len(head)+payload]
	b.open = 0
}

// frames returns what to write.
func (b *batch) frames() []byte {
	if b.lone == nil {
		b.close()
		return b.buf
	}
	if packed := b.lone.compressed(b.least); packed != nil {
		return packed
	}
	return b.lone.frame
}

// own is how many bytes the batch has for itself: a lone message is everybody's.
func (b *batch) own() int { return len(b.buf) }

func (b *batch) full() bool {
	if b.lone != nil {
		return len(b.lone.data) >= b.limit
	}
	return len(b.buf) >= b.limit
}

func (b *batch) reset() {
	if cap(b.buf) > 4*fullBatch {
		b.buf = nil
	}
	b.lone, b.buf, b.open, b.count, b.pushes = nil, b.buf[:0], 0, 0, 0
}

func (b *batch) release() {
	b.reset()
	batches.Put(b)
}

// frameOf returns a message in a frame, and where in it the message is.
func frameOf(op epoll.Opcode, msg []byte) (frame, data []byte) {
	b := epoll.AppendHeader(make([]byte, 0, epoll.MaxHeader+len(msg)), op, len(msg))
	from := len(b)
	b = append(b, msg...)
	return b, b[from:]
}
