package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"go.etcd.io/bbolt"

	"github.com/minigate/minigate/auth"
)

// Aliases are names that clients give to uploads. In the embedded database:
//
//	transfer.aliases  account + NUL + alias → until in big-endian milliseconds + id
//	transfer.lapses   until likewise + the key of the alias → nothing
//
// and in Redis:
//
//	PREFIXalias:{ACCOUNT}:HASH  id; expires. HASH is the SHA-256 of the alias

var (
	aliasesBucket = []byte("transfer.aliases")
	lapsesBucket  = []byte("transfer.lapses")
)

// Alias implements Ledger.
func (l *FileLedger) Alias(_ context.Context, owner auth.User, alias, stale, id string, until time.Time) (string, error) {
	key := []byte(accountOf(owner) + "\x00" + alias)
	found := ""
	look := func(tx *bbolt.Tx) {
		if v := tx.Bucket(aliasesBucket).Get(key); len(v) > 8 && int64(binary.BigEndian.Uint64(v)) > now().UnixMilli() {
			found = string(v[8:])
		}
	}
	if id == "" {
		err := l.db.View(func(tx *bbolt.Tx) error {
			look(tx)
			return nil
		})
		return found, boltFault(err)
	}
	err := l.db.Update(func(tx *bbolt.Tx) error {
		if look(tx); found != stale {
			return nil
		}
		found = id
		return errors.Join(forgetAlias(tx, key), forgetLapsed(tx),
			tx.Bucket(aliasesBucket).Put(key, append(timeKey(until), id...)),
			tx.Bucket(lapsesBucket).Put(append(timeKey(until), key...), nil))
	})
	return found, boltFault(err)
}

func forgetAlias(tx *bbolt.Tx, key []byte) error {
	v := tx.Bucket(aliasesBucket).Get(key)
	if len(v) < 8 {
		return nil
	}
	lapse := append(bytes.Clone(v[:8]), key...)
	return errors.Join(tx.Bucket(aliasesBucket).Delete(key), tx.Bucket(lapsesBucket).Delete(lapse))
}

// forgetLapsed removes some aliases whose time is over.
func forgetLapsed(tx *bbolt.Tx) error {
	const step = 100
	end := timeKey(now())
	c := tx.Bucket(lapsesBucket).Cursor()
	for range step {
		k, _ := c.First()
		if k == nil || bytes.Compare(k[:len(end)], end) >= 0 {
			return nil
		}
		if err := forgetAlias(tx, bytes.Clone(k[len(end):])); err != nil {
			return err
		}
	}
	return nil
}

// redisAlias makes KEYS[1] stand for ARGV[2], for ARGV[3] milliseconds, where
// it stands for ARGV[1].
var redisAlias = redis.NewScript(`
local found = redis.call('GET', KEYS[1]) or ''
if found == ARGV[1] and ARGV[2] ~= '' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return ARGV[2]
end
return found`)

// Alias implements Ledger.
func (l *RedisLedger) Alias(ctx context.Context, owner auth.User, alias, stale, id string, until time.Time) (string, error) {
	sum := sha256.Sum256([]byte(alias))
	key := l.prefix + "alias:{" + accountOf(owner) + "}:" + hex.EncodeToString(sum[:])
	found, err := redisAlias.Run(ctx, l.client, []string{key}, stale, id, max(1, time.Until(until).Milliseconds())).Text()
	return found, redisFault(err)
}
