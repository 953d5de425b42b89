package auth

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"
)

// The buckets of a FileStore. Expiries are 8 bytes, Unix milliseconds, big
// endian, so that they sort.
var (
	bucketSessions = []byte("auth_sessions") // fingerprint → expiry, encoded record
	bucketUsers    = []byte("auth_users")    // openid, 0, fingerprint → nothing
	bucketExpiry   = []byte("auth_expiry")   // expiry, fingerprint → nothing
)

const (
	sweepEvery = time.Minute
	sweepBatch = 1000 // sessions removed in one transaction
)

// FileStore keeps sessions in an embedded database file, for a node that runs
// alone. Every write is on disk before it returns; writes at the same moment
// share the wait for the disk.
type FileStore struct{ db *bbolt.DB }

// NewFileStore uses buckets named auth_… in db, which the caller closes after
// the store's last use.
func NewFileStore(db *bbolt.DB) (*FileStore, error) {
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketSessions, bucketUsers, bucketExpiry} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, storeError(err)
	}
	return &FileStore{db}, nil
}

// Run removes expired sessions once a minute. There are no other nodes.
func (f *FileStore) Run(ctx context.Context, _ func(SessionEnd)) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := f.sweep(ctx, time.Now()); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "expired sessions stay for now", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Ping tells whether the file can be read.
func (f *FileStore) Ping(context.Context) error {
	return storeError(f.db.View(func(*bbolt.Tx) error { return nil }))
}

// Put implements Store.
func (f *FileStore) Put(ctx context.Context, r *Record) error {
	data, err := encodeRecord(r)
	if err != nil {
		return err
	}
	return f.batch(ctx, func(tx *bbolt.Tx) error {
		if err := remove(tx, r.Fingerprint); err != nil {
			return err
		}
		value := append(expiryBytes(r.Expires), data...)
		return errors.Join(
			tx.Bucket(bucketSessions).Put(r.Fingerprint[:], value),
			tx.Bucket(bucketUsers).Put(userEntry(r.User.OpenID, r.Fingerprint), nil),
			tx.Bucket(bucketExpiry).Put(expiryEntry(value, r.Fingerprint), nil),
		)
	})
}

// Get implements Store.
func (f *FileStore) Get(ctx context.Context, fp Fingerprint) (r *Record, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = f.db.View(func(tx *bbolt.Tx) error {
		r = load(tx, fp)
		return nil
	})
	if err != nil {
		return nil, storeError(err)
	}
	if r == nil {
		return nil, ErrNoSession
	}
	return r, nil
}

// Touch implements Store.
func (f *FileStore) Touch(ctx context.Context, s *Session, expires time.Time) error {
	return f.batch(ctx, func(tx *bbolt.Tx) error {
		if load(tx, s.Fingerprint) == nil {
			return nil
		}
		sessions, index := tx.Bucket(bucketSessions), tx.Bucket(bucketExpiry)
		value := bytes.Clone(sessions.Get(s.Fingerprint[:]))
		if err := index.Delete(expiryEntry(value, s.Fingerprint)); err != nil {
			return err
		}
		copy(value, expiryBytes(expires))
		return errors.Join(
			sessions.Put(s.Fingerprint[:], value),
			index.Put(expiryEntry(value, s.Fingerprint), nil),
		)
	})
}

// Delete implements Store.
func (f *FileStore) Delete(ctx context.Context, end SessionEnd) error {
	return f.batch(ctx, func(tx *bbolt.Tx) error { return remove(tx, end.Fingerprint) })
}

// ListByUser implements Store.
func (f *FileStore) ListByUser(ctx context.Context, openID string) (list []*Session, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = f.db.View(func(tx *bbolt.Tx) error {
		list = listUser(tx, openID)
		return nil
	})
	return list, storeError(err)
}

// DeleteByUser implements Store.
func (f *FileStore) DeleteByUser(ctx context.Context, openID string, reason EndReason) (ends []SessionEnd, err error) {
	err = f.batch(ctx, func(tx *bbolt.Tx) error {
		ends = nil // a batched function may run twice
		for _, s := range listUser(tx, openID) {
			if err := remove(tx, s.Fingerprint); err != nil {
				return err
			}
			ends = append(ends, SessionEnd{s.Fingerprint, s.User, reason})
		}
		return nil
	})
	return ends, err
}

func (f *FileStore) batch(ctx context.Context, change func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return storeError(f.db.Batch(change))
}

// sweep removes what expired before now, a bounded number per transaction so
// that logins get their turn in between.
func (f *FileStore) sweep(ctx context.Context, now time.Time) error {
	for ctx.Err() == nil {
		var expired []Fingerprint
		err := f.db.Update(func(tx *bbolt.Tx) error {
			expired = expiredBy(tx, now)
			for _, fp := range expired {
				if err := remove(tx, fp); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || len(expired) < sweepBatch {
			return err
		}
	}
	return ctx.Err()
}

func expiredBy(tx *bbolt.Tx, now time.Time) (list []Fingerprint) {
	limit := expiryBytes(now)
	c := tx.Bucket(bucketExpiry).Cursor()
	for k, _ := c.First(); k != nil && len(list) < sweepBatch && bytes.Compare(k[:8], limit) <= 0; k, _ = c.Next() {
		var fp Fingerprint
		copy(fp[:], k[8:])
		list = append(list, fp)
	}
	return list
}

// load returns a session that has not expired, or nil. A damaged record is
// no session: its user logs in again.
func load(tx *bbolt.Tx, fp Fingerprint) *Record {
	value := tx.Bucket(bucketSessions).Get(fp[:])
	if len(value) < 8 {
		return nil
	}
	expires := time.UnixMilli(int64(binary.BigEndian.Uint64(value)))
	if !time.Now().Before(expires) {
		return nil
	}
	r, err := decodeRecord(fp, expires, value[8:])
	if err != nil {
		slog.Error("a session record is damaged", "session", fp, "error", err)
		return nil
	}
	return r
}

func listUser(tx *bbolt.Tx, openID string) (list []*Session) {
	prefix := append([]byte(openID), 0)
	c := tx.Bucket(bucketUsers).Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		var fp Fingerprint
		copy(fp[:], k[len(prefix):])
		if r := load(tx, fp); r != nil && r.User.OpenID == openID {
			list = append(list, &r.Session)
		}
	}
	return list
}

// remove takes a session out of all three buckets; one that is not there is
// no mistake.
func remove(tx *bbolt.Tx, fp Fingerprint) error {
	sessions := tx.Bucket(bucketSessions)
	value := sessions.Get(fp[:])
	if len(value) < 8 {
		return sessions.Delete(fp[:])
	}
	index := tx.Bucket(bucketExpiry).Delete(expiryEntry(value, fp))
	r, err := decodeRecord(fp, time.Time{}, value[8:])
	if err != nil {
		return errors.Join(index, sessions.Delete(fp[:])) // whose it was is lost; load skips what users still lists
	}
	return errors.Join(index,
		tx.Bucket(bucketUsers).Delete(userEntry(r.User.OpenID, fp)),
		sessions.Delete(fp[:]))
}

func expiryBytes(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(max(t.UnixMilli(), 0)))
}

// expiryEntry is the index key of a stored value, which begins with its expiry.
func expiryEntry(value []byte, fp Fingerprint) []byte {
	return append(bytes.Clone(value[:8]), fp[:]...)
}

func userEntry(openID string, fp Fingerprint) []byte {
	return append(append([]byte(openID), 0), fp[:]...)
}
