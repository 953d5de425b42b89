package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"github.com/minigate/minigate/auth"
)

//	transfer.usage  account → bytes stored and sessions, 8 bytes each
//	transfer.days   day + account → bytes
//
// Both are the sums of File.charge over all records, and change with them.

var (
	usageBucket = []byte("transfer.usage")
	daysBucket  = []byte("transfer.days")
)

// Usage implements Ledger.
func (l *FileLedger) Usage(_ context.Context, owner auth.User) (u Usage, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		u = readUsage(tx, accountOf(owner), dayOf(now()))
		return nil
	})
	return u, boltFault(err)
}

func readUsage(tx *bbolt.Tx, account, day string) (u Usage) {
	if v := tx.Bucket(usageBucket).Get([]byte(account)); len(v) == 16 {
		u.Stored, u.Sessions = int64(binary.BigEndian.Uint64(v)), int(binary.BigEndian.Uint64(v[8:]))
	}
	if v := tx.Bucket(daysBucket).Get([]byte(day + account)); len(v) == 8 {
		u.Daily = int64(binary.BigEndian.Uint64(v))
	}
	return u
}

// Sessions implements Ledger.
func (l *FileLedger) Sessions(_ context.Context, owner auth.User, limit int) (files []File, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		prefix := []byte(accountOf(owner) + "\x00")
		first := append(bytes.Clone(prefix), timeKey(now().Add(time.Millisecond))...)
		c := tx.Bucket(openersBucket).Cursor()
		for k, _ := c.Seek(first); bytes.HasPrefix(k, prefix) && len(files) < limit; k, _ = c.Next() {
			f, err := getFile(tx, string(k[len(first):]))
			if err != nil {
				return err
			}
			files = append(files, f)
		}
		return nil
	})
	return files, boltFault(err)
}

// move moves what is charged from one version of a record to the next; the
// zero File stands for none.
func (q Quota) move(tx *bbolt.Tx, from, to File) error {
	switch {
	case to.ID == "":
		return q.count(tx, from, from.charge(), from.lasting())
	case from.ID != "" && accountOf(from.Owner) != accountOf(to.Owner):
		return errors.Join(
			q.count(tx, from, from.charge(), from.lasting()),
			q.count(tx, to, to.lasting(), to.charge()),
		)
	}
	return q.count(tx, to, from.charge(), to.charge())
}

// count moves what f counts for its owner.
func (q Quota) count(tx *bbolt.Tx, f File, was, is Usage) error {
	account, day := accountOf(f.Owner), f.day()
	old := readUsage(tx, account, day)
	u := Usage{
		Stored: max(0, old.Stored+is.Stored-was.Stored), Daily: max(0, old.Daily+is.Daily-was.Daily),
		Sessions: max(0, old.Sessions+is.Sessions-was.Sessions),
	}
	if u == old {
		return nil
	}
	if err := q.check(old, u); err != nil {
		return err
	}
	return errors.Join(writeUsage(tx, account, day, u), forgetDays(tx))
}

func writeUsage(tx *bbolt.Tx, account, day string, u Usage) error {
	put := func(bucket []byte, key string, numbers ...int64) error {
		var v []byte
		empty := true
		for _, n := range numbers {
			v, empty = binary.BigEndian.AppendUint64(v, uint64(n)), empty && n == 0
		}
		if empty {
			return tx.Bucket(bucket).Delete([]byte(key))
		}
		return tx.Bucket(bucket).Put([]byte(key), v)
	}
	return errors.Join(put(usageBucket, account, u.Stored, int64(u.Sessions)), put(daysBucket, day+account, u.Daily))
}

// forgetDays removes some days that nobody asks for any more.
func forgetDays(tx *bbolt.Tx) error {
	const step = 100
	first := []byte(dayOf(time.Now().Add(-dayKept)))
	c := tx.Bucket(daysBucket).Cursor()
	for range step {
		k, _ := c.First()
		if k == nil || bytes.Compare(k[:len(first)], first) >= 0 {
			return nil
		}
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// chargeAll enters the files of a database that is older than quotas.
func chargeAll(tx *bbolt.Tx) error {
	return tx.Bucket(filesBucket).ForEach(func(id, _ []byte) error {
		f, err := getFile(tx, string(id))
		if err != nil {
			return err
		}
		return Quota{}.move(tx, File{}, f)
	})
}
