package gateway

import "sync"

// maxFrame is how many bytes of messages are joined into one WebSocket message
// before a new one is begun.
const maxFrame = 64 << 10

// frame joins encoded messages: JSON with newlines, Protobuf as it is, since
// there every message begins with its length. A single message is not copied.
type frame struct {
	binary bool // Protobuf
	only   []byte
	buf    []byte
	count  int
	pushes int // how many of them were added by push

	batch [64]*message // room for subscription.collect
}

var frames = sync.Pool{New: func() any { return new(frame) }}

func (f *frame) add(msg []byte) {
	switch f.count {
	case 0:
		f.only = msg
	case 1:
		f.buf = append(f.buf[:0], f.only...)
		fallthrough
	default:
		if !f.binary {
			f.buf = append(f.buf, '\n')
		}
		f.buf = append(f.buf, msg...)
	}
	f.count++
}

// push adds a message that counts as a delivery.
func (f *frame) push(msg []byte) {
	f.add(msg)
	f.pushes++
}

func (f *frame) bytes() []byte {
	if f.count > 1 {
		return f.buf
	}
	return f.only
}

// own is how many bytes the frame has for itself: a lone push is everybody's.
func (f *frame) own() int {
	if f.count == 1 && f.pushes == 1 {
		return 0
	}
	return len(f.bytes())
}

func (f *frame) full() bool { return f.count > 0 && len(f.bytes()) >= maxFrame }

func (f *frame) reset() { f.only, f.count, f.pushes = nil, 0, 0 }

func (f *frame) release() {
	f.reset()
	if cap(f.buf) <= 2*maxFrame {
		frames.Put(f)
	}
}
