package main

import (
	"bufio"
	"bytes"
	be "encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A conformanceCase is what a client sends after it has subscribed to channel c,
// in the bytes of the wire, and what has to come of it (RFC 6455).
type conformanceCase struct {
	name   string
	pieces [][]byte // each in a write of its own
	echoes []string // of what was published
	pongs  []string
	end    int // code of the server's close frame; 0: the connection goes on
}

const (
	fin         = 0x80
	opText      = 1
	opBinary    = 2
	opClose     = 8
	opPing      = 9
	opPong      = 10
	cutOff      = -1    // without a close frame
	limit       = 64000 // websocket.message_size_limit
	closedEmpty = 1005  // a close frame without a code
)

// maskedFrame is a frame of a client; first is its first byte.
func maskedFrame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, fin|byte(n))
	case n < 1<<16:
		b = be.BigEndian.AppendUint16(append(b, fin|126), uint16(n))
	default:
		b = be.BigEndian.AppendUint64(append(b, fin|127), uint64(n))
	}
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

func textFrame(payload string) []byte { return maskedFrame(fin|opText, payload) }

func closeFrame(code int, reason string) []byte {
	return maskedFrame(fin|opClose, string(be.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

// publishing is a command that comes back as a publication.
func publishing(data string) string {
	return `{"id":9,"publish":{"channel":"c","data":` + strconv.Quote(data) + `}}`
}

// sized is what to publish for a command of n bytes.
func sized(n int) string { return strings.Repeat("s", n-len(publishing(""))) }

// chopped cuts b into pieces of n bytes.
func chopped(n int, b ...[]byte) [][]byte {
	return slices.Collect(slices.Chunk(slices.Concat(b...), n))
}

func whole(b ...[]byte) [][]byte { return [][]byte{slices.Concat(b...)} }

// framing are messages of all sizes, and control frames.
func framing() (cases []conformanceCase) {
	for _, n := range []int{50, 125, 126, 127, 128, 4095, 4096, 4097, limit} {
		m := sized(n)
		add := func(how string, pieces [][]byte) {
			cases = append(cases, conformanceCase{name: fmt.Sprintf("%d bytes %s", n, how), pieces: pieces, echoes: []string{m}})
		}
		add("of text", whole(textFrame(publishing(m))))
		add("of binary", whole(maskedFrame(fin|opBinary, publishing(m))))
		add("in pieces of the network", chopped(997, textFrame(publishing(m))))
		add("in two fragments", whole(maskedFrame(opText, publishing(m)[:n/2]), maskedFrame(fin, publishing(m)[n/2:])))
	}
	p := publishing("data")
	ping := func(payload string) []byte { return maskedFrame(fin|opPing, payload) }
	long := strings.Repeat("\xfe", 125)
	ten := []string{}
	var tenPings []byte
	for i := range 10 {
		ten = append(ten, fmt.Sprint("number ", i))
		tenPings = append(tenPings, ping(ten[i])...)
	}
	return append(cases,
		conformanceCase{name: "one byte too many", pieces: whole(textFrame(publishing(sized(limit + 1)))), end: 1009},
		conformanceCase{name: "too many in fragments", pieces: whole(maskedFrame(opText, p+strings.Repeat(" ", limit-len(p))), maskedFrame(fin, " ")), end: 1009},
		conformanceCase{name: "a length of 2^62", pieces: whole([]byte{fin | opText, fin | 127, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, make([]byte, limit+1)), end: 1009},
		conformanceCase{name: "a length of 2^63", pieces: [][]byte{{fin | opText, fin | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}}, end: cutOff},
		conformanceCase{name: "without a mask", pieces: [][]byte{append([]byte{fin | opText, byte(len(p))}, p...)}, end: cutOff},
		conformanceCase{name: "16 bits of length for 4", pieces: whole([]byte{fin | opPing, fin | 4, 0, 0, 0, 0}, []byte("ping")), pongs: []string{"ping"}},
		conformanceCase{name: "an empty ping", pieces: whole(ping("")), pongs: []string{""}},
		conformanceCase{name: "a ping", pieces: whole(ping("hello")), pongs: []string{"hello"}},
		conformanceCase{name: "a ping that is no text", pieces: whole(ping("\x00\xff\xfe\xfd")), pongs: []string{"\x00\xff\xfe\xfd"}},
		conformanceCase{name: "the longest ping", pieces: whole(ping(long)), pongs: []string{long}},
		conformanceCase{name: "the longest ping by bytes", pieces: chopped(1, ping(long)), pongs: []string{long}},
		conformanceCase{name: "too long a ping", pieces: whole(ping(long + "!")), end: 1002},
		conformanceCase{name: "a pong that nobody asked for", pieces: whole(maskedFrame(fin|opPong, "unasked"), ping("asked")), pongs: []string{"asked"}},
		conformanceCase{name: "an empty pong", pieces: whole(maskedFrame(fin|opPong, ""))},
		conformanceCase{name: "ten pings", pieces: whole(tenPings), pongs: ten},
		conformanceCase{name: "ten pings by bytes", pieces: chopped(1, tenPings), pongs: ten},
	)
}

// headers are reserved bits and opcodes.
func headers() (cases []conformanceCase) {
	p := publishing("data")
	for bits := 1; bits < 8; bits++ {
		for _, op := range []byte{opText, opBinary, opPing, opClose} {
			cases = append(cases, conformanceCase{
				name: fmt.Sprintf("reserved bits %d with opcode %d", bits, op), end: 1002, echoes: []string{"data"},
				pieces: whole(textFrame(p), maskedFrame(fin|byte(bits)<<4|op, ""), textFrame(p)),
			})
		}
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		for _, payload := range []string{"", p} {
			cases = append(cases, conformanceCase{
				name: fmt.Sprintf("opcode %d, %d bytes", op, len(payload)), end: 1002, echoes: []string{"data"},
				pieces: whole(textFrame(p), maskedFrame(fin|op, payload), textFrame(p)),
			})
		}
	}
	return cases
}

func fragments() []conformanceCase {
	p := publishing("in fragments")
	first, next, last := maskedFrame(opText, p[:7]), maskedFrame(0, p[7:9]), maskedFrame(fin, p[9:])
	ping, none := maskedFrame(fin|opPing, "between"), maskedFrame(0, "")
	echo, pong := []string{"in fragments"}, []string{"between"}
	return []conformanceCase{
		{name: "two fragments", pieces: whole(maskedFrame(opText, p[:9]), last), echoes: echo},
		{name: "fragments by bytes", pieces: chopped(1, first, next, last), echoes: echo},
		{name: "empty fragments", pieces: whole(maskedFrame(opText, ""), none, first[:0], maskedFrame(0, p), none, maskedFrame(fin, "")), echoes: echo},
		{name: "fragments of one byte", pieces: whole(maskedFrame(opText, ""), eachByte(p), maskedFrame(fin, "")), echoes: echo},
		{name: "a ping between fragments", pieces: whole(first, ping, next, last), echoes: echo, pongs: pong},
		{name: "pings between fragments by bytes", pieces: chopped(1, ping, first, ping, next, ping, last), echoes: echo, pongs: []string{"between", "between", "between"}},
		{name: "a pong between fragments", pieces: whole(first, maskedFrame(fin|opPong, "x"), next, last), echoes: echo},
		{name: "a close between fragments", pieces: whole(first, closeFrame(1000, ""), last), end: 1000},
		{name: "a ping in fragments", pieces: whole(maskedFrame(opPing, "x"), maskedFrame(fin, "y")), end: 1002},
		{name: "a pong in fragments", pieces: whole(maskedFrame(opPong, "x"), maskedFrame(fin, "y")), end: 1002},
		{name: "a close in fragments", pieces: whole(maskedFrame(opClose, "\x03"), maskedFrame(fin, "\xe8")), end: 1002},
		{name: "nothing to go on with", pieces: whole(last), end: 1002},
		{name: "nothing to go on with, not the last", pieces: whole(next), end: 1002},
		{name: "nothing to go on with after a message", pieces: whole(textFrame(p), next, textFrame(p)), end: 1002, echoes: echo},
		{name: "a message within another", pieces: whole(first, textFrame(p)), end: 1002},
		{name: "the beginning of a message within another", pieces: whole(first, next, first), end: 1002},
		{name: "binary within text", pieces: whole(first, maskedFrame(fin|opBinary, p)), end: 1002},
	}
}

func eachByte(s string) (frames []byte) {
	for i := range len(s) {
		frames = append(frames, maskedFrame(0, s[i:i+1])...)
	}
	return frames
}

// text is UTF-8, or is not. The server hands on none that is not: it would be
// the end of the connections of those who get it.
func text() (cases []conformanceCase) {
	for _, s := range []string{"κόσμε", "\u0001", "\u07ff\u0800\uffff", "\U00010000\U0010ffff", "\ufffe", "小程序 🚪"} {
		raw := `{"id":9,"publish":{"channel":"c","data":"` + strings.ReplaceAll(s, "\x01", `\u0001`) + `"}}`
		cases = append(cases, conformanceCase{name: fmt.Sprintf("text %q", s), pieces: whole(textFrame(raw)), echoes: []string{s}},
			conformanceCase{name: fmt.Sprintf("text %q in fragments of one byte", s), pieces: whole(maskedFrame(opText, ""), eachByte(raw), maskedFrame(fin, "")), echoes: []string{s}})
	}
	for _, s := range []string{"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", "\x80", "\xc0\xaf", "\xf4\x90\x80\x80", "\xfe", "\xff", "\xf8\x88\x80\x80\x80", "\xe2\x82", "\xed\xbf\xbf"} {
		raw := `{"id":9,"publish":{"channel":"c","data":"` + s + `"}}`
		cases = append(cases, conformanceCase{name: fmt.Sprintf("no text: %q", s), pieces: whole(textFrame(raw)), end: 3501})
	}
	return cases
}

func closes() (cases []conformanceCase) {
	p := textFrame(publishing("data"))
	full := strings.Repeat("r", 123)
	cases = []conformanceCase{
		{name: "close without a code", pieces: whole(maskedFrame(fin|opClose, "")), end: closedEmpty},
		{name: "close after a message", pieces: whole(p, closeFrame(1000, "")), end: 1000, echoes: []string{"data"}},
		{name: "close twice", pieces: whole(closeFrame(1000, ""), closeFrame(1001, "")), end: 1000},
		{name: "a ping after close", pieces: whole(closeFrame(1000, ""), maskedFrame(fin|opPing, "late")), end: 1000},
		{name: "a message after close", pieces: whole(closeFrame(1000, ""), p), end: 1000},
		{name: "the rest of a message after close", pieces: whole(maskedFrame(opText, "{"), closeFrame(1000, ""), maskedFrame(fin, "}")), end: 1000},
		{name: "close by bytes", pieces: chopped(1, closeFrame(1000, "bye")), end: 1000},
		{name: "close with half a code", pieces: whole(maskedFrame(fin|opClose, "\x03")), end: 1002},
		{name: "close with a reason", pieces: whole(closeFrame(1000, "ok, 再见")), end: 1000},
		{name: "close with the longest reason", pieces: whole(closeFrame(1000, full)), end: 1000},
		{name: "close with too long a reason", pieces: whole(closeFrame(1000, full+"r")), end: 1002},
		// The server does not read it, and sends it back as it is.
		{name: "close with a reason that is no text", pieces: whole(closeFrame(1000, "\xce\xba\xed\xa0\x80")), end: 1000},
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		cases = append(cases, conformanceCase{name: fmt.Sprint("close ", code), pieces: whole(closeFrame(code, "bye")), end: code})
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		cases = append(cases, conformanceCase{name: fmt.Sprint("close ", code), pieces: whole(closeFrame(code, "bye")), end: 1002})
	}
	return cases
}

// TestConformance plays what RFC 6455 asks of a server, in the order of its
// sections, on connections that are held in either way.
func TestConformance(t *testing.T) {
	cases := slices.Concat(framing(), headers(), fragments(), text(), closes())
	for _, on := range []bool{true, false} {
		t.Run("epoll="+strconv.FormatBool(on), func(t *testing.T) {
			t.Parallel()
			_, wechatURL := simulator(t)
			p := startServe(t, baseConfig(t, wechatURL)+fmt.Sprintf("  insecure: true\nwebsocket: {epoll: %v, message_size_limit: %d}\n", on, limit))
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) { c.play(t, p.Public) })
			}
		})
	}
}

func (c *conformanceCase) play(t *testing.T, base string) {
	s := dialBytes(t, base, "")
	s.write(textFrame(`{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"c"}}`))
	for s.replies < 2 {
		s.frame()
	}
	for _, piece := range c.pieces {
		if _, err := s.conn.Write(piece); err != nil && c.end == 0 { // may be refused half-way
			t.Fatal(err)
		}
	}
	if c.end == 0 {
		s.write(textFrame(publishing("the end")))
	}
	for s.end == 0 && !slices.Contains(s.echoes, "the end") {
		s.frame()
	}
	if c.end == 0 {
		s.echoes = s.echoes[:max(0, len(s.echoes)-1)]
	}
	if s.end != c.end {
		t.Errorf("ended with %d %q, want %d", s.end, s.reason, c.end)
	}
	if !slices.Equal(s.echoes, c.echoes) && !(c.end > 0 && len(s.echoes) == 0) {
		t.Errorf("%d echoes, want %d: %.200q", len(s.echoes), len(c.echoes), s.echoes)
	}
	if !slices.Equal(s.pongs, c.pongs) {
		t.Errorf("pongs %q, want %q", s.pongs, c.pongs)
	}
}

// byteSocket is a client that knows the wire, and takes in what it is sent.
type byteSocket struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader

	extension string // agreed on
	replies   int
	echoes    []string
	pongs     []string
	end       int
	reason    string
}

