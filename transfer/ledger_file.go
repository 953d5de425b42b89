package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/minigate/minigate/internal/fault"
)

// FileLedger is the Ledger of a single node, in an embedded database:
//
//	transfer.files       id → File as JSON
//	transfer.unfinished  Changed in big-endian milliseconds + id → nothing
//	transfer.sessions    Session.Expires likewise + id → nothing, of pending ones
//	transfer.openers     account + NUL + key in transfer.sessions → nothing
//	transfer.owed        as transfer.unfinished, of files that are Owed
//	transfer.places      Place of a file that is kept → nothing
//	transfer.owners      openid + NUL + Place of a file that is kept → nothing
//	transfer.expiring    Expires in big-endian milliseconds + id of a file that is kept → nothing
//	transfer.due         Check.Due likewise → nothing
//	transfer.spent       the end of a link in big-endian milliseconds + its id → count, time of the last
//
// what counts against quotas (see ledger_file_usage.go), and aliases (see
// ledger_alias.go).
type FileLedger struct{ db *bbolt.DB }

var (
	filesBucket      = []byte("transfer.files")
	unfinishedBucket = []byte("transfer.unfinished")
	sessionsBucket   = []byte("transfer.sessions")
	openersBucket    = []byte("transfer.openers")
	owedBucket       = []byte("transfer.owed")
	placesBucket     = []byte("transfer.places")
	ownersBucket     = []byte("transfer.owners")
	expiringBucket   = []byte("transfer.expiring")
	dueBucket        = []byte("transfer.due")
	spentBucket      = []byte("transfer.spent")
)

// NewFileLedger uses db, which stays the caller's to close.
func NewFileLedger(db *bbolt.DB) (*FileLedger, error) {
	err := db.Update(func(tx *bbolt.Tx) error {
		unlisted := tx.Bucket(filesBucket) != nil && tx.Bucket(placesBucket) == nil
		uncharged := tx.Bucket(filesBucket) != nil && tx.Bucket(usageBucket) == nil
		for _, name := range [][]byte{
			filesBucket, unfinishedBucket, sessionsBucket, openersBucket, owedBucket,
			placesBucket, ownersBucket, expiringBucket, dueBucket, spentBucket, usageBucket, daysBucket, aliasesBucket, lapsesBucket,
		} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		var err error
		if unlisted {
			err = enlistAll(tx)
		}
		if uncharged {
			err = errors.Join(err, chargeAll(tx))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("file ledger: %w", err)
	}
	return &FileLedger{db}, nil
}

// enlistAll enters the files of a database that is older than lists into them.
func enlistAll(tx *bbolt.Tx) error {
	return tx.Bucket(filesBucket).ForEach(func(id, _ []byte) error {
		f, err := getFile(tx, string(id))
		if err != nil || !f.kept() {
			return err
		}
		return enlist(tx, f)
	})
}

// Reserve implements Ledger.
func (l *FileLedger) Reserve(_ context.Context, f File, q Quota) error {
	return boltFault(l.db.Update(func(tx *bbolt.Tx) error {
		if err := q.move(tx, File{}, f); err != nil {
			return err
		}
		return putFile(tx, f)
	}))
}

// Update implements Ledger.
func (l *FileLedger) Update(_ context.Context, f File, q Quota) error {
	return l.replacePending(f, Pending, q)
}

// Commit implements Ledger.
func (l *FileLedger) Commit(_ context.Context, f File, q Quota) error {
	f.Whole = true
	if f.State != Checking {
		f.State = Ready
	}
	return l.replacePending(f, f.State, q)
}

func (l *FileLedger) replacePending(f File, to State, q Quota) error {
	return boltFault(l.db.Update(func(tx *bbolt.Tx) error {
		old, err := getFile(tx, f.ID)
		if err != nil {
			return err
		}
		if old.State != Pending {
			return errFileState
		}
		if to == Pending {
			if old.Session.Rev != f.Session.Rev {
				return errChanged
			}
			f.Session.Rev++
		}
		f.State, f.Changed = to, now()
		return q.replaceFile(tx, old, f)
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
		return Quota{}.replaceFile(tx, old, f)
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
		return errors.Join(Quota{}.move(tx, f, File{}), removeFile(tx, f))
	}))
}

// Unfinished implements Ledger.
func (l *FileLedger) Unfinished(_ context.Context, before time.Time, limit int, states ...State) ([]File, error) {
	return l.since(unfinishedBucket, before, limit, states...)
}

// ExpiredSessions implements Ledger.
func (l *FileLedger) ExpiredSessions(_ context.Context, before time.Time, limit int) ([]File, error) {
	return l.since(sessionsBucket, before, limit, Pending)
}

// Owed implements Ledger.
func (l *FileLedger) Owed(_ context.Context, before time.Time, limit int) ([]File, error) {
	return l.since(owedBucket, before, limit, Ready, Blocked)
}

// since returns the files of an index by time that are in one of the states.
func (l *FileLedger) since(bucket []byte, before time.Time, limit int, states ...State) (files []File, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		end := timeKey(before)
		c := tx.Bucket(bucket).Cursor()
		for k, _ := c.First(); k != nil && len(files) < limit && bytes.Compare(k[:len(end)], end) < 0; k, _ = c.Next() {
			f, err := getFile(tx, string(k[len(end):]))
			if err != nil {
				return err
			}
			if slices.Contains(states, f.State) {
				files = append(files, f)
			}
		}
		return nil
	})
	return files, boltFault(err)
}

