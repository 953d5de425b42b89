//go:build unix

package transfer

import (
	"io/fs"
	"syscall"
	"testing"

	"github.com/minigate/minigate/internal/fault"
)

// What the system answers where a disk takes no more, or nothing at all, is
// told from other troubles.
func TestDiskErrors(t *testing.T) {
	for errno, want := range map[error]*fault.Error{
		syscall.ENOSPC: errNoSpace,
		syscall.EDQUOT: errNoSpace,
		syscall.EFBIG:  errNoSpace,
		syscall.EROFS:  errReadOnly,
		syscall.EACCES: errStoreAway,
		syscall.EMFILE: errStoreAway,
	} {
		err := &fs.PathError{Op: "write", Path: "x", Err: errno}
		if got := fault.Of(folderFault(err)); got.Code != want.Code {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
		if got := fault.Of(boltFault(err)); (got.Code == errNoSpace.Code) != (want == errNoSpace) {
			t.Errorf("%v, of the ledger: %v", errno, got)
		}
	}
}
