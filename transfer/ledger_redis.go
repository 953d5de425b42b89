package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/minigate/minigate/internal/fault"
)

// RedisLedger is the Ledger of a cluster of nodes:
//
//	PREFIXfile:{ID}         hash: state, changed (milliseconds), file (JSON), owed (where it is), rev (as Session.Rev)
//	PREFIXunfinished        sorted set of ids by changed
//	PREFIXsessions          sorted set of ids of sessions by when they expire
//	PREFIXowed              sorted set of ids by changed
//	PREFIXfiles             sorted set of places, all with the score 0: some 100 bytes for each file
//	PREFIXfiles:{OPENID}    the same, of one user
//	PREFIXexpiring          sorted set of ids by expiry (milliseconds)
//	PREFIXdue               sorted set of ids by when their checks are due (milliseconds)
//	PREFIXspent:{LINK}      hash: n, last (milliseconds); ends with the link
//	PREFIXclaim:TASK        exists while a node does a task
//	PREFIXlisted            exists once all files have been entered into the lists
//
// what counts against quotas (see ledger_redis_usage.go), and aliases (see
// ledger_alias.go).
//
// All that belongs to one file is in one slot and changes in one step. The
// sets may live elsewhere, so they only hint: they are written before a record
// leaves or enters a lasting state, and entries that turn out to be wrong are
// dropped when they are read. A file is entered into the lists while it has a
// record, so that an entry without one is left over and not early.
type RedisLedger struct {
	client  redis.UniversalClient
	prefix  string
	entered atomic.Bool // all files are known to be in lists and quotas
}

// NewRedisLedger uses client, which stays the caller's to close. All names
// begin with prefix.
func NewRedisLedger(client redis.UniversalClient, prefix string) *RedisLedger {
	return &RedisLedger{client: client, prefix: prefix}
}

func (l *RedisLedger) key(id string) string { return l.prefix + "file:{" + id + "}" }
func (l *RedisLedger) index() string        { return l.prefix + "unfinished" }
func (l *RedisLedger) sessions() string     { return l.prefix + "sessions" }
func (l *RedisLedger) owed() string         { return l.prefix + "owed" }

// redisSet writes state, changed, file (an empty one leaves it as it is) and,
// where that is "1", owed (ARGV[1] to [4]) if the state is one of the others
// in ARGV; "" stands for no record. Where ARGV[5] is a number that has to be
// the record's rev, which then is counted up. It answers the state found, or
// "changed".
var redisSet = redis.NewScript(`
local state = redis.call('HGET', KEYS[1], 'state') or ''
for i = 6, #ARGV do
  if state == ARGV[i] then
    if ARGV[5] ~= '' then
      if (redis.call('HGET', KEYS[1], 'rev') or '0') ~= ARGV[5] then return 'changed' end
      redis.call('HINCRBY', KEYS[1], 'rev', 1)
    end
    redis.call('HSET', KEYS[1], 'state', ARGV[1], 'changed', ARGV[2])
    if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'file', ARGV[3]) end
    if ARGV[4] == '1' then redis.call('HSET', KEYS[1], 'owed', '1') end
    break
  end
end
return state`)

// set moves a file to state to. A nil file leaves the rest of the record.
func (l *RedisLedger) set(ctx context.Context, id string, to State, changed time.Time, file *File, from ...State) error {
	args := []any{string(to), changed.UnixMilli(), "", "", ""}
	if file != nil {
		if to == Pending && len(from) == 1 && from[0] == Pending { // an Update
			f := *file
			args[4], file = f.Session.Rev, &f
			f.Session.Rev++
		}
		record, err := json.Marshal(file)
		if err != nil {
			return err
		}
		args[2] = record
		if file.Owed {
			args[3] = "1"
		}
	}
	for _, s := range from {
		args = append(args, string(s))
	}
	found, err := redisSet.Run(ctx, l.client, []string{l.key(id)}, args...).Text()
	if err != nil {
		return redisFault(err)
	}
	for _, s := range from {
		if found == string(s) {
			return nil
		}
	}
	if found == "changed" {
		return errChanged
	}
	if found == "" {
		return errNoFile
	}
	return errFileState.Because(fmt.Errorf("file %s is %s", id, found))
}

func (l *RedisLedger) note(ctx context.Context, id string, changed time.Time) error {
	return redisFault(l.client.ZAdd(ctx, l.index(), since(id, changed)).Err())
}

func since(id string, changed time.Time) redis.Z {
	return redis.Z{Score: float64(changed.UnixMilli()), Member: id}
}

