package epoll

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

var (
	errClosed  = errors.New("websocket: the connection is closed")
	errTimeout = errors.New("websocket: the client took too long to read")
)

// States of a connection's reading.
const (
	reading  = 1 << iota // a goroutine is at it
	readable             // there is something to read
	hungUp               // the client will send no more than what is there
)

// Conn is one connection. Write and Close come from one goroutine at a time,
// Abort from any.
type Conn[T any] struct {
	poller *Poller[T]
	loop   *loop[T]
	owner  T
	state  atomic.Uint32 // of reading

	reader *Reader // of the goroutine that reads; nil between messages
	early  []byte  // of the goroutine that reads: what came before the poller had the connection
	deaf   bool    // of the goroutine that reads: what comes is thrown away

	frame sync.Mutex // held while a frame is written, so that none gets into another

	mu      sync.Mutex // guards what follows, and system calls on fd that may meet its end
	fd      int32      // -1 once closed
	aborted bool
	closing bool        // a close frame was written: nothing may follow it
	waiter  *waiter     // who waits until more can be written
	patient *time.Timer // ends the wait for the client's close frame
}

// waiter is a goroutine that waits for room in the socket's buffer.
type waiter struct {
	room  chan struct{} // capacity 1
	timer *time.Timer
}

var waiters = sync.Pool{New: func() any {
	w := &waiter{make(chan struct{}, 1), time.NewTimer(time.Hour)}
	w.timer.Stop()
	return w
}}

// Take makes a connection of a descriptor that Detach returned, and owns it
// from then on. early is what was read from it already, and
// is the connection's from then on. Nothing is read, and
// nobody is told anything, until Start, which has to follow.
func (p *Poller[T]) Take(fd int, early []byte, owner T) *Conn[T] {
	return &Conn[T]{poller: p, loop: p.loops[fd%len(p.loops)], owner: owner, early: early, fd: int32(fd)}
}

// Start begins to read. From now on the owner is told, and Gone will come.
func (c *Conn[T]) Start() {
	c.state.Store(reading) // whatever comes now is served by the goroutine below
	c.loop.put(c)
	// Edge triggered and for both directions, so that nothing has to be changed
	// ever again: one system call for the life of a connection.
	err := unix.EpollCtl(c.loop.fd, unix.EPOLL_CTL_ADD, int(c.fd), &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: c.fd,
	})
	if err != nil { // out of memory, or max_user_watches
		c.Abort()
	}
	go c.read()
}

// event is called by the loop, and does not wait.
func (c *Conn[T]) event(events uint32) {
	const gone = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if events&(unix.EPOLLOUT|gone) != 0 {
		c.mu.Lock()
		c.rouse()
		c.mu.Unlock()
	}
	if events&(unix.EPOLLIN|gone) != 0 {
		set := uint32(reading | readable)
		if events&gone != 0 {
			set |= hungUp
		}
		if c.state.Or(set)&reading == 0 {
			go c.read()
		}
	}
}

// rouse lets go on whoever waits to write; mu is held.
func (c *Conn[T]) rouse() {
	if c.waiter == nil {
		return
	}
	select {
	case c.waiter.room <- struct{}{}:
	default: // it knows
	}
}

// readBuffer is held while what was read is handled, which may take as long as
// a call to the backend: so it is small.
const readBuffer = 4 << 10

var (
	buffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}
	readers = sync.Pool{New: func() any { return new(Reader) }}
)

// read takes in what has arrived, until there is no more for now. It is the
// only one that closes the descriptor, so that it needs no lock to read.
func (c *Conn[T]) read() {
	buf := buffers.Get().(*[readBuffer]byte)
	defer buffers.Put(buf)
	for {
		c.state.And(^uint32(readable))
		if err := c.drain(buf[:]); err != nil {
			c.end()
			return
		}
		if c.reader != nil && c.reader.Idle() {
			readers.Put(c.reader)
			c.reader = nil
		}
		if c.state.CompareAndSwap(reading, 0) {
			return
		}
	}
}

// drain reads until there is nothing left, and returns an error at the end of
// the connection.
func (c *Conn[T]) drain(buf []byte) error {
	if early := c.early; early != nil {
		c.early = nil
		if err := c.feed(early); err != nil {
			return err
		}
	}
	for {
		n, err := unix.Read(int(c.fd), buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return errClosed
		}
		if err := c.feed(buf[:n]); err != nil {
			return err
		}
		// A short read says that the socket is empty, and the next byte will be
		// a new event (epoll(7)). The end of the connection may have come
		// together with these bytes, and would not.
		if n < len(buf) && c.state.Load()&hungUp == 0 {
			return nil
		}
	}
}

