package epoll

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A life is a connection from beginning to end. A schedule says what the client
// and the server's owner do next; beside that all goroutines run as they like.
type life struct {
	t    *testing.T
	conn *Conn[*life]

	// Of the client, which is the goroutine of the schedule.
	fd       int    // does not block; -1 once closed
	unsent   []byte // made, and not written yet
	begun    []byte // of a message in fragments; nil: none
	made     []said
	pings    [][]byte
	legal    bool // until something is made that ends a connection
	garbled  bool // what is made may be understood in any way
	trusted  int  // messages, and pings, that were made before
	answered int
	finished bool // nothing more can be written
	eof      bool // everything was read
	stream   int  // bytes made so far
	sent     int  // of those
	received []byte

	// Of the server.
	deflate bool
	work    chan func() // writes, one after the other
	worker  sync.WaitGroup
	tries   [][]byte // of the worker: what it wrote, or tried to
	whole   int      // of the worker: writes of which all was sent
	failed  bool     // of the worker: one was not
	room    chan error
	waits   atomic.Bool // for room
	closed  bool        // of the schedule: Close or Abort was called
	aborted bool        // of the schedule: Abort was

	heard  []string // of the goroutine that reads
	gone   chan struct{}
	goings atomic.Int32
}

// said is a message of the client.
type said struct {
	text string
	end  int  // where in the stream of bytes it is whole
	late bool // made when the server had closed already
}

const lifeLimit = 3000 // bytes of a client's message

// lifeOptions are more or less patient.
func lifeOptions(patience byte) Options[*life] {
	wait := func(bit byte) time.Duration {
		if patience&bit != 0 {
			return time.Millisecond
		}
		return time.Hour
	}
	message := func(l *life, _ Opcode, p []byte) {
		if l.goings.Load() != 0 {
			l.t.Error("a message after Gone")
		}
		l.heard = append(l.heard, string(p))
	}
	return Options[*life]{
		MessageLimit: lifeLimit, WriteTimeout: wait(1), CloseTimeout: wait(2),
		Message: message,
		Short: func(l *life, op Opcode, p []byte) bool {
			took := len(p) > 0 && p[0]%2 == 0
			if took {
				message(l, op, p)
			}
			return took
		},
		Room: func(l *life, err error) {
			if !l.waits.Swap(false) && l.goings.Load() == 0 { // Gone may come at the same time
				l.t.Error("room that nobody waits for")
			}
			l.room <- err
		},
		Gone: func(l *life, _ error) {
			if l.goings.Add(1) == 1 {
				close(l.gone)
			}
		},
	}
}

// schedule is a supply of decisions, all of them 0 at its end.
type schedule []byte

func (s *schedule) next() (b byte) {
	if len(*s) > 0 {
		b, *s = (*s)[0], (*s)[1:]
	}
	return b
}

// size is one of up to 64 KiB, which no pipe here has room for.
func (s *schedule) size() int {
	b := s.next()
	return min(int(b&0x0f)<<(b>>4), 64<<10)
}

const (
	doMessage = iota
	doFragment
	doLastFragment
	doPing
	doGarbage
	doClientClose
	doSend
	doReceive
	doFin
	doVanish
	doWrite
	doClose
	doAbort
	doPause
	doCompressed
	steps
)

