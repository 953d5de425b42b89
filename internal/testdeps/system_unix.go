//go:build unix

package testdeps

import (
	"errors"
	"os"
	"syscall"
)

// Signals that stop a process in its tracks, and have it go on.
const (
	pause  = syscall.SIGSTOP
	resume = syscall.SIGCONT
)

// flock waits for the exclusive lock of f.
func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
