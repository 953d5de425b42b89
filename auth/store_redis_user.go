package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// userKeys are a user's keys, all in the slot of the openid.
type userKeys struct{ logins, expiry, ring, block, ended string }

func (s *RedisStore) userKeys(openID string) userKeys {
	base := s.prefix + "user:{" + openID + "}:"
	return userKeys{base + "logins", base + "expiry", base + "keys", base + "block", base + "ended"}
}

// enlist adds session ARGV[1] that expires at ARGV[2] to KEYS[1] (logins) and
// KEYS[2] (expiry), drops from them what has expired at ARGV[7], now, lets them
// last ARGV[8] longer than the last of the sessions, and puts entry ARGV[4] in
// front of KEYS[3] (keys), of which ARGV[5] stay for ARGV[6], unless its tag is
// in KEYS[5] (ended). It answers "" and the logins beyond the limit ARGV[3], or
// only what KEYS[4] (block) holds. All times are in milliseconds.
var enlist = redis.NewScript(`
local block = redis.call('GET', KEYS[4])
if block then return {block} end
for _, expired in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[7])) do
	redis.call('ZREM', KEYS[1], expired)
	redis.call('ZREM', KEYS[2], expired)
end
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
redis.call('ZADD', KEYS[1], (tonumber(newest[2]) or 0) + 1, ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
redis.call('PEXPIRE', KEYS[1], last[2] - ARGV[7] + ARGV[8])
redis.call('PEXPIRE', KEYS[2], last[2] - ARGV[7] + ARGV[8])

local tag, over = string.sub(ARGV[4], 1, 8), false
for _, ended in ipairs(redis.call('LRANGE', KEYS[5], 0, -1)) do over = over or ended == tag end
if not over then
	for _, old in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
		if string.sub(old, 1, 8) == tag then redis.call('LREM', KEYS[3], 0, old) end
	end
	redis.call('LPUSH', KEYS[3], ARGV[4])
	redis.call('LTRIM', KEYS[3], 0, ARGV[5] - 1)
	redis.call('PEXPIRE', KEYS[3], ARGV[6])
end

local answer = {''}
if tonumber(ARGV[3]) > 0 then
	for _, old in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1 - ARGV[3])) do table.insert(answer, old) end
end
return answer`)

// prolong moves the expiry of session ARGV[1] in KEYS[2] to ARGV[2], where it
// is listed; ARGV[3] is now and ARGV[4] how much longer the lists last.
const prolongText = `
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
redis.call('PEXPIRE', KEYS[1], last[2] - ARGV[3] + ARGV[4])
redis.call('PEXPIRE', KEYS[2], last[2] - ARGV[3] + ARGV[4])`

// replaceKeys makes entry ARGV[1] all of KEYS[1] (keys), for ARGV[2]
// milliseconds, and puts the tags of what was there in front of KEYS[2] (ended),
// of which ARGV[3] stay for ARGV[4].
var replaceKeys = redis.NewScript(`
for _, old in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
	redis.call('LPUSH', KEYS[2], string.sub(old, 1, 8))
end
redis.call('LREM', KEYS[2], 0, string.sub(ARGV[1], 1, 8))
redis.call('LTRIM', KEYS[2], 0, ARGV[3] - 1)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('DEL', KEYS[1])
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])`)

// lockOut stores block ARGV[1] in KEYS[2] for ARGV[2] milliseconds, 0 for
// good, publishes ARGV[4] in channel ARGV[3], and answers the logins of
// KEYS[1]. In one step, so that no block stays unheard of.
var lockOut = redis.NewScript(`
redis.call('SET', KEYS[2], ARGV[1])
if tonumber(ARGV[2]) > 0 then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return redis.call('ZRANGE', KEYS[1], 0, -1)`)

// letIn removes block KEYS[1] and publishes ARGV[2] in channel ARGV[1].
var letIn = redis.NewScript(`
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[1], ARGV[2])`)

// recordTTL is how long Redis keeps a session's record: a little longer than
// the session, never less than a moment.
func recordTTL(expires time.Time) time.Duration {
	return max(time.Until(expires)+expiryGrace, time.Millisecond)
}

// Open implements Store.
func (s *RedisStore) Open(ctx context.Context, o *Opening) ([]SessionEnd, error) {
	data, err := encodeSession(&o.Session)
	if err != nil {
		return nil, err
	}
	key, openID := s.sessionKey(o.Session.Fingerprint), o.Session.User.OpenID
	if err := s.client.Set(ctx, key, data, recordTTL(o.Session.Expires)).Err(); err != nil {
		s.discard(ctx, key) // it may be there all the same
		return nil, storeError(err)
	}
	u := s.userKeys(openID)
	answer, err := enlist.Run(ctx, s.client, []string{u.logins, u.expiry, u.ring, u.block, u.ended},
		o.Session.Fingerprint.String(), o.Session.Expires.UnixMilli(), o.Limit,
		encodeKey(o.Key), maxSessionKeys, sessionKeyLife.Milliseconds(), time.Now().UnixMilli(), expiryGrace.Milliseconds()).StringSlice()
	if err == nil && len(answer) == 0 {
		err = errors.New("redis: the script enlist answered nothing")
	}
	if err != nil {
		s.discard(ctx, key)
		return nil, storeError(err)
	}
	if answer[0] != "" {
		s.discard(ctx, key)
		return nil, decodeBlock([]byte(answer[0])).Fault()
	}
	return s.deleteListed(ctx, openID, answer[1:], EndReplaced)
}