// lives are the seeds.
var lives = map[string][]byte{
	"a message":              {0, doMessage, 5, doSend, 0xff, doPause, 9, doWrite, 5, doReceive, 0x88},
	"byte by byte":           {0, doMessage, 2, doSend, 1, doSend, 1, doSend, 1, doSend, 1, doSend, 1, doSend, 1, doSend, 1, doSend, 1},
	"fragments":              {0, doFragment, 3, doFragment, 0, doSend, 0xff, doPause, 9, doLastFragment, 5, doSend, 0xff},
	"ping within fragments":  {0, doFragment, 3, doPing, 5, doLastFragment, 5, doPing, 125, doSend, 0xff, doReceive, 0xff},
	"the client closes":      {0, doMessage, 5, doClientClose, 1, doMessage, 1, doSend, 0xff, doReceive, 0xff},
	"closed without a code":  {0, doClientClose, 0, doSend, 0xff, doReceive, 0xff},
	"the server closes":      {0, doMessage, 5, doSend, 0xff, doClose, 1, doPause, 9, doMessage, 5, doClientClose, 1, doSend, 0xff, doReceive, 0xff},
	"both close":             {0, doClientClose, 1, doClose, 1, doClose, 2, doSend, 0xff, doReceive, 0xff},
	"close, and no answer":   {2, doClose, 1, doPause, 99, doPause, 99},
	"abort":                  {0, doMessage, 5, doSend, 3, doAbort},
	"a stalled reader":       {1, doWrite, 0xff, doWrite, 0xff, doPing, 9, doSend, 0xff, doPause, 99},
	"a slow reader":          {0, doWrite, 0xe8, doReceive, 0x81, doReceive, 0xa3, doWrite, 0x99, doReceive, 0xff},
	"abort within a write":   {0, doWrite, 0xff, doPause, 9, doAbort, doReceive, 0xff},
	"close within a write":   {0, doWrite, 0xff, doClose, 1, doReceive, 0xf8, doReceive, 0xf8, doReceive, 0xf8},
	"a fin":                  {0, doMessage, 5, doSend, 0xff, doFin, doWrite, 0x88},
	"a fin within a message": {0, doMessage, 5, doSend, 4, doFin},
	"vanished":               {0, doWrite, 0xff, doWrite, 0xff, doVanish},
	"garbage":                {0, doGarbage, 0xde, 0xad, doSend, 0xff, doReceive, 0xff},
	"garbage and no reader":  {2, doWrite, 0xff, doGarbage, 0xde, 0xad, doSend, 0xff, doPause, 99},
	"too long":               {0, doMessage, 0xbc, doSend, 0xff, doSend, 0xff, doReceive, 0xff},
	"compressed":             {4, doCompressed, 0x68, doMessage, 5, doCompressed, 0x78, doSend, 0xff, doPause, 9, doReceive, 0xff},
	"compressed for nobody":  {0, doCompressed, 0x68, doSend, 0xff, doPause, 9, doReceive, 0xff},
	"a bomb":                 {4, doCompressed, 0xdf, doSend, 0xff, doSend, 0xff, doPause, 9, doReceive, 0xff},
	"a ping, then a close":   {0, doWrite, 0xff, doPing, 9, doSend, 0xff, doPause, 99, doClose, 1, doReceive, 0xff},
	"pongs into a full pipe": {1, doWrite, 0xff, doPing, 120, doPing, 120, doPing, 120, doSend, 0xff, doPause, 99},
}

// FuzzLife drives a connection by a schedule. Its first byte says how patient
// the server is, and whether messages may be compressed.
func FuzzLife(f *testing.F) {
	for _, s := range lives {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		if len(s) <= 256 {
			play(t, s)
		}
	})
}

func play(t *testing.T, s schedule) {
	descriptors, goroutines := countDescriptors(t), runtime.NumGoroutine()
	options := s.next()
	poller, err := NewPoller(lifeOptions(options))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- poller.Run(ctx) }()
	l := beginLife(t, poller, options&4 != 0)
	for len(s) > 0 {
		l.step(&s)
	}
	l.end()
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	l.check()
	if n := countDescriptors(t); n > descriptors {
		t.Errorf("%d descriptors, %d before", n, descriptors)
	}
	// The last goroutine that read calls Gone before it ends.
	await(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
}

func countDescriptors(t *testing.T) int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// await waits for what happens in other goroutines and can't be waited for.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for began := time.Now(); !done(); time.Sleep(20 * time.Microsecond) {
		if time.Since(began) > 30*time.Second {
			all := make([]byte, 1<<20)
			t.Fatalf("waited for %s:\n%s", what, all[:runtime.Stack(all, true)])
		}
	}
}

func beginLife(t *testing.T, p *Poller[*life], deflate bool) *life {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range pair { // so that long writes stop half-way
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10); err != nil {
			t.Fatal(err)
		}
	}
	l := &life{
		t: t, fd: pair[0], legal: true, deflate: deflate,
		work: make(chan func(), 256), room: make(chan error, 256), gone: make(chan struct{}),
	}
	l.conn = p.Take(pair[1], deflate, l)
	l.conn.Start(nil)
	l.worker.Go(func() {
		for f := range l.work {
			f()
		}
	})
	return l
}

func (l *life) step(s *schedule) {
	switch s.next() % steps {
	case doMessage:
		if l.begun == nil {
			l.message(s.size())
		}
	case doFragment:
		l.fragment(s.size(), 0)
	case doLastFragment:
		l.fragment(s.size(), finBit)
	case doPing:
		payload := bytes.Repeat([]byte{byte(len(l.pings))}, int(s.next())%(maxControl+1))
		l.pings = append(l.pings, payload)
		if l.legal {
			l.answered++
		}
		l.make(frame(finBit|byte(Ping), string(payload)))
	case doGarbage:
		l.legal, l.garbled = false, true
		l.make([]byte{s.next(), s.next()})
	case doClientClose:
		l.legal = false
		l.make(frame(finBit|byte(Close), []string{"", "\x03\xe8", "\x0f\xa0bye", "\x03"}[s.next()%4]))
	case doSend:
		l.send(int(s.next()))
	case doReceive:
		l.receive(s.size())
	case doFin:
		l.fin()
	case doVanish:
		l.vanish()
	case doWrite:
		l.write(s.size())
	case doClose:
		_ = l.conn.Close(1000+uint16(s.next()), "as scheduled")
		l.closed = true
	case doAbort:
		l.conn.Abort()
		l.closed, l.aborted = true, true
	case doPause:
		for range int(s.next()) * 4 {
			runtime.Gosched()
		}
	case doCompressed:
		if l.begun == nil {
			l.compressed(s.size())
		}
	}
}

