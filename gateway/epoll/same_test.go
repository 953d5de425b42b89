package epoll

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// What a connection's bytes come to: messages handed on and frames answered.
type outcome struct {
	events []string
	end    string
	torn   bool // the input ends within a message, or ours has read on beyond the beginning of a compressed one
	spoilt bool // the end is a compressed message that cannot be read
}

const testLimit = 1 << 10

// ours reads in pieces, as the network may bring them.
func ours(input, pieces []byte, deflate bool) (o outcome) {
	r := Reader{Limit: testLimit, Deflate: deflate}
	rest := slices.Clone(input)
	for len(rest) > 0 {
		n := len(rest)
		if len(pieces) > 0 {
			n = min(n, 1+int(pieces[0]))
			pieces = pieces[1:]
		}
		piece := rest[:n]
		rest = rest[n:]
		for len(piece) > 0 {
			ev, used, ok, err := r.Next(piece)
			if used == 0 && err == nil {
				o.end = "stuck"
				return o
			}
			piece = piece[used:]
			if v, is := errors.AsType[*ViolationError](err); is {
				o.end = "cut"
				if v.Code != 0 {
					o.end = fmt.Sprintf("close %d", v.Code)
				}
				o.spoilt, o.torn = strings.Contains(v.Reason, "decompressed"), r.begun && r.packed
				return o
			}
			if !ok {
				continue
			}
			switch ev.Opcode {
			case Text, Binary:
				o.events = append(o.events, fmt.Sprintf("message %d %x", ev.Opcode, ev.Payload))
			case Ping:
				o.events = append(o.events, fmt.Sprintf("pong %x", ev.Payload))
			case Close:
				code, reason, _ := ParseClose(ev.Payload)
				o.end, o.torn = fmt.Sprintf("closed %d %x", code, reason), r.begun && r.packed
				return o
			}
		}
	}
	o.end, o.torn = "more", r.begun
	return o
}

// wire is the connection that the library reads from; what it writes is kept.
type wire struct {
	io.Reader
	written bytes.Buffer
}

func (w *wire) Write(p []byte) (int, error)      { return w.written.Write(p) }
func (w *wire) Close() error                     { return nil }
func (w *wire) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (w *wire) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// taken is a ResponseWriter whose connection can be taken.
type taken struct {
	*httptest.ResponseRecorder
	wire *wire
}

func (t taken) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t.wire, bufio.NewReadWriter(bufio.NewReader(t.wire), bufio.NewWriter(t.wire)), nil
}

func upgradeRequest() *http.Request {
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	for k, v := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AQIDBAUGBwgJCgsMDQ4PEA==",
	} {
		req.Header.Set(k, v)
	}
	return req
}

// theirs is the library's reading of the same bytes.
func theirs(t testing.TB, input []byte, deflate bool) (o outcome) {
	t.Helper()
	w := &wire{Reader: bytes.NewReader(input)}
	req := upgradeRequest()
	var options websocket.AcceptOptions
	if deflate {
		req.Header.Set("Sec-WebSocket-Extensions", "permessage-deflate")
		options.CompressionMode = websocket.CompressionNoContextTakeover
	}
	conn, err := websocket.Accept(taken{httptest.NewRecorder(), w}, req, &options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(testLimit)
	w.written.Reset()
	o.end = "more"
	for {
		typ, p, err := conn.Read(context.Background())
		o.answers(t, w)
		if err == nil {
			o.events = append(o.events, fmt.Sprintf("message %d %x", typ, p))
			continue
		}
		if c, ok := errors.AsType[websocket.CloseError](err); ok {
			o.end = fmt.Sprintf("closed %d %x", c.Code, c.Reason)
		} else if o.end == "more" && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			o.end = "cut"
		}
		return o
	}
}

// answers takes in what the library has written.
func (o *outcome) answers(t testing.TB, w *wire) {
	for b := w.written.Bytes(); len(b) > 0; {
		n := int(b[1])
		payload := b[2 : 2+n] // control frames only
		switch Opcode(b[0] & opcodeBit) {
		case Pong:
			o.events = append(o.events, fmt.Sprintf("pong %x", payload))
		case Close:
			o.end = "close"
			if n >= 2 {
				o.end = fmt.Sprintf("close %d", binary.BigEndian.Uint16(payload))
			}
		default:
			t.Fatalf("the library wrote %x", b)
		}
		b = b[2+n:]
	}
	w.written.Reset()
}