// Reserve implements Ledger.
func (l *RedisLedger) Reserve(ctx context.Context, f File, q Quota) error {
	if err := l.enterAll(ctx); err != nil {
		return err
	}
	if err := l.notePending(ctx, f); err != nil {
		return err
	}
	if err := l.set(ctx, f.ID, Pending, f.Changed, &f, ""); err != nil {
		return err
	}
	if err := l.charge(ctx, f, q); err != nil {
		return errors.Join(err, l.Forget(ctx, f.ID))
	}
	return nil
}

// notePending hints at a pending file, where it will be looked for.
func (l *RedisLedger) notePending(ctx context.Context, f File) error {
	if f.inParts() {
		return redisFault(l.client.ZAdd(ctx, l.sessions(), since(f.ID, f.Session.Expires)).Err())
	}
	return l.note(ctx, f.ID, f.Changed)
}

// Update implements Ledger.
func (l *RedisLedger) Update(ctx context.Context, f File, q Quota) error {
	f.State, f.Changed = Pending, now()
	if err := l.notePending(ctx, f); err != nil {
		return err
	}
	return l.replace(ctx, f, q)
}

// replace charges for a new version of a pending file and writes it.
func (l *RedisLedger) replace(ctx context.Context, f File, q Quota) error {
	if err := l.charge(ctx, f, q); err != nil {
		return err
	}
	if err := l.set(ctx, f.ID, f.State, f.Changed, &f, Pending); err != nil {
		f.Whole, f.SHA256 = false, "" // if it is gone, it has never been
		return l.recharge(ctx, f, err)
	}
	return nil
}

// Commit implements Ledger.
func (l *RedisLedger) Commit(ctx context.Context, f File, q Quota) error {
	if f.State != Checking {
		f.State = Ready
	}
	f.Changed, f.Whole = now(), true
	if err := l.enlist(ctx, f); err != nil {
		return err
	}
	if err := l.replace(ctx, f, q); err != nil {
		return err
	}
	// The file is committed whatever becomes of the hint; who reads it drops it.
	hints := l.index()
	if f.inParts() {
		hints = l.sessions()
	}
	_ = l.client.ZRem(ctx, hints, f.ID).Err()
	return nil
}

// Get implements Ledger.
func (l *RedisLedger) Get(ctx context.Context, id string) (File, error) {
	return readFile(l.client.HGetAll(ctx, l.key(id)).Result())
}

// Retire implements Ledger.
func (l *RedisLedger) Retire(ctx context.Context, id string, from ...State) (File, error) {
	changed := now()
	f, err := l.Get(ctx, id)
	if err != nil || f.State == Deleting {
		return f, err
	}
	if err := l.note(ctx, id, changed); err != nil {
		return f, err
	}
	if err := l.set(ctx, id, Deleting, changed, nil, append(from, Deleting)...); err != nil {
		return f, err
	}
	return l.Get(ctx, id)
}

// Forget implements Ledger.
func (l *RedisLedger) Forget(ctx context.Context, id string) error {
	f, err := l.Get(ctx, id)
	if err != nil && !errors.Is(err, errNoFile) {
		return err
	}
	known := err == nil
	if known {
		if err := l.uncharge(ctx, f); err != nil {
			return err
		}
	}
	if err := l.client.Del(ctx, l.key(id)).Err(); err != nil {
		return redisFault(err)
	}
	_, err = l.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.ZRem(ctx, l.index(), id)
		p.ZRem(ctx, l.sessions(), id)
		p.ZRem(ctx, l.owed(), id)
		p.ZRem(ctx, l.expiring(), id)
		p.ZRem(ctx, l.due(), id)
		if known {
			p.ZRem(ctx, l.list(""), string(placeOf(f)))
			p.ZRem(ctx, l.list(f.Owner.OpenID), string(placeOf(f)))
		}
		return nil
	})
	return redisFault(err)
}

// Unfinished implements Ledger.
func (l *RedisLedger) Unfinished(ctx context.Context, before time.Time, limit int, states ...State) ([]File, error) {
	return l.since(ctx, l.index(), before, limit, func(f File) verdict {
		switch {
		case f.kept():
			return wrong
		case slices.Contains(states, f.State) && (f.State == Deleting || !f.inParts()):
			return meant
		}
		return early
	})
}

// ExpiredSessions implements Ledger.
func (l *RedisLedger) ExpiredSessions(ctx context.Context, before time.Time, limit int) ([]File, error) {
	return l.since(ctx, l.sessions(), before, limit, func(f File) verdict {
		switch {
		case f.State != Pending || !f.inParts():
			return wrong
		case f.Session.Expires.Before(before):
			return meant
		}
		return early
	})
}

