package epoll

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Opcode is the kind of a frame (RFC 6455, section 11.8).
type Opcode byte

// The kinds of frames.
const (
	Continuation Opcode = 0x0
	Text         Opcode = 0x1
	Binary       Opcode = 0x2
	Close        Opcode = 0x8
	Ping         Opcode = 0x9
	Pong         Opcode = 0xa
)

func (o Opcode) isControl() bool { return o&0x8 != 0 }

// Close codes (RFC 6455, section 7.4.1).
const (
	CodeProtocolError = 1002
	CodeNoStatus      = 1005 // never on the wire
	CodeTooBig        = 1009
)

// MaxHeader is how many bytes AppendHeader may append.
const MaxHeader = 10

const (
	maxControl = 125 // bytes of payload (RFC 6455, section 5.5)

	maxHeader = MaxHeader + 4 // with the mask of a client's

	finBit    = 0x80
	rsvBits   = 0x70
	rsv1Bit   = 0x40 // compressed (RFC 7692, section 6)
	maskBit   = 0x80
	len16     = 126
	len64     = 127
	opcodeBit = 0x0f
)

// ViolationError is a peer that does not keep to the protocol. Code is what to
// close with, 0 to end the connection without a word.
type ViolationError struct {
	Code   uint16
	Reason string
}

// Error implements error.
func (e *ViolationError) Error() string { return fmt.Sprintf("websocket: %s", e.Reason) }

func violation(reason string) error { return &ViolationError{CodeProtocolError, reason} }

// Event is a whole message or control frame.
type Event struct {
	Opcode  Opcode // Text, Binary, Close, Ping or Pong
	Payload []byte // unmasked; valid until the next call
}

// Reader takes the bytes of a client apart. The zero value, with a Limit, is at
// the beginning of a connection.
type Reader struct {
	Limit   int  // of a message in bytes; more ends with CodeTooBig
	Deflate bool // messages may be compressed (RFC 7692), each by itself

	head  [maxHeader]byte // of a frame whose header is not whole
	heads int             // bytes of it

	frame   header // being read, where in is set
	in      bool
	left    int // bytes of its payload still to come
	turned  int // bytes of its payload seen: where the mask stands
	message Opcode
	whole   []byte // of the message so far; nil: nothing yet
	control []byte // of the control frame so far
	begun   bool   // a message has begun
	packed  bool   // it is compressed
	plain   []byte // room for what a compressed message becomes
}

// header of a frame.
type header struct {
	fin    bool
	packed bool // RSV1
	opcode Opcode
	length int64
	mask   [4]byte
}

// Idle tells whether nothing is kept: the next byte begins a new frame and a
// new message.
func (r *Reader) Idle() bool { return r.heads == 0 && !r.in && !r.begun }

// reset begins with another connection.
func (r *Reader) reset(limit int, deflate bool) {
	*r = Reader{Limit: limit, Deflate: deflate, plain: r.plain[:0]}
	if cap(r.plain) > maxKept {
		r.plain = nil
	}
}

// Next reads from the start of b, which it may change, and returns how many
// bytes it used and, where ok, what they completed. Without that all of b was
// used and more is needed. Errors are *ViolationError.
func (r *Reader) Next(b []byte) (ev Event, used int, ok bool, err error) {
	for {
		if !r.in {
			n, err := r.begin(b[used:])
			used += n
			if err != nil || !r.in {
				return Event{}, used, false, err
			}
		}
		part := b[used:min(len(b), used+r.left)]
		used += len(part)
		unmask(part, r.frame.mask, r.turned)
		r.turned += len(part)
		r.left -= len(part)
		ev, ok, err := r.take(part)
		if ok || err != nil {
			return ev, used, ok, err
		}
		if r.left > 0 {
			return Event{}, used, false, nil // b is used up
		}
		r.in = false // a fragment: the next frame goes on with the message
	}
}

// begin reads the header of the next frame, as far as it is there.
func (r *Reader) begin(b []byte) (used int, err error) {
	if r.heads == 0 {
		h, n, err := r.parse(b)
		if err != nil || n > 0 {
			return n, r.enter(h, err)
		}
		r.heads = copy(r.head[:], b) // less than a header
		return r.heads, nil
	}
	before := r.heads
	r.heads += copy(r.head[r.heads:], b)
	h, n, err := r.parse(r.head[:r.heads])
	if err != nil || n > 0 {
		r.heads = 0
		return n - before, r.enter(h, err)
	}
	return r.heads - before, nil
}

// enter checks what frame may follow and begins it.
func (r *Reader) enter(h header, err error) error {
	switch {
	case err != nil:
		return err
	case h.opcode.isControl():
	case h.opcode == Continuation && !r.begun:
		return violation("received continuation frame without text or binary frame")
	case h.opcode != Continuation && r.begun:
		return violation("received new data message without finishing the previous message")
	case h.length > int64(r.room(h)):
		return r.tooBig()
	}
	if h.opcode == Text || h.opcode == Binary {
		r.message, r.begun, r.packed = h.opcode, true, h.packed
	}
	r.frame, r.in, r.left, r.turned = h, true, int(h.length), 0
	return nil
}

func (r *Reader) tooBig() error {
	return &ViolationError{CodeTooBig, fmt.Sprintf("read limited at %d bytes", r.Limit+1)}
}

