package transfer

import (
	"fmt"
	"sync"
)

// roomStep is how much an upload of unknown size is promised at a time, and how
// much is written between two looks at the disk.
const roomStep = 16 << 20

// rooms promise uploads what they may write, so that all that are under way
// leave keepFree of the disk together.
type rooms struct {
	dir      string
	keepFree int64                           // bytes that are left to others; 0: nothing is promised, and all may be written
	free     func(dir string) (int64, error) // looks how many bytes there are; tests put in others

	mu       sync.Mutex
	promised int64 // bytes that are still to be written
}

// room is what one upload may write. A nil one has no limit.
type room struct {
	all   *rooms
	left  int64 // bytes that were promised and not written yet
	since int64 // bytes written since the last look
}

// reserve promises size bytes, or a first step where that is not known. end must
// be called when the upload ends.
func (r *rooms) reserve(size, step int64) (*room, error) {
	if r.keepFree <= 0 {
		return nil, nil
	}
	if size < 0 {
		size = step
	}
	one := &room{all: r}
	return one, one.promise(size)
}

// promise lets more bytes be written if the disk has them beside all that was
// promised. Where it is for none it only looks whether others, who ask nobody,
// have taken what was to stay free.
func (r *room) promise(more int64) error {
	all := r.all
	all.mu.Lock() // also while it looks: what is written meanwhile must not count as free and as written
	defer all.mu.Unlock()
	free, err := all.free(all.dir)
	if err != nil {
		return folderFault(err)
	}
	need := all.keepFree
	if more > 0 {
		need += all.promised + more
	}
	if free < need {
		return errNoSpace.Because(fmt.Errorf("%d bytes of the disk are free, %d stay so, %d are promised to others", free, all.keepFree, all.promised-r.left))
	}
	all.promised += more
	r.left += more
	r.since = 0
	return nil
}

// before has to be called before n bytes are written, n at most roomStep.
func (r *room) before(n int) error {
	switch {
	case r == nil:
	case int64(n) > r.left:
		return r.promise(roomStep)
	case r.since >= roomStep:
		return r.promise(0)
	}
	return nil
}

// after has to be called when n bytes were written.
func (r *room) after(n int) {
	if r != nil {
		r.since += int64(n)
		r.settle(int64(n))
	}
}

// end takes back what was promised and not written.
func (r *room) end() {
	if r != nil {
		r.settle(r.left)
	}
}

func (r *room) settle(n int64) {
	r.all.mu.Lock()
	defer r.all.mu.Unlock()
	r.all.promised -= n
	r.left -= n
}