// feed takes apart what was read.
func (c *Conn[T]) feed(b []byte) error {
	if c.reader == nil {
		c.reader = readers.Get().(*Reader)
		*c.reader = Reader{Limit: c.poller.MessageLimit}
	}
	for len(b) > 0 && !c.deaf {
		ev, used, ok, err := c.reader.Next(b)
		b = b[used:]
		if err != nil {
			return c.refuse(err)
		}
		if !ok {
			continue
		}
		if err := c.handle(ev); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn[T]) handle(ev Event) error {
	switch ev.Opcode {
	case Ping:
		return c.Write(Pong, ev.Payload) // one that cannot be written is the end
	case Pong:
	case Close:
		code, reason, _ := ParseClose(ev.Payload) // checked by the reader
		_ = c.writeClose(code, string(reason))    // the end either way
		return errClosed
	default:
		if !c.isOver() {
			c.poller.Message(c.owner, ev.Opcode, ev.Payload)
		}
	}
	return nil
}

// refuse tells a client that it does not keep to the protocol, and waits for it
// to see that: cutting the line at once could take the news along.
func (c *Conn[T]) refuse(err error) error {
	v, ok := errors.AsType[*ViolationError](err)
	if !ok || v.Code == 0 || c.Close(v.Code, v.Reason) != nil {
		return err
	}
	c.deaf = true
	return nil
}

// end closes the descriptor. Nothing is done under its number any more.
func (c *Conn[T]) end() {
	c.mu.Lock()
	c.loop.drop(c)
	_ = unix.Close(int(c.fd)) // nothing can be done about a failure
	c.fd, c.aborted = -1, true
	c.rouse()
	if c.patient != nil {
		c.patient.Stop()
	}
	c.mu.Unlock()
	c.reader = nil
	c.poller.Gone(c.owner)
}

// Abort ends the connection at once.
func (c *Conn[T]) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 && !c.aborted {
		c.aborted = true
		_ = unix.Shutdown(int(c.fd), unix.SHUT_RDWR) // an event follows
		c.rouse()
	}
}

// isOver tells whether nothing more is to be sent or handed on.
func (c *Conn[T]) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing || c.aborted
}

// Close sends a close frame, after which nothing more is sent and no message is
// handed on, and ends the connection when the client has answered or
// CloseTimeout is over. It does not wait for that.
func (c *Conn[T]) Close(code uint16, reason string) error {
	if err := c.writeClose(code, reason); err != nil {
		c.Abort()
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 && c.patient == nil {
		c.patient = time.AfterFunc(c.poller.CloseTimeout, c.Abort)
	}
	return nil
}

func (c *Conn[T]) writeClose(code uint16, reason string) error {
	c.frame.Lock()
	defer c.frame.Unlock()
	c.mu.Lock()
	again := c.closing
	c.closing = true
	c.mu.Unlock()
	if again {
		return nil
	}
	var payload []byte
	if code != CodeNoStatus {
		payload = binary.BigEndian.AppendUint16(nil, code)
		payload = append(payload, reason[:min(len(reason), maxControl-2)]...)
	}
	return c.send(Close, payload)
}

// Write sends a message in one frame. It takes at most WriteTimeout for each
// 64 KiB.
func (c *Conn[T]) Write(op Opcode, payload []byte) error {
	c.frame.Lock()
	defer c.frame.Unlock()
	if c.isOver() {
		return errClosed
	}
	return c.send(op, payload)
}

// smallFrame is what is copied behind its header, to be written at once.
const smallFrame = 4 << 10

var frames = sync.Pool{New: func() any { return new([maxHeader + smallFrame]byte) }}

// send writes a frame; frame is held.
func (c *Conn[T]) send(op Opcode, payload []byte) error {
	buf := frames.Get().(*[maxHeader + smallFrame]byte)
	defer frames.Put(buf)
	head := AppendHeader(buf[:0], op, len(payload))
	if len(payload) <= smallFrame {
		return c.sendAll(append(head, payload...))
	}
	first := copy(buf[len(head):], payload)
	if err := c.sendAll(buf[:len(head)+first]); err != nil {
		return err
	}
	return c.sendAll(payload[first:])
}

const writePiece = 64 << 10

func (c *Conn[T]) sendAll(b []byte) error {
	for len(b) > 0 {
		n, err := c.try(b[:min(len(b), writePiece)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// try writes some of b, waiting until there is room for it.
func (c *Conn[T]) try(b []byte) (int, error) {
	var w *waiter
	for {
		c.mu.Lock()
		if c.aborted {
			c.mu.Unlock()
			return 0, errClosed
		}
		n, err := unix.Write(int(c.fd), b)
		full := errors.Is(err, unix.EAGAIN)
		if full && w == nil {
			w = waiters.Get().(*waiter)
			w.timer.Reset(c.poller.WriteTimeout)
			c.waiter = w // before mu is free: the event of new room cannot be missed
			defer c.forget(w)
		}
		c.mu.Unlock()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case !full:
			return max(n, 0), err
		}
		select {
		case <-w.room:
		case <-w.timer.C:
			return 0, errTimeout
		}
	}
}

// forget is the end of a wait.
func (c *Conn[T]) forget(w *waiter) {
	c.mu.Lock()
	c.waiter = nil
	c.mu.Unlock()
	w.timer.Stop()
	select {
	case <-w.room:
	default:
	}
	waiters.Put(w)
}
