package status

import (
	"context"
	"encoding/binary"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
)

var bucketStatus = []byte("user_status")

// FileStore keeps the status of users in an embedded database file, for a node
// that runs alone. What it returned for is on disk. It does the same steps as
// RedisStore, so a process that was killed is buried by the next one.
type FileStore struct {
	db     *bbolt.DB
	timing Timing
	clock  func() int64 // Unix milliseconds
	marks  marks
}

// NewFileStore uses the bucket user_status in db, which the caller closes
// after the store's last use.
func NewFileStore(db *bbolt.DB, t Timing) (*FileStore, error) {
	if err := db.Update(createParts); err != nil {
		return nil, err
	}
	return &FileStore{db: db, timing: t.complete(), clock: func() int64 { return time.Now().UnixMilli() }}, nil
}

func createParts(tx *bbolt.Tx) error {
	root, err := tx.CreateBucketIfNotExists(bucketStatus)
	if err != nil {
		return err
	}
	for part := range Partitions {
		b, err := root.CreateBucketIfNotExists([]byte(strconv.Itoa(part)))
		if err != nil {
			return err
		}
		for _, name := range partBuckets {
			if _, err := b.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// in makes one step in one part.
func (s *FileStore) in(tx *bbolt.Tx, part int, step func(p *filePart) error) error {
	return step(openPart(tx, part, s.timing, s.clock()))
}

// update makes a step in each part, all or none of them.
func (s *FileStore) update(ctx context.Context, step func(part int, p *filePart) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for part := range Partitions {
			if err := s.in(tx, part, func(p *filePart) error { return step(part, p) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// Beat implements Store.
func (s *FileStore) Beat(ctx context.Context, node string) (whole bool, err error) {
	mark := s.marks.of(node)
	err = s.update(ctx, func(part int, p *filePart) error {
		whole = (part == 0 || whole) && p.mark(node) >= mark[part]
		return p.beat(node)
	})
	return whole && err == nil, err
}

// Arrive implements Store.
func (s *FileStore) Arrive(ctx context.Context, node string, users []User, entered bool) (whole bool, err error) {
	return s.enter(ctx, node, users, true, func(p *filePart, u User) error { return p.arrive(node, u, entered) })
}

// Depart implements Store.
func (s *FileStore) Depart(ctx context.Context, node string, users []User, entered bool) error {
	_, err := s.enter(ctx, node, users, false, func(p *filePart, u User) error { return p.depart(node, u, entered) })
	return err
}

// enter makes a step for each user; with strict only where the node has its
// lease and has lost nothing.
func (s *FileStore) enter(ctx context.Context, node string, users []User, strict bool, step func(*filePart, User) error) (whole bool, err error) {
	parts, mark := split(users), s.marks.of(node)
	next := mark
	err = s.update(ctx, func(part int, p *filePart) error {
		list := parts[part]
		if part == 0 {
			whole, next = true, mark
		}
		if len(list) == 0 {
			return nil
		}
		here := p.alive(node) && p.mark(node) >= mark[part]
		whole = whole && here
		if !here && strict {
			return nil
		}
		for _, u := range list {
			if err := step(p, u); err != nil {
				return err
			}
		}
		if !here {
			return nil
		}
		next[part] = p.mark(node) + 1
		return p.marks.Put([]byte(node), binary.BigEndian.AppendUint64(nil, uint64(next[part])))
	})
	if err != nil {
		return false, err
	}
	for part, n := range next {
		if n != mark[part] {
			s.marks.set(node, part, n)
		}
	}
	return whole, nil
}

// Leave implements Store.
func (s *FileStore) Leave(ctx context.Context, node string) error {
	for done := false; !done; {
		err := s.update(ctx, func(part int, p *filePart) error {
			last, err := p.bury(node, p.now, buryAtOnce)
			done = (part == 0 || done) && last
			return err
		})
		if err != nil {
			return err
		}
	}
	s.marks.forget(node)
	return nil
}

// Due implements Store. It writes nothing while there is nothing to do.
func (s *FileStore) Due(ctx context.Context, part, limit int) (r Round, err error) {
	if err := ctx.Err(); err != nil {
		return r, err
	}
	idle := false
	err = s.db.View(func(tx *bbolt.Tx) error {
		return s.in(tx, part, func(p *filePart) error {
			idle = p.lapsed() == "" && len(p.look(1)) == 0
			r.Pending, r.Oldest = p.pending()
			return nil
		})
	})
	if err != nil || idle {
		return r, err
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		return s.in(tx, part, func(p *filePart) (err error) { r, err = p.round(limit); return err })
	})
	return r, err
}

// Done implements Store.
func (s *FileStore) Done(ctx context.Context, part int, events []Event) error {
	if err := ctx.Err(); err != nil || len(events) == 0 {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		return s.in(tx, part, func(p *filePart) error { return p.done(events) })
	})
}
