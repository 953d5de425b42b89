package transfer

import (
	"fmt"
	"io"
)

// roomStep is how much of unknown size is written between two looks at the
// disk.
const roomStep = 16 << 20

// room refuses to write size bytes, or any where that is not known, that would
// leave less of the disk than keepFree.
func (f *Folder) room(size int64) error {
	if f.keepFree <= 0 {
		return nil
	}
	free, err := f.free(f.dir)
	if err != nil {
		return folderFault(err)
	}
	if free-max(size, 0) < f.keepFree {
		return errNoSpace.Because(fmt.Errorf("%d bytes of the disk are free, %d stay so", free, f.keepFree))
	}
	return nil
}

// roomy passes r on as long as there is room: others write, too.
func (f *Folder) roomy(r io.Reader) io.Reader {
	if f.keepFree <= 0 {
		return r
	}
	return &roomyReader{folder: f, r: r}
}

type roomyReader struct {
	folder *Folder
	r      io.Reader
	since  int64 // bytes since the last look
}

// Read implements io.Reader.
func (r *roomyReader) Read(p []byte) (int, error) {
	if r.since >= roomStep {
		r.since = 0
		if err := r.folder.room(0); err != nil {
			return 0, err
		}
	}
	n, err := r.r.Read(p)
	r.since += int64(n)
	return n, err
}
