package epoll

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// States of a connection's reading.
const (
	reading  = 1 << iota // somebody is at it: a goroutine, or the loop
	readable             // there is something to read
	hungUp               // the client will send no more than what is there
)

// Conn is one connection. Write comes from one goroutine at a time, everything
// else from any.
type Conn[T any] struct {
	loop  *loop[T]
	owner T
	state atomic.Uint32 // of reading

	deflate bool    // permessage-deflate was agreed on; read only
	deaf    bool    // of the goroutine that reads: what comes is thrown away
	broke   uint16  // of the goroutine that reads: the code of the close frame that answered a violation
	reader  *Reader // of the goroutine that reads; nil between messages

	mu      sync.Mutex // guards what follows, and system calls on fd that may meet its end
	fd      int32      // -1 once closed
	aborted bool
	late    bool  // aborted, since the client took too long to read
	lost    bool  // aborted, since the network failed
	closing bool  // a close frame was written: nothing may follow it
	left    bool  // the client has closed, and is to be answered
	rare    *rare // what few connections have; nil: nothing
}

// Take makes a connection of a descriptor that Detach returned, and owns it
// from then on. deflate says that the handshake agreed on permessage-deflate
// (RFC 7692) without context takeover on either side. Nothing is read, and
// nobody is told anything, until Start, which has to follow.
func (p *Poller[T]) Take(fd int, deflate bool, owner T) *Conn[T] {
	return &Conn[T]{loop: p.loops[fd%len(p.loops)], owner: owner, deflate: deflate, fd: int32(fd)}
}

// Start begins to read, first early: what was read from the descriptor already,
// which is the connection's from then on. From now on the owner is told, and
// Gone will come.
func (c *Conn[T]) Start(early []byte) {
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
	go c.read(early, false)
}

// event is called by the loop, and does not wait. It reports whether what came
// was a short message alone.
func (c *Conn[T]) event(events uint32) (short bool) {
	const gone = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if events&(unix.EPOLLOUT|gone) != 0 {
		c.sendUnsent()
	}
	if events&(unix.EPOLLIN|gone) != 0 {
		set := uint32(reading | readable)
		if events&gone != 0 {
			set |= hungUp
		}
		if c.state.Or(set)&reading == 0 {
			return c.look()
		}
	}
	return false
}

// readBuffer is held while what was read is handled, which may take as long as
// a call to the backend: so it is small. A glance, which holds nearly everything
// that clients say, is smaller still: there may be one for each of very many
// goroutines that have not had their turn.
const (
	readBuffer = 4 << 10
	glance     = 512
)

var (
	buffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}
	glances = sync.Pool{New: func() any { return new([glance]byte) }}
	readers = sync.Pool{New: func() any { return new(Reader) }}
)

// look reads on the loop's goroutine. Idle connections say nothing but pongs,
// each of which would be a goroutine: what is as short is offered to the owner
// here, and the result says whether it took it. Everything else is handed to a
// goroutine.
func (c *Conn[T]) look() (took bool) {
	l := c.loop
	if c.reader != nil || c.deaf || c.state.Load()&hungUp != 0 {
		go c.read(nil, false)
		return false
	}
	c.state.And(^uint32(readable))
	n, err := ignoringEINTR(func() (int, error) { return read(int(c.fd), l.buf[:]) })
	switch {
	case errors.Is(err, unix.EAGAIN): // another reader was sooner
	case err != nil:
		go c.end(err)
		return false
	case n == 0:
		go c.end(io.EOF)
		return false
	case c.offer(l.buf[:n]):
		took = true
	default:
		seen := l.buf
		l.buf = glances.Get().(*[glance]byte)
		go c.readOn(seen, n)
		return false
	}
	c.state.And(^uint32(reading)) // nothing came meanwhile: that is the loop's to tell
	return took
}

// maxShort is the payload of a message that Options.Short may be offered.
const maxShort = 8

// offer offers the owner what is a short message, whole and alone, and reports
// whether it took it. b stays as it is.
func (c *Conn[T]) offer(b []byte) (took bool) {
	const header = 2 + 4 // with the mask
	n := len(b) - header
	if c.loop.poller.Short == nil || n < 0 || n > maxShort || b[1] != maskBit|byte(n) {
		return false
	}
	op := Opcode(b[0] &^ finBit)
	if b[0]&finBit == 0 || op != Text && op != Binary || c.isOver() {
		return false
	}
	var payload [maxShort]byte
	copy(payload[:], b[header:])
	unmask(payload[:n], [4]byte(b[2:header]), 0)
	return c.loop.poller.Short(c.owner, op, payload[:n])
}

// readOn is read after a look, which saw n bytes. The buffer is given back.
func (c *Conn[T]) readOn(seen *[glance]byte, n int) {
	defer glances.Put(seen)
	c.read(seen[:n], n < len(seen))
}