// same compares both readings. The library finds out late what cannot become a
// message; by then it may have answered pings that ours has not looked at, or
// met the end of the input. Of compressed messages it finds out early: before
// ours, which waits for their ends.
func same(t *testing.T, input, pieces []byte, deflate bool) {
	t.Helper()
	got, want := ours(input, pieces, deflate), theirs(t, input, deflate)
	tooBig := fmt.Sprintf("close %d", CodeTooBig)
	early := want.end == "cut" || want.end == tooBig
	if deflate && (got.spoilt || got.torn && early || isQuirk(input)) {
		n := min(len(got.events), len(want.events))
		if (got.spoilt && !early && want.end != "more" || !slices.Equal(got.events[:n], want.events[:n])) && !isQuirk(input) {
			t.Errorf("%x: ours %v %s, the library %v %s", input, got.events, got.end, want.events, want.end)
		}
		return
	}
	if got.end == tooBig {
		if len(want.events) < len(got.events) || !slices.Equal(want.events[:len(got.events)], got.events) {
			t.Errorf("%x: events %v, the library has %v", input, got.events, want.events)
		}
		return
	}
	if got.torn && len(want.events) == len(got.events)+1 {
		// Where the end of a connection falls between two reads of the library it
		// is taken for the end of the message, and what there is of it handed on.
		want.events, want.end = want.events[:len(got.events)], "more"
	}
	if !slices.Equal(got.events, want.events) || got.end != want.end {
		t.Errorf("%x in pieces of %v:\n  ours    %v %s\n  theirs  %v %s", input, pieces, got.events, got.end, want.events, want.end)
	}
}

// isQuirk tells whether a compressed message is broken or ends with a last
// block, behind which the library leaves bytes for the next message to fall over
// or to begin with, or is over the limit: then the library stops wherever its
// buffer ends.
func isQuirk(input []byte) bool {
	r := Reader{Limit: 1 << 20, Deflate: true}
	var message []byte
	compressed := false
	for {
		h, n, err := r.parse(input)
		if err != nil || n == 0 || h.length > int64(len(input)-n) {
			return false
		}
		payload := slices.Clone(input[n : n+int(h.length)])
		input = input[n+len(payload):]
		if h.opcode.isControl() {
			continue
		}
		if h.opcode != Continuation {
			message, compressed = nil, h.packed
		}
		unmask(payload, h.mask, 0)
		message = append(message, payload...)
		if !h.fin || !compressed {
			continue
		}
		in := &packed{message, tail}
		plain, err := io.ReadAll(flate.NewReader(in))
		if !errors.Is(err, io.ErrUnexpectedEOF) || len(plain) > testLimit { // unexpected is as it should be
			return true
		}
	}
}

// frame is one frame as a client sends it.
func frame(first byte, payload string) []byte {
	b := AppendHeader(nil, 0, len(payload))
	b[0], b[1] = first, b[1]|maskBit
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	from := len(b)
	b = append(b, payload...)
	unmask(b[from:], mask, 0)
	return b
}

// conversations are the seeds, and a table of what must be right.
func conversations() map[string][]byte {
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	long := string(bytes.Repeat([]byte("x"), 300))
	full := string(bytes.Repeat([]byte("y"), testLimit))
	return map[string][]byte{
		"text":                        frame(0x81, "hello"),
		"binary":                      frame(0x82, "\x00\x01"),
		"empty":                       frame(0x81, ""),
		"two":                         join(frame(0x81, "one"), frame(0x81, "two")),
		"in fragments":                join(frame(0x01, "one"), frame(0x00, "two"), frame(0x80, "three")),
		"empty fragments":             join(frame(0x01, ""), frame(0x00, ""), frame(0x80, "")),
		"a ping between fragments":    join(frame(0x01, "one"), frame(0x89, "ping"), frame(0x80, "two")),
		"16 bits of length":           frame(0x81, long),
		"the longest":                 frame(0x81, full),
		"one too long":                frame(0x81, full+"z"),
		"too long in fragments":       join(frame(0x01, full), frame(0x80, "z")),
		"64 bits of length":           append([]byte{0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0}, "hi"...),
		"a negative length":           {0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 'h', 'i'},
		"unmasked":                    {0x81, 0x02, 'h', 'i'},
		"ping":                        frame(0x89, "data"),
		"pong":                        frame(0x8a, "data"),
		"a long ping":                 frame(0x89, long[:126]),
		"a fragmented ping":           frame(0x09, "data"),
		"reserved bit 1":              frame(0xc1, "hi"),
		"reserved bit 2":              frame(0xa1, "hi"),
		"reserved bit 3":              frame(0x91, "hi"),
		"unknown opcode":              frame(0x83, "hi"),
		"unknown control opcode":      frame(0x8b, "hi"),
		"a continuation of nothing":   frame(0x80, "hi"),
		"a message within another":    join(frame(0x01, "one"), frame(0x81, "two")),
		"close":                       frame(0x88, "\x03\xe8bye"),
		"close without a code":        frame(0x88, ""),
		"close with half a code":      frame(0x88, "\x03"),
		"close with a code of nobody": frame(0x88, "\x03\xed"),
		"close 1004":                  frame(0x88, "\x03\xec"),
		"close 1014":                  frame(0x88, "\x03\xf6"),
		"close 4999":                  frame(0x88, "\x13\x87"),
		"close 5000":                  frame(0x88, "\x13\x88"),
		"after close":                 join(frame(0x88, "\x03\xe8"), frame(0x81, "late")),
		"bad UTF-8":                   frame(0x81, "\xff\xfe"),
		"cut in a header":             frame(0x81, "hello")[:3],
		"cut in a payload":            frame(0x81, "hello")[:8],
	}
}