func dialBytes(t *testing.T, base, offer string) *byteSocket {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	s := &byteSocket{t: t, conn: conn, br: bufio.NewReader(conn)}
	header := "GET /connection/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"
	if offer != "" {
		header += "Sec-WebSocket-Extensions: " + offer + "\r\n"
	}
	s.write([]byte(header + "\r\n"))
	res, err := http.ReadResponse(s.br, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", res, err)
	}
	s.extension = res.Header.Get("Sec-WebSocket-Extensions")
	return s
}

func (s *byteSocket) write(b []byte) {
	s.t.Helper()
	if _, err := s.conn.Write(b); err != nil {
		s.t.Fatal(err)
	}
}

// frame takes in one frame. The server's are whole messages, without a mask.
func (s *byteSocket) frame() {
	s.t.Helper()
	head := make([]byte, 2, 10)
	if _, err := io.ReadFull(s.br, head); err != nil {
		s.end = cutOff
		return
	}
	n := uint64(head[1])
	switch n {
	case 126:
		n = uint64(be.BigEndian.Uint16(s.bytes(2)))
	case 127:
		n = be.BigEndian.Uint64(s.bytes(8))
	}
	payload := s.bytes(int(n))
	switch head[0] {
	case fin | opText:
		for line := range bytes.Lines(payload) {
			s.line(line)
		}
	case fin | opPong:
		s.pongs = append(s.pongs, string(payload))
	case fin | opClose:
		if s.end = closedEmpty; n >= 2 {
			s.end, s.reason = int(be.BigEndian.Uint16(payload)), string(payload[2:])
		}
	default:
		s.t.Fatalf("a frame that begins with %x", head)
	}
}

func (s *byteSocket) bytes(n int) []byte {
	s.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(s.br, b); err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *byteSocket) line(line []byte) {
	s.t.Helper()
	var r struct {
		ID    uint32
		Error json.RawMessage
		Push  struct{ Pub struct{ Data *string } }
	}
	if err := json.Unmarshal(line, &r); err != nil || r.Error != nil {
		s.t.Fatalf("%v in %s", err, line)
	}
	if r.ID > 0 {
		s.replies++
	}
	if data := r.Push.Pub.Data; data != nil {
		s.echoes = append(s.echoes, *data)
	}
}
