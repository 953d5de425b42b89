package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minigate/minigate/internal/fault"
)

// An upload in parts has a folder of its own until it is completed:
//
//	parts/NAME/ID/       NAME is that of the key, ID that of the upload
//	parts/NAME/ID/data   what becomes the object: part n begins at (n-1) times the size of parts
//	parts/NAME/ID/index  which parts are there: see folder_index.go
//	parts/NAME/ID/N      part N, where its place in data was not free
//
// So Complete has nothing to copy. A part that comes again is written beside
// the one that is there, since that one still counts where the new one fails,
// and only Complete puts it in its place. No place has two writers: see places.

// MinPart implements Store: there is no reason for one.
func (f *Folder) MinPart() int64 { return 1 }

// uploads is the folder of all uploads in parts of a key.
func (f *Folder) uploads(key string) string {
	object, _ := f.paths(key)
	return filepath.Join(f.dir, "parts", filepath.Base(object))
}

// folderUpload is one upload in parts.
type folderUpload struct {
	dir      string
	partSize int64
	open     opener
}

// upload finds one by its id, which has the size of its parts in it. Ids are
// checked: they may have come from a ledger that somebody else wrote.
func (f *Folder) upload(key, upload string) folderUpload {
	size, ok := partSizeIn(upload)
	if !ok {
		upload = "none"
	}
	return folderUpload{filepath.Join(f.uploads(key), upload), size, f.open}
}

func partSizeIn(upload string) (int64, bool) {
	id, text, _ := strings.Cut(upload, ".")
	size, err := strconv.ParseInt(text, 10, 64)
	return size, err == nil && size > 0 && size <= math.MaxInt64/MaxParts && isID(id) && strconv.FormatInt(size, 10) == text
}

func (u folderUpload) data() string        { return filepath.Join(u.dir, "data") }
func (u folderUpload) index() string       { return filepath.Join(u.dir, "index") }
func (u folderUpload) beside(n int) string { return filepath.Join(u.dir, strconv.Itoa(n)) }

// scratch is a name in tmp that nobody else uses.
func (f *Folder) scratch() string { return filepath.Join(f.dir, "tmp", rand.Text()) }

// Begin implements Store.
func (f *Folder) Begin(_ context.Context, key string, partSize int64) (string, error) {
	id := rand.Text() + "." + strconv.FormatInt(partSize, 10)
	if _, ok := partSizeIn(id); !ok {
		return "", errPartSize.Because(fmt.Errorf("parts of %d bytes", partSize))
	}
	u := f.upload(key, id)
	err := os.MkdirAll(u.dir, 0o700)
	for _, name := range []string{u.data(), u.index()} {
		if err == nil {
			err = f.open.empty(name)
		}
	}
	for _, dir := range []string{u.dir, f.uploads(key), filepath.Join(f.dir, "parts"), f.dir} {
		if err == nil {
			err = syncDir(dir)
		}
	}
	if err != nil {
		return "", putFault(err)
	}
	return id, nil
}

// PutPart implements Store.
func (f *Folder) PutPart(ctx context.Context, key, upload string, n int, r io.Reader, size int64) (Part, error) {
	if err := checkPartNumber(n); err != nil {
		return Part{}, err
	}
	u := f.upload(key, upload)
	if _, err := os.Stat(u.dir); err != nil {
		return Part{}, uploadFault(err)
	}
	room, err := f.rooms.reserve(size, min(u.partSize, roomStep))
	if err != nil {
		return Part{}, err
	}
	defer room.end()
	src := newSource(ctx, r, size)
	var p Part
	free, err := f.claim(u, n)
	switch {
	case err != nil:
	case free != nil:
		p, err = free.put(src, room)
	default:
		p, err = f.putBeside(u, n, src, room)
	}
	if cause := src.failure(); err != nil && cause != nil {
		return Part{}, cause
	}
	if err != nil {
		return Part{}, uploadFault(err)
	}
	return p, nil
}

// putBeside writes part n into a file of its own, which appears by a rename, as
// an object does.
func (f *Folder) putBeside(u folderUpload, n int, src io.Reader, room *room) (Part, error) {
	tmp := f.scratch()
	file, err := f.open.create(tmp)
	if err != nil {
		return Part{}, putFault(err)
	}
	_, err = writeDurably(file, &boundedReader{src, u.partSize}, room)
	if err != nil {
		_ = os.Remove(tmp) // or the next start does
		return Part{}, err
	}
	info, err := os.Stat(tmp)
	if err == nil {
		err = os.Rename(tmp, u.beside(n))
	}
	if err == nil {
		err = syncDir(u.dir)
	}
	if err != nil {
		_ = os.Remove(tmp) // as above
		return Part{}, err
	}
	return besidePart(n, info), nil
}

// besidePart tells files that had one name after the other apart by when they
// were written.
func besidePart(n int, info fs.FileInfo) Part {
	return Part{N: n, Size: info.Size(), Tag: strconv.FormatInt(info.ModTime().UnixNano(), 36)}
}

// Parts implements Store.
func (f *Folder) Parts(_ context.Context, key, upload string) ([]Part, error) {
	parts, err := f.upload(key, upload).parts()
	if err != nil {
		return nil, uploadFault(err)
	}
	return parts, nil
}

// parts are those in their places, but for those that have come again. One that
// moves from beside data into its place is entered first: so look there last.
func (u folderUpload) parts() ([]Part, error) {
	beside, err := u.besides()
	if err != nil {
		return nil, err
	}
	parts, err := readIndex(u.index())
	if err != nil {
		return nil, err
	}
	for _, p := range beside {
		i, found := slices.BinarySearchFunc(parts, p.N, func(q Part, n int) int { return q.N - n })
		if found {
			parts[i] = p
		} else {
			parts = slices.Insert(parts, i, p)
		}
	}
	return parts, nil
}

