//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// state is how far a connection has come.
type state uint8

const (
	dialing  state = iota // connect(2) is under way
	greeting              // the upgrade was asked for
	joining               // connect and subscribe were sent
	ready
	closed
)

// conn is one connection. It belongs to its loop.
type conn struct {
	fd    int32
	index int32 // among all connections
	state state
	tries uint8  // to come back, since it was lost
	rest  []byte // of a frame that has not arrived whole; nil while there is none

	stall   atomic.Bool // reads nothing any more
	leaving atomic.Bool // its end is no failure

	epoch  string        // of the channel, where positions are followed
	offset atomic.Uint64 // of the last publication
	lost   time.Time     // when it was, until it is back
}

var (
	errRefused = errors.New("the server refused the upgrade")
	errClosed  = errors.New("the server closed the connection")
)

// dial begins a connection from one of many local addresses: a pair of
// addresses has only so many ports.
//
// receive, where it is not 0, bounds what the kernel keeps for this end, so that
// what it holds for connections that are not read is the server's.
func dial(to netip.AddrPort, from netip.Addr, receive int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) // only saves ports
	if receive > 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receive)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// upgrade is the handshake; the key is always the same, nobody checks it here.
func (l *loop) upgrade(c *conn) error {
	req := "GET " + l.path(c) + " HTTP/1.1\r\nHost: " + l.to.String() + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\nUser-Agent: load\r\n"
	if l.deflate {
		req += "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n"
	}
	return write(c.fd, []byte(req+"\r\n"))
}

// write sends what always fits into an empty socket buffer.
func write(fd int32, b []byte) error {
	n, err := unix.Write(int(fd), b)
	if err == nil && n < len(b) {
		err = fmt.Errorf("only %d of %d bytes were taken", n, len(b))
	}
	return err
}

// text is a masked text frame; a mask of zero leaves the payload readable.
func text(payload []byte) []byte { return frame(1, payload) }

func frame(op byte, payload []byte) []byte {
	b := []byte{0x80 | op}
	if n := len(payload); n < 126 {
		b = append(b, 0x80|byte(n))
	} else {
		b = append(b, 0x80|126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	b = append(b, 0, 0, 0, 0)
	return append(b, payload...)
}

var pong = text([]byte("{}"))

// Opcodes of WebSocket (RFC 6455, section 5.2).
const (
	opText, opBinary, opClose, opPing, opPong byte = 1, 2, 8, 9, 10

	compressed = 0x40 // the bit RSV1 beside them (RFC 7692)
)

// feed takes what was read and returns what is not whole yet.
func (l *loop) feed(c *conn, b []byte) (rest []byte, err error) {
	if c.state == greeting {
		end := bytes.Index(b, []byte("\r\n\r\n"))
		if end < 0 {
			return b, nil
		}
		if !bytes.HasPrefix(b, []byte("HTTP/1.1 101")) {
			status, _, _ := bytes.Cut(b, []byte("\r\n"))
			return nil, fmt.Errorf("%w: %.80s", errRefused, status)
		}
		if bytes.Contains(b[:end], []byte("permessage-deflate")) {
			l.deflated.Store(true)
		}
		b = b[end+4:]
		if l.bare {
			l.ready(c)
		} else {
			c.state = joining
			if err := write(c.fd, text(l.hello(c))); err != nil {
				return nil, err
			}
		}
	}
	for {
		payload, op, size := parse(b)
		if size == 0 {
			return b, nil
		}
		b = b[size:]
		switch op &^ compressed {
		case opText, opBinary:
			l.stats.bytes.Add(int64(len(payload)))
			if op&compressed != 0 {
				payload, err = l.inflate(payload)
			}
			if err == nil {
				err = l.message(c, payload)
			}
		case opPing:
			l.stats.pings.Add(1)
			err = write(c.fd, frame(opPong, payload))
		case opClose:
			err = fmt.Errorf("%w: %q", errClosed, payload)
		}
		if err != nil {
			return nil, err
		}
	}
}

// parse finds one frame at the start of b; size 0 means that it is not whole.
func parse(b []byte) (payload []byte, op byte, size int) {
	if len(b) < 2 {
		return nil, 0, 0
	}
	n, head := int(b[1]&0x7f), 2
	switch {
	case n == 126 && len(b) >= 4:
		n, head = int(binary.BigEndian.Uint16(b[2:])), 4
	case n == 127 && len(b) >= 10:
		n, head = int(binary.BigEndian.Uint64(b[2:])), 10
	case n >= 126:
		return nil, 0, 0
	}
	if len(b) < head+n {
		return nil, 0, 0
	}
	return b[head : head+n], b[0] & 0x4f, head + n
}

// message handles one WebSocket message: a publication, or replies and pushes
// in lines.
func (l *loop) message(c *conn, b []byte) error {
	switch {
	case l.bare:
		l.stats.arrived(1, stamp(b))
	case len(b) == 2: // {}
		return l.ping(c)
	case c.state == joining:
		switch {
		case bytes.Contains(b, []byte(`"error":`)), bytes.Contains(b, []byte(`"disconnect":`)):
			return fmt.Errorf("connect was answered with %.120q", b)
		case bytes.Contains(b, []byte(l.joined)):
			var rest []byte
			if l.follow != nil {
				var err error
				if rest, err = l.follow.subscribed(c, b); err != nil {
					return err
				}
			}
			l.ready(c)
			if len(rest) > 0 {
				return l.message(c, rest)
			}
		}
		return nil
	default:
		if l.onReply != nil && bytes.Contains(b, []byte(`"error":`)) {
			return fmt.Errorf("a command was answered with %.120q", b)
		}
		if l.follow != nil {
			l.follow.published(c, b)
		}
		lines := int64(1 + bytes.Count(b, []byte{'\n'}))
		if among(b) {
			lines--
			if err := l.ping(c); err != nil {
				return err
			}
		}
		l.stats.arrived(lines, stamp(b))
	}
	if l.onReply != nil {
		l.onReply(c)
	}
	return nil
}

func (l *loop) ping(c *conn) error {
	l.stats.pings.Add(1)
	return write(c.fd, pong)
}

// among tells whether a ping is one of several lines.
func among(b []byte) bool {
	return bytes.HasPrefix(b, []byte("{}\n")) || bytes.HasSuffix(b, []byte("\n{}")) || bytes.Contains(b, []byte("\n{}\n"))
}

// stamp finds when the newest publication of a message was due.
func stamp(b []byte) time.Duration {
	i := bytes.LastIndex(b, []byte(`"t":`))
	if i < 0 {
		return 0
	}
	var due int64
	for _, d := range b[i+4:] {
		if d < '0' || d > '9' {
			break
		}
		due = due*10 + int64(d-'0')
	}
	return time.Duration(time.Now().UnixNano() - due)
}
