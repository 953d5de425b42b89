//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// loop serves its share of the connections on one goroutine.
type loop struct {
	to      netip.AddrPort
	path    func(*conn) string
	deflate bool
	bare    bool
	receive int                // bytes, see dial
	hello   func(*conn) []byte // the first commands
	joined  string             // what the last reply to them contains
	onReply func(*conn)        // nil: nothing
	follow  *follow            // nil: nothing
	stats   *stats

	inflater inflater

	epoll            int
	mu               sync.Mutex // guards conns while they are added
	conns            map[int32]*conn
	numReady, failed atomic.Int64
	deflated         atomic.Bool   // the server took the offer
	wake             chan struct{} // capacity 1: something became ready or failed

	first atomic.Pointer[error] // the first failure
}

func newLoop(to netip.AddrPort, s *stats) (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &loop{to: to, stats: s, epoll: fd, conns: make(map[int32]*conn), wake: make(chan struct{}, 1)}, nil
}

// open begins one more connection.
func (l *loop) open(from netip.Addr, index int) error {
	return l.begin(&conn{index: int32(index)}, l.to, from)
}

func (l *loop) begin(c *conn, to netip.AddrPort, from netip.Addr) error {
	fd, err := dial(to, from, l.receive)
	if err != nil {
		return err
	}
	c.fd = int32(fd)
	l.mu.Lock()
	l.conns[c.fd] = c
	l.mu.Unlock()
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET, Fd: c.fd})
}

// each calls f for every connection.
func (l *loop) each(f func(*conn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		f(c)
	}
}

func (l *loop) ready(c *conn) {
	c.state = ready
	l.numReady.Add(1)
	if l.follow != nil && !c.lost.IsZero() {
		l.follow.returned(c)
	}
	l.nudge()
}

func (l *loop) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run serves until the process ends.
func (l *loop) run() {
	events := make([]unix.EpollEvent, 256)
	buf := make([]byte, 256<<10)
	for {
		n, err := unix.EpollWait(l.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(err)
		}
		for _, e := range events[:max(n, 0)] {
			l.mu.Lock()
			c := l.conns[e.Fd]
			l.mu.Unlock()
			if c == nil {
				continue
			}
			if err := l.serve(c, e.Events, buf); err != nil {
				l.fail(c, err)
			}
		}
	}
}

func (l *loop) serve(c *conn, events uint32, buf []byte) error {
	if c.state == dialing {
		if e, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != 0 {
			return fmt.Errorf("connect: %w", unix.Errno(e))
		}
		if events&unix.EPOLLOUT == 0 {
			return nil
		}
		c.state = greeting
		if err := l.upgrade(c); err != nil {
			return err
		}
	}
	if c.stall.Load() {
		return nil
	}
	for {
		have := copy(buf, c.rest)
		n, err := unix.Read(int(c.fd), buf[have:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return err
		case n == 0:
			return errClosed
		}
		rest, err := l.feed(c, buf[:have+n])
		if err != nil {
			return err
		}
		c.rest = append([]byte(nil), rest...)
		if len(rest) == 0 {
			c.rest = nil
		}
		if have+n < len(buf) {
			return nil // there was no more
		}
	}
}

func (l *loop) fail(c *conn, err error) {
	if c.state == ready {
		l.numReady.Add(-1)
	}
	l.mu.Lock()
	delete(l.conns, c.fd)
	l.mu.Unlock()
	_ = unix.Close(int(c.fd)) // last: the number is another connection's at once
	switch {
	case c.leaving.Load():
	case l.follow != nil:
		l.follow.lose(c, c.state == ready, err)
	default:
		l.failed.Add(1)
		l.first.CompareAndSwap(nil, &err)
	}
	c.state = closed
	l.nudge()
}

// commands joins commands into one message.
func commands(list ...any) []byte {
	var b []byte
	for i, c := range list {
		if i > 0 {
			b = append(b, '\n')
		}
		line, _ := json.Marshal(c) // maps of strings always encode
		b = append(b, line...)
	}
	return b
}