// besides are the parts in files of their own.
func (u folderUpload) besides() (parts []Part, err error) {
	entries, err := os.ReadDir(u.dir)
	for _, e := range entries {
		n, bad := strconv.Atoi(e.Name())
		if bad != nil {
			continue // data, index, or not ours
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is in its place now, or all are gone
		}
		if err != nil {
			return nil, err
		}
		parts = append(parts, besidePart(n, info))
	}
	return parts, err
}

// Complete implements Store. Meanwhile nothing is written into data, and where
// it fails on the way it can be done again.
func (f *Folder) Complete(ctx context.Context, key, upload string, parts []Part) (Object, error) {
	size, err := sizeOf(parts)
	if err != nil {
		return Object{}, err
	}
	u := f.upload(key, upload)
	object, _ := f.paths(key)
	p := f.enter(u)
	defer f.leave(u, p)
	p.gate.Lock()
	defer p.gate.Unlock()
	if _, err := os.Stat(object); err == nil {
		return f.completed(ctx, key, upload, size)
	}
	if err := u.check(parts); err != nil {
		return Object{}, uploadFault(err)
	}
	p.evict() // all that are wanted are there
	if err := u.assemble(ctx, parts, size); err != nil {
		if ctx.Err() != nil {
			return Object{}, context.Cause(ctx)
		}
		return Object{}, uploadFault(err)
	}
	if err := f.publish(u.data(), object); errors.Is(err, errObjectTaken) {
		return f.completed(ctx, key, upload, size)
	} else if err != nil {
		return Object{}, uploadFault(err)
	}
	_ = f.Abort(ctx, key, upload) // the object is there; Delete or the next Abort frees what stays
	return Object{Size: size}, nil
}

// check tells whether parts are the first that are there, and as large as they
// must be to lie next to each other.
func (u folderUpload) check(parts []Part) error {
	there, err := u.parts()
	if err != nil {
		return err
	}
	if len(there) < len(parts) {
		return errParts.Because(fmt.Errorf("there are %d parts", len(there)))
	}
	for i, p := range parts {
		if there[i] != p {
			return errParts.Because(fmt.Errorf("part %d is missing or was replaced", p.N))
		}
		if i < len(parts)-1 && p.Size != u.partSize {
			return errParts.Because(fmt.Errorf("part %d has %d bytes", p.N, p.Size))
		}
	}
	return nil
}

// assemble makes data what the object is to be: size bytes, for good.
func (u folderUpload) assemble(ctx context.Context, parts []Part, size int64) (err error) {
	if err := u.forget(len(parts)); err != nil {
		return err
	}
	beside, err := u.besides()
	if err != nil {
		return err
	}
	data, err := u.open(u.data(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	for _, p := range beside {
		switch {
		case p.N > len(parts):
			continue // it came just now, and goes with the upload
		case parts[p.N-1] != p:
			err = errParts.Because(fmt.Errorf("part %d was replaced", p.N))
		default:
			err = u.moveIn(ctx, data, p)
		}
		if err != nil {
			return err
		}
	}
	if err = context.Cause(ctx); err == nil {
		err = data.Truncate(size)
	}
	if err == nil {
		err = data.Sync()
	}
	return err
}

// forget removes parts behind the first keep, for good: their bytes are about
// to be cut off.
func (u folderUpload) forget(keep int) error {
	there, err := u.parts()
	if err != nil || len(there) == keep {
		return err
	}
	for _, p := range there[keep:] {
		if err := os.Remove(u.beside(p.N)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.Join(u.truncateIndex(keep), syncDir(u.dir))
}

// moveIn copies a part that is beside data into its place.
func (u folderUpload) moveIn(ctx context.Context, data *os.File, p Part) (err error) {
	file, err := os.Open(u.beside(p.N))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if besidePart(p.N, info) != p {
		return errParts.Because(fmt.Errorf("part %d was replaced", p.N))
	}
	_, err = copyTo(&diskWriter{file: data, at: int64(p.N-1) * u.partSize}, newSource(ctx, file, p.Size))
	return err
}

// completed answers for an object that is there already: that of this upload,
// since a key is used once, unless its size says otherwise.
func (f *Folder) completed(ctx context.Context, key, upload string, size int64) (Object, error) {
	there, err := f.Stat(ctx, key)
	if err == nil && there != size {
		err = errObjectTaken
	}
	if err == nil { // whoever was here before may not have got as far
		object, _ := f.paths(key)
		err = syncDir(filepath.Dir(object))
	}
	if err != nil {
		return Object{}, folderFault(err)
	}
	return Object{Size: size}, f.Abort(ctx, key, upload)
}

// Abort implements Store.
func (f *Folder) Abort(_ context.Context, key, upload string) error {
	tmp := f.scratch()
	err := os.Rename(f.upload(key, upload).dir, tmp) // from here on no part can be added
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = os.RemoveAll(tmp)
	}
	if err != nil {
		return folderFault(err)
	}
	_ = os.Remove(f.uploads(key)) // unless there are others
	return nil
}

// abortAll ends all uploads of a key.
func (f *Folder) abortAll(key string) error {
	entries, err := os.ReadDir(f.uploads(key))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return folderFault(err)
	}
	for _, e := range entries {
		if err := f.Abort(context.Background(), key, e.Name()); err != nil { // nothing waits in it
			return err
		}
	}
	return nil
}

// uploadFault is folderFault where a missing name means that the upload is
// gone.
func uploadFault(err error) error {
	if _, ok := errors.AsType[*fault.Error](err); !ok && errors.Is(err, fs.ErrNotExist) {
		return errNoUpload.Because(err)
	}
	return folderFault(err)
}
