package transfer

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// places are those parts of one upload that are being written into data. A
// place that has a part, or somebody who writes one, is not taken again. What is
// in a file beside data counts until a part has been entered.
type places struct {
	users int // guarded by Folder.mu

	// gate is held for reading while a place is taken, bytes are written or a
	// part is entered, and for writing where data becomes an object.
	gate  sync.RWMutex
	mu    sync.Mutex
	taken map[int]*place // by number of the part
}

// evict takes all places away from those who write there. It needs the gate.
func (p *places) evict() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.taken)
}

// place is where a part is being written.
type place struct {
	folder *Folder
	upload folderUpload
	all    *places
	n      int
}

// enter returns the places of u; leave must be called.
func (f *Folder) enter(u folderUpload) *places {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.places[u.dir]
	if p == nil {
		p = &places{taken: map[int]*place{}}
		f.places[u.dir] = p
	}
	p.users++
	return p
}

func (f *Folder) leave(u folderUpload, p *places) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(f.places, u.dir)
	}
}

// claim takes the place of part n, nil where it is not free.
func (f *Folder) claim(u folderUpload, n int) (*place, error) {
	all := f.enter(u)
	p, err := all.take(u, n)
	if p == nil {
		f.leave(u, all)
		return nil, err
	}
	p.folder = f
	return p, nil
}

func (p *places) take(u folderUpload, n int) (*place, error) {
	p.gate.RLock()
	defer p.gate.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[n] != nil {
		return nil, nil
	}
	if free, err := u.isFree(n); err != nil || !free {
		return nil, err
	}
	p.taken[n] = &place{upload: u, all: p, n: n}
	return p.taken[n], nil
}

// isFree tells whether the place of part n has none that counts.
func (u folderUpload) isFree(n int) (bool, error) {
	index, err := os.Open(u.index())
	if err != nil {
		return false, err
	}
	defer func() { _ = index.Close() }() // only read
	e := make([]byte, indexEntry)
	if _, err := index.ReadAt(e, int64(n-1)*indexEntry); err == io.EOF {
		return true, nil
	} else if err != nil {
		return false, err
	}
	_, there := entryOf(n, e)
	return !there, nil
}

// put writes the part, enters it, and lets the place go.
func (p *place) put(src io.Reader, room *room) (part Part, err error) {
	defer p.leave()
	data, err := p.upload.open(p.upload.data(), os.O_WRONLY, 0) // one for each part, so that each hears of errors
	if err != nil {
		return part, err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	w := &placeWriter{p, diskWriter{file: data, room: room, at: int64(p.n-1) * p.upload.partSize}}
	size, err := copyTo(w, &boundedReader{src, p.upload.partSize})
	if err == nil {
		err = data.Sync()
	}
	if err != nil {
		return part, err
	}
	part = Part{N: p.n, Size: size, Tag: newTag()}
	return part, p.mine(func() error { return p.publish(part) })
}

// publish enters the part. One that was put beside it meanwhile is older.
func (p *place) publish(part Part) error {
	if err := p.upload.writeIndex(part); err != nil {
		return err
	}
	err := os.Remove(p.upload.beside(p.n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(p.upload.dir)
	}
	return err
}

// mine does something with the place unless Complete has taken it, after which
// the upload is there only if that failed.
func (p *place) mine(do func() error) error {
	p.all.gate.RLock()
	defer p.all.gate.RUnlock()
	p.all.mu.Lock()
	mine := p.all.taken[p.n] == p
	p.all.mu.Unlock()
	if mine {
		return do()
	}
	if _, err := os.Stat(p.upload.dir); err != nil {
		return err
	}
	return errParts.Because(errors.New("the upload was being completed"))
}

func (p *place) leave() {
	p.all.mu.Lock()
	if p.all.taken[p.n] == p {
		delete(p.all.taken, p.n)
	}
	p.all.mu.Unlock()
	p.folder.leave(p.upload, p.all)
}

// placeWriter writes into a place.
type placeWriter struct {
	place *place
	disk  diskWriter
}

// Write implements io.Writer.
func (w *placeWriter) Write(b []byte) (n int, err error) {
	err = w.place.mine(func() error {
		n, err = w.disk.Write(b)
		return err
	})
	return n, err
}
