package transfer

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
)

// list is the set of places of one user's files, of all where openID is "".
func (l *RedisLedger) list(openID string) string {
	if openID == "" {
		return l.prefix + "files"
	}
	return l.prefix + "files:{" + openID + "}"
}

// enlist hints at a file that is about to be kept.
func (l *RedisLedger) enlist(ctx context.Context, f File) error {
	place := redis.Z{Member: string(placeOf(f))}
	_, err := l.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.ZAdd(ctx, l.list(""), place)
		p.ZAdd(ctx, l.list(f.Owner.OpenID), place)
		if f.Owed {
			p.ZAdd(ctx, l.owed(), since(f.ID, f.Changed))
		}
		if !f.Expires.IsZero() {
			p.ZAdd(ctx, l.expiring(), since(f.ID, f.Expires))
		}
		if !f.Check.Due.IsZero() {
			p.ZAdd(ctx, l.due(), since(f.ID, f.Check.Due))
		}
		return nil
	})
	return redisFault(err)
}

// List implements Ledger.
func (l *RedisLedger) List(ctx context.Context, openID string, after Place, limit int) ([]File, Place, error) {
	if err := l.enterAll(ctx); err != nil {
		return nil, "", err
	}
	end := "+"
	if after != "" {
		end = "(" + string(after)
	}
	places, err := l.client.ZRangeArgs(ctx, redis.ZRangeArgs{
		Key: l.list(openID), ByLex: true, Rev: true, Start: end, Stop: "-", Count: int64(limit) + 1,
	}).Result()
	if err != nil {
		return nil, "", redisFault(err)
	}
	var next Place
	if len(places) > limit {
		places = places[:limit]
		next = Place(places[limit-1])
	}
	files, _, err := l.read(ctx, places, func(place string) string { return Place(place).id() }, l.list(openID), func(f File) verdict {
		if !f.kept() || openID != "" && f.Owner.OpenID != openID {
			return early // or late: it goes with its record
		}
		return meant
	})
	return files, next, err
}

const scanStep = 1000 // keys

// literally takes from a pattern what would make it more than itself.
var literally = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// enterAll enters the files of a ledger that is older than lists, or than
// quotas, into them, once. It may be done by several nodes at the same time.
func (l *RedisLedger) enterAll(ctx context.Context) error {
	if l.entered.Load() {
		return nil
	}
	for _, step := range []struct {
		flag  string
		enter func(context.Context, File) error
	}{
		{"listed", func(ctx context.Context, f File) error {
			if !f.kept() {
				return nil
			}
			return l.enlist(ctx, f)
		}},
		{"charged", func(ctx context.Context, f File) error {
			err := l.charge(ctx, f, Quota{})
			if err == nil {
				err = l.recharge(ctx, f, nil) // it may have changed meanwhile
			}
			return err
		}},
	} {
		n, err := l.client.Exists(ctx, l.prefix+step.flag).Result()
		if err == nil && n == 0 {
			if err = l.eachFile(ctx, step.enter); err == nil {
				err = l.client.Set(ctx, l.prefix+step.flag, 1, 0).Err()
			}
		}
		if err != nil {
			return redisFault(err)
		}
	}
	l.entered.Store(true)
	return nil
}

// eachFile calls do for every record.
func (l *RedisLedger) eachFile(ctx context.Context, do func(context.Context, File) error) error {
	scan := func(ctx context.Context, c redis.UniversalClient) error {
		keys := c.Scan(ctx, 0, literally.Replace(l.prefix)+"file:{*}", scanStep).Iterator()
		for keys.Next(ctx) {
			f, err := readFile(l.client.HGetAll(ctx, keys.Val()).Result())
			if err == nil {
				err = do(ctx, f)
			}
			if err != nil && !errors.Is(err, errNoFile) {
				return err
			}
		}
		return keys.Err()
	}
	if cluster, ok := l.client.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return scan(ctx, c) })
	}
	return scan(ctx, l.client)
}
