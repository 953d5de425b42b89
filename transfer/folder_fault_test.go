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
	limit := syscall.Rlimit{Cur: fileLimit, Max: fileLimit}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
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
		folder.create = func(name string) (*os.File, error) {
			return nil, &fs.PathError{Op: "open", Path: name, Err: errno}
		}
		a := h.upload("", formOf(field{"f", "a.txt", "hello"}))
		if a.StatusCode != want.status || a.code() != want.code || a.Header.Get("Retry-After") == "" {
			t.Errorf("%v: %v, want %v", errno, a, want)
		}
		if strings.Contains(a.body, folder.dir) {
			t.Errorf("%v: tells where files are: %v", errno, a)
		}
		h.wantEmpty()
		folder.create = createNew
		if f := h.keep("a.txt", "hello"); f.ID == "" {
			t.Errorf("%v: no upload afterwards", errno)
		}
	}
}
