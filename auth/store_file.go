package auth

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// The buckets of a FileStore. Expiries are 8 bytes, Unix milliseconds, big
// endian, so that they sort.
var (
	bucketSessions = []byte("auth_sessions")     // fingerprint → encoded session
	bucketUsers    = []byte("auth_users")        // openid, 0, fingerprint → number of the login, 8 bytes
	bucketExpiry   = []byte("auth_expiry")       // expiry, fingerprint → nothing
	bucketValues   = []byte("auth_values")       // name → expiry, value
	bucketValueEnd = []byte("auth_value_expiry") // expiry, name → nothing
)

const (
	sweepEvery = time.Minute
	sweepBatch = 1000 // entries removed in one transaction
)

// FileStore keeps sessions in an embedded database file, for a node that runs
// alone. Every write is on disk before it returns; writes at the same moment
// share the wait for the disk.
type FileStore struct {
	db   *bbolt.DB
	used usedTickets
}

// NewFileStore uses buckets named auth_… in db, which the caller closes after
// the store's last use.
func NewFileStore(db *bbolt.DB) (*FileStore, error) {
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketSessions, bucketUsers, bucketExpiry, bucketValues, bucketValueEnd} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, storeError(err)
	}
	return &FileStore{db: db}, nil
}

// Run removes what expired once a minute. There are no other nodes.
func (f *FileStore) Run(ctx context.Context, _ Hear) error {
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

// Open implements Store.
func (f *FileStore) Open(ctx context.Context, o *Opening) (replaced []SessionEnd, err error) {
	data, err := encodeSession(&o.Session)
	if err != nil {
		return nil, err
	}
	var block *Block
	err = f.batch(ctx, func(tx *bbolt.Tx) error {
		replaced = nil // a batched function may run twice
		openID := o.Session.User.OpenID
		if block = loadBlock(tx, openID); block != nil {
			return nil
		}
		if err := errors.Join(insert(tx, &o.Session, data), addToRing(tx, openID, o.Key)); err != nil || o.Limit == 0 {
			return err
		}
		list := listUser(tx, openID)
		for _, old := range list[:max(0, len(list)-o.Limit)] {
			if err := remove(tx, old.Fingerprint); err != nil {
				return err
			}
			replaced = append(replaced, SessionEnd{old.Fingerprint, old.User, EndReplaced})
		}
		return nil
	})
	if err == nil && block != nil {
		err = block.Fault()
	}
	return replaced, err
}

// Get implements Store.
func (f *FileStore) Get(ctx context.Context, fp Fingerprint) (s *Session, err error) {
	err = f.view(ctx, func(tx *bbolt.Tx) { s = load(tx, fp) })
	if err == nil && s == nil {
		err = ErrNoSession
	}
	return s, err
}

// Touch implements Store.
func (f *FileStore) Touch(ctx context.Context, list []*Session) error {
	data := make([][]byte, len(list))
	for i, s := range list {
		var err error
		if data[i], err = encodeSession(s); err != nil {
			return err
		}
	}
	return f.batch(ctx, func(tx *bbolt.Tx) error {
		for i, s := range list {
			if err := replace(tx, s, data[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// Delete implements Store.
func (f *FileStore) Delete(ctx context.Context, end SessionEnd) error {
	return f.batch(ctx, func(tx *bbolt.Tx) error { return remove(tx, end.Fingerprint) })
}

// ListByUser implements Store.
func (f *FileStore) ListByUser(ctx context.Context, openID string) (list []*Session, err error) {
	err = f.view(ctx, func(tx *bbolt.Tx) { list = listUser(tx, openID) })
	return list, err
}

// DeleteByUser implements Store.
func (f *FileStore) DeleteByUser(ctx context.Context, openID string, reason EndReason) (ends []SessionEnd, err error) {
	err = f.batch(ctx, func(tx *bbolt.Tx) (err error) {
		ends, err = removeUser(tx, openID, reason)
		return err
	})
	return ends, err
}

func (f *FileStore) view(ctx context.Context, look func(*bbolt.Tx)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return storeError(f.db.View(func(tx *bbolt.Tx) error {
		look(tx)
		return nil
	}))
}

func (f *FileStore) batch(ctx context.Context, change func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return storeError(f.db.Batch(change))
}

func insert(tx *bbolt.Tx, s *Session, data []byte) error {
	users := tx.Bucket(bucketUsers)
	number, err := users.NextSequence()
	if err != nil {
		return err
	}
	return errors.Join(
		tx.Bucket(bucketSessions).Put(s.Fingerprint[:], data),
		users.Put(userEntry(s.User.OpenID, s.Fingerprint), binary.BigEndian.AppendUint64(nil, number)),
		tx.Bucket(bucketExpiry).Put(expiryEntry(s.Expires, s.Fingerprint[:]), nil),
	)
}

// replace writes a session anew, if it is there.
func replace(tx *bbolt.Tx, s *Session, data []byte) error {
	old := load(tx, s.Fingerprint)
	if old == nil {
		return nil
	}
	index := tx.Bucket(bucketExpiry)
	return errors.Join(
		index.Delete(expiryEntry(old.Expires, s.Fingerprint[:])),
		index.Put(expiryEntry(s.Expires, s.Fingerprint[:]), nil),
		tx.Bucket(bucketSessions).Put(s.Fingerprint[:], data),
	)
}

// load returns a session that has not expired, or nil. A damaged record is
// no session: its user logs in again.
func load(tx *bbolt.Tx, fp Fingerprint) *Session {
	data := tx.Bucket(bucketSessions).Get(fp[:])
	if data == nil {
		return nil
	}
	s, err := decodeSession(fp, data)
	if err != nil {
		slog.Error("a session record is damaged", "session", fp, "error", err)
		return nil
	}
	if !time.Now().Before(s.Expires) {
		return nil
	}
	return s
}

// listUser returns a user's sessions, oldest login first.
func listUser(tx *bbolt.Tx, openID string) []*Session {
	type entry struct {
		number uint64
		s      *Session
	}
	var entries []entry
	prefix := append([]byte(openID), 0)
	c := tx.Bucket(bucketUsers).Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		var fp Fingerprint
		copy(fp[:], k[len(prefix):])
		if s := load(tx, fp); s != nil && s.User.OpenID == openID && len(v) == 8 {
			entries = append(entries, entry{binary.BigEndian.Uint64(v), s})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return int(int64(a.number - b.number)) })
	list := make([]*Session, len(entries))
	for i, e := range entries {
		list[i] = e.s
	}
	return list
}

func removeUser(tx *bbolt.Tx, openID string, reason EndReason) (ends []SessionEnd, err error) {
	for _, s := range listUser(tx, openID) {
		if err := remove(tx, s.Fingerprint); err != nil {
			return nil, err
		}
		ends = append(ends, SessionEnd{s.Fingerprint, s.User, reason})
	}
	return ends, nil
}

// remove takes a session out of all three buckets; one that is not there is
// no mistake.
func remove(tx *bbolt.Tx, fp Fingerprint) error {
	sessions := tx.Bucket(bucketSessions)
	data := sessions.Get(fp[:])
	if data == nil {
		return nil
	}
	s, err := decodeSession(fp, data)
	if err != nil {
		return sessions.Delete(fp[:]) // whose it was is lost; load skips what users still lists
	}
	return errors.Join(
		tx.Bucket(bucketExpiry).Delete(expiryEntry(s.Expires, fp[:])),
		tx.Bucket(bucketUsers).Delete(userEntry(s.User.OpenID, fp)),
		sessions.Delete(fp[:]))
}

func expiryBytes(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(max(t.UnixMilli(), 0)))
}

// expiryEntry is the key of an index of expiries.
func expiryEntry(expires time.Time, name []byte) []byte { return append(expiryBytes(expires), name...) }

func userEntry(openID string, fp Fingerprint) []byte {
	return append(append([]byte(openID), 0), fp[:]...)
}
