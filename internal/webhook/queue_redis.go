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
//	PREFIX:{webhook}:dead    sorted set: id by when it died
//	PREFIX:{webhook}:number  the last NUMBER given
type RedisQueue struct {
	client   redis.UniversalClient
	settings QueueSettings

	items, order, due, leases, dead, number string
}

// NewRedisQueue uses keys that begin with prefix and ":". The caller closes
// the client after the queue's last use.
func NewRedisQueue(client redis.UniversalClient, prefix string, s QueueSettings) *RedisQueue {
	key := func(name string) string { return prefix + ":{webhook}:" + name }
	return &RedisQueue{
		client: client, settings: s,
		items: key("items"), order: key("order"), due: key("due"), leases: key("leases"), dead: key("dead"), number: key("number"),
	}
}

// Put implements Queue.
func (q *RedisQueue) Put(ctx context.Context, item *Item) error {
	if err := item.check(); err != nil {
		return err
	}
	data, err := item.encode()
	if err != nil {
		return err
	}
	return q.append(ctx, item, data, "")
}

// append runs redisAppend; from is "dead" for an item that has to come from
// there.
func (q *RedisQueue) append(ctx context.Context, item *Item, data []byte, from string) error {
	keys := []string{q.items, q.order, q.due, q.number, q.dead}
	answer, err := redisAppend.Run(ctx, q.client, keys, item.ID, data, item.lane(), q.settings.MaxPending, from).Text()
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
			return nil, queueError(errors.New("the answer of a script makes no sense"))
		}
		c := &Claim{lane: a[0], place: a[1], token: token}
		if c, err = decodeClaim(ctx, q, c, a[2], []byte(a[3])); err != nil || c != nil {
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
	data, err := c.Item.encode()
	if err != nil {
		return err
	}
	return q.settle(ctx, c, "retry", data, in)
}

// Bury implements Queue.
func (q *RedisQueue) Bury(ctx context.Context, c *Claim) error {
	c.Item.Died = time.Now()
	data, err := c.Item.encode()
	if err != nil {
		return err
	}
	return q.settle(ctx, c, "bury", data, 0)
}

func (q *RedisQueue) settle(ctx context.Context, c *Claim, how string, data []byte, in time.Duration) error {
	keys := []string{q.items, q.order, q.due, q.leases, q.dead}
	held, err := redisSettle.Run(ctx, q.client, keys,
		c.lane, c.place, c.token, c.Item.ID, how, data, in.Milliseconds(), q.settings.MaxDead).Bool()
	if err != nil {
		return queueError(err)
	}
	if !held {
		return ErrLeaseLost
	}
	return nil
}

// Size implements Queue.
func (q *RedisQueue) Size(ctx context.Context) (pending, dead int, err error) {
	var p, d *redis.IntCmd
	_, err = q.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		p, d = pipe.ZCard(ctx, q.order), pipe.ZCard(ctx, q.dead)
		return nil
	})
	return int(p.Val()), int(d.Val()), queueError(err)
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

// Replay implements Queue.
func (q *RedisQueue) Replay(ctx context.Context, id string) error {
	data, err := q.client.HGet(ctx, q.items, id).Bytes()
	if errors.Is(err, redis.Nil) {
		return ErrNoDelivery
	}
	if err != nil {
		return queueError(err)
	}
	item, err := decodeItem(data)
	if err != nil {
		return ErrNoDelivery
	}
	item.revive(time.Now())
	if data, err = item.encode(); err != nil {
		return err
	}
	return q.append(ctx, item, data, "dead")
}

// Drop implements Queue.
func (q *RedisQueue) Drop(ctx context.Context, id string) error {
	dropped, err := redisDrop.Run(ctx, q.client, []string{q.items, q.dead}, id).Bool()
	if err != nil {
		return queueError(err)
	}
	if !dropped {
		return ErrNoDelivery
	}
	return nil
}
