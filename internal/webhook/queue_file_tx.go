package webhook

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"go.etcd.io/bbolt"
)

// queueTx is a transaction with the buckets of a FileQueue at hand.
type queueTx struct {
	root, items, order, lanes, due, dead, age *bbolt.Bucket
}

func open(tx *bbolt.Tx) *queueTx {
	root := tx.Bucket(bucketQueue)
	return &queueTx{
		root:  root,
		items: root.Bucket(bucketItems),
		order: root.Bucket(bucketOrder),
		lanes: root.Bucket(bucketLanes),
		due:   root.Bucket(bucketDue),
		dead:  root.Bucket(bucketDead),
		age:   root.Bucket(bucketAge),
	}
}

// head returns the oldest item of a lane, nil if the lane is empty.
func (t *queueTx) head(lane string) (place, id []byte) {
	if place, id = t.order.Cursor().Seek([]byte(lane)); !bytes.HasPrefix(place, []byte(lane)) {
		return nil, nil
	}
	return place, id
}

// setDue says when the head of a lane is due, or forgets an empty lane.
func (t *queueTx) setDue(lane string, at time.Time) error {
	var err error
	if before := t.lanes.Get([]byte(lane)); before != nil {
		err = t.due.Delete(append(bytes.Clone(before), lane...))
	}
	if place, _ := t.head(lane); place == nil {
		return errors.Join(err, t.lanes.Delete([]byte(lane)))
	}
	when := timeBytes(at)
	return errors.Join(err,
		t.lanes.Put([]byte(lane), when),
		t.due.Put(append(bytes.Clone(when), lane...), nil))
}

// remove takes the head of a lane out of it.
func (t *queueTx) remove(c *Claim) error {
	return errors.Join(t.order.Delete([]byte(c.place)), t.age.Delete([]byte(c.place[len(c.lane):])), t.add(keyPending, -1))
}

// exhume takes an item out of the dead; its record stays.
func (t *queueTx) exhume(id string) (*Item, error) {
	entry := t.grave(id)
	if entry == nil {
		return nil, ErrNoDelivery
	}
	record := t.items.Get([]byte(id))
	return deadItem(id, record), t.unbury(entry, len(record))
}

// unbury removes an entry of the dead whose record has a size.
func (t *queueTx) unbury(entry []byte, size int) error {
	err := errors.Join(t.dead.Delete(entry), t.add(keyDead, -1), t.add(keyDeadBytes, -size))
	if t.count(keyDead) == 0 { // a record that was damaged may have had another size
		err = errors.Join(err, t.root.Delete(keyDeadBytes))
	}
	return err
}

// grave is the entry of a dead item, nil if there is none.
func (t *queueTx) grave(id string) []byte {
	record := t.items.Get([]byte(id))
	if record == nil {
		return nil
	}
	item, err := decodeHeader(record)
	if err == nil {
		entry := append(timeBytes(item.Died), id...)
		if k, _ := t.dead.Cursor().Seek(entry); bytes.Equal(k, entry) {
			return entry
		}
		return nil
	}
	c := t.dead.Cursor() // a damaged record does not say when it died
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if string(k[8:]) == id {
			return bytes.Clone(k)
		}
	}
	return nil
}

// excess points at the counter of why the oldest of the dead has to go, nil
// if it may stay.
func (t *queueTx) excess(s QueueSettings, now time.Time) func(*trimmed) *int {
	oldest, _ := t.dead.Cursor().First()
	switch {
	case oldest == nil:
		return nil
	case !bytesTime(oldest[:8]).Add(s.MaxDeadAge).After(now):
		return func(n *trimmed) *int { return &n.age }
	case t.count(keyDead) > s.MaxDead:
		return func(n *trimmed) *int { return &n.count }
	case int64(t.count(keyDeadBytes)) > int64(s.MaxDeadBytes):
		return func(n *trimmed) *int { return &n.bytes }
	}
	return nil
}

// trim removes the oldest dead items until the limits hold, at most
// trimAtOnce of them.
func (t *queueTx) trim(s QueueSettings) (gone trimmed, err error) {
	now := time.Now()
	for gone.total() < trimAtOnce {
		why := t.excess(s, now)
		if why == nil {
			break
		}
		oldest, _ := t.dead.Cursor().First()
		id := bytes.Clone(oldest[8:])
		size := len(t.items.Get(id))
		if err := errors.Join(t.unbury(oldest, size), t.items.Delete(id)); err != nil {
			return gone, err
		}
		*why(&gone)++
	}
	return gone, nil
}

func (t *queueTx) count(key []byte) int {
	value := t.root.Get(key)
	if len(value) != 8 {
		return 0
	}
	return int(binary.BigEndian.Uint64(value))
}

func (t *queueTx) add(key []byte, n int) error {
	return t.root.Put(key, binary.BigEndian.AppendUint64(nil, uint64(t.count(key)+n)))
}

func timeBytes(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(t.UnixMilli()))
}

func bytesTime(b []byte) time.Time { return time.UnixMilli(int64(binary.BigEndian.Uint64(b))) }
