//go:build !windows

package transfer

import (
	"errors"
	"syscall"
)

// diskFull tells whether err says that the disk, a quota or the file can take
// no more.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// diskReadOnly tells whether err says that nothing can be written to the disk.
func diskReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }
