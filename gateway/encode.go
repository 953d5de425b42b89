package gateway

import (
	"encoding/binary"
	"log/slog"
	"sync"

	"github.com/centrifugal/protocol"
	"github.com/centrifugal/protocol/cfjson"

	"github.com/minigate/minigate/gateway/epoll"
)

// encoding is how a message is written for one kind of subscriber. Subscribers
// of the same kind share the bytes.
type encoding uint8

const (
	asProtobuf encoding = 1 << iota // instead of JSON
	byID                            // the channel as a number instead of its name
	forDelta                        // the subscriber takes deltas: in JSON all data is in strings
	asDelta                         // what changed since the publication before
)

// opcode is that of the frames that messages in this encoding are sent in.
func (e encoding) opcode() epoll.Opcode {
	if e&asProtobuf != 0 {
		return epoll.Binary
	}
	return epoll.Text
}

// encodeMessage returns a message as it goes on the wire. In Protobuf the
// length that stands before every message is part of it, so that messages are
// joined by writing one after the other. It fails only for data that is not
// JSON where it would have to be.
func encodeMessage(r *protocol.Reply, e encoding) ([]byte, error) {
	if e&asProtobuf == 0 {
		return protocol.DefaultJsonReplyEncoder.Encode(r)
	}
	size := r.SizeCF()
	b := make([]byte, binary.MaxVarintLen64+size)
	n, err := r.MarshalToSizedBufferCF(b[binary.MaxVarintLen64:])
	if err != nil {
		return nil, err
	}
	var length [binary.MaxVarintLen64]byte
	l := binary.PutUvarint(length[:], uint64(n))
	from := len(b) - n - l
	copy(b[from:], length[:l])
	return b[from:], nil
}

// encoding is what the client speaks.
func (c *client) encoding() encoding {
	if c.binary {
		return asProtobuf
	}
	return 0
}

// opcode is that of the frames that the client is sent.
func (c *client) opcode() epoll.Opcode { return c.encoding().opcode() }

// encodeReply encodes what only carries values that are known to be JSON.
func (c *client) encodeReply(r *protocol.Reply) []byte {
	b, err := encodeMessage(r, c.encoding())
	if err != nil { // another node or an older version stored something that is not JSON
		slog.Error("reply cannot be encoded", "id", r.Id, "error", err)
		b, _ = encodeMessage(&protocol.Reply{Id: r.Id, Error: errorOf(err)}, c.encoding())
	}
	return b
}

// encodePush is encodeReply for pushes: nil where the payload is not JSON.
func (c *client) encodePush(p *protocol.Push) []byte { return encodePush(p, c.encoding()) }

func encodePush(p *protocol.Push, e encoding) []byte {
	b, err := encodeMessage(&protocol.Reply{Push: p}, e)
	if err != nil {
		slog.Error("push cannot be encoded", "channel", p.Channel, "error", err)
		return nil
	}
	return b
}

// pings are what an empty reply is in both encodings.
var pings = map[encoding][]byte{0: []byte("{}"), asProtobuf: {0}}

// envelope is what a push of a channel is wrapped in while it is encoded.
type envelope struct {
	reply protocol.Reply
	push  protocol.Push
	pub   protocol.Publication
	join  protocol.Join
	leave protocol.Leave
	text  []byte // of the last message, to be written over
}

var envelopes = sync.Pool{New: func() any { return new(envelope) }}

// encodeIn encodes one push to subscribers of ch, which fill has set up, and hands
// it to use, which must copy it. Data that is not JSON, for somebody who speaks
// JSON, is not handed on.
func (ch *channel) encodeIn(e encoding, fill func(*envelope), use func(msg []byte)) {
	v := envelopes.Get().(*envelope)
	if e&byID != 0 {
		v.push.Id = ch.id
	} else {
		v.push.Channel = ch.name
	}
	v.reply.Push = &v.push
	fill(v)
	if msg := v.encode(e); msg != nil {
		use(msg)
	}
	*v = envelope{text: v.text}
	if cap(v.text) > 4*fullBatch {
		v.text = nil
	}
	envelopes.Put(v)
}

// encode is encodeMessage, but that in JSON it returns memory of v, where the
// encoder of the protocol returns memory of its own that is copied once more. Of
// the fields that fill may set it checks what that encoder checks.
func (v *envelope) encode(e encoding) []byte {
	if e&asProtobuf != 0 {
		msg, err := encodeMessage(&v.reply, e)
		if err != nil {
			return nil
		}
		return msg
	}
	if !cfjson.ValidRaw(v.pub.Data) || !validInfo(v.pub.Info) || !validInfo(v.join.Info) || !validInfo(v.leave.Info) {
		return nil
	}
	v.text = v.reply.AppendJSON(v.text[:0])
	return v.text
}

// validInfo tells whether what is said of a client in info of its own is JSON.
func validInfo(i *protocol.ClientInfo) bool {
	return i == nil || cfjson.ValidRaw(i.ConnInfo) && cfjson.ValidRaw(i.ChanInfo)
}

// copyPublication copies what clients get to see of a publication. The first
// one of a stream carries the epoch, for clients that subscribed while it was
// empty.
func copyPublication(to, from *protocol.Publication, epoch string) {
	to.Data, to.Info, to.Offset, to.Tags, to.Version = from.Data, from.Info, from.Offset, from.Tags, from.Version
	if from.Offset == 1 {
		to.Epoch = epoch
	}
}
