package transfer

import (
	"errors"

	"golang.org/x/sys/windows"
)

// diskFull tells whether err says that the disk, a quota or the file can take
// no more.
func diskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED) || errors.Is(err, windows.ERROR_FILE_TOO_LARGE)
}

// diskReadOnly tells whether err says that nothing can be written to the disk.
func diskReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }
