package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

func TestBuffersFill(t *testing.T) {
	b := newBuffers(2 * partSize)
	data := random(partSize + 7)
	r := iotest.HalfReader(bytes.NewReader(data))
	first, err := b.fill(t.Context(), r)
	if err != nil || first.size != partSize {
		t.Fatalf("first part: %v", err)
	}
	second, err := b.fill(t.Context(), r)
	if err != io.EOF || second.size != 7 {
		t.Fatalf("second part: %v", err)
	}
	got, err := io.ReadAll(io.MultiReader(&lease{part: first}, &lease{part: second}))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d other bytes, %v", len(got), err)
	}
	first.release()
	second.release()
	if b.spare != 2*partChunks {
		t.Errorf("%d chunks are back", b.spare)
	}
}

func TestBuffersGiveBackOnError(t *testing.T) {
	b := newBuffers(partSize)
	want := errors.New("cut")
	for range 3 {
		if _, err := b.fill(t.Context(), cutAfter(bytes.NewReader(random(chunkSize*3)), chunkSize*2, want)); err != want {
			t.Fatal(err)
		}
		if _, ok, err := b.fillNow(cutAfter(bytes.NewReader(random(10)), 5, want), 10); !ok || err != want {
			t.Fatal(ok, err)
		}
	}
	if b.spare != partChunks || len(b.filling) != 0 {
		t.Errorf("%d chunks back, %d filling", b.spare, len(b.filling))
	}
}

// Slow uploads that together need far more than there is must all get
// through, though each could hold what the others wait for.
func TestBuffersNeverDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBuffers(partSize + partSize/2)
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				slow := readerFunc(func(p []byte) (int, error) {
					time.Sleep(time.Millisecond) // of synctest's clock
					return len(p), nil
				})
				p, err := b.fill(t.Context(), slow)
				if err != nil {
					t.Error(err)
					return
				}
				p.release()
			})
		}
		wg.Wait()
		if b.spare != partChunks+partChunks/2 {
			t.Errorf("%d chunks are back", b.spare)
		}
	})
}

func TestBuffersWaitLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBuffers(partSize)
		p, err := b.fill(t.Context(), bytes.NewReader(make([]byte, partSize)))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, _ := b.fillNow(bytes.NewReader(nil), 1); ok {
			t.Error("memory out of nothing")
		}
		if _, err := b.fill(t.Context(), bytes.NewReader([]byte("x"))); !errors.Is(err, errBusy) {
			t.Errorf("with no memory: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.fill(ctx, bytes.NewReader([]byte("x"))); err != context.Canceled {
			t.Errorf("canceled: %v", err)
		}
		p.release()
		p, err = b.fill(t.Context(), bytes.NewReader([]byte("x")))
		if err != io.EOF {
			t.Errorf("with memory: %v", err)
		}
		p.release()
	})
}

// A transport may read on after its request has ended; the memory belongs to
// somebody else by then.
func TestLeaseEnds(t *testing.T) {
	b := newBuffers(partSize)
	p, err := b.fill(t.Context(), bytes.NewReader(random(1000)))
	if err != io.EOF {
		t.Fatal(err)
	}
	l := &lease{part: p}
	if _, err := l.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(l); err != nil || !bytes.Equal(got, random(1000)) {
		t.Fatalf("after Seek: %d bytes, %v", len(got), err)
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		for { // until the lease ends
			if _, err := l.Seek(0, io.SeekStart); err != nil {
				return
			}
			_, _ = l.Read(make([]byte, 100))
		}
	})
	l.end()
	p.release()
	next, err := b.fill(t.Context(), bytes.NewReader(random(1000))) // into the same memory
	if err != io.EOF {
		t.Fatal(err)
	}
	reader.Wait()
	next.release()
	if _, err := l.Read(make([]byte, 1)); err != errCut {
		t.Errorf("Read after the end: %v", err)
	}
}
