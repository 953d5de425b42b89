package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
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
	b := newBuffers(2 * partSize)
	want := errors.New("cut")
	for range 3 {
		if _, err := b.fill(t.Context(), cutAfter(bytes.NewReader(random(chunkSize*3)), chunkSize*2, want)); err != want {
			t.Fatal(err)
		}
		if _, err := b.gather(cutAfter(bytes.NewReader(random(10)), 5, want)); err != want {
			t.Fatal(err)
		}
	}
	if b.spare != 2*partChunks || len(b.filling) != 0 || b.waiting != 0 {
		t.Errorf("%d chunks back, %d filling, %d waiting", b.spare, len(b.filling), b.waiting)
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
		if p, err := b.gather(strings.NewReader("x")); err != nil || p.chunks != nil {
			t.Errorf("memory out of nothing: %d chunks, %v", len(p.chunks), err)
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

func TestBuffersGather(t *testing.T) {
	b := newBuffers(3 * partSize)
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, partSize} {
		data := random(size)
		p, err := b.gather(newSource(t.Context(), iotest.HalfReader(bytes.NewReader(data)), int64(size)))
		if err != io.EOF || len(p.chunks) > max(1, (size+chunkSize-1)/chunkSize) {
			t.Fatalf("%d bytes: %v, %d chunks", size, err, len(p.chunks))
		}
		if got, err := io.ReadAll(&lease{part: p}); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %d others, %v", size, len(got), err)
		}
		p.release()
	}
	// A part is always left for who cannot do without.
	first, _ := b.gather(newSource(t.Context(), io.LimitReader(zeros{}, partSize), partSize))
	second, _ := b.gather(newSource(t.Context(), io.LimitReader(zeros{}, partSize), partSize))
	third, err := b.gather(newSource(t.Context(), io.LimitReader(zeros{}, partSize), partSize))
	if b.spare != partChunks || len(third.chunks) != 0 || err != nil {
		t.Errorf("%d chunks are left, %v", b.spare, err)
	}
	p, err := b.fill(t.Context(), bytes.NewReader(random(partSize)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*part{first, second, third, p} {
		p.release()
	}
}

// Who could do without memory takes no more, and gives back what it has, as soon
// as somebody waits for it: here since another one fills its part slowly.
func TestBuffersGatherYields(t *testing.T) {
	const fast = partSize - chunkSize - 100 // the rest comes byte by byte
	synctest.Test(t, func(t *testing.T) {
		b := newBuffers(3 * partSize)
		var wg sync.WaitGroup
		var yielded atomic.Int32 // one is enough
		for range 2 {
			wg.Go(func() {
				trickle := readerFunc(func([]byte) (int, error) { time.Sleep(time.Second); return 1, nil })
				p, err := b.gather(io.MultiReader(bytes.NewReader(make([]byte, fast)), io.LimitReader(trickle, 90)))
				if err == nil && p.size <= fast+2 {
					yielded.Add(1)
				} else if err != io.EOF {
					t.Errorf("%d bytes, %v", p.size, err)
				}
				p.release()
			})
		}
		synctest.Wait()
		more := make(chan struct{})
		wg.Go(func() {
			pause := readerFunc(func([]byte) (int, error) { <-more; return 0, io.EOF })
			p, err := b.fill(t.Context(), io.MultiReader(bytes.NewReader(make([]byte, 2*chunkSize+1)), pause))
			if err != io.EOF {
				t.Error(err)
				return
			}
			p.release()
		})
		synctest.Wait()
		if b.spare != partChunks-1 {
			t.Errorf("%d chunks are left", b.spare)
		}
		began := time.Now()
		p, err := b.fill(t.Context(), bytes.NewReader(make([]byte, partSize)))
		if err != nil || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err == nil {
			p.release()
		}
		close(more)
		wg.Wait()
		if b.spare != 3*partChunks || b.waiting != 0 || yielded.Load() == 0 {
			t.Errorf("%d chunks are back, %d wait, %d yielded", b.spare, b.waiting, yielded.Load())
		}
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
