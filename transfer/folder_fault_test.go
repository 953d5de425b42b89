//go:build unix

package transfer

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/minigate/minigate/internal/fault"
)

// limitedDir names the folder that a process of its own uses, whose files the
// system lets grow to fileLimit only.
const (
	limitedDir = "MINIGATE_TEST_LIMITED_DIR"
	fileLimit  = 64 << 10
)

// TestFolderFileLimit has the system refuse a write in the middle of a file, as
// it does where a disk is full, whoever runs the tests.
func TestFolderFileLimit(t *testing.T) {
	if dir := os.Getenv(limitedDir); dir != "" {
		testFolderFileLimit(t, dir)
		return
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFolderFileLimit$", "-test.v")
	child.Env = append(os.Environ(), limitedDir+"="+t.TempDir())
	out, err := child.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFolderFileLimit")) {
		t.Errorf("%v\n%s", err, out)
	}
}

func testFolderFileLimit(t *testing.T, dir string) {
	signal.Ignore(syscall.SIGXFSZ) // or the write ends the process
	limitFiles(t, syscall.Rlimit{Cur: fileLimit, Max: fileLimit})
	f, err := NewFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // its process ends
	for _, size := range []int64{-1, 2 * fileLimit} {
		_, err := f.Put(t.Context(), "large", bytes.NewReader(random(2*fileLimit)), size)
		if !isKind(err, fault.NoSpace) || !errors.Is(err, syscall.EFBIG) {
			t.Errorf("size %d: %v", size, err)
		}
		wantNothing(t, f, "large")
	}
	if files := filesIn(t, dir); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
	if _, err := f.Put(t.Context(), "small", bytes.NewReader(random(fileLimit)), -1); err != nil {
		t.Errorf("what fits: %v", err)
	}
	testPartsFileLimit(t, f)
}

// testPartsFileLimit has the system refuse writes in the middle of a part, in
// the index and in Complete: what was there before stays, and can be gone on
// with.
func testPartsFileLimit(t *testing.T, f *Folder) {
	full := func(name string, err error) {
		t.Helper()
		if !isKind(err, fault.NoSpace) || !errors.Is(err, syscall.EFBIG) {
			t.Errorf("%s: %v", name, err)
		}
	}
	const size = fileLimit / 4 * 3
	data := random(fileLimit)
	id, err := f.Begin(t.Context(), "middle", size)
	if err != nil {
		t.Fatal(err)
	}
	putPart(t, f, "middle", id, 1, data[:size])
	_, err = f.PutPart(t.Context(), "middle", id, 2, bytes.NewReader(random(size)), size)
	full("in the middle", err)
	if parts := partsOf(t, f, "middle", id); len(parts) != 1 {
		t.Errorf("parts: %v", parts)
	}
	putPart(t, f, "middle", id, 2, data[size:])
	completed(t, f, "middle", id, string(data))

	id = fours(t, f, "index")
	putPart(t, f, "index", id, 1, []byte("aaaa"))
	_, err = f.PutPart(t.Context(), "index", id, fileLimit/indexEntry+1, strings.NewReader("zzzz"), 4)
	full("in the index", err)
	completed(t, f, "index", id, "aaaa")

	id = fours(t, f, "complete")
	putPart(t, f, "complete", id, 1, []byte("aaaa"))
	putPart(t, f, "complete", id, 2, []byte("bb"))
	putPart(t, f, "complete", id, 1, []byte("cccc")) // beside
	seen := partsOf(t, f, "complete", id)
	limitFiles(t, syscall.Rlimit{Cur: 0, Max: fileLimit})
	_, err = f.Complete(t.Context(), "complete", id, seen)
	limitFiles(t, syscall.Rlimit{Cur: fileLimit, Max: fileLimit})
	full("in Complete", err)
	if parts := partsOf(t, f, "complete", id); !slices.Equal(parts, seen) {
		t.Errorf("parts: %v, want %v", parts, seen)
	}
	wantNothing(t, f, "complete")
	completed(t, f, "complete", id, "ccccbb")
}

// limitFiles has the system let files of this process grow so far only.
func limitFiles(t *testing.T, limit syscall.Rlimit) {
	t.Helper()
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
}