// discard removes the record of a session that is not to be, whose token
// nobody gets. Where that fails too, the record expires by itself.
func (s *RedisStore) discard(ctx context.Context, key string) {
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTime)
	defer cancel()
	if err := s.client.Del(after, key).Err(); err != nil {
		slog.DebugContext(ctx, "the record of a login that failed stays until it expires", "error", err)
	}
}

// touchedAtOnce is how many sessions are written anew in one round trip, which
// lookups share.
const touchedAtOnce = 100

// Touch implements Store.
func (s *RedisStore) Touch(ctx context.Context, list []*Session) error {
	var errs []error
	for part := range slices.Chunk(list, touchedAtOnce) {
		errs = append(errs, s.touch(ctx, part))
	}
	return storeError(errors.Join(append(errs, ctx.Err())...))
}

// touch writes each session by itself: with several servers some may be away.
func (s *RedisStore) touch(ctx context.Context, list []*Session) error {
	now := time.Now()
	listed, kept := make([]redis.Cmder, 0, len(list)), make([]redis.Cmder, 0, len(list))
	for _, ses := range list {
		data, err := encodeSession(ses)
		if err != nil {
			return err
		}
		if !now.Before(ses.Expires) {
			continue
		}
		u := s.userKeys(ses.User.OpenID)
		listed = append(listed, redis.NewCmd(ctx, "eval", prolongText, 2, u.logins, u.expiry,
			ses.Fingerprint.String(), ses.Expires.UnixMilli(), now.UnixMilli(), expiryGrace.Milliseconds()))
		kept = append(kept, redis.NewStatusCmd(ctx, "set", s.sessionKey(ses.Fingerprint), data, "px", recordTTL(ses.Expires).Milliseconds(), "xx"))
	}
	// Listed for longer first: the list must not forget a session that lives.
	if err := s.trips.do(ctx, listed...); err != nil {
		return err
	}
	var may []redis.Cmder
	for i, cmd := range listed {
		if failure(cmd) == nil {
			may = append(may, kept[i])
		}
	}
	if err := s.trips.do(ctx, may...); err != nil {
		return err
	}
	return cmp.Or(failure(listed...), failure(may...))
}

// ListByUser implements Store.
func (s *RedisStore) ListByUser(ctx context.Context, openID string) ([]*Session, error) {
	fps, err := s.client.ZRange(ctx, s.userKeys(openID).logins, 0, -1).Result()
	if err != nil || len(fps) == 0 {
		return nil, storeError(err)
	}
	list, err := s.load(ctx, fps...)
	return list, storeError(err)
}

// DeleteByUser implements Store.
func (s *RedisStore) DeleteByUser(ctx context.Context, openID string, reason EndReason) ([]SessionEnd, error) {
	fps, err := s.client.ZRange(ctx, s.userKeys(openID).logins, 0, -1).Result()
	if err != nil {
		return nil, storeError(err)
	}
	return s.deleteListed(ctx, openID, fps, reason)
}

// deleteListed ends those of the listed sessions that exist.
func (s *RedisStore) deleteListed(ctx context.Context, openID string, fps []string, reason EndReason) ([]SessionEnd, error) {
	if len(fps) == 0 {
		return nil, nil
	}
	list, err := s.load(ctx, fps...)
	if err != nil {
		return nil, storeError(err)
	}
	ends := make([]SessionEnd, len(list))
	for i, ses := range list {
		ends[i] = SessionEnd{ses.Fingerprint, ses.User, reason}
	}
	if err := s.delete(ctx, ends); err != nil {
		return nil, err
	}
	u, gone := s.userKeys(openID), make([]any, len(fps))
	for i, fp := range fps {
		gone[i] = fp
	}
	_, err = s.client.Pipelined(ctx, func(p redis.Pipeliner) error { // also what expired meanwhile
		p.ZRem(ctx, u.logins, gone...)
		p.ZRem(ctx, u.expiry, gone...)
		return nil
	})
	return ends, storeError(err)
}

