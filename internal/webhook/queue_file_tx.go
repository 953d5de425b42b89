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
	root, items, order, lanes, due, dead *bbolt.Bucket
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
	return errors.Join(t.order.Delete([]byte(c.place)), t.add(keyPending, -1))
}

// exhume takes an item out of the dead; its record stays.
func (t *queueTx) exhume(id string) (*Item, error) {
	item, err := decodeItem(t.items.Get([]byte(id)))
	if err != nil || item.Died.IsZero() {
		return nil, ErrNoDelivery
	}
	entry := append(timeBytes(item.Died), id...)
	if k, _ := t.dead.Cursor().Seek(entry); !bytes.Equal(k, entry) {
		return nil, ErrNoDelivery
	}
	return item, errors.Join(t.dead.Delete(entry), t.add(keyDead, -1))
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
