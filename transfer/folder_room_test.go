package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/minigate/minigate/internal/fault"
)

// The disk is not filled to the last byte, whichever way bytes come in.
func TestFolderLeavesRoom(t *testing.T) {
	f := newTestFolder(t)
	var free, looks atomic.Int64
	f.rooms.keepFree, f.rooms.free = 400, func(string) (int64, error) { looks.Add(1); return free.Load(), nil }
	free.Store(1000)
	h := newHouse(t, f, newTestFileLedger(t))
	h.upload("?size=600", formOf(field{"f", "a.txt", strings.Repeat("x", 600)}))
	u := h.begin(`{"size":601}`)
	for name, a := range map[string]answer{
		"a file": h.upload("?size=601", formOf(field{"f", "a.txt", strings.Repeat("x", 601)})),
		"a part": u.part(1, strings.Repeat("x", 601)),
	} {
		if a.StatusCode != http.StatusInsufficientStorage || a.code() != "storage_full" {
			t.Errorf("%s: %v", name, a)
		}
	}
	free.Store(1001)
	u.mustPart(1, strings.Repeat("x", 601))
	free.Store(0)
	if f := h.decode(u.complete()); f.Size != 601 { // no byte is written again
		t.Errorf("completed: %+v", f)
	}
	for _, size := range []int64{-1, 6 * roomStep} { // others write, too
		looks.Store(0)
		free.Store(400 + 6*roomStep)
		fills := readerFunc(func([]byte) (int, error) { free.Store(399); return 0, io.EOF })
		r := io.MultiReader(bytes.NewReader(random(3*roomStep)), fills, bytes.NewReader(random(3*roomStep)))
		if _, err := f.Put(t.Context(), "grows", r, size); !isKind(err, fault.NoSpace) || looks.Load() != 4 {
			t.Errorf("size %d: %v after %d looks", size, err, looks.Load())
		}
		wantNothing(t, f, "grows")
	}
	wantNoPromises(t, f)
	if n, err := freeBytes(f.dir); err != nil || n <= 0 {
		t.Errorf("the disk has %d free bytes, %v", n, err)
	}
	if s, err := OpenStore(Settings{Store: "folder", MinFree: 1 << 60}, t.TempDir()); err != nil {
		t.Error(err)
	} else {
		if _, err := s.Put(t.Context(), "k", strings.NewReader("x"), 1); !isKind(err, fault.NoSpace) {
			t.Errorf("min_free of an exabyte: %v", err)
		}
		_ = s.Close()
	}
}

// wantNoPromises wants nothing to be left of uploads that have ended.
func wantNoPromises(t *testing.T, f *Folder) {
	t.Helper()
	if f.rooms.promised != 0 {
		t.Errorf("%d bytes are promised", f.rooms.promised)
	}
}

// What uploads under way may still write counts, however little they have
// written, and no more once they have ended.
func TestFolderPromisesRoom(t *testing.T) {
	const keep, left = 400, 1000
	for name, tt := range map[string]struct{ announced, promised int64 }{
		"declared": {600, 600}, "unknown": {-1, roomStep},
		"part": {600, 600}, "part unknown": {-1, 4000}, "part again": {600, 600},
	} {
		t.Run(name, func(t *testing.T) {
			f := newTestFolder(t)
			id, err := f.Begin(t.Context(), "parts", 4000)
			if err != nil {
				t.Fatal(err)
			}
			put := func(r io.Reader) error { _, err := f.Put(t.Context(), "k", r, tt.announced); return err }
			if strings.HasPrefix(name, "part") {
				put = func(r io.Reader) error { _, err := f.PutPart(t.Context(), "parts", id, 1, r, tt.announced); return err }
			}
			if name == "part again" {
				putPart(t, f, "parts", id, 1, random(600))
			}
			f.rooms.keepFree, f.rooms.free = keep, func(string) (int64, error) { return keep + tt.promised + left, nil }
			for _, end := range []error{io.EOF, errors.New("torn")} {
				asked, more, done := make(chan struct{}), make(chan struct{}), make(chan error)
				pause := readerFunc(func([]byte) (int, error) { close(asked); <-more; return 0, end })
				go func() { done <- put(io.MultiReader(bytes.NewReader(random(600)), pause)) }()
				select {
				case <-asked:
				case err := <-done:
					t.Fatalf("not begun: %v", err)
				}
				if _, err := f.Put(t.Context(), "other", io.LimitReader(zeros{}, left+1), left+1); !isKind(err, fault.NoSpace) {
					t.Errorf("one byte too many: %v", err)
				}
				if _, err := f.Put(t.Context(), "other", io.LimitReader(zeros{}, left), left); err != nil {
					t.Errorf("what is left: %v", err)
				}
				close(more)
				if err := <-done; end == io.EOF && err != nil || end != io.EOF && err != end {
					t.Errorf("the slow one: %v", err)
				}
				wantNoPromises(t, f)
				for _, key := range []string{"k", "other"} {
					if err := f.Delete(t.Context(), key); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// Many uploads at once leave what is to stay free, and what was promised to one
// that said how large it is is there.
func TestFolderRoomForMany(t *testing.T) {
	const keep, each, fit = 1000, 4 << 20, 5
	f := newTestFolder(t)
	var used, taken atomic.Int64
	f.rooms.keepFree, f.rooms.free = keep, func(string) (int64, error) {
		// What was read and not written yet counts as well here, hence a half more.
		return keep + fit*each + each/2 - used.Load(), nil
	}
	var all sync.WaitGroup
	for i := range 3 * fit {
		all.Go(func() {
			r := readerFunc(func(p []byte) (int, error) { used.Add(int64(len(p))); return len(p), nil })
			n, err := f.Put(t.Context(), fmt.Sprint(i), io.LimitReader(r, each), each)
			switch {
			case err == nil:
				taken.Add(1)
			case n > 0 || !isKind(err, fault.NoSpace):
				t.Errorf("%d bytes, then %v", n, err)
			}
		})
	}
	all.Wait()
	if taken.Load() != fit || used.Load() != fit*each {
		t.Errorf("%d files with %d bytes, room is for %d", taken.Load(), used.Load(), fit)
	}
	wantNoPromises(t, f)
}

// What was written is promised no more, or it would count twice.
func TestFolderRoomIsWritten(t *testing.T) {
	const keep, ahead = 1000, 1 << 20 // that much may have been read and is not written yet
	f := newTestFolder(t)
	var used atomic.Int64
	f.rooms.keepFree, f.rooms.free = keep, func(string) (int64, error) { return keep + 2*roomStep + ahead - used.Load(), nil }
	r := readerFunc(func(p []byte) (int, error) { used.Add(int64(len(p))); return len(p), nil })
	if _, err := f.Put(t.Context(), "k", io.LimitReader(r, 2*roomStep), -1); err != nil {
		t.Error(err)
	}
	wantNoPromises(t, f)
}
