package transfer

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginFlush has the disk begin to write these bytes of f. It is a hint: what
// fails here fails again where f is flushed.
func beginFlush(f *os.File, offset, length int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
}