// Settle implements Ledger.
func (l *FileLedger) Settle(_ context.Context, settled File) error {
	return boltFault(l.db.Update(func(tx *bbolt.Tx) error {
		old, err := getFile(tx, settled.ID)
		if errors.Is(err, errNoFile) || err == nil && (!old.Owed || old.State != settled.State) {
			return nil
		}
		if err != nil {
			return err
		}
		f := old
		f.Owed = false
		return Quota{}.replaceFile(tx, old, f)
	}))
}

// List implements Ledger.
func (l *FileLedger) List(_ context.Context, openID string, after Place, limit int) (files []File, next Place, err error) {
	bucket, prefix := placesBucket, ""
	if openID != "" {
		bucket, prefix = ownersBucket, openID+"\x00"
	}
	err = l.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		end := prefix + string(after)
		if after == "" {
			end = prefix + "\xff" // behind every place
		}
		k, _ := c.Seek([]byte(end))
		if k == nil {
			k, _ = c.Last()
		} else {
			k, _ = c.Prev()
		}
		for ; k != nil && bytes.HasPrefix(k, []byte(prefix)); k, _ = c.Prev() {
			if len(files) == limit {
				next = placeOf(files[limit-1])
				break
			}
			f, err := getFile(tx, Place(k[len(prefix):]).id())
			if err != nil {
				return err
			}
			files = append(files, f)
		}
		return nil
	})
	return files, next, boltFault(err)
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

func sinceKey(f File) []byte { return append(timeKey(f.Changed), f.ID...) }

func sessionKey(f File) []byte { return append(timeKey(f.Session.Expires), f.ID...) }

func openersKey(f File) []byte { return append([]byte(accountOf(f.Owner)+"\x00"), sessionKey(f)...) }

func dueKey(f File) []byte { return append(timeKey(f.Check.Due), f.ID...) }

func ownersKey(f File) []byte { return []byte(f.Owner.OpenID + "\x00" + string(placeOf(f))) }

// enlist enters a file that is kept into the lists.
func enlist(tx *bbolt.Tx, f File) error {
	err := errors.Join(
		tx.Bucket(placesBucket).Put([]byte(placeOf(f)), nil),
		tx.Bucket(ownersBucket).Put(ownersKey(f), nil),
	)
	if !f.Expires.IsZero() {
		err = errors.Join(err, tx.Bucket(expiringBucket).Put(expiringKey(f), nil))
	}
	if f.Owed {
		err = errors.Join(err, tx.Bucket(owedBucket).Put(sinceKey(f), nil))
	}
	if !f.Check.Due.IsZero() {
		err = errors.Join(err, tx.Bucket(dueBucket).Put(dueKey(f), nil))
	}
	return err
}

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
	err = tx.Bucket(filesBucket).Put([]byte(f.ID), record)
	switch {
	case f.State == Pending && f.inParts():
		err = errors.Join(err, tx.Bucket(sessionsBucket).Put(sessionKey(f), nil), tx.Bucket(openersBucket).Put(openersKey(f), nil))
	case f.kept():
		err = errors.Join(err, enlist(tx, f))
	default:
		err = errors.Join(err, tx.Bucket(unfinishedBucket).Put(sinceKey(f), nil))
	}
	return err
}

func removeFile(tx *bbolt.Tx, f File) error {
	return errors.Join(
		tx.Bucket(unfinishedBucket).Delete(sinceKey(f)),
		tx.Bucket(sessionsBucket).Delete(sessionKey(f)),
		tx.Bucket(openersBucket).Delete(openersKey(f)),
		tx.Bucket(owedBucket).Delete(sinceKey(f)),
		tx.Bucket(placesBucket).Delete([]byte(placeOf(f))),
		tx.Bucket(ownersBucket).Delete(ownersKey(f)),
		tx.Bucket(expiringBucket).Delete(expiringKey(f)),
		tx.Bucket(dueBucket).Delete(dueKey(f)),
		tx.Bucket(filesBucket).Delete([]byte(f.ID)),
	)
}

func (q Quota) replaceFile(tx *bbolt.Tx, old, f File) error {
	if err := q.move(tx, old, f); err != nil {
		return err
	}
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
	if diskFull(err) {
		return errNoSpace.Because(err)
	}
	return errLedgerAway.Because(err)
}
