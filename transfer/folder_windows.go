package transfer

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockFile takes the lock of f, or fails at once; closing f or the end of the
// process frees it.
func lockFile(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
}

// syncDir does nothing here: Windows has no way to flush a folder, and NTFS
// keeps names in its journal.
func syncDir(string) error { return nil }
