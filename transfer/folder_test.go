package transfer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/minigate/minigate/internal/fault"
)

// filesIn lists all files below dir except the lock.
func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "lock" {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestFolderIsOneProcess(t *testing.T) {
	dir := t.TempDir()
	first, err := NewFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewFolder(dir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second one: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := NewFolder(dir)
	if err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	_ = again.Close()
}

func TestFolderReopen(t *testing.T) {
	dir := t.TempDir()
	f, err := NewFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Put(t.Context(), "kept", strings.NewReader("kept"), -1); err != nil {
		t.Fatal(err)
	}
	_, tmp := f.paths("half") // what a kill in the middle of a Put leaves
	if err := os.WriteFile(tmp, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	f, err = NewFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if got := readAll(t, f, "kept", 0, -1); string(got) != "kept" {
		t.Errorf("kept = %q", got)
	}
	wantNothing(t, f, "half")
	if files := filesIn(t, dir); len(files) != 1 {
		t.Errorf("files: %v", files)
	}
}

func TestFolderDeleteFreesHalfWritten(t *testing.T) {
	f := newTestFolder(t)
	_, tmp := f.paths("half")
	if err := os.WriteFile(tmp, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Delete(t.Context(), "half"); err != nil {
		t.Fatal(err)
	}
	if files := filesIn(t, f.dir); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
}

func TestFolderFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		open opener
		want fault.Kind
	}{
		"disk full":        {openFull, fault.NoSpace},
		"quota":            {failing(syscall.EDQUOT), fault.NoSpace},
		"read-only":        {failing(syscall.EROFS), fault.Unavailable},
		"too many files":   {failing(syscall.EMFILE), fault.Unavailable},
		"folder went away": {failing(syscall.ENOENT), fault.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			f := newTestFolder(t)
			f.open = tt.open
			if _, err := f.Put(t.Context(), "k", strings.NewReader("some bytes"), -1); !isKind(err, tt.want) {
				t.Errorf("Put: %v", err)
			}
			wantNothing(t, f, "k")
			if files := filesIn(t, f.dir); len(files) != 0 {
				t.Errorf("left: %v", files)
			}
		})
	}
}

func TestFolderPing(t *testing.T) {
	f := newTestFolder(t)
	if err := errors.Join(f.Ping(t.Context()), f.Ping(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(f.dir, "tmp")); err != nil {
		t.Fatal(err)
	}
	if err := f.Ping(t.Context()); !isKind(err, fault.Unavailable) {
		t.Errorf("without tmp: %v", err)
	}
}
