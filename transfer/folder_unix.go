//go:build unix

package transfer

import (
	"os"
	"syscall"
)

// lockFile takes the lock of f, or fails at once; closing f or the end of the
// process frees it.
func lockFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
