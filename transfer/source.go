package transfer

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/minigate/minigate/internal/fault"
)

var (
	errSize = fault.New(fault.Invalid, "size_mismatch", "The file does not have the size that was announced.")
	// errCut is all that HTTP clients of a store may see of a failed reader.
	// io.ErrUnexpectedEOF must not get that far: minio-go takes it for the end
	// of the data, and then a torn upload is stored as if it were whole.
	errCut = errors.New("the source of these bytes failed")
)

// source is the reader of one Put. It ends with io.EOF only when the bytes
// are complete: no error before and, where the size is known, exactly that
// many. It remembers its error, since HTTP clients reword what they pass on.
type source struct {
	ctx  context.Context
	r    io.Reader
	size int64 // -1: unknown

	mu   sync.Mutex
	back *lease // what was put back and is read first; nil: nothing
	n    int64  // bytes that came from r
	err  error  // why it ended; io.EOF at the end
	shut bool
}

func newSource(ctx context.Context, r io.Reader, size int64) *source {
	return &source{ctx: ctx, r: r, size: size}
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.shut:
		return 0, errCut
	case s.back != nil:
		return s.readBack(p), nil
	case s.err == io.EOF:
		return 0, io.EOF
	case s.err != nil:
		return 0, errCut
	}
	n, err := s.read(p)
	s.n += int64(n)
	if err != nil && err != io.EOF {
		s.err, err = err, errCut
	} else if err == io.EOF {
		s.err = err
	}
	return n, err
}

func (s *source) read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	if s.size < 0 {
		return s.r.Read(p)
	}
	left := s.size - s.n
	n := 0
	var err error
	if left > 0 {
		n, err = s.r.Read(p[:min(int64(len(p)), left)])
	}
	if err == nil && int64(n) == left {
		// A server stores the object as soon as it has the announced number
		// of bytes, so the last ones wait until the end is certain.
		err = atEnd(s.r)
	}
	switch {
	case err == io.EOF && int64(n) != left:
		return n, errSize
	case err != nil && err != io.EOF:
		return 0, err
	}
	return n, err
}

// putBack lets what was read of s be read once more. Its memory is free as soon
// as it was.
func (s *source) putBack(p *part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back = &lease{part: p}
	s.dropBack()
}

func (s *source) readBack(p []byte) int {
	n, _ := s.back.Read(p) // of memory
	s.dropBack()
	return n
}

// dropBack frees what was put back once it was read, or where nobody will.
func (s *source) dropBack() {
	if s.back != nil && (s.shut || s.back.start == s.back.part.size) {
		s.back.part.release()
		s.back = nil
	}
}

// atEnd returns io.EOF if r has ended and errSize if it goes on.
func atEnd(r io.Reader) error {
	var one [1]byte
	for {
		n, err := r.Read(one[:])
		if n > 0 {
			return errSize
		}
		if err != nil {
			return err
		}
	}
}

// shutdown waits for a Read that is under way and lets no other begin: an HTTP
// transport may go on reading a request's body after it has answered.
func (s *source) shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = true
	s.dropBack()
}

// failure returns the error that ended the source early, nil if none did.
func (s *source) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == io.EOF {
		return nil
	}
	return s.err
}

// fill reads until p is full or r ends. Unlike io.ReadFull it passes r's own
// error on, so that an end and a cut stay different things.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}