// Owed implements Ledger.
func (l *RedisLedger) Owed(ctx context.Context, before time.Time, limit int) ([]File, error) {
	return l.since(ctx, l.owed(), before, limit, func(f File) verdict {
		switch {
		case f.State == Pending || f.State == Checking:
			return early
		case f.kept() && f.Owed:
			return meant
		}
		return wrong
	})
}

// redisSettle takes owed out of a record whose state is ARGV[1], and answers
// since when it has been that; -1 where it is not.
var redisSettle = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'state') ~= ARGV[1] then return -1 end
redis.call('HDEL', KEYS[1], 'owed')
return tonumber(redis.call('HGET', KEYS[1], 'changed'))`)

// redisDrop takes ARGV[1] out of a sorted set where its score is not above
// ARGV[2]: one that is, hints at something newer.
var redisDrop = redis.NewScript(`
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) <= tonumber(ARGV[2]) then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0`)

// Settle implements Ledger.
func (l *RedisLedger) Settle(ctx context.Context, f File) error {
	changed, err := redisSettle.Run(ctx, l.client, []string{l.key(f.ID)}, string(f.State)).Int64()
	if err != nil || changed < 0 {
		return redisFault(err)
	}
	return redisFault(redisDrop.Run(ctx, l.client, []string{l.owed()}, f.ID, changed).Err())
}

// since returns the files of a set of ids by changed. It looks past those that
// are early.
func (l *RedisLedger) since(ctx context.Context, set string, before time.Time, limit int, judge func(File) verdict) (files []File, err error) {
	look := redis.ZRangeArgs{Key: set, ByScore: true, Start: "-inf", Stop: "(" + strconv.FormatInt(before.UnixMilli(), 10)}
	for {
		look.Count = int64(limit - len(files))
		ids, err := l.client.ZRangeArgs(ctx, look).Result()
		if err != nil {
			return nil, redisFault(err)
		}
		found, dropped, err := l.read(ctx, ids, func(id string) string { return id }, set, judge)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
		if len(files) == limit || int64(len(ids)) < look.Count {
			return files, nil
		}
		look.Offset += int64(len(ids) - dropped)
	}
}

// verdict is what a hint turned out to be.
type verdict uint8

const (
	wrong verdict = iota // drop it
	early                // leave it
	meant
)

// read returns the files that hints of a set stand for, and drops the wrong
// ones. A hint without a record is wrong.
func (l *RedisLedger) read(ctx context.Context, hints []string, idOf func(hint string) string, set string, judge func(File) verdict) (files []File, dropped int, err error) {
	if len(hints) == 0 {
		return nil, 0, nil
	}
	records := make([]*redis.MapStringStringCmd, len(hints))
	_, err = l.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, hint := range hints {
			records[i] = p.HGetAll(ctx, l.key(idOf(hint)))
		}
		return nil
	})
	if err != nil {
		return nil, 0, redisFault(err)
	}
	var drop []any
	for i, hint := range hints {
		f, err := readFile(records[i].Result())
		v := wrong
		if err == nil {
			v = judge(f)
		}
		switch {
		case err != nil && !errors.Is(err, errNoFile):
			return nil, 0, err
		case v == wrong:
			drop = append(drop, hint)
		case v == meant:
			files = append(files, f)
		}
	}
	if len(drop) > 0 {
		err = redisFault(l.client.ZRem(ctx, set, drop...).Err())
	}
	return files, len(drop), err
}

// Shared implements Ledger.
func (l *RedisLedger) Shared() bool { return true }

// Ping implements Ledger.
func (l *RedisLedger) Ping(ctx context.Context) error { return redisFault(l.client.Ping(ctx).Err()) }

// readFile makes a File of a record.
func readFile(record map[string]string, err error) (f File, _ error) {
	if err != nil {
		return f, redisFault(err)
	}
	if len(record) == 0 {
		return f, errNoFile
	}
	if err := json.Unmarshal([]byte(record["file"]), &f); err != nil {
		return f, errLedgerAway.Because(fmt.Errorf("file record: %w", err))
	}
	changed, err := strconv.ParseInt(record["changed"], 10, 64)
	if err != nil {
		return f, errLedgerAway.Because(fmt.Errorf("file record: %w", err))
	}
	f.State, f.Changed = State(record["state"]), time.UnixMilli(changed).UTC()
	f.Owed = record["owed"] != ""
	return f, nil
}

// redisFault translates errors of go-redis.
func redisFault(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return errLedgerAway.Because(err)
}
