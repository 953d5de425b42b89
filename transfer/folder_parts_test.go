package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/fault"
)

// fours begins an upload in parts of 4 bytes.
func fours(t *testing.T, f *Folder, key string) string {
	t.Helper()
	id, err := f.Begin(t.Context(), key, 4)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func completeAs(t *testing.T, f *Folder, key, id, want string) {
	t.Helper()
	completed(t, f, key, id, want)
	if files := filesIn(t, f.dir); len(files) != 1 {
		t.Errorf("files: %v", files)
	}
}

func completed(t *testing.T, f *Folder, key, id, want string) {
	t.Helper()
	if _, err := f.Complete(t.Context(), key, id, partsOf(t, f, key, id)); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, f, key, 0, -1); string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// beside are the numbers of the parts that Complete has to copy.
func beside(t *testing.T, f *Folder, key, id string) (n []int) {
	t.Helper()
	parts, err := f.upload(key, id).besides()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		n = append(n, p.N)
	}
	return n
}

// Parts that come once go to their places, so that Complete copies nothing.
func TestFolderPartsInPlace(t *testing.T) {
	f := newTestFolder(t)
	id := fours(t, f, "k")
	u := f.upload("k", id)
	for _, n := range []int{3, 1, 2} {
		putPart(t, f, "k", id, n, []byte("aaaabbbbc")[(n-1)*4:min(n*4, 9)])
	}
	if got, err := os.ReadFile(u.data()); string(got) != "aaaabbbbc" || beside(t, f, "k", id) != nil {
		t.Errorf("data: %q, %v, beside it %v", got, err, beside(t, f, "k", id))
	}
	before, err := os.Stat(u.data())
	if err != nil {
		t.Fatal(err)
	}
	completeAs(t, f, "k", id, "aaaabbbbc")
	object, _ := f.paths("k")
	if after, err := os.Stat(object); err != nil || !os.SameFile(before, after) {
		t.Errorf("the object is another file: %v", err)
	}
}

// The last one of a part counts, whatever its size, and the first does where
// the second fails.
func TestFolderPartsAgain(t *testing.T) {
	f := newTestFolder(t)
	id := fours(t, f, "k")
	putPart(t, f, "k", id, 1, []byte("aaaa"))
	putPart(t, f, "k", id, 2, []byte("bbbb"))
	putPart(t, f, "k", id, 3, []byte("cccc"))
	putPart(t, f, "k", id, 1, []byte("xxxx"))
	putPart(t, f, "k", id, 3, []byte("z")) // shorter
	if _, err := f.PutPart(t.Context(), "k", id, 2, cutAfter(strings.NewReader("yy"), 2, io.ErrUnexpectedEOF), 4); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a part that is cut: %v", err)
	}
	if n := beside(t, f, "k", id); !slices.Equal(n, []int{1, 3}) {
		t.Errorf("beside: %v", n)
	}
	seen := partsOf(t, f, "k", id)
	putPart(t, f, "k", id, 1, []byte("vvvv")) // after they were looked at
	if err := f.upload("k", id).assemble(t.Context(), seen, 9); !errors.Is(err, errParts) {
		t.Errorf("other parts than those looked at: %v", err)
	}
	completeAs(t, f, "k", id, "vvvvbbbbz")
}

// What a write that was cut left in a place does not show: neither where the
// part comes again nor behind the end.
func TestFolderPartsAfterCuts(t *testing.T) {
	f := newTestFolder(t)
	id := fours(t, f, "k")
	for _, n := range []int{1, 2, 5} {
		if _, err := f.PutPart(t.Context(), "k", id, n, cutAfter(strings.NewReader("junk"), 3, io.ErrUnexpectedEOF), 4); err == nil {
			t.Error("taken")
		}
	}
	if parts := partsOf(t, f, "k", id); len(parts) > 0 {
		t.Errorf("parts: %v", parts)
	}
	putPart(t, f, "k", id, 1, []byte("aaaa"))
	putPart(t, f, "k", id, 2, []byte("b"))
	if n := beside(t, f, "k", id); n != nil {
		t.Errorf("beside: %v", n)
	}
	completeAs(t, f, "k", id, "aaaab")
}

