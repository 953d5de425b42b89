package auth

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// Besides sessions the file keeps small values with an expiry: keyrings,
// what was replaced in them, blocks and claims.
func endedName(openID string) []byte { return []byte("ended:" + openID) }
func ringName(openID string) []byte  { return []byte("keys:" + openID) }
func blockName(openID string) []byte { return []byte("block:" + openID) }
func claimName(name string) []byte   { return []byte("claim:" + name) }

// forever is the expiry of what stays until it is removed.
var forever = time.UnixMilli(math.MaxInt64)

// Keys implements Store.
func (f *FileStore) Keys(ctx context.Context, openID string) (ring []SealedKey, err error) {
	err = f.view(ctx, func(tx *bbolt.Tx) { ring = loadRing(tx, openID) })
	return ring, err
}

func loadRing(tx *bbolt.Tx, openID string) (ring []SealedKey) {
	if json.Unmarshal(getValue(tx, ringName(openID)), &ring) != nil {
		return nil // none, or damaged: the next login makes a new one
	}
	return ring
}

func addToRing(tx *bbolt.Tx, openID string, k SealedKey) error {
	if slices.Contains(loadEnded(tx, openID), k.Tag) {
		return nil
	}
	return putRing(tx, openID, addKey(loadRing(tx, openID), k))
}

func putRing(tx *bbolt.Tx, openID string, ring []SealedKey) error {
	data, err := json.Marshal(ring)
	if err != nil {
		return err
	}
	return putValue(tx, ringName(openID), data, ring[0].Issued.Add(sessionKeyLife))
}

// ReplaceKeys implements Store.
func (f *FileStore) ReplaceKeys(ctx context.Context, openID string, k SealedKey) error {
	return f.batch(ctx, func(tx *bbolt.Tx) error {
		ended, err := json.Marshal(endKeys(loadEnded(tx, openID), loadRing(tx, openID), k))
		if err != nil {
			return err
		}
		return errors.Join(
			putValue(tx, endedName(openID), ended, time.Now().Add(endedKeyLife)),
			putRing(tx, openID, []SealedKey{k}))
	})
}

// loadEnded returns the tags of keys that were replaced just now.
func loadEnded(tx *bbolt.Tx, openID string) (tags [][8]byte) {
	if json.Unmarshal(getValue(tx, endedName(openID)), &tags) != nil {
		return nil
	}
	return tags
}

// Block implements Store.
func (f *FileStore) Block(ctx context.Context, openID string, b Block) (ends []SessionEnd, err error) {
	data, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	until := b.Until
	if until.IsZero() {
		until = forever
	}
	err = f.batch(ctx, func(tx *bbolt.Tx) (err error) {
		if err := putValue(tx, blockName(openID), data, until); err != nil {
			return err
		}
		ends, err = removeUser(tx, openID, EndBlocked)
		return err
	})
	return ends, err
}

// Unblock implements Store.
func (f *FileStore) Unblock(ctx context.Context, openID string) error {
	return f.batch(ctx, func(tx *bbolt.Tx) error { return removeValue(tx, blockName(openID)) })
}

// Blocked implements Store.
func (f *FileStore) Blocked(ctx context.Context, openID string) (b *Block, err error) {
	err = f.view(ctx, func(tx *bbolt.Tx) { b = loadBlock(tx, openID) })
	return b, err
}

func loadBlock(tx *bbolt.Tx, openID string) *Block {
	return decodeBlock(getValue(tx, blockName(openID)))
}

// Claim implements Store.
func (f *FileStore) Claim(ctx context.Context, name string, life time.Duration) (value []byte, claimed bool, err error) {
	err = f.batch(ctx, func(tx *bbolt.Tx) error {
		old := getValue(tx, claimName(name))
		value, claimed = nil, old == nil
		if len(old) > 0 {
			value = bytes.Clone(old)
		}
		if !claimed {
			return nil
		}
		return putValue(tx, claimName(name), nil, time.Now().Add(life))
	})
	return value, claimed && err == nil, err
}

// Settle implements Store.
func (f *FileStore) Settle(ctx context.Context, name string, value []byte, life time.Duration) error {
	return f.batch(ctx, func(tx *bbolt.Tx) error { return putValue(tx, claimName(name), value, time.Now().Add(life)) })
}

// Release implements Store.
func (f *FileStore) Release(ctx context.Context, name string) error {
	return f.batch(ctx, func(tx *bbolt.Tx) error { return removeValue(tx, claimName(name)) })
}

// getValue returns what has not expired, or nil. It is good until the
// transaction ends; an empty value is not nil.
func getValue(tx *bbolt.Tx, name []byte) []byte {
	v := tx.Bucket(bucketValues).Get(name)
	if len(v) < 8 || !time.Now().Before(time.UnixMilli(int64(binary.BigEndian.Uint64(v)))) {
		return nil
	}
	return v[8:]
}

func putValue(tx *bbolt.Tx, name, value []byte, expires time.Time) error {
	if err := removeValue(tx, name); err != nil {
		return err
	}
	return errors.Join(
		tx.Bucket(bucketValues).Put(name, append(expiryBytes(expires), value...)),
		tx.Bucket(bucketValueEnd).Put(expiryEntry(expires, name), nil))
}

func removeValue(tx *bbolt.Tx, name []byte) error {
	values := tx.Bucket(bucketValues)
	v := values.Get(name)
	if len(v) < 8 {
		return values.Delete(name)
	}
	index := append(bytes.Clone(v[:8]), name...)
	return errors.Join(tx.Bucket(bucketValueEnd).Delete(index), values.Delete(name))
}

// sweep removes what expired before now, a bounded number per transaction so
// that logins get their turn in between.
func (f *FileStore) sweep(ctx context.Context, now time.Time) error {
	for _, s := range []struct {
		index  []byte
		remove func(tx *bbolt.Tx, name []byte) error
	}{
		{bucketExpiry, func(tx *bbolt.Tx, name []byte) error {
			var fp Fingerprint
			copy(fp[:], name)
			return remove(tx, fp)
		}},
		{bucketValueEnd, removeValue},
	} {
		for n := sweepBatch; n == sweepBatch; {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := f.db.Update(func(tx *bbolt.Tx) (err error) {
				n, err = sweepIndex(tx, s.index, now, s.remove)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func sweepIndex(tx *bbolt.Tx, index []byte, now time.Time, remove func(*bbolt.Tx, []byte) error) (int, error) {
	limit, expired := expiryBytes(now), [][]byte(nil)
	c := tx.Bucket(index).Cursor()
	for k, _ := c.First(); len(k) >= 8 && len(expired) < sweepBatch && bytes.Compare(k[:8], limit) <= 0; k, _ = c.Next() {
		expired = append(expired, bytes.Clone(k))
	}
	for _, entry := range expired {
		// The entry itself goes in any case: what it names may be damaged.
		if err := errors.Join(remove(tx, entry[8:]), tx.Bucket(index).Delete(entry)); err != nil {
			return 0, err
		}
	}
	return len(expired), nil
}