// What the file system answers reaches the client as a status and a sentence,
// and nothing is kept.
func TestFolderRefusesUploads(t *testing.T) {
	for errno, want := range map[syscall.Errno]struct {
		status int
		code   string
	}{
		syscall.ENOSPC: {http.StatusInsufficientStorage, "storage_full"},
		syscall.EDQUOT: {http.StatusInsufficientStorage, "storage_full"},
		syscall.EROFS:  {http.StatusServiceUnavailable, "storage_read_only"},
		syscall.EIO:    {http.StatusServiceUnavailable, "storage_unavailable"},
		syscall.EMFILE: {http.StatusServiceUnavailable, "storage_unavailable"},
		syscall.EACCES: {http.StatusServiceUnavailable, "storage_unavailable"},
	} {
		h := newTestHouse(t)
		folder := h.store.(*Folder)
		folder.open = failing(errno)
		a := h.upload("", formOf(field{"f", "a.txt", "hello"}))
		if a.StatusCode != want.status || a.code() != want.code || a.Header.Get("Retry-After") == "" {
			t.Errorf("%v: %v, want %v", errno, a, want)
		}
		if strings.Contains(a.body, folder.dir) {
			t.Errorf("%v: tells where files are: %v", errno, a)
		}
		h.wantEmpty()
		folder.open = os.OpenFile
		if f := h.keep("a.txt", "hello"); f.ID == "" {
			t.Errorf("%v: no upload afterwards", errno)
		}
	}
}

// A disk that is full, or can only be read, says so at every step of an upload
// in parts, and takes nothing away that was there: once it has room, the upload
// goes on.
func TestFolderRefusesParts(t *testing.T) {
	for name, tt := range map[string]struct {
		open   opener
		status int
		code   string
	}{
		"no room to write": {openFull, http.StatusInsufficientStorage, "storage_full"},
		"no room to open":  {failing(syscall.ENOSPC), http.StatusInsufficientStorage, "storage_full"},
		"read-only":        {failing(syscall.EROFS), http.StatusServiceUnavailable, "storage_read_only"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHouse(t)
			folder := h.store.(*Folder)
			u := h.begin(`{"size":10,"part_size":4}`)
			u.mustPart(1, "aaaa")
			// refused wants step to fail while files of that name cannot be written,
			// and so many parts to be there afterwards.
			refused := func(file string, parts int, step func() answer) {
				t.Helper()
				folder.open = func(name string, flag int, mode fs.FileMode) (*os.File, error) {
					if ok, _ := filepath.Match(filepath.Join(folder.dir, file), name); ok {
						return tt.open(name, flag, mode)
					}
					return os.OpenFile(name, flag, mode)
				}
				if a := step(); a.StatusCode != tt.status || a.code() != tt.code || a.Header.Get("Retry-After") == "" || strings.Contains(a.body, folder.dir) {
					t.Errorf("%s: %v", file, a)
				}
				folder.open = os.OpenFile
				if s := u.status(); len(s.Parts) != parts || s.File != nil {
					t.Errorf("%s: then %+v", file, s)
				}
			}
			part := func(n int, text string) func() answer { return func() answer { return u.part(n, text) } }
			refused("parts/*/*/data", 1, part(2, "bbbb"))
			refused("parts/*/*/index", 1, part(2, "bbbb"))
			refused("tmp/*", 1, part(1, "xxxx"))
			u.mustPart(2, "bbbb")
			u.mustPart(3, "cc")
			u.mustPart(1, "dddd")
			refused("parts/*/*/data", 3, u.complete)
			if f := h.decode(u.complete()); h.do("GET", f.URL, nil).body != "ddddbbbbcc" {
				t.Errorf("%+v", f)
			}
		})
	}
}

// An upload in parts that cannot begin leaves nothing.
func TestFolderRefusesToBegin(t *testing.T) {
	for errno, code := range map[syscall.Errno]string{syscall.ENOSPC: "storage_full", syscall.EROFS: "storage_read_only"} {
		for _, file := range []string{"data", "index"} {
			h := newTestHouse(t)
			folder := h.store.(*Folder)
			folder.open = func(name string, flag int, mode fs.FileMode) (*os.File, error) {
				if filepath.Base(name) == file {
					return failing(errno)(name, flag, mode)
				}
				return os.OpenFile(name, flag, mode)
			}
			if a := h.do("POST", "/files/uploads", strings.NewReader(`{"size":10}`), "Content-Type", "application/json"); a.code() != code {
				t.Errorf("%v of %s: %v", errno, file, a)
			}
			h.wantEmpty()
		}
	}
}
