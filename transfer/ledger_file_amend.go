package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"go.etcd.io/bbolt"
)

func expiringKey(f File) []byte { return append(timeKey(f.Expires), f.ID...) }

// Amend implements Ledger.
func (l *FileLedger) Amend(_ context.Context, id string, change func(f *File) error) (f File, err error) {
	err = l.db.Update(func(tx *bbolt.Tx) error {
		old, err := getFile(tx, id)
		if err != nil {
			return err
		}
		if !old.kept() {
			return errFileState
		}
		f = old
		if err := change(&f); err != nil || f == old {
			return err
		}
		if f.State != old.State {
			f.Changed = now()
		}
		return Quota{}.replaceFile(tx, old, f)
	})
	return f, boltFault(err)
}

// Expired implements Ledger.
func (l *FileLedger) Expired(_ context.Context, before time.Time, limit int) ([]File, error) {
	return l.since(expiringBucket, before, limit, Checking, Ready, Blocked)
}

// Due implements Ledger.
func (l *FileLedger) Due(_ context.Context, before time.Time, limit int) ([]File, error) {
	return l.since(dueBucket, before, limit, Checking, Blocked)
}

// CountDue implements Ledger.
func (l *FileLedger) CountDue(context.Context) (n int, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(dueBucket).ForEach(func(_, _ []byte) error { // few, and in the cache
			n++
			return nil
		})
	})
	return n, boltFault(err)
}

// dropSpent is how many counts of links that have ended go with one that is
// made.
const dropSpent = 10

// Spend implements Ledger.
func (l *FileLedger) Spend(_ context.Context, d Spending) (ok bool, err error) {
	do := l.db.Update
	if d.Look {
		do = l.db.View // which does not wait for the disk
	}
	err = do(func(tx *bbolt.Tx) error {
		b, key := tx.Bucket(spentBucket), append(timeKey(d.Until), d.Link...)
		var s spent
		if v := b.Get(key); len(v) == 16 {
			s.count = int(binary.BigEndian.Uint64(v))
			s.last = time.UnixMilli(int64(binary.BigEndian.Uint64(v[8:])))
		}
		old := s
		if s, ok = d.spend(s); s == old {
			return nil
		}
		if err := forgetSpent(b, d.At); err != nil {
			return err
		}
		return b.Put(key, append(binary.BigEndian.AppendUint64(nil, uint64(s.count)), timeKey(s.last)...))
	})
	return ok && err == nil, boltFault(err)
}

// forgetSpent drops counts of links that have ended.
func forgetSpent(b *bbolt.Bucket, at time.Time) error {
	end := timeKey(at)
	var ended [][]byte
	c := b.Cursor()
	for k, _ := c.First(); k != nil && len(ended) < dropSpent && bytes.Compare(k[:len(end)], end) < 0; k, _ = c.Next() {
		ended = append(ended, k)
	}
	for _, k := range ended {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// Claim implements Ledger: there is no other process.
func (l *FileLedger) Claim(context.Context, string, time.Duration) (bool, error) { return true, nil }
