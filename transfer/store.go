package transfer

import (
	"context"
	"io"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// Store keeps bytes by key. A key is written once and never changed: the
// ledger says which keys mean a file. Keys are valid UTF-8 without a leading
// slash, at most 150 bytes.
//
// Two implementations ship: [Folder] and [S3]. One contract test runs over
// both. Errors are of kind NotFound (no such key), Conflict (the key exists),
// Invalid (the size is not the one announced), NoSpace, Unavailable (try
// again) or Upstream (the storage refuses us); an error of the reader given to
// Put comes back as it is.
type Store interface {
	// Put stores all that r yields and returns how much that was, once it is
	// durable. size is its exact length, or -1 where nobody knows. A reader
	// that ends with anything but io.EOF, or not after size bytes, stores
	// nothing that Open would find. After an error the caller should Delete
	// the key, which also frees what an interrupted Put left behind.
	Put(ctx context.Context, key string, r io.Reader, size int64) (int64, error)
	// Open returns exactly length bytes from offset on; length -1 means up to
	// the end. Reading ends with an error when ctx does. A range outside of
	// the object is a fault of kind Range.
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Stat returns the size in bytes.
	Stat(ctx context.Context, key string) (int64, error)
	// Begin begins an upload in parts under key and returns its id, which
	// survives restarts and is good on every node. partSize is what every part
	// but the last will have, at least MinPart bytes. Nothing is under the key
	// before Complete.
	Begin(ctx context.Context, key string, partSize int64) (upload string, err error)
	// PutPart stores all that r yields as part n of an upload, at most
	// partSize bytes, and returns once it is durable. Parts may come in any order and at
	// the same time; a second one with the same n replaces the first. size is
	// as of Put, and so is what happens to a reader that fails: what was part n
	// before still is. NotFound: there is no such upload any more.
	PutPart(ctx context.Context, key, upload string, n int, r io.Reader, size int64) (Part, error)
	// Parts returns the parts that are there, in the order of their numbers.
	Parts(ctx context.Context, key, upload string) ([]Part, error)
	// Complete makes an object of parts, which Parts returned and which must
	// be numbered from 1 on, and ends the upload. The object appears whole or
	// not at all. Completing again what was completed succeeds, also where the
	// answer to the first was lost; Conflict: parts are not those that are
	// there, one but the last is too small, or the key has another object.
	Complete(ctx context.Context, key, upload string, parts []Part) (Object, error)
	// Abort ends an upload and frees its parts. One that is not there any more
	// is no error.
	Abort(ctx context.Context, key, upload string) error
	// MinPart is the smallest partSize in bytes.
	MinPart() int64
	// Delete removes the object, ends all uploads in parts of its key, and
	// frees whatever an unfinished Put left there. A key that does not exist is
	// no error.
	Delete(ctx context.Context, key string) error
	// List returns up to limit objects, and where the next page begins, "" where
	// this one was the last. It begins behind after, at the first where that is
	// "". An object that is there all the time is on exactly one page. A folder
	// lists uploads in parts, too; S3 servers have rules that end those.
	List(ctx context.Context, after string, limit int) ([]Object, string, error)
	// Address returns a URL at which the client itself can get the object, ""
	// where the store has none or is not to give any.
	Address(ctx context.Context, key string, p Presented) (string, error)
	// Ping tells whether the store works now.
	Ping(ctx context.Context) error
	// Close releases what the store holds. Nothing may be in use by then.
	Close() error
}

// Object is what a Store says of one key.
type Object struct {
	Key      string
	Upload   string    // id, where it is an upload in parts that has not ended; only of List
	Size     int64     // bytes
	Modified time.Time // when it was stored; only of List
}

// Presented is how an object is to look to who gets it from the Store.
type Presented struct {
	Type, Disposition string // values of the headers Content-Type and Content-Disposition
	Until             time.Time
}

// Faults that both stores give.
var (
	errNoObject    = fault.New(fault.NotFound, "object_not_found", "The storage has no such object.")
	errObjectTaken = fault.New(fault.Conflict, "object_exists", "The storage has this object already.")
	errObjectRange = fault.New(fault.Range, "range_not_satisfiable", "The object does not reach that far.")
	errNoSpace     = fault.New(fault.NoSpace, "storage_full", "There is no space left for this file.").After(time.Minute)
	errStoreAway   = fault.New(fault.Unavailable, "storage_unavailable", "The file storage is not available right now.").After(5 * time.Second)
)

// OpenStore opens the store that s names; dir is where a folder store lives.
func OpenStore(s Settings, dir string) (Store, error) {
	if s.Store == "s3" {
		return NewS3(s.S3, int64(s.BufferBudget))
	}
	f, err := NewFolder(dir)
	if err != nil {
		return nil, err
	}
	f.rooms.keepFree = int64(s.MinFree)
	return f, nil
}
