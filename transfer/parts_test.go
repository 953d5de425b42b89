package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/minigate/minigate/internal/fault"
)

// TestStoreParts is the contract of uploads in parts.
func TestStoreParts(t *testing.T) {
	eachStore(t, func(t *testing.T, s Store) {
		for name, test := range map[string]func(t *testing.T, s Store){
			"any order": testPartsAnyOrder, "replaced": testPartsReplaced, "torn": testPartsTorn, "gone": testPartsGone,
			"wrong": testPartsWrong, "complete again": testPartsCompleteAgain, "complete at once": testPartsCompleteAtOnce,
			"taken": testPartsTaken, "many": testPartsMany, "canceled": testPartsCanceled, "numbers": testPartsNumbers,
		} {
			t.Run(name, func(t *testing.T) { test(t, s) })
		}
	})
}

func begin(t *testing.T, s Store, key string) string {
	t.Helper()
	id, err := s.Begin(t.Context(), key, minPart)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func putPart(t *testing.T, s Store, key, id string, n int, data []byte) Part {
	t.Helper()
	p, err := s.PutPart(t.Context(), key, id, n, bytes.NewReader(data), int64(len(data)))
	if err != nil || p.N != n || p.Size != int64(len(data)) || p.Tag == "" {
		t.Fatalf("part %d: %+v, %v", n, p, err)
	}
	return p
}

func partsOf(t *testing.T, s Store, key, id string) []Part {
	t.Helper()
	parts, err := s.Parts(t.Context(), key, id)
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

func testPartsAnyOrder(t *testing.T, s Store) {
	data := random(2*minPart + 1234)
	id := begin(t, s, "order")
	if parts := partsOf(t, s, "order", id); len(parts) != 0 {
		t.Errorf("at the beginning: %v", parts)
	}
	var wg sync.WaitGroup
	for _, n := range []int{3, 1, 2} {
		wg.Go(func() {
			piece := data[(n-1)*minPart : min(n*minPart, len(data))]
			size := int64(len(piece))
			if n == 2 {
				size = -1 // unknown
			}
			p, err := s.PutPart(t.Context(), "order", id, n, iotest.HalfReader(bytes.NewReader(piece)), size)
			if err != nil || p.Size != int64(len(piece)) {
				t.Errorf("part %d: %+v, %v", n, p, err)
			}
		})
	}
	wg.Wait()
	wantNothing(t, s, "order")
	parts := partsOf(t, s, "order", id)
	if len(parts) != 3 || parts[0].N != 1 || parts[1].Size != minPart || parts[2].Size != 1234 {
		t.Fatalf("parts: %+v", parts)
	}
	o, err := s.Complete(t.Context(), "order", id, parts)
	if err != nil || o.Size != int64(len(data)) {
		t.Fatalf("Complete: %+v, %v", o, err)
	}
	if got := readAll(t, s, "order", 0, -1); !bytes.Equal(got, data) {
		t.Errorf("%d other bytes came back", len(got))
	}
	if got := readAll(t, s, "order", minPart-2, 4); !bytes.Equal(got, data[minPart-2:minPart+2]) {
		t.Errorf("across two parts: %x", got)
	}
	for i := range 2 {
		if err := s.Abort(t.Context(), "order", id); err != nil {
			t.Errorf("Abort %d of a completed upload: %v", i, err)
		}
	}
	if n, err := s.Stat(t.Context(), "order"); err != nil || n != int64(len(data)) {
		t.Errorf("Abort of a completed upload took its object: %d, %v", n, err)
	}
}

func testPartsReplaced(t *testing.T, s Store) {
	data := random(minPart + 10)
	id := begin(t, s, "replaced")
	putPart(t, s, "replaced", id, 1, data[10:])
	first := putPart(t, s, "replaced", id, 2, []byte("first"))
	stale := partsOf(t, s, "replaced", id)
	second := putPart(t, s, "replaced", id, 2, []byte("other"))
	if first.Tag == second.Tag {
		t.Errorf("both are called %q", first.Tag)
	}
	if _, err := s.Complete(t.Context(), "replaced", id, stale); !errors.Is(err, errParts) {
		t.Errorf("Complete of a part that was replaced: %v", err)
	}
	wantNothing(t, s, "replaced")
	if _, err := s.Complete(t.Context(), "replaced", id, partsOf(t, s, "replaced", id)); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, s, "replaced", minPart, -1); string(got) != "other" {
		t.Errorf("the end is %q", got)
	}
}

// A part that is cut or has another size than announced is not kept, and does
// not touch the one before it.
func testPartsTorn(t *testing.T, s Store) {
	data := random(minPart)
	for _, before := range []bool{false, true} {
		id := begin(t, s, "torn part")
		want := 0
		if before {
			putPart(t, s, "torn part", id, 1, data[:100])
			want = 1
		}
		for _, cut := range []int64{0, 1, chunkSize, minPart - 1, minPart} {
			for _, size := range []int64{-1, minPart} {
				for _, cause := range []error{io.ErrUnexpectedEOF, io.ErrClosedPipe, errSum} {
					_, err := s.PutPart(t.Context(), "torn part", id, 1, cutAfter(bytes.NewReader(data), cut, cause), size)
					if !errors.Is(err, cause) {
						t.Errorf("cut %d, size %d: %v, want the reader's error", cut, size, err)
					}
				}
			}
		}
		for _, size := range []int64{minPart - 1, minPart + 1} {
			if _, err := s.PutPart(t.Context(), "torn part", id, 1, bytes.NewReader(data), size); !errors.Is(err, errSize) {
				t.Errorf("%d bytes announced as %d: %v", len(data), size, err)
			}
		}
		parts := partsOf(t, s, "torn part", id)
		if len(parts) != want || want == 1 && parts[0].Size != 100 {
			t.Errorf("parts: %+v, want %d", parts, want)
		}
		if err := s.Abort(t.Context(), "torn part", id); err != nil {
			t.Fatal(err)
		}
	}
}

func testPartsGone(t *testing.T, s Store) {
	id := begin(t, s, "gone")
	putPart(t, s, "gone", id, 1, []byte("x"))
	parts := partsOf(t, s, "gone", id)
	other := begin(t, s, "gone")
	deleted := begin(t, s, "deleted parts")
	putPart(t, s, "deleted parts", deleted, 1, []byte("x"))
	for i := range 2 {
		if err := s.Abort(t.Context(), "gone", id); err != nil {
			t.Fatalf("Abort %d: %v", i, err)
		}
		if err := s.Delete(t.Context(), "deleted parts"); err != nil {
			t.Fatalf("Delete %d: %v", i, err)
		}
	}
	if _, err := s.Parts(t.Context(), "deleted parts", deleted); !errors.Is(err, errNoUpload) {
		t.Errorf("Parts of a key that was deleted: %v", err)
	}
	if _, err := s.PutPart(t.Context(), "gone", id, 1, bytes.NewReader([]byte("x")), 1); !errors.Is(err, errNoUpload) {
		t.Errorf("PutPart: %v", err)
	}
	if _, err := s.Parts(t.Context(), "gone", id); !errors.Is(err, errNoUpload) {
		t.Errorf("Parts: %v", err)
	}
	if _, err := s.Complete(t.Context(), "gone", id, parts); !errors.Is(err, errNoUpload) {
		t.Errorf("Complete: %v", err)
	}
	wantNothing(t, s, "gone")
	if parts := partsOf(t, s, "gone", other); len(parts) != 0 {
		t.Errorf("another upload of the key has %v", parts)
	}
	if err := s.Abort(t.Context(), "gone", other); err != nil {
		t.Error(err)
	}
}

func testPartsWrong(t *testing.T, s Store) {
	id := begin(t, s, "wrong parts")
	defer func() { _ = s.Abort(context.WithoutCancel(t.Context()), "wrong parts", id) }()
	for _, n := range []int{0, -1, MaxParts + 1} {
		if _, err := s.PutPart(t.Context(), "wrong parts", id, n, bytes.NewReader(nil), 0); !errors.Is(err, errPartNumber) {
			t.Errorf("part %d: %v", n, err)
		}
	}
	one, two := putPart(t, s, "wrong parts", id, 1, random(minPart)), putPart(t, s, "wrong parts", id, 2, []byte("x"))
	for name, parts := range map[string][]Part{
		"none": nil, "a gap": {two}, "twice": {one, one}, "backwards": {two, one},
		"one that is missing": {one, two, {N: 3, Size: 1, Tag: "x"}}, "another tag": {one, {N: 2, Size: 1, Tag: one.Tag + "0"}},
	} {
		if o, err := s.Complete(t.Context(), "wrong parts", id, parts); !errors.Is(err, errParts) {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
		wantNothing(t, s, "wrong parts")
	}
	if _, err := s.Begin(t.Context(), "small", s.MinPart()-1); s.MinPart() > 1 && !isKind(err, fault.Invalid) {
		t.Errorf("smaller parts than MinPart: %v", err)
	}
}

func testPartsCompleteAgain(t *testing.T, s Store) {
	id := begin(t, s, "again")
	putPart(t, s, "again", id, 1, []byte("hello"))
	parts := partsOf(t, s, "again", id)
	for i := range 3 {
		o, err := s.Complete(t.Context(), "again", id, parts)
		if err != nil || o.Size != 5 {
			t.Errorf("Complete %d: %+v, %v", i, o, err)
		}
	}
	if _, err := s.PutPart(t.Context(), "again", id, 2, bytes.NewReader([]byte("x")), 1); !errors.Is(err, errNoUpload) {
		t.Errorf("PutPart after Complete: %v", err)
	}
	if got := readAll(t, s, "again", 0, -1); string(got) != "hello" {
		t.Errorf("%q", got)
	}
}

func testPartsCompleteAtOnce(t *testing.T, s Store) {
	data := random(minPart + 5)
	id := begin(t, s, "at once")
	putPart(t, s, "at once", id, 1, data[:minPart])
	putPart(t, s, "at once", id, 2, data[minPart:])
	parts := partsOf(t, s, "at once", id)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if o, err := s.Complete(t.Context(), "at once", id, parts); err != nil || o.Size != int64(len(data)) {
				t.Errorf("%+v, %v", o, err)
			}
		})
	}
	wg.Wait()
	if got := readAll(t, s, "at once", 0, -1); !bytes.Equal(got, data) {
		t.Errorf("%d other bytes", len(got))
	}
}

