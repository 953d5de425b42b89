package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/minigate/minigate/internal/fault"
)

// FileLedger is the Ledger of a single node, in an embedded database:
//
//	transfer.files       id → File as JSON
//	transfer.unfinished  Changed in big-endian milliseconds + id → nothing
type FileLedger struct{ db *bbolt.DB }

var (
	filesBucket      = []byte("transfer.files")
	unfinishedBucket = []byte("transfer.unfinished")
)

// NewFileLedger uses db, which stays the caller's to close.
func NewFileLedger(db *bbolt.DB) (*FileLedger, error) {
	err := db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(filesBucket)
		if err == nil {
			_, err = tx.CreateBucketIfNotExists(unfinishedBucket)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("file ledger: %w", err)
	}
	return &FileLedger{db}, nil
}

// Reserve implements Ledger.
func (l *FileLedger) Reserve(_ context.Context, f File) error {
	return boltFault(l.db.Update(func(tx *bbolt.Tx) error { return putFile(tx, f) }))
}

// Commit implements Ledger.
func (l *FileLedger) Commit(_ context.Context, f File) error {
	return boltFault(l.db.Update(func(tx *bbolt.Tx) error {
		old, err := getFile(tx, f.ID)
		if err != nil {
			return err
		}
		if old.State != Pending {
			return errFileState
		}
		f.State, f.Changed = Ready, now()
		return replaceFile(tx, old, f)
	}))
}

// Get implements Ledger.
func (l *FileLedger) Get(_ context.Context, id string) (f File, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		f, err = getFile(tx, id)
		return err
	})
	return f, boltFault(err)
}

// Retire implements Ledger.
func (l *FileLedger) Retire(_ context.Context, id string, from ...State) (f File, err error) {
	err = l.db.Update(func(tx *bbolt.Tx) error {
		f, err = getFile(tx, id)
		if err != nil || f.State == Deleting {
			return err
		}
		if !slices.Contains(from, f.State) {
			return errFileState
		}
		old := f
		f.State, f.Changed = Deleting, now()
		return replaceFile(tx, old, f)
	})
	return f, boltFault(err)
}

// Forget implements Ledger.
func (l *FileLedger) Forget(_ context.Context, id string) error {
	return boltFault(l.db.Update(func(tx *bbolt.Tx) error {
		f, err := getFile(tx, id)
		if errors.Is(err, errNoFile) {
			return nil
		}
		if err != nil {
			return err
		}
		return removeFile(tx, f)
	}))
}

// Unfinished implements Ledger.
func (l *FileLedger) Unfinished(_ context.Context, before time.Time, limit int) (files []File, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		end := timeKey(before)
		c := tx.Bucket(unfinishedBucket).Cursor()
		for k, _ := c.First(); k != nil && len(files) < limit && bytes.Compare(k[:len(end)], end) < 0; k, _ = c.Next() {
			f, err := getFile(tx, string(k[len(end):]))
			if err != nil {
				return err
			}
			files = append(files, f)
		}
		return nil
	})
	return files, boltFault(err)
}

// Shared implements Ledger: the database is locked by one process.
func (l *FileLedger) Shared() bool { return false }

// Ping implements Ledger.
func (l *FileLedger) Ping(context.Context) error {
	return boltFault(l.db.View(func(*bbolt.Tx) error { return nil }))
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

func timeKey(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(max(0, t.UnixMilli())))
}

func unfinishedKey(f File) []byte { return append(timeKey(f.Changed), f.ID...) }

func getFile(tx *bbolt.Tx, id string) (f File, err error) {
	record := tx.Bucket(filesBucket).Get([]byte(id))
	if record == nil {
		return f, errNoFile
	}
	if err := json.Unmarshal(record, &f); err != nil {
		return f, fmt.Errorf("record of file %s: %w", id, err)
	}
	return f, nil
}

func putFile(tx *bbolt.Tx, f File) error {
	record, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if f.State != Ready {
		if err := tx.Bucket(unfinishedBucket).Put(unfinishedKey(f), nil); err != nil {
			return err
		}
	}
	return tx.Bucket(filesBucket).Put([]byte(f.ID), record)
}

func removeFile(tx *bbolt.Tx, f File) error {
	return errors.Join(
		tx.Bucket(unfinishedBucket).Delete(unfinishedKey(f)),
		tx.Bucket(filesBucket).Delete([]byte(f.ID)),
	)
}

func replaceFile(tx *bbolt.Tx, old, f File) error {
	return errors.Join(removeFile(tx, old), putFile(tx, f))
}

// boltFault translates errors of the embedded database.
func boltFault(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) {
		return errNoSpace.Because(err)
	}
	return errLedgerAway.Because(err)
}