// compressed is one compressed frame as a client sends it.
func compressed(first byte, message string) []byte {
	b, _ := AppendDeflatedFrame(nil, Text, []byte(message))
	_, n, _ := (&Reader{Deflate: true}).parse(append([]byte{b[0], b[1] | maskBit}, b[2:]...))
	return frame(first|rsv1Bit, string(b[n-4:]))
}

func compressedConversations() map[string][]byte {
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	text := strings.Repeat("all work and no play ", 20)
	whole := compressed(0x81, text)
	packed := slices.Clone(whole[6:])
	unmask(packed, [4]byte{1, 2, 3, 4}, 0)
	return map[string][]byte{
		"compressed":                    whole,
		"compressed and not":            join(whole, frame(0x81, "hello"), compressed(0x82, text)),
		"compressed in fragments":       join(frame(0x41, string(packed[:9])), frame(0x89, "ping"), frame(0x80, string(packed[9:]))),
		"reserved bit on the second":    join(frame(0x41, string(packed[:9])), frame(0xc0, string(packed[9:]))),
		"a compressed ping":             frame(0xc9, "data"),
		"cut compressed":                frame(0xc1, string(packed[:9])),
		"nothing, compressed":           frame(0xc1, ""),
		"a byte of nothing, compressed": frame(0xc1, "\x00"),
		"not deflate":                   frame(0xc1, "\xff\xff\xff\xff"),
		"a bomb":                        compressed(0x81, strings.Repeat("x", 100*testLimit)),
		"the longest, compressed":       compressed(0x81, strings.Repeat("x", testLimit)),
		"one too long, compressed":      compressed(0x81, strings.Repeat("x", testLimit+1)),
		"with a last block":             join(frame(0xc1, "\x03\x00"), frame(0x81, "hello")),
	}
}

func TestReadsLikeTheLibrary(t *testing.T) {
	run := func(name string, input []byte, deflate bool) {
		t.Run(name, func(t *testing.T) {
			same(t, input, nil, deflate)
			for n := range byte(7) {
				same(t, input, bytes.Repeat([]byte{n}, len(input)), deflate)
			}
		})
	}
	for name, input := range conversations() {
		run(name, input, false)
		run(name+", compression agreed on", input, true)
	}
	for name, input := range compressedConversations() {
		run(name, input, true)
		run(name+", nothing agreed on", input, false)
	}
}

// What the comparison with the library leaves open.
func TestReadsCompressedMessages(t *testing.T) {
	text := strings.Repeat("all work and no play ", 20)
	for name, want := range map[string]string{
		"with a last block":        "message 1  message 1 68656c6c6f more",
		"a bomb":                   "close 1009",
		"one too long, compressed": "close 1009",
		"not deflate":              "cut",
		"compressed":               fmt.Sprintf("message 1 %x more", text),
	} {
		got := ours(compressedConversations()[name], nil, true)
		if text := strings.TrimSpace(strings.Join(append(got.events, got.end), " ")); text != want {
			t.Errorf("%s: got %q, want %q", name, text, want)
		}
	}
}

func FuzzReadsLikeTheLibrary(f *testing.F) {
	for _, input := range conversations() {
		f.Add(input, []byte{0, 3, 1}, false)
	}
	for _, input := range compressedConversations() {
		f.Add(input, []byte{0, 3, 1}, true)
	}
	f.Fuzz(func(t *testing.T, input, pieces []byte, deflate bool) { same(t, input, pieces, deflate) })
}
