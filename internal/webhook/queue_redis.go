package webhook

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisQueue keeps items in Redis (6 or newer; standalone, Sentinel or
// Cluster), shared by all nodes with the same prefix. How durable they are is
// for Redis to say: with `appendonly yes` they outlive its restart. Times are
// those of Redis; the clocks of the nodes do not matter.
//
// The keys, all in one slot:
//
//	PREFIX:{webhook}:items   hash: id → encoded item, pending or dead
//	PREFIX:{webhook}:order   sorted set, by name: LANE:NUMBER:ID of each pending item
//	PREFIX:{webhook}:due     sorted set: lane by when its head is due
//	PREFIX:{webhook}:leases  hash: lane → token of who took its head
//	PREFIX:{webhook}:age     sorted set: id of each pending item by when it was put
//	PREFIX:{webhook}:dead    sorted set: id by when it died
//	PREFIX:{webhook}:bytes   how long the records of the dead are together
//	PREFIX:{webhook}:number  the last NUMBER given
type RedisQueue struct {
	client redis.UniversalClient
	QueueOptions

	items, order, due, leases, age, dead, bytes, number string
}

// NewRedisQueue uses keys that begin with prefix and ":". The caller closes
// the client after the queue's last use.
func NewRedisQueue(client redis.UniversalClient, prefix string, o QueueOptions) *RedisQueue {
	key := func(name string) string { return prefix + ":{webhook}:" + name }
	return &RedisQueue{
		client: client, QueueOptions: o.complete(),
		items: key("items"), order: key("order"), due: key("due"), leases: key("leases"),
		age: key("age"), dead: key("dead"), bytes: key("bytes"), number: key("number"),
	}
}

var errScript = errors.New("the answer of a script makes no sense")

// Put implements Queue.
func (q *RedisQueue) Put(ctx context.Context, item *Item) error {
	if err := item.check(); err != nil {
		return err
	}
	data, err := item.encode(q.Sealer)
	if err != nil {
		return err
	}
	return q.append(ctx, item, data, "")
}

// append runs redisAppend; from is "dead" for an item that has to come from
// there.
func (q *RedisQueue) append(ctx context.Context, item *Item, data []byte, from string) error {
	keys := []string{q.items, q.order, q.due, q.number, q.dead, q.age, q.bytes}
	answer, err := redisAppend.Run(ctx, q.client, keys, item.ID, data, item.lane(), q.Settings.MaxPending, from).Text()
	switch {
	case err != nil:
		return queueError(err)
	case answer == "full":
		return errQueueFull
	case answer == "unknown":
		return ErrNoDelivery
	}
	return nil
}

// Take implements Queue.
func (q *RedisQueue) Take(ctx context.Context, lease time.Duration) (*Claim, error) {
	keys := []string{q.items, q.order, q.due, q.leases}
	for {
		token := rand.Text()
		a, err := redisTake.Run(ctx, q.client, keys, lease.Milliseconds(), token).StringSlice()
		if errors.Is(err, redis.Nil) {
			return nil, nil
		}
		if err != nil {
			return nil, queueError(err)
		}
		if len(a) != 4 {
			return nil, queueError(errScript)
		}
		c := &Claim{lane: a[0], place: a[1], token: token}
		if c, err = decodeClaim(ctx, q, q.QueueOptions, c, a[2], []byte(a[3])); err != nil || c != nil {
			return c, err
		}
	}
}

// Done implements Queue.
func (q *RedisQueue) Done(ctx context.Context, c *Claim) error {
	return q.settle(ctx, c, "done", nil, 0)
}

// Retry implements Queue.
func (q *RedisQueue) Retry(ctx context.Context, c *Claim, in time.Duration) error {
	data, err := c.Item.encode(q.Sealer)
	if err != nil {
		return err
	}
	return q.settle(ctx, c, "retry", data, in)
}

// Bury implements Queue.
func (q *RedisQueue) Bury(ctx context.Context, c *Claim) error {
	c.Item.Died = time.Now()
	data, err := c.Item.encode(q.Sealer)
	if err != nil {
		return err
	}
	return q.settle(ctx, c, "bury", data, 0)
}

func (q *RedisQueue) settle(ctx context.Context, c *Claim, how string, data []byte, in time.Duration) error {
	keys := []string{q.items, q.order, q.due, q.leases, q.dead, q.age, q.bytes}
	answer, err := redisSettle.Run(ctx, q.client, keys, append(q.limits(),
		c.lane, c.place, c.token, c.Item.ID, how, data, in.Milliseconds())...).Int64Slice()
	if err != nil {
		return queueError(err)
	}
	if len(answer) == 0 {
		return ErrLeaseLost
	}
	return q.lost(answer)
}

// limits are the first arguments of the scripts that trim.
func (q *RedisQueue) limits() []any {
	return []any{q.Settings.MaxDeadAge.Milliseconds(), q.Settings.MaxDead, int64(q.Settings.MaxDeadBytes), trimAtOnce}
}

// lost counts what a script has trimmed.
func (q *RedisQueue) lost(answer []int64) error {
	if len(answer) != 3 {
		return queueError(errScript)
	}
	q.Metrics.lost(trimmed{int(answer[0]), int(answer[1]), int(answer[2])})
	return nil
}

// Trim implements Queue.
func (q *RedisQueue) Trim(ctx context.Context) error {
	for {
		answer, err := redisTrim.Run(ctx, q.client, []string{q.items, q.dead, q.bytes}, q.limits()...).Int64Slice()
		if err != nil {
			return queueError(err)
		}
		if err := q.lost(answer); err != nil || answer[0]+answer[1]+answer[2] == 0 {
			return err
		}
	}
}

// Size implements Queue.
func (q *RedisQueue) Size(ctx context.Context) (Size, error) {
	var pending, dead *redis.IntCmd
	var oldest *redis.ZSliceCmd
	var size *redis.StringCmd
	_, err := q.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pending, dead = pipe.ZCard(ctx, q.order), pipe.ZCard(ctx, q.dead)
		oldest, size = pipe.ZRangeWithScores(ctx, q.age, 0, 0), pipe.Get(ctx, q.bytes)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return Size{}, queueError(err)
	}
	s := Size{Pending: int(pending.Val()), Dead: int(dead.Val())}
	if first := oldest.Val(); len(first) > 0 {
		s.Oldest = time.UnixMilli(int64(first[0].Score))
	}
	if s.DeadBytes, err = size.Int64(); err != nil && !errors.Is(err, redis.Nil) {
		return Size{}, queueError(err)
	}
	return s, nil
}