// read takes in what has arrived, until there is no more for now. Whoever is at
// reading, and nobody else, closes the descriptor, and so needs no lock to read.
// early was read before; whole says that the socket was empty then.
func (c *Conn[T]) read(early []byte, whole bool) {
	for {
		if !whole {
			c.state.And(^uint32(readable))
		}
		if err := c.drain(early, whole); err != nil {
			c.end(err)
			return
		}
		early, whole = nil, false
		if c.reader != nil && c.reader.Idle() {
			readers.Put(c.reader)
			c.reader = nil
		}
		if c.state.CompareAndSwap(reading, 0) {
			return
		}
	}
}

// drain takes what is early and, if that is not the whole, reads until there is
// nothing left. It returns an error at the end of the connection.
func (c *Conn[T]) drain(early []byte, whole bool) error {
	if len(early) > 0 {
		if err := c.feed(early); err != nil || whole {
			return err
		}
	}
	room := buffers.Get().(*[readBuffer]byte)
	defer buffers.Put(room)
	buf := room[:]
	for {
		n, err := read(int(c.fd), buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			// A hang-up that was reported, and is none, was that of another
			// connection, which had the descriptor before.
			c.state.CompareAndSwap(reading|hungUp, reading)
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return io.EOF
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
		c.reader.reset(c.loop.poller.MessageLimit, c.deflate)
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
		return c.pong(ev.Payload) // one that cannot be written is the end
	case Pong:
	case Close:
		code, reason, _ := ParseClose(ev.Payload) // checked by the reader
		return c.answerClose(code, string(reason))
	default:
		if !c.isOver() {
			c.loop.poller.Message(c.owner, ev.Opcode, ev.Payload)
		}
	}
	return nil
}

// answerClose sends a client's close frame back, which ends the connection.
// Where it waits behind what the client has not read yet, so does the end.
func (c *Conn[T]) answerClose(code uint16, reason string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writeClose(code, reason) != nil || c.rare.kept() == nil {
		return ErrLeft
	}
	c.deaf, c.left = true, true
	c.setPatience()
	return nil
}

// refuse tells a client that it does not keep to the protocol, and waits for it
// to see that: cutting the line at once could take the news along. Its answer
// cannot be told from what it sent before, so it is asked to hang up.
func (c *Conn[T]) refuse(err error) error {
	v, ok := errors.AsType[*ViolationError](err)
	if !ok || v.Code == 0 || c.Close(v.Code, v.Reason) != nil {
		return err
	}
	c.deaf, c.broke = true, v.Code
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rare.kept() == nil && c.fd >= 0 {
		_ = unix.Shutdown(int(c.fd), unix.SHUT_WR) // where that fails it is gone
	}
	return nil
}

// end closes the descriptor. Nothing is done under its number any more. why is
// what reading met; what was decided before that counts for more.
func (c *Conn[T]) end(why error) {
	c.mu.Lock()
	switch {
	case c.broke != 0:
		why = &ViolationError{Code: c.broke}
	case c.late:
		why = ErrTimeout
	case c.left:
		why = ErrLeft
	case c.aborted && !c.lost && !errors.Is(why, ErrLeft):
		why = ErrClosed
	}
	c.loop.drop(c)
	_ = unix.Close(int(c.fd)) // nothing can be done about a failure
	c.fd, c.aborted = -1, true
	c.forget()
	if t := c.rare.timer(); t != nil {
		t.Stop()
	}
	c.mu.Unlock()
	c.reader = nil
	c.loop.poller.Gone(c.owner, why)
}

// Abort ends the connection at once.
func (c *Conn[T]) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abort()
}

// abort is Abort with mu held.
func (c *Conn[T]) abort() {
	if c.fd >= 0 && !c.aborted {
		c.aborted = true
		_ = unix.Shutdown(int(c.fd), unix.SHUT_RDWR) // an event follows
	}
}

// Check tells whether a connection that is not closed is watched: one that is
// not would never be read again.
func (c *Conn[T]) Check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	if !c.loop.holds(c) {
		return errors.New("the loop does not know its descriptor")
	}
	// What is watched cannot be added once more.
	err := unix.EpollCtl(c.loop.fd, unix.EPOLL_CTL_ADD, int(c.fd), &unix.EpollEvent{Events: unix.EPOLLET, Fd: c.fd})
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err == nil {
		err = errors.Join(errors.New("its descriptor is not watched"), unix.EpollCtl(c.loop.fd, unix.EPOLL_CTL_DEL, int(c.fd), nil))
	}
	return err
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
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.writeClose(code, reason); err != nil {
		c.abort()
		return err
	}
	c.setPatience()
	return nil
}

// setPatience ends the connection in a while, whatever comes; mu is held.
func (c *Conn[T]) setPatience() {
	if c.fd >= 0 && c.rare.timer() == nil {
		c.makeRare().patient = time.AfterFunc(c.loop.poller.CloseTimeout, c.Abort)
	}
}

// writeClose writes a close frame, unless one was; mu is held.
func (c *Conn[T]) writeClose(code uint16, reason string) error {
	if c.closing {
		return nil
	}
	c.closing = true
	var payload []byte
	if code != CodeNoStatus {
		payload = binary.BigEndian.AppendUint16(nil, code)
		payload = append(payload, reason[:min(len(reason), maxControl-2)]...)
	}
	_, err := c.send(append(AppendHeader(nil, Close, len(payload)), payload...), true)
	return err
}
