package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Folder is a Store in a directory of one machine:
//
//	lock       held while a process uses the folder
//	tmp/NAME   a Put under way
//	xx/NAME    an object; xx is the first byte of the SHA-256 of its key
//	parts/     uploads in parts: see folder_parts.go
//
// NAME is the key in base32 (RFC 4648, extended hex, lower case): without
// traversal, without a clash of file and folder, and different also where the
// file system does not tell capitals. An object appears by one rename after its
// bytes, and before Put returns the rename too, were flushed to disk.
type Folder struct {
	dir  string
	lock *os.File

	publishing sync.Mutex // between looking for a name and taking it

	mu     sync.Mutex
	places map[string]*places // by the folder of the upload, while somebody is at it

	// open is os.OpenFile, for all that is written; tests put in one that fails.
	open opener

	rooms rooms // what may be written
}

// NewFolder opens the store in dir, which it creates where it is missing, and
// removes what interrupted Puts of an earlier process left. It fails if
// another process has the folder open.
func NewFolder(dir string) (*Folder, error) {
	f := &Folder{dir: dir, open: os.OpenFile, rooms: rooms{dir: dir, free: freeBytes}, places: map[string]*places{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("file folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("file folder: %w", err)
	}
	f.lock = lock
	if err := lockFile(lock); err != nil {
		_ = lock.Close() // the lock's error is the one to tell
		return nil, fmt.Errorf("file folder %s is in use by another process: %w", dir, err)
	}
	if err := f.prepare(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("file folder: %w", err)
	}
	return f, nil
}

// prepare empties tmp and makes the 256 folders for objects.
func (f *Folder) prepare() error {
	tmp := filepath.Join(f.dir, "tmp")
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	for i := range 256 {
		err := os.Mkdir(filepath.Join(f.dir, hex.EncodeToString([]byte{byte(i)})), 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return syncDir(f.dir)
}

// Close gives the folder free for another process.
func (f *Folder) Close() error { return f.lock.Close() }

// paths returns where the key's object is and where its Put writes.
func (f *Folder) paths(key string) (object, tmp string) {
	name := nameEncoding.EncodeToString([]byte(key))
	return filepath.Join(f.dir, shardOf(key), name), filepath.Join(f.dir, "tmp", name)
}

// nameEncoding has 160 characters for 100 bytes: file systems take 255.
var nameEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

func shardOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:1])
}

// Put implements Store.
func (f *Folder) Put(ctx context.Context, key string, r io.Reader, size int64) (int64, error) {
	object, tmp := f.paths(key)
	room, err := f.rooms.reserve(size, roomStep)
	if err != nil {
		return 0, err
	}
	defer room.end()
	file, err := f.open.create(tmp)
	if err != nil {
		return 0, putFault(err)
	}
	src := newSource(ctx, r, size)
	n, err := writeDurably(file, src, room)
	if err == nil {
		err = f.publish(tmp, object)
	}
	if err != nil {
		_ = os.Remove(tmp) // or the next start does
		if cause := src.failure(); cause != nil {
			return n, cause
		}
		return n, putFault(err)
	}
	return n, nil
}

// publish gives a finished file its name, for good.
func (f *Folder) publish(tmp, object string) error {
	if err := f.rename(tmp, object); err != nil {
		return err
	}
	return syncDir(filepath.Dir(object))
}

// rename is os.Rename that never replaces.
func (f *Folder) rename(tmp, object string) error {
	f.publishing.Lock()
	defer f.publishing.Unlock()
	if _, err := os.Lstat(object); err == nil {
		return errObjectTaken
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(tmp, object)
}

// Open implements Store. Up to the end of the object the reader is the
// *os.File itself, so that a copy to a socket can be left to the kernel.
func (f *Folder) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	object, _ := f.paths(key)
	file, err := os.Open(object)
	if err != nil {
		return nil, folderFault(err)
	}
	info, err := file.Stat()
	if err == nil {
		size := info.Size()
		if length < 0 && (offset == 0 || offset < size) {
			length = size - offset
		}
		if offset < 0 || length < 0 || offset > size-length {
			err = errObjectRange
		} else if _, err = file.Seek(offset, io.SeekStart); err == nil && offset+length == size {
			return file, nil
		}
	}
	if err != nil {
		_ = file.Close() // only read
		return nil, folderFault(err)
	}
	return section{io.LimitReader(file, length), file}, nil
}

// section is a part of a file.
type section struct {
	io.Reader
	io.Closer
}

// Stat implements Store.
func (f *Folder) Stat(_ context.Context, key string) (int64, error) {
	object, _ := f.paths(key)
	info, err := os.Stat(object)
	if err != nil {
		return 0, folderFault(err)
	}
	return info.Size(), nil
}

// Delete implements Store.
func (f *Folder) Delete(_ context.Context, key string) error {
	if err := f.abortAll(key); err != nil {
		return err
	}
	object, tmp := f.paths(key)
	for _, name := range []string{object, tmp} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return folderFault(err)
		}
	}
	return nil
}

// Ping implements Store: it writes a small file.
func (f *Folder) Ping(_ context.Context) error {
	name := filepath.Join(f.dir, "tmp", "ping")
	if err := errors.Join(os.WriteFile(name, []byte("ping"), 0o600), os.Remove(name)); err != nil {
		return putFault(err)
	}
	return nil
}

// opener opens files as os.OpenFile does.
type opener func(name string, flag int, mode fs.FileMode) (*os.File, error)

// create opens a new file.
func (open opener) create(name string) (*os.File, error) {
	return open(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

// empty makes a new file with nothing in it.
func (open opener) empty(name string) error {
	file, err := open.create(name)
	if err == nil {
		err = file.Close()
	}
	return err
}
