package transfer

import (
	"cmp"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

const (
	// copyBuffer is what one copy needs: as much as stays in a processor's cache
	// between being read, summed up and written.
	copyBuffer = 64 << 10
	// flushStep is how much is written before the disk is told to begin on it,
	// so that little is left to wait for at the end.
	flushStep = 4 << 20
)

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

// writeDurably copies src into file, flushes and closes it.
func writeDurably(file *os.File, src io.Reader) (written int64, err error) {
	defer func() { err = errors.Join(err, file.Close()) }()
	if written, err = copyTo(&diskWriter{file: file}, src); err != nil {
		return written, err
	}
	return written, file.Sync()
}

// copyTo is io.Copy with large pieces. While one is written the next one is
// read, which takes about as long: it comes from a phone and is summed up.
func copyTo(w io.Writer, src io.Reader) (written int64, err error) {
	first := copyBuffers.Get().(*[]byte)
	n, err := fill(src, *first)
	if err != nil { // all of it, or all there will be
		defer copyBuffers.Put(first)
		if _, werr := w.Write((*first)[:n]); werr != nil {
			return 0, werr
		}
		if err == io.EOF {
			err = nil
		}
		return int64(n), err
	}
	c := copying{w: w, full: make(chan piece), free: make(chan *[]byte, 2)}
	c.free <- copyBuffers.Get().(*[]byte)
	err = c.run(src, piece{first, n})
	for len(c.free) > 0 {
		copyBuffers.Put(<-c.free)
	}
	if err == io.EOF {
		err = nil
	}
	return c.written, cmp.Or(c.err, err)
}

// copying is a copy in which one piece is written while the next one is read.
type copying struct {
	w      io.Writer
	full   chan piece   // to be written
	free   chan *[]byte // to be read into
	failed atomic.Bool  // nothing more is written

	written int64 // this and err are the writer's until it is waited for
	err     error
}

type piece struct {
	buf *[]byte
	n   int
}

// run hands on p, and what else src has, to a goroutine that writes.
func (c *copying) run(src io.Reader, p piece) (err error) {
	var writing sync.WaitGroup
	writing.Go(c.write)
	defer writing.Wait()
	defer close(c.full)
	for {
		c.full <- p
		if err != nil || c.failed.Load() {
			return err
		}
		p.buf = <-c.free
		p.n, err = fill(src, *p.buf)
	}
}

func (c *copying) write() {
	for p := range c.full {
		if c.err == nil {
			if _, c.err = c.w.Write((*p.buf)[:p.n]); c.err == nil {
				c.written += int64(p.n)
			} else {
				c.failed.Store(true)
			}
		}
		c.free <- p.buf
	}
}

// diskWriter writes a file from at on.
type diskWriter struct {
	file  *os.File
	at    int64
	dirty int64 // bytes before at that the disk was not told of
}

// Write implements io.Writer.
func (w *diskWriter) Write(p []byte) (int, error) {
	n, err := w.file.WriteAt(p, w.at)
	w.at += int64(n)
	if w.dirty += int64(n); w.dirty >= flushStep {
		beginFlush(w.file, w.at-w.dirty, w.dirty)
		w.dirty = 0
	}
	return n, err
}

// boundedReader ends with errPartSize where r has more than left bytes.
type boundedReader struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errPartSize
	}
	return n, err
}
