package transfer

import (
	"io/fs"
	"testing"

	"github.com/minigate/minigate/internal/fault"
)

// wantDiskErrors wants what the system answers where a disk takes no more, or
// nothing at all, to be told from other troubles, by the folder and the ledger.
func wantDiskErrors(t *testing.T, wanted map[error]*fault.Error) {
	for errno, want := range wanted {
		err := &fs.PathError{Op: "write", Path: "x", Err: errno}
		if got := fault.Of(folderFault(err)); got.Code != want.Code {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
		if got := fault.Of(boltFault(err)); (got.Code == errNoSpace.Code) != (want == errNoSpace) {
			t.Errorf("%v, of the ledger: %v", errno, got)
		}
	}
}