// A part does not reach into the place of the next one.
func TestFolderPartsTooLarge(t *testing.T) {
	f := newTestFolder(t)
	id := fours(t, f, "k")
	putPart(t, f, "k", id, 2, []byte("bbbb"))
	for _, size := range []int64{-1, 5} {
		for range 2 { // in its place, and beside
			if _, err := f.PutPart(t.Context(), "k", id, 1, strings.NewReader("aaaaX"), size); !errors.Is(err, errPartSize) {
				t.Errorf("size %d: %v", size, err)
			}
			putPart(t, f, "k", id, 1, []byte("aaaa"))
		}
	}
	completeAs(t, f, "k", id, "aaaabbbb")
}

// Parts that do not lie next to each other are no object: a hole is named, and
// nothing is lost by asking.
func TestFolderPartsHoles(t *testing.T) {
	f := newTestFolder(t)
	id := fours(t, f, "k")
	putPart(t, f, "k", id, 1, []byte("aaaa"))
	putPart(t, f, "k", id, 3, []byte("cccc"))
	there := partsOf(t, f, "k", id)
	made := []Part{there[0], {N: 2, Size: 4, Tag: there[0].Tag}, there[1]}
	made[2].N = 3
	for _, parts := range [][]Part{there, made} {
		if _, err := f.Complete(t.Context(), "k", id, parts); !errors.Is(err, errParts) {
			t.Errorf("%v: %v", parts, err)
		}
	}
	putPart(t, f, "k", id, 2, []byte("b"))
	if _, err := f.Complete(t.Context(), "k", id, partsOf(t, f, "k", id)); !errors.Is(err, errParts) {
		t.Errorf("a short one in the middle: %v", err)
	}
	wantNothing(t, f, "k")
	putPart(t, f, "k", id, 2, []byte("bbbb"))
	completeAs(t, f, "k", id, "aaaabbbbcccc")
}

// What Complete does not take is cut off, and forgotten before: where it gets
// no further, those parts are missing and not full of zeros.
func TestFolderPartsCutOff(t *testing.T) {
	f := newTestFolder(t)
	id := fours(t, f, "k")
	for n, text := range []string{"aaaa", "bbbb", "cccc"} {
		putPart(t, f, "k", id, n+1, []byte(text))
	}
	putPart(t, f, "k", id, 3, []byte("dddd")) // beside
	u := f.upload("k", id)
	if err := u.assemble(t.Context(), partsOf(t, f, "k", id)[:2], 8); err != nil { // and then it was killed
		t.Fatal(err)
	}
	if parts := partsOf(t, f, "k", id); len(parts) != 2 {
		t.Errorf("parts: %v", parts)
	}
	putPart(t, f, "k", id, 3, []byte("eeee"))
	completeAs(t, f, "k", id, "aaaabbbbeeee")
}

// slowPart is a part under way: its first bytes are written, and what comes
// next is sent.
func slowPart(t *testing.T, f *Folder, key, id string, n int, first string) (next chan<- string, done <-chan error) {
	t.Helper()
	more, began, end := make(chan string), make(chan struct{}), make(chan error, 1)
	asked := false
	rest := readerFunc(func(p []byte) (int, error) {
		if !asked {
			asked = true
			close(began)
		}
		text, ok := <-more
		if !ok {
			return 0, io.EOF
		}
		return copy(p, text), nil
	})
	go func() {
		_, err := f.PutPart(context.WithoutCancel(t.Context()), key, id, n, io.MultiReader(strings.NewReader(first), rest), -1)
		end <- err
	}()
	<-began
	return more, end
}

