package transfer

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/minigate/minigate/auth"
)

//	PREFIXusage:{ACCOUNT}      hash: id → bytes, and their sum as total: some 60 bytes for each file
//	PREFIXday:{ACCOUNT}:DAY    the same, of what began on that day; expires
//	PREFIXsessions:{ACCOUNT}   sorted set of ids of sessions by when they expire
//	PREFIXcharged              exists once all files have been entered into these
//
// What a file counts is written under its id, so that writing it again changes
// nothing: a crash between this and the record of the file is made good by
// whoever touches the file next, the sweeper at the latest.

// redisCharge writes what a file counts: ARGV is its id, the bytes stored, the
// bytes of the day (-1: as before), the time in milliseconds when its session
// expires (0: it is none), the three limits (0: none), the time now, and for
// how many seconds the day is kept. It answers what is exceeded, and then has
// written nothing.
var redisCharge = redis.NewScript(`
local id = ARGV[1]
local function growth(key, bytes)
  return bytes - tonumber(redis.call('HGET', key, id) or '0')
end
local function over(key, more, limit)
  return more > 0 and limit > 0 and tonumber(redis.call('HGET', key, 'total') or '0') + more > limit
end
local function write(key, bytes, more)
  if more == 0 then return end
  if bytes == 0 then redis.call('HDEL', key, id) else redis.call('HSET', key, id, string.format('%.0f', bytes)) end
  if redis.call('HINCRBY', key, 'total', string.format('%.0f', more)) == 0 then redis.call('HDEL', key, 'total') end
end
local stored, daily, expires = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local s, d = growth(KEYS[1], stored), 0
if daily >= 0 then d = growth(KEYS[2], daily) end
if over(KEYS[1], s, tonumber(ARGV[5])) then return 'stored' end
if over(KEYS[2], d, tonumber(ARGV[6])) then return 'daily' end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[8])
if expires == 0 then
  redis.call('ZREM', KEYS[3], id)
else
  local limit = tonumber(ARGV[7])
  if limit > 0 and not redis.call('ZSCORE', KEYS[3], id) and redis.call('ZCARD', KEYS[3]) >= limit then return 'sessions' end
  redis.call('ZADD', KEYS[3], expires, id)
end
write(KEYS[1], stored, s)
write(KEYS[2], daily, d)
if d > 0 then redis.call('EXPIRE', KEYS[2], ARGV[9]) end
return ''`)

func (l *RedisLedger) usage(account string) string { return l.prefix + "usage:{" + account + "}" }
func (l *RedisLedger) day(account, day string) string {
	return l.prefix + "day:{" + account + "}:" + day
}

func (l *RedisLedger) sessionsOf(account string) string {
	return l.prefix + "sessions:{" + account + "}"
}

// Sessions implements Ledger.
func (l *RedisLedger) Sessions(ctx context.Context, owner auth.User, limit int) ([]File, error) {
	set := l.sessionsOf(accountOf(owner))
	ids, err := l.client.ZRangeArgs(ctx, redis.ZRangeArgs{
		Key: set, ByScore: true, Start: "(" + strconv.FormatInt(now().UnixMilli(), 10), Stop: "+inf", Count: int64(limit),
	}).Result()
	if err != nil {
		return nil, redisFault(err)
	}
	files, _, err := l.read(ctx, ids, func(id string) string { return id }, set, func(f File) verdict {
		if f.State != Pending || !f.inParts() {
			return early // or late: it goes with what the file counts
		}
		return meant
	})
	return files, err
}

// asBefore is the Daily of a Usage that leaves that as it is.
const asBefore = -1

// charge writes what a file counts for its owner now.
func (l *RedisLedger) charge(ctx context.Context, f File, q Quota) error {
	u := f.charge()
	if f.Before != "" { // the owner did not upload it
		u.Daily = asBefore
	}
	return l.chargeTo(ctx, accountOf(f.Owner), f, u, q)
}

// chargeTo writes what a file counts for an account.
func (l *RedisLedger) chargeTo(ctx context.Context, account string, f File, u Usage, q Quota) error {
	expires := int64(0)
	if u.Sessions > 0 {
		expires = f.Session.Expires.UnixMilli()
	}
	over, err := redisCharge.Run(ctx, l.client, []string{l.usage(account), l.day(account, f.day()), l.sessionsOf(account)},
		f.ID, u.Stored, u.Daily, expires, q.Stored, q.Daily, q.Sessions, now().UnixMilli(), int64(dayKept/time.Second)).Text()
	switch {
	case err != nil:
		return redisFault(err)
	case over == "stored":
		return errQuota
	case over == "daily":
		return tomorrow(errDaily)
	case over == "sessions":
		return errSessions
	}
	return nil
}

// uncharge takes out what a file counts that is no more, for its owner and for
// the one before.
func (l *RedisLedger) uncharge(ctx context.Context, f File) error {
	return errors.Join(l.unchargeFrom(ctx, accountOf(f.Owner), f), l.unchargeBefore(ctx, f))
}

func (l *RedisLedger) unchargeBefore(ctx context.Context, f File) error {
	if f.Before == "" {
		return nil
	}
	return l.unchargeFrom(ctx, f.Before, f)
}

func (l *RedisLedger) unchargeFrom(ctx context.Context, account string, f File) error {
	var u Usage
	if f.wasWhole() {
		u.Daily = asBefore
	}
	return l.chargeTo(ctx, account, f, u, Quota{})
}

// recharge brings what a file counts in line with its record, after a change
// that failed with err, which it returns.
func (l *RedisLedger) recharge(ctx context.Context, f File, err error) error {
	for {
		found, gone := l.Get(ctx, f.ID)
		switch {
		case errors.Is(gone, errNoFile):
			return errors.Join(err, l.uncharge(ctx, f))
		case gone != nil:
			return err // who touches the file next makes it good
		case found == f:
			return err
		}
		if f = found; errors.Join(l.charge(ctx, f, Quota{}), l.unchargeBefore(ctx, f)) != nil {
			return err
		}
	}
}

// Usage implements Ledger.
func (l *RedisLedger) Usage(ctx context.Context, owner auth.User) (u Usage, err error) {
	if err := l.enterAll(ctx); err != nil {
		return u, err
	}
	account, at := accountOf(owner), now()
	var stored, daily *redis.StringCmd
	var sessions *redis.IntCmd
	_, err = l.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		stored, daily = p.HGet(ctx, l.usage(account), "total"), p.HGet(ctx, l.day(account, dayOf(at)), "total")
		sessions = p.ZCount(ctx, l.sessionsOf(account), "("+strconv.FormatInt(at.UnixMilli(), 10), "+inf")
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return u, redisFault(err)
	}
	for cmd, to := range map[*redis.StringCmd]*int64{stored: &u.Stored, daily: &u.Daily} {
		if *to, err = cmd.Int64(); err != nil && !errors.Is(err, redis.Nil) {
			return u, redisFault(err)
		}
	}
	u.Sessions = int(sessions.Val())
	return u, nil
}
