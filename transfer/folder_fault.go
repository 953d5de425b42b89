package transfer

import (
	"errors"
	"io/fs"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// errReadOnly is what a disk gives that was mounted so, maybe by the system
// after errors of the disk: files can still be read.
var errReadOnly = fault.New(fault.Unavailable, "storage_read_only", "The file storage takes no files right now: it can only be read.").After(time.Minute)

// putFault is folderFault where a missing name means that somebody took a
// folder of ours away.
func putFault(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errStoreAway.Because(err)
	}
	return folderFault(err)
}

// folderFault translates errors of the file system.
func folderFault(err error) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errNoObject.Because(err)
	case errors.Is(err, fs.ErrExist):
		return errObjectTaken.Because(err)
	case diskFull(err):
		return errNoSpace.Because(err)
	case diskReadOnly(err):
		return errReadOnly.Because(err)
	}
	return errStoreAway.Because(err) // EIO, EMFILE, EACCES and the like: nothing a client could do
}