// Of two at the same time the one that ends last counts, whole.
func TestFolderPartsAtOnce(t *testing.T) {
	for _, last := range []string{"in place", "beside"} {
		f := newTestFolder(t)
		id := fours(t, f, "k")
		next1, done1 := slowPart(t, f, "k", id, 1, "aa")
		next2, done2 := slowPart(t, f, "k", id, 1, "bb")
		first, second, want := next1, next2, "bbBB"
		doneFirst, doneSecond, one, two := done1, done2, "AA", "BB"
		if last == "in place" {
			first, second, want = next2, next1, "aaAA"
			doneFirst, doneSecond, one, two = done2, done1, "BB", "AA"
		}
		first <- one
		close(first)
		err := <-doneFirst
		second <- two
		close(second)
		if err := errors.Join(err, <-doneSecond); err != nil {
			t.Fatal(err)
		}
		completeAs(t, f, "k", id, want)
	}
}

// Whoever still writes when an upload is completed does not write into the
// object.
func TestFolderPartsLate(t *testing.T) {
	f := newTestFolder(t)
	id := fours(t, f, "k")
	next, done := slowPart(t, f, "k", id, 1, "aa")
	behind, doneBehind := slowPart(t, f, "k", id, 2, "cc")
	putPart(t, f, "k", id, 1, []byte("bbbb"))
	completeAs(t, f, "k", id, "bbbb")
	for _, late := range []struct {
		next chan<- string
		done <-chan error
	}{{next, done}, {behind, doneBehind}} {
		late.next <- "AA"
		close(late.next)
		if err := <-late.done; !errors.Is(err, errNoUpload) {
			t.Errorf("the late one: %v", err)
		}
	}
	if got := readAll(t, f, "k", 0, -1); string(got) != "bbbb" {
		t.Errorf("the object is %q", got)
	}
	if len(f.places) > 0 {
		t.Errorf("places: %v", f.places)
	}
}

// After a Complete that failed on the way nobody goes on where it has been at
// work.
func TestFolderPartsEvicted(t *testing.T) {
	f := newTestFolder(t)
	id := fours(t, f, "k")
	next, done := slowPart(t, f, "k", id, 1, "aa")
	putPart(t, f, "k", id, 1, []byte("bbbb"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Complete(ctx, "k", id, partsOf(t, f, "k", id)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	next <- "AA"
	close(next)
	if err := <-done; !errors.Is(err, errParts) {
		t.Errorf("the late one: %v", err)
	}
	completeAs(t, f, "k", id, "bbbb")
}

// What the index does not have whole is not there.
func TestFolderIndexTorn(t *testing.T) {
	f := newTestFolder(t)
	id := fours(t, f, "k")
	putPart(t, f, "k", id, 1, []byte("aaaa"))
	putPart(t, f, "k", id, 2, []byte("bbbb"))
	name := f.upload("k", id).index()
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(whole) {
		torn := bytes.Clone(whole)
		torn[i]++
		if err := errors.Join(os.WriteFile(name, torn, 0o600)); err != nil {
			t.Fatal(err)
		}
		want := 2 - i/indexEntry // the other one
		if parts := partsOf(t, f, "k", id); len(parts) != 1 || parts[0].N != want {
			t.Errorf("byte %d: %v", i, parts)
		}
		if err := os.WriteFile(name, whole[:i], 0o600); err != nil {
			t.Fatal(err)
		}
		if parts := partsOf(t, f, "k", id); len(parts) != i/indexEntry {
			t.Errorf("%d bytes: %v", i, parts)
		}
	}
	putPart(t, f, "k", id, 2, []byte("cccc"))
	completeAs(t, f, "k", id, "aaaacccc")
}

func TestFolderUploadIDs(t *testing.T) {
	f := newTestFolder(t)
	good := fours(t, f, "k")
	id, _, _ := strings.Cut(good, ".")
	for _, bad := range []string{"", ".", id, id + ".", id + ".0", id + ".-4", id + ".04", id + ".+4", id + ".4/..", "../" + good, id + ".9223372036854775807"} {
		if _, ok := partSizeIn(bad); ok {
			t.Errorf("%q is an id", bad)
		}
		if _, err := f.Parts(t.Context(), "k", bad); !isKind(err, fault.NotFound) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, size := range []int64{0, -1, 1 << 62} {
		if _, err := f.Begin(t.Context(), "k", size); !errors.Is(err, errPartSize) {
			t.Errorf("parts of %d bytes: %v", size, err)
		}
	}
}
