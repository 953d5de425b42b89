package webhook

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// The bucket of a FileQueue and those within it. Times are 8 bytes, Unix
// milliseconds, big endian, so that they sort.
var (
	bucketQueue = []byte("webhook_queue")
	bucketItems = []byte("items") // id → encoded item, pending or dead
	bucketOrder = []byte("order") // lane, number → id of a pending item
	bucketLanes = []byte("lanes") // lane → when its head is due
	bucketDue   = []byte("due")   // when, lane → nothing
	bucketDead  = []byte("dead")  // when it died, id → nothing
	bucketAge   = []byte("age")   // number of a pending item → when it was put

	keyPending   = []byte("pending") // how many there are, 8 bytes
	keyDead      = []byte("dead count")
	keyDeadBytes = []byte("dead bytes")
)

// FileQueue keeps items in an embedded database file, for a node that runs
// alone. What Put returned for is on disk. Leases are kept in memory: a
// process that is killed holds none when it comes back.
type FileQueue struct {
	db *bbolt.DB
	QueueOptions

	mu     sync.Mutex
	leases map[string]fileLease // by lane
}

type fileLease struct {
	token string
	until time.Time
}

// NewFileQueue uses the bucket webhook_queue in db, which the caller closes
// after the queue's last use. There must be one FileQueue for a db.
func NewFileQueue(db *bbolt.DB, o QueueOptions) (*FileQueue, error) {
	err := db.Update(func(tx *bbolt.Tx) error {
		root, err := tx.CreateBucketIfNotExists(bucketQueue)
		if err != nil {
			return err
		}
		for _, name := range [][]byte{bucketItems, bucketOrder, bucketLanes, bucketDue, bucketDead, bucketAge} {
			if _, err := root.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, queueError(err)
	}
	return &FileQueue{db: db, QueueOptions: o.complete(), leases: make(map[string]fileLease)}, nil
}

// Put implements Queue.
func (q *FileQueue) Put(ctx context.Context, item *Item) error {
	if err := item.check(); err != nil {
		return err
	}
	return q.batch(ctx, func(t *queueTx) error {
		if t.items.Get([]byte(item.ID)) != nil {
			return nil
		}
		return q.append(t, item)
	})
}

// append puts an item at the end of its lane, which is due now if it was
// empty.
func (q *FileQueue) append(t *queueTx, item *Item) error {
	if t.count(keyPending) >= q.Settings.MaxPending {
		return errQueueFull
	}
	data, err := item.encode(q.Sealer)
	if err != nil {
		return err
	}
	lane := item.lane()
	number, err := t.order.NextSequence()
	err = errors.Join(err,
		t.items.Put([]byte(item.ID), data),
		t.order.Put(binary.BigEndian.AppendUint64([]byte(lane), number), []byte(item.ID)),
		t.age.Put(binary.BigEndian.AppendUint64(nil, number), timeBytes(item.Queued)),
		t.add(keyPending, 1))
	if err == nil && t.lanes.Get([]byte(lane)) == nil {
		err = t.setDue(lane, time.Now())
	}
	return err
}

// Take implements Queue. It writes nothing.
func (q *FileQueue) Take(ctx context.Context, lease time.Duration) (*Claim, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, id, data, err := q.take(lease)
		if err != nil || c == nil {
			return nil, queueError(err)
		}
		if c, err = decodeClaim(ctx, q, q.QueueOptions, c, id, data); err != nil || c != nil {
			return c, err
		}
	}
}

func (q *FileQueue) take(lease time.Duration) (c *Claim, id string, data []byte, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	err = q.db.View(func(tx *bbolt.Tx) error {
		t := open(tx)
		due, limit := t.due.Cursor(), timeBytes(now)
		for k, _ := due.First(); k != nil && bytes.Compare(k[:8], limit) <= 0; k, _ = due.Next() {
			lane := string(k[8:])
			if l, held := q.leases[lane]; held && now.Before(l.until) {
				continue
			}
			place, head := t.head(lane)
			c = &Claim{lane: lane, place: string(place), token: rand.Text()}
			id, data = string(head), bytes.Clone(t.items.Get(head))
			q.leases[lane] = fileLease{c.token, now.Add(lease)}
			return nil
		}
		return nil
	})
	return c, id, data, err
}

// Done implements Queue.
func (q *FileQueue) Done(ctx context.Context, c *Claim) error {
	return q.settle(ctx, c, time.Time{}, func(t *queueTx) error {
		return errors.Join(t.remove(c), t.items.Delete([]byte(c.Item.ID)))
	})
}

// Retry implements Queue.
func (q *FileQueue) Retry(ctx context.Context, c *Claim, in time.Duration) error {
	data, err := c.Item.encode(q.Sealer)
	if err != nil {
		return err
	}
	return q.settle(ctx, c, time.Now().Add(in), func(t *queueTx) error {
		return t.items.Put([]byte(c.Item.ID), data)
	})
}

// Bury implements Queue.
func (q *FileQueue) Bury(ctx context.Context, c *Claim) error {
	c.Item.Died = time.Now()
	data, err := c.Item.encode(q.Sealer)
	if err != nil {
		return err
	}
	var gone trimmed
	err = q.settle(ctx, c, time.Time{}, func(t *queueTx) error {
		err := errors.Join(t.remove(c),
			t.items.Put([]byte(c.Item.ID), data),
			t.dead.Put(append(timeBytes(c.Item.Died), c.Item.ID...), nil),
			t.add(keyDead, 1), t.add(keyDeadBytes, len(data)))
		if err == nil {
			gone, err = t.trim(q.Settings)
		}
		return err
	})
	if err == nil {
		q.Metrics.lost(gone)
	}
	return err
}

// Trim implements Queue.
func (q *FileQueue) Trim(ctx context.Context) error {
	for {
		var gone trimmed
		err := q.view(ctx, func(t *queueTx) error { // most of the time there is nothing to write
			if t.excess(q.Settings, time.Now()) != nil {
				gone.count = 1
			}
			return nil
		})
		if err != nil || gone.count == 0 {
			return err
		}
		err = q.update(ctx, func(t *queueTx) (err error) {
			gone, err = t.trim(q.Settings)
			return err
		})
		if err != nil {
			return err
		}
		q.Metrics.lost(gone)
	}
}

// settle makes a change that ends a claim; what is then the head of the lane
// is due at the given time, the zero one being now.
func (q *FileQueue) settle(ctx context.Context, c *Claim, due time.Time, change func(*queueTx) error) error {
	if due.IsZero() {
		due = time.Now()
	}
	err := q.batch(ctx, func(t *queueTx) error {
		if !q.holds(c) || t.order.Get([]byte(c.place)) == nil {
			return ErrLeaseLost
		}
		if err := change(t); err != nil {
			return err
		}
		return t.setDue(c.lane, due)
	})
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.leases[c.lane].token == c.token {
		delete(q.leases, c.lane)
	}
	return nil
}

// holds tells whether c is still the last claim to its lane.
func (q *FileQueue) holds(c *Claim) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.leases[c.lane].token == c.token
}

