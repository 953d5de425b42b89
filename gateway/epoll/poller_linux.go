package epoll

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Supported tells whether this system has what a Poller needs.
const Supported = true

// Poller watches connections. Its loops run while Run does.
type Poller[T any] struct {
	Options[T]
	loops []*loop[T]
}

// loop is one epoll instance and what is watched by it.
type loop[T any] struct {
	poller *Poller[T]

	file *os.File // the instance, itself watched by the Go runtime
	raw  syscall.RawConn
	fd   int
	buf  *[glance]byte // of the goroutine that runs it

	mu    sync.Mutex
	conns []*Conn[T] // by descriptor; nil: not ours
}

// NewPoller makes the epoll instances, one for each core.
func NewPoller[T any](o Options[T]) (*Poller[T], error) {
	p := &Poller[T]{Options: o}
	for range min(runtime.GOMAXPROCS(0), 8) {
		l, err := p.newLoop()
		if err != nil {
			p.close()
			return nil, err
		}
		p.loops = append(p.loops, l)
	}
	return p, nil
}

func (p *Poller[T]) newLoop() (*loop[T], error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	// An epoll descriptor can itself be waited for. So the loop's goroutine
	// sleeps in the runtime's own poller instead of in a thread of its own, and
	// is woken as cheaply as any other.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l := &loop[T]{poller: p, file: os.NewFile(uintptr(fd), "epoll"), fd: fd, buf: new([glance]byte)}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		_ = l.file.Close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return l, nil
}

// Run watches until ctx ends. By then all connections must be gone.
func (p *Poller[T]) Run(ctx context.Context) error {
	defer p.close()
	var running sync.WaitGroup
	errs := make(chan error, len(p.loops))
	for _, l := range p.loops {
		running.Go(func() { errs <- l.run() })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	for _, l := range p.loops {
		_ = l.file.SetReadDeadline(time.Unix(1, 0)) // wakes it for good
	}
	running.Wait()
	return err
}

func (p *Poller[T]) close() {
	for _, l := range p.loops {
		_ = l.file.Close()
	}
}

// flockPause is how long the loop lets more gather, after events that were short
// messages alone. Pings go out together, and each of the pongs would wake it,
// which costs several times what reading one does.
const flockPause = 2 * time.Millisecond

// run serves events until the deadline of the file is set.
func (l *loop[T]) run() error {
	events := make([]unix.EpollEvent, 512)
	woken := make([]*Conn[T], 0, len(events))
	var failure error
	// It is all one read, which always says that it wants to wait: whoever asks
	// anew has to look once more in vain before.
	err := l.raw.Read(func(uintptr) bool {
		for {
			n, err := ignoringEINTR(func() (int, error) { return ready(l.fd, events) })
			if err != nil {
				failure = err
				return true
			}
			woken = l.find(events[:n], woken[:0])
			flock := n > 0
			for i, c := range woken {
				if c != nil && !c.event(events[i].Events) {
					flock = false
				}
			}
			clear(woken)
			switch {
			case flock:
				time.Sleep(flockPause)
			case n < len(events):
				return false // all that was ready is served, and what is next wakes us
			}
		}
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case err != nil:
		return fmt.Errorf("epoll: %w", err)
	}
	return fmt.Errorf("epoll: %w", failure)
}

func ignoringEINTR(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// find returns whom the events are for. A descriptor may have been closed and
// given to another connection since: that one is woken for nothing.
func (l *loop[T]) find(events []unix.EpollEvent, woken []*Conn[T]) []*Conn[T] {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		var c *Conn[T]
		if int(e.Fd) < len(l.conns) {
			c = l.conns[e.Fd]
		}
		woken = append(woken, c)
	}
	return woken
}

func (l *loop[T]) put(c *Conn[T]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for int(c.fd) >= len(l.conns) {
		l.conns = append(l.conns, make([]*Conn[T], max(64, len(l.conns)/4))...)
	}
	l.conns[c.fd] = c
}

func (l *loop[T]) holds(c *Conn[T]) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(c.fd) < len(l.conns) && l.conns[c.fd] == c
}

// Len counts the connections that are watched.
func (p *Poller[T]) Len() (n int) {
	for _, l := range p.loops {
		l.mu.Lock()
		for _, c := range l.conns {
			if c != nil {
				n++
			}
		}
		l.mu.Unlock()
	}
	return n
}

func (l *loop[T]) drop(c *Conn[T]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c.fd] = nil
}

// CanDetach tells whether conn is of the kind that Detach takes.
func CanDetach(conn net.Conn) bool {
	_, ok := conn.(*net.TCPConn)
	return ok
}

// Detach takes a plain TCP connection out of the Go runtime. The result is a
// descriptor of the caller's own; conn still has to be closed. It reports false
// for what cannot be taken, such as TLS.
func Detach(conn net.Conn) (fd int, ok bool) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return -1, false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1, false
	}
	var dup int
	var failure error
	err = raw.Control(func(old uintptr) { dup, failure = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil || failure != nil {
		return -1, false
	}
	return dup, true
}