// make adds to what the client is going to write.
func (l *life) make(b []byte) {
	l.unsent = append(l.unsent, b...)
	l.stream += len(b)
}

func (l *life) message(size int) {
	text := numbered(len(l.made), size)
	l.make(frame(finBit|byte(Text), string(text)))
	l.complete(text)
}

// compressed is legal only where it was agreed on.
func (l *life) compressed(size int) {
	text := numbered(len(l.made), size)
	packed, ok := AppendDeflatedFrame(nil, Text, text)
	if !ok {
		return
	}
	l.legal = l.legal && l.deflate
	l.make(frame(packed[0], string(packed[headerSize(packed):])))
	l.complete(text)
}

func (l *life) fragment(size int, fin byte) {
	op := byte(Continuation)
	if l.begun == nil {
		l.begun, op = []byte{}, byte(Binary)
	}
	part := numbered(len(l.made), size)
	l.begun = append(l.begun, part...)
	l.make(frame(fin|op, string(part)))
	l.legal = l.legal && len(l.begun) <= lifeLimit
	if fin != 0 {
		l.complete(l.begun)
		l.begun = nil
	}
}

func (l *life) complete(text []byte) {
	l.legal = l.legal && len(text) <= lifeLimit
	if l.legal {
		l.trusted++
	}
	l.made = append(l.made, said{string(text), l.stream, l.closed})
}

// numbered is text that tells which one it is.
func numbered(n, size int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%d,", n), size/3+1)
}

// send writes up to n bytes.
func (l *life) send(n int) {
	for n = min(n, len(l.unsent)); n > 0 && !l.finished; {
		done, err := unix.Write(l.fd, l.unsent[:n])
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			l.finished = true
			return
		}
		l.unsent = l.unsent[done:]
		l.sent += done
		n -= done
	}
}

// receive reads up to n bytes.
func (l *life) receive(n int) {
	buf := make([]byte, 64<<10)
	for n > 0 && !l.eof && l.fd >= 0 {
		got, err := unix.Read(l.fd, buf[:min(n, len(buf))])
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil || got == 0 {
			l.eof = true
			return
		}
		l.received = append(l.received, buf[:got]...)
		n -= got
	}
}

func (l *life) fin() {
	if l.fd >= 0 {
		l.finished = true
		_ = unix.Shutdown(l.fd, unix.SHUT_WR) // fails where the server is gone
	}
}

func (l *life) vanish() {
	if l.fd >= 0 {
		l.finished, l.legal = true, false // what the server has not read may be lost
		_ = unix.Close(l.fd)
		l.fd = -1
	}
}

func (l *life) write(size int) {
	l.work <- func() {
		text := numbered(len(l.tries), size)
		l.tries = append(l.tries, text)
		l.waits.Store(true) // Room may come before Write has returned
		frame, shared := append(AppendHeader(nil, Binary, len(text)), text...), len(l.tries)%2 == 0
		left, err := l.conn.Write(frame, shared)
		if !shared {
			clear(frame) // it is the caller's again
		}
		if left > 0 {
			select {
			case err = <-l.room:
			case <-l.gone:
				err = ErrClosed
			}
		}
		l.waits.Store(false)
		switch {
		case err != nil:
			l.failed = true
			l.conn.Abort()
		case l.failed:
			l.t.Error("a write succeeded after one that failed")
		default:
			l.whole++
		}
	}
}

// end lets both sides finish what they have begun, and then the client goes.
func (l *life) end() {
	close(l.work)
	idle := make(chan struct{})
	go func() { l.worker.Wait(); close(idle) }()
	await(l.t, "the server's writes", func() bool {
		l.receive(1 << 20)
		l.send(len(l.unsent))
		return isClosed(idle) && (len(l.unsent) == 0 || l.finished)
	})
	l.fin()
	await(l.t, "Gone", func() bool {
		l.receive(1 << 20)
		return isClosed(l.gone)
	})
	l.receive(1 << 30)
	read := l.fd >= 0
	l.vanish()
	l.eof = l.eof && read
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