// Size implements Queue.
func (q *FileQueue) Size(ctx context.Context) (size Size, err error) {
	err = q.view(ctx, func(t *queueTx) error {
		size = Size{Pending: t.count(keyPending), Dead: t.count(keyDead), DeadBytes: int64(t.count(keyDeadBytes))}
		if _, at := t.age.Cursor().First(); len(at) == 8 {
			size.Oldest = bytesTime(at)
		}
		return nil
	})
	return size, err
}

// Dead implements Queue.
func (q *FileQueue) Dead(ctx context.Context, skip, limit int) (list []*Item, err error) {
	err = q.view(ctx, func(t *queueTx) error {
		c := t.dead.Cursor()
		for k, _ := c.Last(); k != nil && len(list) < limit; k, _ = c.Prev() {
			if skip--; skip >= 0 {
				continue
			}
			list = append(list, deadItem(string(k[8:]), t.items.Get(k[8:])))
		}
		return nil
	})
	return list, err
}

// DeadIDs implements Queue.
func (q *FileQueue) DeadIDs(ctx context.Context, limit int) (ids []string, err error) {
	err = q.view(ctx, func(t *queueTx) error {
		c := t.dead.Cursor()
		for k, _ := c.First(); k != nil && len(ids) < limit; k, _ = c.Next() {
			ids = append(ids, string(k[8:]))
		}
		return nil
	})
	return ids, err
}

// Find implements Queue.
func (q *FileQueue) Find(ctx context.Context, id string) (item *Item, err error) {
	err = q.view(ctx, func(t *queueTx) error {
		if t.grave(id) == nil {
			return ErrNoDelivery
		}
		item = deadItem(id, t.items.Get([]byte(id)))
		return item.open(q.Sealer)
	})
	return item, err
}

// Replay implements Queue.
func (q *FileQueue) Replay(ctx context.Context, id string) error {
	return q.update(ctx, func(t *queueTx) error {
		item, err := t.exhume(id)
		if err != nil {
			return err
		}
		if err := item.open(q.Sealer); err != nil {
			return err
		}
		item.revive(time.Now())
		return q.append(t, item)
	})
}

// Drop implements Queue.
func (q *FileQueue) Drop(ctx context.Context, id string) error {
	return q.update(ctx, func(t *queueTx) error {
		_, err := t.exhume(id)
		return errors.Join(err, t.items.Delete([]byte(id)))
	})
}

// update is for operators, who wait for one change after the other; batch
// would wait for others to join each.
func (q *FileQueue) update(ctx context.Context, change func(*queueTx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return queueError(q.db.Update(func(tx *bbolt.Tx) error { return change(open(tx)) }))
}

func (q *FileQueue) batch(ctx context.Context, change func(*queueTx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return queueError(q.db.Batch(func(tx *bbolt.Tx) error { return change(open(tx)) }))
}

func (q *FileQueue) view(ctx context.Context, look func(*queueTx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return queueError(q.db.View(func(tx *bbolt.Tx) error { return look(open(tx)) }))
}
