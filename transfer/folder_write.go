package transfer

import (
	"errors"
	"io"
	"os"
	"sync"
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
func writeDurably(file *os.File, src io.Reader, room *room) (written int64, err error) {
	defer func() { err = errors.Join(err, file.Close()) }()
	if written, err = copyTo(&diskWriter{file: file, room: room}, src); err != nil {
		return written, err
	}
	return written, file.Sync()
}

// copyTo is io.Copy with large pieces.
func copyTo(w io.Writer, src io.Reader) (written int64, err error) {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for err == nil {
		var n int
		n, err = fill(src, *buf)
		if _, werr := w.Write((*buf)[:n]); werr != nil {
			return written, werr
		}
		written += int64(n)
	}
	if err == io.EOF {
		err = nil
	}
	return written, err
}

// diskWriter writes a file from at on.
type diskWriter struct {
	file  *os.File
	room  *room
	at    int64
	dirty int64 // bytes before at that the disk was not told of
}

// Write implements io.Writer.
func (w *diskWriter) Write(p []byte) (int, error) {
	if err := w.room.before(len(p)); err != nil {
		return 0, err
	}
	n, err := w.file.WriteAt(p, w.at)
	w.room.after(n)
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