// An object of another upload is not taken for this one's.
func testPartsTaken(t *testing.T, s Store) {
	id := begin(t, s, "taken part")
	putPart(t, s, "taken part", id, 1, []byte("mine"))
	if _, err := s.Put(t.Context(), "taken part", bytes.NewReader([]byte("somebody else's")), -1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Complete(t.Context(), "taken part", id, partsOf(t, s, "taken part", id)); !isKind(err, fault.Conflict) {
		t.Errorf("Complete: %v", err)
	}
	if got := readAll(t, s, "taken part", 0, -1); string(got) != "somebody else's" {
		t.Errorf("replaced by %q", got)
	}
	if err := s.Abort(t.Context(), "taken part", id); err != nil {
		t.Error(err)
	}
}

// More parts than one page of S3's lists has are all found.
func testPartsMany(t *testing.T, s Store) {
	const count = 1003
	id := begin(t, s, "many")
	var wg sync.WaitGroup
	free := make(chan struct{}, 16)
	for n := count; n >= 1; n-- {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			if _, err := s.PutPart(t.Context(), "many", id, n, bytes.NewReader(fmt.Append(nil, n)), -1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	parts := partsOf(t, s, "many", id)
	if len(parts) != count || parts[0].N != 1 || parts[count-1].N != count || parts[count-1].Size != 4 {
		t.Errorf("%d parts", len(parts))
	}
	if err := s.Abort(t.Context(), "many", id); err != nil {
		t.Error(err)
	}
}

func testPartsCanceled(t *testing.T, s Store) {
	id := begin(t, s, "canceled part")
	ctx, cancel := context.WithCancel(t.Context())
	r := io.MultiReader(bytes.NewReader(random(chunkSize)), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }))
	if _, err := s.PutPart(ctx, "canceled part", id, 1, r, -1); !errors.Is(err, context.Canceled) {
		t.Errorf("PutPart: %v", err)
	}
	if parts := partsOf(t, s, "canceled part", id); len(parts) != 0 {
		t.Errorf("parts: %v", parts)
	}
	putPart(t, s, "canceled part", id, 1, []byte("x"))
	if _, err := s.Complete(ctx, "canceled part", id, partsOf(t, s, "canceled part", id)); !errors.Is(err, context.Canceled) {
		t.Errorf("Complete: %v", err)
	}
	if err := s.Abort(t.Context(), "canceled part", id); err != nil {
		t.Error(err)
	}
	wantNothing(t, s, "canceled part")
}

// The largest number there may be is taken, and an empty part is one.
func testPartsNumbers(t *testing.T, s Store) {
	id := begin(t, s, "numbers")
	putPart(t, s, "numbers", id, MaxParts, nil)
	if parts := partsOf(t, s, "numbers", id); len(parts) != 1 || parts[0].N != MaxParts || parts[0].Size != 0 {
		t.Errorf("parts: %v", parts)
	}
	if err := s.Abort(t.Context(), "numbers", id); err != nil {
		t.Error(err)
	}
}

// An upload goes on in another process.
func TestPartsRestart(t *testing.T) {
	dir := t.TempDir()
	first, err := NewFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	id, err := first.Begin(t.Context(), "k", 6)
	if err != nil {
		t.Fatal(err)
	}
	putPart(t, first, "k", id, 1, []byte("hello "))
	_ = first.Close()
	f, err := NewFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	putPart(t, f, "k", id, 2, []byte("world"))
	if _, err := f.Complete(t.Context(), "k", id, partsOf(t, f, "k", id)); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, f, "k", 0, -1); string(got) != "hello world" {
		t.Errorf("%q", got)
	}
	if files := filesIn(t, dir); len(files) != 1 {
		t.Errorf("files: %v", files)
	}
}

func TestSpans(t *testing.T) {
	for want, numbers := range map[string][]int{
		"": nil, "1": {1}, "1-3": {1, 2, 3}, "2, 4-5, 9": {2, 4, 5, 9},
		"1, 3, 5, 7, 9, 11, 13, 15, 17, 19, …": {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23},
	} {
		if got := spans(numbers); got != want {
			t.Errorf("spans(%v) = %q, want %q", numbers, got, want)
		}
	}
}
