package transfer

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

const (
	chunkSize  = 256 << 10
	partChunks = 32
	// partSize is how much of an upload of unknown size goes to S3 at once;
	// S3 wants at least 5 MiB in every part but the last.
	partSize = partChunks * chunkSize
	// bufferWait is how long an upload waits for memory before it is refused.
	bufferWait = 30 * time.Second
)

var errBusy = fault.New(fault.Unavailable, "uploads_busy", "Too many files are being uploaded right now.").After(2 * time.Second)

// buffers is the memory of all parts on their way to S3, bounded by one budget
// for the whole process. Parts take it in chunks as their bytes come in, so
// that a slow client holds what it has sent and no more.
//
// Who needs a whole part before anything can be sent fills one, and may have to
// wait for memory. Who could do without gathers one, as long as nobody waits.
type buffers struct {
	wait time.Duration // bufferWait

	mu      sync.Mutex
	waiting int      // that are waiting for memory
	spare   int      // chunks that nobody holds
	idle    [][]byte // those of them that are allocated
	filling map[*part]struct{}
	freed   chan struct{} // closed, and made anew, when chunks come back
}

// part is a piece of an upload in memory.
type part struct {
	home   *buffers
	chunks [][]byte
	size   int64
}

// newBuffers hands out up to budget bytes, at least one part.
func newBuffers(budget int64) *buffers {
	return &buffers{
		wait:    bufferWait,
		spare:   max(int(budget/chunkSize), partChunks),
		filling: map[*part]struct{}{},
		freed:   make(chan struct{}),
	}
}

// fill reads the next part from r: partSize bytes, or fewer and io.EOF at the
// end of r. With any other error there is no part. It waits for memory where
// it must and fails with uploads_busy where that takes too long.
func (b *buffers) fill(ctx context.Context, r io.Reader) (*part, error) {
	p := &part{home: b}
	b.mu.Lock()
	b.filling[p] = struct{}{}
	b.mu.Unlock()
	var err error
	for err == nil && p.size < partSize {
		if err = b.grow(ctx, p); err == nil {
			err = p.read(r, len(p.chunks)-1)
		}
	}
	b.mu.Lock()
	delete(b.filling, p)
	b.mu.Unlock()
	if err != nil && err != io.EOF {
		p.release()
		return nil, err
	}
	return p, err
}

// head is the beginning of p.
func (p *part) head() []byte {
	if len(p.chunks) == 0 {
		return nil
	}
	return p.chunks[0][:min(p.size, sniffSize)]
}

// gather reads src, of at most partSize bytes, into memory that nobody else has
// to wait for: never the last of it that a part could be filled from, and none
// as soon as somebody waits. At the end of src the error is io.EOF; without one
// the rest of src is still to be read. With any other there is no part.
func (b *buffers) gather(src io.Reader) (*part, error) {
	p := &part{home: b}
	for b.lend(p) {
		last := p.chunks[len(p.chunks)-1]
		n, err := src.Read(last[p.size%chunkSize:])
		p.size += int64(n)
		if err == io.EOF {
			return p, err
		}
		if err != nil {
			p.release()
			return nil, err
		}
	}
	return p, nil
}

// lend tells whether p may take more bytes, and has room for them then.
func (b *buffers) lend(p *part) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.waiting > 0:
		return false
	case p.size < int64(len(p.chunks))*chunkSize:
		return true
	case b.spare <= partChunks:
		return false
	}
	b.add(p)
	return true
}

// read fills chunk i of p.
func (p *part) read(r io.Reader, i int) error {
	n, err := fill(r, p.chunks[i])
	p.size += int64(n)
	return err
}

// grow adds a chunk to p, which is being filled.
func (b *buffers) grow(ctx context.Context, p *part) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, ok := b.take(p); ok {
		return nil
	}
	b.await(1)
	defer b.await(-1)
	limit := time.NewTimer(b.wait)
	defer limit.Stop()
	for {
		freed, ok := b.take(p)
		if ok {
			return nil
		}
		select {
		case <-freed:
		case <-limit.C:
			return errBusy.Because(errors.New("no memory left in buffer_budget"))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *buffers) await(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting += n
}

// take adds a chunk to p if at least one upload could then still fill its
// part from what is left; else freed is closed when there is more. Without that
// rule uploads that each hold a little could wait for each other for ever; parts
// that are being sent need nothing more and come back by themselves.
func (b *buffers) take(p *part) (freed <-chan struct{}, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	most := len(p.chunks) + 1
	for q := range b.filling {
		most = max(most, len(q.chunks))
	}
	if b.spare-1 < partChunks-most {
		return b.freed, false
	}
	b.add(p)
	return nil, true
}

// add moves a spare chunk to p.
func (b *buffers) add(p *part) {
	b.spare--
	var chunk []byte
	if last := len(b.idle) - 1; last >= 0 {
		chunk, b.idle = b.idle[last], b.idle[:last]
	} else {
		chunk = make([]byte, chunkSize)
	}
	p.chunks = append(p.chunks, chunk)
}

// release gives the memory of p back. Nobody may read p any more.
func (p *part) release() {
	b := p.home
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spare += len(p.chunks)
	b.idle = append(b.idle, p.chunks...)
	p.chunks = nil
	close(b.freed)
	b.freed = make(chan struct{})
}

// lease is the reader of one part that is lent to an HTTP transport. A
// transport may still read a body after its request has failed; end cuts it
// off before the memory goes to another upload. It has no WriteTo, which would
// let the memory itself out.
type lease struct {
	mu    sync.Mutex
	part  *part // nil once it ended
	start int64
}

// Read implements io.Reader.
func (l *lease) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.part == nil {
		return 0, errCut
	}
	if l.start >= l.part.size {
		return 0, io.EOF
	}
	chunk := l.part.chunks[l.start/chunkSize]
	from := l.start % chunkSize
	to := min(chunkSize, from+l.part.size-l.start)
	n := copy(p, chunk[from:to])
	l.start += int64(n)
	return n, nil
}

// Seek implements io.Seeker for retries, which start again at the beginning.
func (l *lease) Seek(offset int64, whence int) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.part == nil || offset < 0 || whence != io.SeekStart {
		return 0, errCut
	}
	l.start = offset
	return offset, nil
}

// end waits for a Read under way and lets no other begin.
func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = nil
}
