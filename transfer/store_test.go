package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/testdeps"
)

func newTestFolder(t testing.TB) *Folder {
	t.Helper()
	f, err := NewFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func newTestS3(t testing.TB, srv testdeps.S3, change ...func(*S3Settings)) *S3 {
	t.Helper()
	o := S3Settings{
		Endpoint: srv.Endpoint, Region: srv.Region, Bucket: srv.Bucket,
		AccessKey: srv.AccessKey, SecretKey: settings.Secret(srv.SecretKey), ConditionalWrites: true, SignContent: true,
	}
	for _, f := range change {
		f(&o)
	}
	s, err := NewS3(o, 3*partSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// eachStore runs test on every Store that ships.
func eachStore(t *testing.T, test func(t *testing.T, s Store)) {
	t.Run("folder", func(t *testing.T) { test(t, newTestFolder(t)) })
	t.Run("s3", func(t *testing.T) { test(t, newTestS3(t, testdeps.MinIO(t))) })
}

// random returns n bytes that are the same each time.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

func isKind(err error, kind fault.Kind) bool {
	e, ok := errors.AsType[*fault.Error](err)
	return ok && e.Kind == kind
}

func readAll(t *testing.T, s Store, key string, offset, length int64) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), key, offset, length)
	if err != nil {
		t.Fatalf("Open(%d, %d): %v", offset, length, err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return got
}

func wantNothing(t *testing.T, s Store, key string) {
	t.Helper()
	if n, err := s.Stat(t.Context(), key); !isKind(err, fault.NotFound) {
		t.Errorf("Stat = %d, %v; want not found", n, err)
	}
	r, err := s.Open(t.Context(), key, 0, -1)
	if err == nil {
		_ = r.Close()
	}
	if !isKind(err, fault.NotFound) {
		t.Errorf("Open: %v; want not found", err)
	}
}

func TestStore(t *testing.T) {
	eachStore(t, func(t *testing.T, s Store) {
		if err := s.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Run("sizes", func(t *testing.T) { testStoreSizes(t, s) })
		t.Run("keys", func(t *testing.T) { testStoreKeys(t, s) })
		t.Run("ranges", func(t *testing.T) { testStoreRanges(t, s) })
		t.Run("taken", func(t *testing.T) { testStoreTaken(t, s) })
		t.Run("torn", func(t *testing.T) { testStoreTorn(t, s) })
		t.Run("wrong size", func(t *testing.T) { testStoreWrongSize(t, s) })
		t.Run("delete", func(t *testing.T) { testStoreDelete(t, s) })
		t.Run("list", func(t *testing.T) { testStoreList(t, s) })
		t.Run("canceled", func(t *testing.T) { testStoreCanceled(t, s) })
	})
}

func testStoreSizes(t *testing.T, s Store) {
	data := random(2*partSize + 12345)
	for name, n := range map[string]int{
		"empty": 0, "one": 1, "chunk": chunkSize, "chunk+1": chunkSize + 1, "part-1": partSize - 1,
		"part": partSize, "part+1": partSize + 1, "two parts": 2 * partSize, "more": len(data),
	} {
		for _, known := range []bool{true, false} {
			size, key := int64(-1), "size/"+name
			if known {
				size, key = int64(n), key+"/known"
			}
			written, err := s.Put(t.Context(), key, iotest.HalfReader(bytes.NewReader(data[:n])), size)
			if err != nil || written != int64(n) {
				t.Fatalf("%s, known %v: Put = %d, %v", name, known, written, err)
			}
			if got, err := s.Stat(t.Context(), key); err != nil || got != int64(n) {
				t.Errorf("%s, known %v: Stat = %d, %v", name, known, got, err)
			}
			if got := readAll(t, s, key, 0, -1); sha256.Sum256(got) != sha256.Sum256(data[:n]) {
				t.Errorf("%s, known %v: %d other bytes came back", name, known, len(got))
			}
		}
	}
}

func testStoreKeys(t *testing.T, s Store) {
	keys := []string{"plain", "a/b", "a/b/c.txt", "中文/文件 名.jpg", "emoji/👨‍👩‍👧", "sp ace/+%2F?#&=", "long/" + strings.Repeat("k", 145), "A/B", "a/é", "a/e\u0301"}
	for _, key := range keys {
		if _, err := s.Put(t.Context(), key, strings.NewReader(key), -1); err != nil {
			t.Fatalf("%q: %v", key, err)
		}
	}
	for _, key := range keys {
		if got := readAll(t, s, key, 0, -1); string(got) != key {
			t.Errorf("%q has the bytes of %q", key, got)
		}
	}
}

func testStoreRanges(t *testing.T, s Store) {
	const text = "0123456789"
	if _, err := s.Put(t.Context(), "range", strings.NewReader(text), -1); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		offset, length int64
		want           string
	}{{0, -1, text}, {0, 10, text}, {0, 1, "0"}, {3, 4, "3456"}, {9, 1, "9"}, {4, -1, "456789"}, {5, 0, ""}, {10, 0, ""}} {
		if got := readAll(t, s, "range", tt.offset, tt.length); string(got) != tt.want {
			t.Errorf("%d+%d = %q, want %q", tt.offset, tt.length, got, tt.want)
		}
	}
	for _, bad := range [][2]int64{{0, 11}, {9, 2}, {10, 1}, {10, -1}, {11, -1}, {11, 0}, {-1, 2}} {
		r, err := s.Open(t.Context(), "range", bad[0], bad[1])
		if err == nil {
			_ = r.Close()
		}
		if !isKind(err, fault.Range) {
			t.Errorf("%v: %v, want a range fault", bad, err)
		}
	}
}

func testStoreTaken(t *testing.T, s Store) {
	for i, size := range []int64{-1, 3} {
		_, err := s.Put(t.Context(), "taken", strings.NewReader("one"), size)
		if i == 0 && err != nil || i > 0 && !isKind(err, fault.Conflict) {
			t.Errorf("Put %d: %v", i, err)
		}
	}
	if _, err := s.Put(t.Context(), "taken", bytes.NewReader(random(partSize+1)), -1); !isKind(err, fault.Conflict) {
		t.Errorf("Put of parts: %v", err)
	}
	if got := readAll(t, s, "taken", 0, -1); string(got) != "one" {
		t.Errorf("replaced by %d bytes", len(got))
	}
}

// cutAfter ends r with err after n bytes.
func cutAfter(r io.Reader, n int64, err error) io.Reader {
	return io.MultiReader(io.LimitReader(r, n), iotest.ErrReader(err))
}

func testStoreTorn(t *testing.T, s Store) {
	data := random(2*partSize + 100)
	for _, cut := range []int64{0, 1, 1000, chunkSize, partSize - 1, partSize, partSize + 1, int64(len(data)) - 1, int64(len(data))} {
		for _, size := range []int64{-1, int64(len(data))} {
			for _, cause := range []error{io.ErrUnexpectedEOF, io.ErrClosedPipe} {
				_, err := s.Put(t.Context(), "torn", cutAfter(bytes.NewReader(data), cut, cause), size)
				if !errors.Is(err, cause) {
					t.Errorf("cut %d, size %d: %v, want the reader's error", cut, size, err)
				}
				wantNothing(t, s, "torn")
			}
		}
	}
	if _, err := s.Put(t.Context(), "torn", bytes.NewReader(data), -1); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func testStoreWrongSize(t *testing.T, s Store) {
	for _, n := range []int{10, partSize + 10} {
		for _, diff := range []int{-1, 1, 5, chunkSize} {
			_, err := s.Put(t.Context(), "wrong", bytes.NewReader(random(n+max(diff, -n))), int64(n))
			if !errors.Is(err, errSize) {
				t.Errorf("%d bytes announced as %d: %v", n+diff, n, err)
			}
			wantNothing(t, s, "wrong")
		}
	}
}

func testStoreDelete(t *testing.T, s Store) {
	if err := s.Delete(t.Context(), "never"); err != nil {
		t.Errorf("a key that never was: %v", err)
	}
	if _, err := s.Put(t.Context(), "deleted", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Delete(t.Context(), "deleted"); err != nil {
			t.Error(err)
		}
		wantNothing(t, s, "deleted")
	}
}

func testStoreCanceled(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	data := random(2 * partSize)
	r := io.MultiReader(bytes.NewReader(data), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }))
	if _, err := s.Put(ctx, "canceled", r, -1); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v", err)
	}
	wantNothing(t, s, "canceled")
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
