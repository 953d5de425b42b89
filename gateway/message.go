package gateway

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/centrifugal/protocol/cfjson"

	"github.com/minigate/minigate/gateway/epoll"
)

type messageKind uint8

const (
	publication messageKind = iota
	joined
	left
	// A marker is never written. It says that the stream is known to stand at
	// its position although what leads there cannot be had any more.
	marker
)

// message is one push of a channel. It is encoded once for all subscribers
// that speak the same, when the first of them is written to.
type message struct {
	kind   messageKind
	offset uint64 // 0: not part of the stream
	epoch  string
	at     time.Duration // on the hub's clock

	channel *channel
	pub     *protocol.Publication // of a publication; shared, read only
	info    *protocol.ClientInfo  // of joined and left; shared, read only

	// Of a publication in a channel that allows deltas.
	id     publicationID
	base   *protocol.Publication // the one before, nil: there is none, or no delta is wanted
	baseID publicationID

	forms atomic.Pointer[form]
	size  atomic.Int64 // bytes of data and forms, negative when the backlog dropped it

	mu    sync.Mutex // one at a time encodes
	delta []byte     // guarded by mu: what changed since base, nil: not computed yet
}

// dropped is the size of a message that is not in the backlog any more: so far
// below zero that no encoding brings it back.
const dropped = math.MinInt64 / 2

// publicationID tells publications of a channel apart: by their place in the
// stream, or by their number in the backlog where there is no stream.
type publicationID struct {
	epoch          string
	offset, number uint64
}

// form is a message in one encoding; data is nil where it cannot be encoded.
type form struct {
	message  *message
	encoding encoding
	frame    []byte // the message as it is written
	data     []byte // what frame holds
	packed   atomic.Pointer[[]byte]
	next     *form
}

// compressed returns the message in a compressed frame, which is made when the
// first asks for it; nil where it has less than least bytes, or does not become
// shorter.
func (f *form) compressed(least int) []byte {
	if least == 0 || len(f.data) < least {
		return nil
	}
	if packed := f.packed.Load(); packed != nil {
		return *packed
	}
	m := f.message
	m.mu.Lock()
	defer m.mu.Unlock()
	if packed := f.packed.Load(); packed != nil {
		return *packed
	}
	packed, _ := epoll.AppendDeflatedFrame(nil, f.encoding.opcode(), f.data)
	f.packed.Store(&packed)
	m.grow(len(packed))
	return packed
}

// newMessage makes the message of a publication.
func newMessage(pub *protocol.Publication, epoch string) *message {
	m := &message{kind: publication, pub: pub, offset: pub.Offset, epoch: epoch}
	m.size.Store(int64(len(pub.Data)))
	return m
}

// in returns the message in an encoding, without data if it cannot be had in
// that. It is shared.
func (m *message) in(e encoding) *form {
	if m.kind != publication || e&asProtobuf != 0 && e&asDelta == 0 {
		e &= asProtobuf | byID // the same for all
	}
	if f := m.find(e); f != nil {
		return f
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.make(e)
}

func (m *message) find(e encoding) *form {
	for f := m.forms.Load(); f != nil; f = f.next {
		if f.encoding == e {
			return f
		}
	}
	return nil
}

// make encodes the message, unless somebody else has; mu is held.
func (m *message) make(e encoding) *form {
	if f := m.find(e); f != nil {
		return f
	}
	f := &form{message: m, encoding: e}
	if e&asDelta != 0 && m.deltaFor(e) == nil { // in full, then
		if e &^= asDelta; e&asProtobuf != 0 {
			e &^= forDelta
		}
		whole := m.make(e)
		f.frame, f.data = whole.frame, whole.data
	} else {
		f.frame, f.data = m.encode(e)
		m.grow(len(f.frame))
	}
	f.next = m.forms.Load()
	m.forms.Store(f)
	return f
}

// grow counts n bytes more, also in the backlog if it still has the message.
func (m *message) grow(n int) {
	if m.size.Add(int64(n)) > 0 { // else it was dropped meanwhile
		m.channel.log.bytes.Add(int64(n))
	}
}

// encode does the work of make.
func (m *message) encode(e encoding) (frame, data []byte) {
	m.channel.encodeIn(e, func(v *envelope) {
		switch m.kind {
		case joined:
			v.join.Info, v.push.Join = m.info, &v.join
		case left:
			v.leave.Info, v.push.Leave = m.info, &v.leave
		default:
			copyPublication(&v.pub, m.pub, m.epoch)
			v.push.Pub = &v.pub
			if e&asDelta != 0 {
				v.pub.Data, v.pub.Delta = m.deltaFor(e), true
			}
			if e&(asProtobuf|forDelta) == forDelta && cfjson.Valid(m.pub.Data) {
				v.pub.Data = quote(v.pub.Data)
			}
		}
	}, func(msg []byte) { frame, data = frameOf(e.opcode(), msg) })
	return frame, data
}

// deltaFor returns what changed since base in a form that e can carry, nil if
// there is no such thing that is shorter than the whole; mu is held.
func (m *message) deltaFor(e encoding) []byte {
	if m.base == nil {
		return nil
	}
	if m.delta == nil {
		m.delta = createDelta(m.base.Data, m.pub.Data)
	}
	return usableDelta(m.delta, m.base.Data, m.pub.Data, e)
}
