//go:build unix

package transfer

import (
	"syscall"
	"testing"

	"github.com/minigate/minigate/internal/fault"
)

func TestDiskErrors(t *testing.T) {
	wantDiskErrors(t, map[error]*fault.Error{
		syscall.ENOSPC: errNoSpace,
		syscall.EDQUOT: errNoSpace,
		syscall.EFBIG:  errNoSpace,
		syscall.EROFS:  errReadOnly,
		syscall.EACCES: errStoreAway,
		syscall.EMFILE: errStoreAway,
	})
}
