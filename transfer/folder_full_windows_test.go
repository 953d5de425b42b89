package transfer

import (
	"testing"

	"golang.org/x/sys/windows"

	"github.com/minigate/minigate/internal/fault"
)

func TestDiskErrors(t *testing.T) {
	wantDiskErrors(t, map[error]*fault.Error{
		windows.ERROR_DISK_FULL:           errNoSpace,
		windows.ERROR_HANDLE_DISK_FULL:    errNoSpace,
		windows.ERROR_DISK_QUOTA_EXCEEDED: errNoSpace,
		windows.ERROR_FILE_TOO_LARGE:      errNoSpace,
		windows.ERROR_WRITE_PROTECT:       errReadOnly,
		windows.ERROR_ACCESS_DENIED:       errStoreAway,
		windows.ERROR_TOO_MANY_OPEN_FILES: errStoreAway,
	})
}

func TestFreeBytes(t *testing.T) {
	if n, err := freeBytes(t.TempDir()); err != nil || n <= 0 || n == 1<<63-1 {
		t.Errorf("%d bytes are free, %v", n, err)
	}
	if _, err := freeBytes(t.TempDir() + `\missing`); err == nil {
		t.Error("a folder that is not there has room")
	}
}