// Dead implements Queue.
func (q *RedisQueue) Dead(ctx context.Context, skip, limit int) ([]*Item, error) {
	if limit < 1 {
		return nil, nil
	}
	ids, err := q.client.ZRevRange(ctx, q.dead, int64(skip), int64(skip+limit-1)).Result()
	if err != nil || len(ids) == 0 {
		return nil, queueError(err)
	}
	records, err := q.client.HMGet(ctx, q.items, ids...).Result()
	if err != nil {
		return nil, queueError(err)
	}
	list := make([]*Item, 0, len(ids))
	for i, r := range records {
		if data, ok := r.(string); ok { // or else replayed or dropped just now
			list = append(list, deadItem(ids[i], []byte(data)))
		}
	}
	return list, nil
}

// DeadIDs implements Queue.
func (q *RedisQueue) DeadIDs(ctx context.Context, limit int) ([]string, error) {
	if limit < 1 {
		return nil, nil
	}
	ids, err := q.client.ZRange(ctx, q.dead, 0, int64(limit-1)).Result()
	return ids, queueError(err)
}

// Find implements Queue.
func (q *RedisQueue) Find(ctx context.Context, id string) (*Item, error) {
	var data *redis.StringCmd
	_, err := q.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.ZScore(ctx, q.dead, id)
		data = pipe.HGet(ctx, q.items, id)
		return nil
	})
	if errors.Is(err, redis.Nil) { // of the first or the second
		return nil, ErrNoDelivery
	}
	if err != nil {
		return nil, queueError(err)
	}
	item := deadItem(id, []byte(data.Val()))
	return item, item.open(q.Sealer)
}

// Replay implements Queue.
func (q *RedisQueue) Replay(ctx context.Context, id string) error {
	item, err := q.Find(ctx, id)
	if err != nil {
		return err
	}
	item.revive(time.Now())
	data, err := item.encode(q.Sealer)
	if err != nil {
		return err
	}
	return q.append(ctx, item, data, "dead")
}

// Drop implements Queue.
func (q *RedisQueue) Drop(ctx context.Context, id string) error {
	dropped, err := redisDrop.Run(ctx, q.client, []string{q.items, q.dead, q.bytes}, id).Bool()
	if err != nil {
		return queueError(err)
	}
	if !dropped {
		return ErrNoDelivery
	}
	return nil
}
