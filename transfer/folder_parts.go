package transfer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/minigate/minigate/internal/fault"
)

// An upload in parts has a folder of its own until it is completed:
//
//	parts/HASH/ID/     HASH is the SHA-256 of the key, ID that of the upload
//	parts/HASH/ID/N    part N
//
// A part is written in tmp and appears by a rename, as an object does.
// Complete copies the parts into one file, so that reading stays a matter of
// one file, and learns the SHA-256 on the way. For as long as that takes the
// disk holds an upload twice.

// MinPart implements Store: there is no reason for one.
func (f *Folder) MinPart() int64 { return 1 }

// uploads is the folder of all uploads in parts of a key.
func (f *Folder) uploads(key string) string {
	object, _ := f.paths(key)
	return filepath.Join(f.dir, "parts", filepath.Base(object))
}

// upload is the folder of one. Ids are checked: they may have come from a
// ledger that somebody else wrote.
func (f *Folder) upload(key, upload string) string {
	if !isID(upload) {
		upload = "none"
	}
	return filepath.Join(f.uploads(key), upload)
}

// scratch is a name in tmp that nobody else uses.
func (f *Folder) scratch() string { return filepath.Join(f.dir, "tmp", rand.Text()) }

// Begin implements Store.
func (f *Folder) Begin(_ context.Context, key string, _ int64) (string, error) {
	id := rand.Text()
	all := f.uploads(key)
	err := os.MkdirAll(filepath.Join(all, id), 0o700)
	for _, dir := range []string{all, filepath.Dir(all), f.dir} {
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
	dir, tmp := f.upload(key, upload), f.scratch()
	if _, err := os.Stat(dir); err != nil {
		return Part{}, uploadFault(err)
	}
	if err := f.room(size); err != nil {
		return Part{}, err
	}
	file, err := f.create(tmp)
	if err != nil {
		return Part{}, putFault(err)
	}
	src := newSource(ctx, f.roomy(r), size)
	if _, err = writeDurably(file, src); err != nil {
		_ = os.Remove(tmp) // or the next start does
		if cause := src.failure(); cause != nil {
			return Part{}, cause
		}
		return Part{}, putFault(err)
	}
	info, err := os.Stat(tmp)
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, strconv.Itoa(n)))
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		_ = os.Remove(tmp) // as above
		return Part{}, uploadFault(err)
	}
	return partOf(n, info), nil
}

// partOf tells files that had one name after the other apart by when they were
// written.
func partOf(n int, info fs.FileInfo) Part {
	return Part{N: n, Size: info.Size(), Tag: strconv.FormatInt(info.ModTime().UnixNano(), 36)}
}

// Parts implements Store.
func (f *Folder) Parts(_ context.Context, key, upload string) (parts []Part, err error) {
	entries, err := os.ReadDir(f.upload(key, upload))
	if err != nil {
		return nil, uploadFault(err)
	}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue // not ours
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errNoUpload.Because(err) // completed or aborted meanwhile
		}
		if err != nil {
			return nil, folderFault(err)
		}
		parts = append(parts, partOf(n, info))
	}
	slices.SortFunc(parts, func(a, b Part) int { return a.N - b.N })
	return parts, nil
}

// Complete implements Store.
func (f *Folder) Complete(ctx context.Context, key, upload string, parts []Part) (Object, error) {
	size, err := sizeOf(parts)
	if err != nil {
		return Object{}, err
	}
	object, _ := f.paths(key)
	if _, err := os.Stat(object); err == nil {
		return f.completed(ctx, key, upload, size)
	}
	if err := f.room(size); err != nil {
		return Object{}, err
	}
	tmp := f.scratch()
	file, err := f.create(tmp)
	if err != nil {
		return Object{}, putFault(err)
	}
	sum := sha256.New()
	all := &joined{dir: f.upload(key, upload), parts: parts}
	src := newSource(ctx, io.TeeReader(all, sum), size)
	_, err = writeDurably(file, src)
	all.close()
	if err == nil {
		err = f.publish(tmp, object)
	}
	if err != nil {
		_ = os.Remove(tmp) // or the next start does
		if cause := src.failure(); cause != nil {
			err = cause
		}
		if errors.Is(err, errObjectTaken) || errors.Is(err, errNoUpload) { // maybe another call was faster
			return f.completed(ctx, key, upload, size)
		}
		if ctx.Err() != nil {
			return Object{}, err
		}
		return Object{}, putFault(err)
	}
	_ = f.Abort(ctx, key, upload) // the object is there; Delete or the next Abort frees what stays
	return Object{Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// completed answers for an object that is there already: that of this upload,
// since a key is used once, unless its size says otherwise.
func (f *Folder) completed(ctx context.Context, key, upload string, size int64) (Object, error) {
	content, err := f.Open(ctx, key, 0, -1)
	if errors.Is(err, errNoObject) {
		return Object{}, errNoUpload.Because(err)
	}
	if err != nil {
		return Object{}, err
	}
	defer func() { _ = content.Close() }() // only read
	sum := sha256.New()
	n, err := io.Copy(sum, newSource(ctx, content, -1))
	if err != nil {
		return Object{}, folderFault(err)
	}
	if n != size {
		return Object{}, errObjectTaken
	}
	return Object{Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, f.Abort(ctx, key, upload)
}

// Abort implements Store.
func (f *Folder) Abort(_ context.Context, key, upload string) error {
	dir, tmp := f.upload(key, upload), f.scratch()
	err := os.Rename(dir, tmp) // from here on no part can be added
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

// joined reads parts one after the other.
type joined struct {
	dir   string
	parts []Part // that are left
	open  *os.File
}

// Read implements io.Reader.
func (j *joined) Read(p []byte) (int, error) {
	for {
		if j.open == nil {
			if len(j.parts) == 0 {
				return 0, io.EOF
			}
			if err := j.next(); err != nil {
				return 0, err
			}
		}
		n, err := j.open.Read(p)
		if err == io.EOF {
			j.close()
			err = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next opens the next part if it is still the one that is meant.
func (j *joined) next() error {
	want := j.parts[0]
	file, err := os.Open(filepath.Join(j.dir, strconv.Itoa(want.N)))
	if errors.Is(err, fs.ErrNotExist) {
		if _, gone := os.Stat(j.dir); errors.Is(gone, fs.ErrNotExist) {
			return errNoUpload.Because(err)
		}
		return errParts.Because(err)
	}
	if err != nil {
		return folderFault(err)
	}
	info, err := file.Stat()
	if err == nil && partOf(want.N, info) != want {
		err = errParts.Because(fmt.Errorf("part %d was replaced", want.N))
	}
	if err != nil {
		_ = file.Close() // only read
		return folderFault(err)
	}
	j.open, j.parts = file, j.parts[1:]
	return nil
}

func (j *joined) close() {
	if j.open != nil {
		_ = j.open.Close() // only read
		j.open = nil
	}
}

// uploadFault is folderFault where a missing name means that the upload is
// gone.
func uploadFault(err error) error {
	if _, ok := errors.AsType[*fault.Error](err); !ok && errors.Is(err, fs.ErrNotExist) {
		return errNoUpload.Because(err)
	}
	return folderFault(err)
}