// Keys implements Store.
func (s *RedisStore) Keys(ctx context.Context, openID string) ([]SealedKey, error) {
	entries, err := s.client.LRange(ctx, s.userKeys(openID).ring, 0, -1).Result()
	if err != nil {
		return nil, storeError(err)
	}
	ring := make([]SealedKey, 0, len(entries))
	for _, e := range entries {
		if k, ok := decodeKey(e); ok {
			ring = append(ring, k)
		}
	}
	return ring, nil
}

// ReplaceKeys implements Store.
func (s *RedisStore) ReplaceKeys(ctx context.Context, openID string, k SealedKey) error {
	u := s.userKeys(openID)
	err := replaceKeys.Run(ctx, s.client, []string{u.ring, u.ended},
		encodeKey(k), sessionKeyLife.Milliseconds(), maxEndedKeys, endedKeyLife.Milliseconds()).Err()
	if errors.Is(err, redis.Nil) {
		return nil // as a script answers that says nothing
	}
	return storeError(err)
}

// encodeKey is an entry of the keyring: 8 bytes of tag, 8 of time, the rest.
func encodeKey(k SealedKey) []byte {
	data := binary.BigEndian.AppendUint64(k.Tag[:len(k.Tag):len(k.Tag)], uint64(k.Issued.UnixMilli()))
	return append(data, k.Sealed...)
}

func decodeKey(text string) (k SealedKey, ok bool) {
	data := []byte(text)
	if len(data) <= 16 {
		return k, false
	}
	copy(k.Tag[:], data)
	k.Issued, k.Sealed = time.UnixMilli(int64(binary.BigEndian.Uint64(data[8:]))), data[16:]
	return k, true
}

// Block implements Store.
func (s *RedisStore) Block(ctx context.Context, openID string, b Block) ([]SessionEnd, error) {
	data, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	ttl := int64(0)
	if !b.Until.IsZero() {
		ttl = max(time.Until(b.Until).Milliseconds(), 1)
	}
	message, err := json.Marshal(blockMessage{s.node, &BlockChange{OpenID: openID, Blocked: true}})
	if err != nil {
		return nil, err
	}
	u := s.userKeys(openID)
	fps, err := lockOut.Run(ctx, s.client, []string{u.logins, u.block}, data, ttl, s.endedChannel(), message).StringSlice()
	if err != nil {
		return nil, storeError(err)
	}
	return s.deleteListed(ctx, openID, fps, EndBlocked)
}

// Unblock implements Store.
func (s *RedisStore) Unblock(ctx context.Context, openID string) error {
	message, err := json.Marshal(blockMessage{s.node, &BlockChange{OpenID: openID}})
	if err != nil {
		return err
	}
	err = letIn.Run(ctx, s.client, []string{s.userKeys(openID).block}, s.endedChannel(), message).Err()
	if errors.Is(err, redis.Nil) { // it answers nothing
		return nil
	}
	return storeError(err)
}

// Blocked implements Store.
func (s *RedisStore) Blocked(ctx context.Context, openID string) (*Block, error) {
	data, err := s.client.Get(ctx, s.userKeys(openID).block).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, storeError(err)
	}
	return decodeBlock(data), nil
}

// claim answers what KEYS[1] holds, unless that is nothing or ARGV[2], which it
// then holds for ARGV[1] milliseconds.
var claim = redis.NewScript(`
local value = redis.call('GET', KEYS[1])
if value and value ~= ARGV[2] then return value end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
return false`)

// What a claim's key holds begins with one of these.
const (
	claimTaken   = "c" // and whoever claims it
	claimSettled = "s" // and the outcome
)

func (s *RedisStore) claimKey(name string) string { return s.prefix + "claim:" + name }

// Claim implements Store.
func (s *RedisStore) Claim(ctx context.Context, name string, life time.Duration) (value []byte, claimed bool, err error) {
	return s.claim(ctx, name, rand.Text(), life)
}

// claim is Claim for one owner. The client repeats a script whose answer got
// lost; the second one must not find the claim of the first to be another's.
func (s *RedisStore) claim(ctx context.Context, name, owner string, life time.Duration) (value []byte, claimed bool, err error) {
	text, err := claim.Run(ctx, s.client, []string{s.claimKey(name)}, max(life.Milliseconds(), 1), claimTaken+owner).Text()
	if errors.Is(err, redis.Nil) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, storeError(err)
	}
	if outcome, settled := strings.CutPrefix(text, claimSettled); settled {
		value = []byte(outcome)
	}
	return value, false, nil
}

// Settle implements Store.
func (s *RedisStore) Settle(ctx context.Context, name string, value []byte, life time.Duration) error {
	value = append([]byte(claimSettled), value...)
	return storeError(s.client.Set(ctx, s.claimKey(name), value, max(life, time.Millisecond)).Err())
}

// Release implements Store.
func (s *RedisStore) Release(ctx context.Context, name string) error {
	return storeError(s.client.Del(ctx, s.claimKey(name)).Err())
}
