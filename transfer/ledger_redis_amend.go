package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

func (l *RedisLedger) expiring() string { return l.prefix + "expiring" }
func (l *RedisLedger) due() string      { return l.prefix + "due" }

// redisAmend replaces file (ARGV[1] by ARGV[2]) and state (ARGV[3] by ARGV[4],
// set at ARGV[5]) of a record, and makes it owed where ARGV[6] is 1. It answers
// 1, 0 where file or state are others by now, or the state where that is of no
// file that is kept.
var redisAmend = redis.NewScript(`
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return '' end
if state ~= ARGV[3] then
  if state == 'ready' or state == 'checking' or state == 'blocked' then return '0' end
  return state
end
if redis.call('HGET', KEYS[1], 'file') ~= ARGV[1] then return '0' end
redis.call('HSET', KEYS[1], 'file', ARGV[2], 'state', ARGV[4], 'changed', ARGV[5])
if ARGV[6] == '1' then redis.call('HSET', KEYS[1], 'owed', '1') end
return '1'`)

// amendTries bounds how often one Amend meets another of the same file.
const amendTries = 20

// Amend implements Ledger.
func (l *RedisLedger) Amend(ctx context.Context, id string, change func(f *File) error) (File, error) {
	for range amendTries {
		record, err := l.client.HGetAll(ctx, l.key(id)).Result()
		old, err := readFile(record, err)
		if err != nil {
			return File{}, err
		}
		if !old.kept() {
			return File{}, errFileState
		}
		if old.Before != "" { // whoever moved it may not have got to the end
			if err := l.recharge(ctx, File{ID: id}, nil); err != nil {
				return File{}, err
			}
		}
		f := old
		if err := change(&f); err != nil || f == old {
			return f, err
		}
		if f.State != old.State {
			f.Changed = now()
		}
		if was := accountOf(old.Owner); was != accountOf(f.Owner) {
			f.Before = was
		}
		done, err := l.amend(ctx, record["file"], old, f)
		if done || err != nil {
			return f, err
		}
	}
	return File{}, errLedgerAway.Because(errors.New("the file is being changed by many"))
}

// amend tries once. Hints are written before and dropped after: see RedisLedger.
func (l *RedisLedger) amend(ctx context.Context, before string, old, f File) (done bool, err error) {
	record, err := json.Marshal(f)
	if err != nil {
		return false, err
	}
	hinted, owes := f, 0
	if hinted.Owed = f.Owed && (!old.Owed || f.State != old.State); hinted.Owed {
		owes = 1
	}
	if err := l.enlist(ctx, hinted); err != nil {
		return false, err
	}
	found, err := redisAmend.Run(ctx, l.client, []string{l.key(f.ID)}, before, record,
		string(old.State), string(f.State), f.Changed.UnixMilli(), owes).Text()
	switch {
	case err != nil:
		return false, redisFault(err)
	case found == "":
		return false, errNoFile
	case found == "0":
		return false, nil
	case found != "1":
		return false, errFileState.Because(fmt.Errorf("file %s is %s", f.ID, found))
	}
	if old.Before != f.Before || old.State != f.State || f.blocked() {
		if err := l.recharge(ctx, File{ID: f.ID}, nil); err != nil {
			return true, err
		}
	}
	_ = l.unhint(ctx, old, f) // the file is changed whatever becomes of hints, and wrong ones are passed over
	return true, nil
}

// unhint drops the hints at what a file was before, and not any more.
func (l *RedisLedger) unhint(ctx context.Context, old, f File) error {
	if old.Owner.OpenID != f.Owner.OpenID {
		if err := l.client.ZRem(ctx, l.list(old.Owner.OpenID), string(placeOf(f))).Err(); err != nil {
			return err
		}
	}
	for _, h := range []struct {
		set      string
		was, now time.Time
	}{{l.expiring(), old.Expires, f.Expires}, {l.due(), old.Check.Due, f.Check.Due}} {
		if h.was.IsZero() || !h.now.IsZero() {
			continue
		}
		if err := redisUnhint.Run(ctx, l.client, []string{h.set}, f.ID, h.was.UnixMilli()).Err(); err != nil {
			return err
		}
	}
	return nil
}

// redisUnhint takes ARGV[1] out of a sorted set where its score is ARGV[2]:
// another one hints at what has become due since.
var redisUnhint = redis.NewScript(`
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '-1') ~= tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])`)

// Expired implements Ledger.
func (l *RedisLedger) Expired(ctx context.Context, before time.Time, limit int) ([]File, error) {
	return l.since(ctx, l.expiring(), before, limit, func(f File) verdict {
		if f.kept() && !f.Expires.IsZero() && f.Expires.Before(before) {
			return meant
		}
		return early // or late: it goes with its record
	})
}

// Due implements Ledger.
func (l *RedisLedger) Due(ctx context.Context, before time.Time, limit int) ([]File, error) {
	var over []string // hints at what has been done, or is about to become due
	files, err := l.since(ctx, l.due(), before, limit, func(f File) verdict {
		switch due := f.Check.Due; {
		case f.State == Deleting:
			return wrong
		case f.kept() && due.IsZero():
			over = append(over, f.ID)
		case f.State != Pending && due.Before(before):
			return meant
		}
		return early
	})
	for _, id := range over {
		if err == nil {
			err = redisFault(redisDrop.Run(ctx, l.client, []string{l.due()}, id, now().Add(-hintLead).UnixMilli()).Err())
		}
	}
	return files, err
}

// hintLead is how long before its record a hint may be written.
const hintLead = time.Minute

// CountDue implements Ledger.
func (l *RedisLedger) CountDue(ctx context.Context) (int, error) {
	n, err := l.client.ZCard(ctx, l.due()).Result()
	return int(n), redisFault(err)
}

// redisSpend is Spending.spend: ARGV is most, whether it is the first part,
// whether it only looks, when, how long parts may follow and the end of the link,
// times in milliseconds.
var redisSpend = redis.NewScript(`
local n = tonumber(redis.call('HGET', KEYS[1], 'n') or '0')
if ARGV[2] == '1' then
  if n >= tonumber(ARGV[1]) then return 0 end
  n = n + 1
elseif n == 0 or tonumber(ARGV[4]) - tonumber(redis.call('HGET', KEYS[1], 'last')) > tonumber(ARGV[5]) then
  return 0
end
if ARGV[3] == '1' then return 1 end
redis.call('HSET', KEYS[1], 'n', n, 'last', ARGV[4])
redis.call('PEXPIREAT', KEYS[1], ARGV[6])
return 1`)

// Spend implements Ledger.
func (l *RedisLedger) Spend(ctx context.Context, d Spending) (ok bool, err error) {
	ok, err = redisSpend.Run(ctx, l.client, []string{l.prefix + "spent:{" + d.Link + "}"},
		d.Most, d.First, d.Look, d.At.UnixMilli(), resumeTime.Milliseconds(), d.Until.UnixMilli()).Bool()
	return ok && err == nil, redisFault(err)
}

// Claim implements Ledger.
func (l *RedisLedger) Claim(ctx context.Context, task string, ttl time.Duration) (bool, error) {
	err := l.client.SetArgs(ctx, l.prefix+"claim:"+task, 1, redis.SetArgs{Mode: "NX", TTL: ttl}).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err == nil, redisFault(err)
}
