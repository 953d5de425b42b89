package epoll

import (
	"compress/flate"
	"errors"
	"io"
	"slices"
	"sync"
)

// Compressed messages (RFC 7692) stand alone here: no window is kept from one to
// the next, on either side. So a connection costs nothing for it, and a message
// for many is compressed once.

// maxKept is how many bytes a buffer may have that is kept for the next message.
const maxKept = 64 << 10

// tail is what compressed messages end with, and is not sent (RFC 7692, section
// 7.2.1).
const tail = "\x00\x00\xff\xff"

// deflater makes compressed messages.
type deflater struct {
	w   *flate.Writer // 600 KiB or so
	out []byte
}

func (d *deflater) Write(p []byte) (int, error) {
	d.out = append(d.out, p...)
	return len(p), nil
}

var deflaters = sync.Pool{New: func() any {
	d := &deflater{}
	d.w, _ = flate.NewWriter(d, flate.DefaultCompression) // the level is valid
	return d
}}

// AppendDeflatedFrame appends a message in one compressed frame. It reports
// false, and appends nothing, where that would not be shorter.
func AppendDeflatedFrame(b []byte, op Opcode, message []byte) ([]byte, bool) {
	d := deflaters.Get().(*deflater)
	defer deflaters.Put(d)
	d.out = d.out[:0]
	d.w.Reset(d)
	_, _ = d.w.Write(message) // d takes everything
	_ = d.w.Flush()
	packed := d.out[:len(d.out)-len(tail)]
	if cap(d.out) > maxKept {
		d.out = nil
	}
	if len(packed) >= len(message) {
		return b, false
	}
	from := len(b)
	b = AppendHeader(slices.Grow(b, MaxHeader+len(packed)), op, len(packed))
	b[from] |= rsv1Bit
	return append(b, packed...), true
}

// packed is a compressed message to read, with its tail.
type packed struct {
	rest []byte
	tail string
}

func (p *packed) Read(b []byte) (n int, err error) {
	n = copy(b, p.rest)
	p.rest = p.rest[n:]
	if n == 0 {
		n = copy(b, p.tail)
		p.tail = p.tail[n:]
	}
	if n == 0 && len(b) > 0 {
		err = io.EOF
	}
	return n, err
}

// ReadByte keeps flate from making a buffer of its own.
func (p *packed) ReadByte() (byte, error) {
	var b [1]byte
	_, err := p.Read(b[:])
	return b[0], err
}

type inflater struct {
	in packed
	r  io.ReadCloser // 40 KiB
}

var inflaters = sync.Pool{New: func() any {
	i := &inflater{}
	i.r = flate.NewReader(&i.in)
	return i
}}

// appendInflated appends what a compressed message stands for, and stops soon
// after limit bytes, whatever it would become. What cannot be decompressed ends
// the connection without a word, as it does in the library.
func appendInflated(b, message []byte, limit int) ([]byte, error) {
	i := inflaters.Get().(*inflater)
	defer inflaters.Put(i)
	i.in = packed{message, tail}
	defer func() { i.in = packed{} }()
	_ = i.r.(flate.Resetter).Reset(&i.in, nil) // never fails
	for len(b) <= limit {
		b = slices.Grow(b, 512)
		n, err := i.r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // messages do not end with a last block
			return b, nil
		case err != nil:
			return b, &ViolationError{Reason: "received data that cannot be decompressed"}
		}
	}
	return b, nil
}