// room is how many bytes of payload the message may still have. A compressed one
// is measured when it is not any more; until then what does not become shorter
// by compression has room for the few bytes that it becomes longer.
func (r *Reader) room(h header) int {
	limit := r.Limit
	if r.begun && r.packed || !r.begun && h.packed {
		limit += limit>>10 + 64
	}
	return limit - len(r.whole)
}

// take adds unmasked bytes to what they are part of.
func (r *Reader) take(part []byte) (ev Event, ok bool, err error) {
	if r.frame.opcode.isControl() {
		return r.takeControl(part)
	}
	last := r.left == 0 && r.frame.fin
	if last && len(r.whole) == 0 { // in one piece: not copied
		return r.finish(part)
	}
	r.whole = append(r.whole, part...)
	if !last {
		return ev, false, nil
	}
	return r.finish(r.whole)
}

// finish hands on a whole message.
func (r *Reader) finish(payload []byte) (ev Event, ok bool, err error) {
	r.in, r.begun, r.whole = false, false, nil
	if r.packed {
		if r.plain, err = appendInflated(r.plain[:0], payload, r.Limit); err != nil {
			return ev, false, err
		}
		if payload = r.plain; len(payload) > r.Limit {
			return ev, false, r.tooBig()
		}
	}
	return Event{r.message, payload}, true, nil
}

func (r *Reader) takeControl(part []byte) (ev Event, ok bool, err error) {
	if r.left > 0 {
		r.control = append(r.control, part...)
		return ev, false, nil
	}
	if len(r.control) > 0 {
		part, r.control = append(r.control, part...), nil
	}
	r.in = false
	if r.frame.opcode == Close {
		if err := checkClose(part); err != nil {
			return ev, false, err
		}
	}
	return Event{r.frame.opcode, part}, true, nil
}

// parse decodes a header; n is 0 where b does not hold all of it.
// Violations are found in the order in which the library finds them.
func (r *Reader) parse(b []byte) (h header, n int, err error) {
	if len(b) < 2 {
		return h, 0, nil
	}
	h.fin, h.packed, h.opcode = b[0]&finBit != 0, b[0]&rsv1Bit != 0, Opcode(b[0]&opcodeBit)
	h.length, n = int64(b[1]&^maskBit), 2
	switch h.length {
	case len16:
		if n = 4; len(b) < n {
			return h, 0, nil
		}
		h.length = int64(binary.BigEndian.Uint16(b[2:]))
	case len64:
		if n = 10; len(b) < n {
			return h, 0, nil
		}
		if h.length = int64(binary.BigEndian.Uint64(b[2:])); h.length < 0 {
			return h, n, &ViolationError{Reason: "received negative payload length"}
		}
	}
	masked := b[1]&maskBit != 0
	if masked {
		if len(b) < n+4 {
			return h, 0, nil
		}
		h.mask = [4]byte(b[n:])
		n += 4
	}
	switch {
	case b[0]&rsvBits&^rsv1Bit != 0, h.packed && (!r.Deflate || h.opcode != Text && h.opcode != Binary):
		err = violation("received header with unexpected rsv bits set")
	case !masked:
		err = &ViolationError{Reason: "received unmasked frame from client"}
	case h.opcode > Binary && h.opcode < Close || h.opcode > Pong:
		err = violation("received unknown opcode")
	case h.opcode.isControl() && h.length > maxControl:
		err = violation("received control frame payload with invalid length")
	case h.opcode.isControl() && !h.fin:
		err = violation("received fragmented control frame")
	}
	return h, n, err
}

// unmask turns p by a mask that stands at offset (RFC 6455, section 5.3).
func unmask(p []byte, mask [4]byte, offset int) {
	var key [4]byte
	for i := range key {
		key[i] = mask[(offset+i)&3]
	}
	if word := binary.LittleEndian.Uint32(key[:]); len(p) >= 8 {
		double := uint64(word)<<32 | uint64(word)
		for len(p) >= 8 {
			binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^double)
			p = p[8:]
		}
	}
	for i := range p {
		p[i] ^= key[i&3]
	}
}

var errCloseShort = errors.New("close payload too small")

// checkClose refuses what may not stand in a close frame.
func checkClose(p []byte) error {
	if code, _, err := ParseClose(p); err != nil || len(p) > 0 && !validCode(code) {
		return violation("received invalid close payload")
	}
	return nil
}

// ParseClose takes the payload of a close frame apart.
func ParseClose(p []byte) (code uint16, reason []byte, err error) {
	switch len(p) {
	case 0:
		return CodeNoStatus, nil, nil
	case 1:
		return 0, nil, errCloseShort
	}
	return binary.BigEndian.Uint16(p), p[2:], nil
}

// validCode tells whether a code may be on the wire (RFC 6455, section 7.4, and
// IANA's registry).
func validCode(code uint16) bool {
	switch {
	case code == 1004 || code == CodeNoStatus || code == 1006 || code == 1015:
		return false
	}
	return code >= 1000 && code <= 1014 || code >= 3000 && code <= 4999
}

// AppendHeader appends the header of an unfragmented frame that a server sends.
func AppendHeader(b []byte, op Opcode, length int) []byte {
	b = append(b, finBit|byte(op))
	switch {
	case length < len16:
		return append(b, byte(length))
	case length <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, len16), uint16(length))
	}
	return binary.BigEndian.AppendUint64(append(b, len64), uint64(length))
}
