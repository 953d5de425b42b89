//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
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
	stall bool   // reads nothing any more
	rest  []byte // of a frame that has not arrived whole; nil while there is none
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
	req := "GET " + l.path + " HTTP/1.1\r\nHost: " + l.to.String() + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
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
func text(payload []byte) []byte {
	b := []byte{0x81}
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

// feed takes what was read and returns what is not whole yet.
func (l *loop) feed(c *conn, b []byte) (rest []byte, err error) {
	if c.state == greeting {
		end := bytes.Index(b, []byte("\r\n\r\n"))
		if end < 0 {
			return b, nil
		}
		if !bytes.HasPrefix(b, []byte("HTTP/1.1 101")) {
			return nil, fmt.Errorf("%w: %.80q", errRefused, b)
		}
		b = b[end+4:]
		c.state = joining
		if err := write(c.fd, text(l.hello(c))); err != nil {
			return nil, err
		}
	}
	for {
		payload, op, size := parse(b)
		if size == 0 {
			return b, nil
		}
		b = b[size:]
		switch op &^ 0x40 { // with or without deflate
		case 1, 2:
			if err := l.message(c, payload, op&0x40 != 0); err != nil {
				return nil, err
			}
		case 8:
			return nil, fmt.Errorf("%w: %q", errClosed, payload)
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

// message handles one WebSocket message: replies and pushes in lines.
func (l *loop) message(c *conn, b []byte, deflated bool) error {
	if deflated { // only counted: what inflating costs is not the server's
		l.stats.arrived(1, int64(len(b)), 0)
		return nil
	}
	if len(b) == 2 { // {}
		l.stats.pings.Add(1)
		return write(c.fd, pong)
	}
	if c.state == joining {
		switch {
		case bytes.Contains(b, []byte(`"error":`)), bytes.Contains(b, []byte(`"disconnect":`)):
			return fmt.Errorf("connect was answered with %.120q", b)
		case bytes.Contains(b, []byte(l.joined)):
			c.state = ready
			l.ready()
		}
		return nil
	}
	pushes := 1 + bytes.Count(b, []byte{'\n'})
	l.stats.arrived(int64(pushes), int64(len(b)), stamp(b))
	if l.onReply != nil {
		l.onReply(c)
	}
	return nil
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
