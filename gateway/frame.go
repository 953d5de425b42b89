package gateway

import (
	"log/slog"
	"sync"

	"github.com/centrifugal/protocol"
)

// maxFrame is how many bytes of messages are joined into one WebSocket message
// before a new one is begun.
const maxFrame = 64 << 10

// frame joins encoded messages with newlines. A single message is not copied.
type frame struct {
	only   []byte
	buf    []byte
	count  int
	pushes int // how many of them were added by push
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
		f.buf = append(append(f.buf, '\n'), msg...)
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

func (f *frame) full() bool { return f.count > 0 && len(f.bytes()) >= maxFrame }

func (f *frame) reset() { f.only, f.count, f.pushes = nil, 0, 0 }

func (f *frame) release() {
	f.reset()
	if cap(f.buf) <= 2*maxFrame {
		frames.Put(f)
	}
}

var ping = []byte("{}")

// encodeReply encodes what only carries values that are known to be JSON.
func encodeReply(r *protocol.Reply) []byte {
	b, err := protocol.DefaultJsonReplyEncoder.Encode(r)
	if err != nil { // another node or an older version stored something that is not JSON
		slog.Error("reply cannot be encoded", "id", r.Id, "error", err)
		b, _ = protocol.DefaultJsonReplyEncoder.Encode(&protocol.Reply{Id: r.Id, Error: errorOf(err)})
	}
	return b
}

// encodePush is encodeReply for pushes: nil where the payload is not JSON.
func encodePush(p *protocol.Push) []byte {
	b, err := protocol.DefaultJsonReplyEncoder.Encode(&protocol.Reply{Push: p})
	if err != nil {
		slog.Error("push cannot be encoded", "channel", p.Channel, "error", err)
		return nil
	}
	return b
}

// encodePublication encodes a publication for everybody. The first one of a
// stream carries the epoch, for clients that subscribed while it was empty.
func encodePublication(channel string, pub *protocol.Publication, epoch string) []byte {
	p := &protocol.Publication{Data: pub.Data, Info: pub.Info, Offset: pub.Offset, Tags: pub.Tags}
	if pub.Offset == 1 {
		p.Epoch = epoch
	}
	return encodePush(&protocol.Push{Channel: channel, Pub: p})
}
