package testdeps

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// minioBinary returns the path of the MinIO server that the Makefile builds
// from the version pinned in minio/go.mod, building it where it is missing or
// old. The first build takes minutes; test processes that want it at the same
// time wait for each other.
func minioBinary(t testing.TB) string {
	t.Helper()
	root := repoRoot(t)
	const target = ".cache/bin/minio"
	if err := os.MkdirAll(filepath.Join(root, ".cache"), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(root, ".cache", "minio.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }() // frees the lock
	if err := flock(lock); err != nil {
		t.Fatalf("wait for another build of MinIO: %v", err)
	}
	Make(t, target)
	return filepath.Join(root, target)
}

// Make runs make in the repository with args.
func Make(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.Command(program(t, "make", "make"), append([]string{"--silent", "-C", repoRoot(t)}, args...)...)
	// A make that runs the tests would hand on its job slots, options and variables.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKEFLAGS=") || strings.HasPrefix(v, "MAKEOVERRIDES=") ||
			strings.HasPrefix(v, "MAKELEVEL=") || strings.HasPrefix(v, "MFLAGS=")
	})
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// repoRoot finds minigate's own go.mod above the test's package, past those of
// nested modules.
func repoRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte("module github.com/minigate/minigate\n")) {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("the test does not run inside minigate's repository")
		}
		dir = parent
	}
}

// Long reports whether 'make test-long' runs: tests that have a long form
// then take it.
func Long() bool { return os.Getenv("LONG_TESTS") != "" }
