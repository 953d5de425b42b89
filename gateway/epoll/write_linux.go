package epoll

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// unsent is what the socket had no room for.
type unsent struct {
	frames [][]byte // in order; they stay as they are
	pong   []byte   // behind them; a newer one takes its place (RFC 6455, section 5.5.3)
	owner  bool     // the owner waits for Room
	sent   int      // bytes since late was set
	late   *time.Timer
}

// rare is what few connections have.
type rare struct {
	unsent  *unsent     // nil: the socket took everything
	patient *time.Timer // ends the wait for the client's close frame
}

// makeRare returns what few connections have, to be set; mu is held.
func (c *Conn[T]) makeRare() *rare {
	if c.rare == nil {
		c.rare = &rare{}
	}
	return c.rare
}

// kept is what is unsent, nil for nothing.
func (r *rare) kept() *unsent {
	if r == nil {
		return nil
	}
	return r.unsent
}

// timer is the one that ends the wait for a close frame, nil if there is none.
func (r *rare) timer() *time.Timer {
	if r == nil {
		return nil
	}
	return r.patient
}

// Write sends whole frames, as AppendHeader begins them, and never waits. It
// returns how many bytes the socket had no room for. These it keeps, as they are
// where the frames are shared and so never change, else a copy; then the next
// Write may come when Room was called.
func (c *Conn[T]) Write(frames []byte, shared bool) (left int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.aborted {
		return 0, ErrClosed
	}
	if left, err = c.send(frames, shared); left > 0 {
		c.rare.kept().owner = true
	}
	return left, err
}

// send writes b behind what is unsent; mu is held.
func (c *Conn[T]) send(b []byte, shared bool) (left int, err error) {
	if c.rare.kept() == nil {
		n, err := c.push(b)
		if err != nil || n == len(b) {
			return 0, err
		}
		b = b[n:]
		u := &unsent{}
		u.late = time.AfterFunc(c.loop.poller.WriteTimeout, func() { c.tooLate(u) })
		c.makeRare().unsent = u
	}
	if !shared {
		b = slices.Clone(b)
	}
	u := c.rare.kept()
	if u.pong != nil { // b may be a close frame, which is the last
		u.frames, u.pong = append(u.frames, u.pong), nil
	}
	u.frames = append(u.frames, b)
	return len(b), nil
}

// push writes what there is room for; mu is held.
func (c *Conn[T]) push(b []byte) (n int, err error) {
	if c.aborted {
		return 0, ErrClosed
	}
	for n < len(b) {
		m, err := write(int(c.fd), b[n:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return n, nil
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return n, err
		default:
			n += m
		}
	}
	return n, nil
}

// pong answers a ping.
func (c *Conn[T]) pong(payload []byte) error {
	frame := append(AppendHeader(nil, Pong, len(payload)), payload...)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing:
		return nil
	case c.rare.kept() != nil:
		c.rare.kept().pong = frame
		return nil
	}
	_, err := c.send(frame, true)
	return err
}

// sendUnsent writes on, now that there may be room.
func (c *Conn[T]) sendUnsent() {
	c.mu.Lock()
	if c.rare.kept() == nil {
		c.mu.Unlock()
		return
	}
	done, err := c.drainUnsent()
	owner := c.rare.kept().owner
	if done || err != nil {
		c.forget()
	}
	switch {
	case err != nil:
		c.lost = !c.aborted
		c.abort()
	case done && c.left: // the answer to its close frame was the last
		c.abort()
	}
	c.mu.Unlock()
	if owner && (done || err != nil) {
		c.loop.poller.Room(c.owner, err)
	}
}

// drainUnsent reports whether all of it was sent; mu is held.
func (c *Conn[T]) drainUnsent() (done bool, err error) {
	u := c.rare.kept()
	for len(u.frames) > 0 {
		n, err := c.push(u.frames[0])
		u.sent += n
		if err != nil {
			return false, err
		}
		if n < len(u.frames[0]) {
			u.frames[0] = u.frames[0][n:]
			return false, nil
		}
		u.frames = slices.Delete(u.frames, 0, 1)
		if len(u.frames) == 0 && u.pong != nil {
			u.frames, u.pong = append(u.frames, u.pong), nil
		}
	}
	return true, nil
}

// forget drops what is unsent; mu is held.
func (c *Conn[T]) forget() {
	u := c.rare.kept()
	if u == nil {
		return
	}
	u.late.Stop()
	if c.rare.unsent = nil; c.rare.patient == nil {
		c.rare = nil
	}
}

// writePiece is how many bytes a client has to take in each WriteTimeout, if it
// does not take all there is.
const writePiece = 64 << 10

// tooLate gives a client up that does not take what is sent to it.
func (c *Conn[T]) tooLate(u *unsent) {
	c.mu.Lock()
	switch {
	case c.rare.kept() != u: // sent just now
		u = nil
	case u.sent >= writePiece:
		u.sent = 0
		u.late.Reset(c.loop.poller.WriteTimeout)
		u = nil
	default:
		c.forget()
		c.late = !c.aborted
		c.abort()
	}
	c.mu.Unlock()
	if u != nil && u.owner {
		c.loop.poller.Room(c.owner, ErrTimeout)
	}
}
