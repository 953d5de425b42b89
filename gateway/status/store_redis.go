package status

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	enterAtOnce = 250 // users in one step
	buryAtOnce  = 500
)

// RedisStore keeps the status of users in Redis (6 or newer; standalone,
// Sentinel or Cluster), shared by all nodes with the same prefix. Times are
// those of Redis; the clocks of the nodes do not matter.
//
// The keys of each part, all in one slot:
//
//	PREFIX:{status.N}:nodes  sorted set: node by its last beat
//	PREFIX:{status.N}:held   sorted set, by name: NODE:USER
//	PREFIX:{status.N}:users  hash: user → record
//	PREFIX:{status.N}:due    sorted set: user by when to look at him
//	PREFIX:{status.N}:open   sorted set: user by when it was decided what is not told yet
//	PREFIX:{status.N}:hush   until when nobody is buried or goes offline
//	PREFIX:{status.N}:marks  hash: node → number of its latest entry
//
// None of them expires: they say what the backend was told. A failover may
// take back what was entered last; a node whose number is smaller than it
// remembers knows.
type RedisStore struct {
	client redis.UniversalClient
	timing Timing
	keys   [Partitions][]string
	clock  func() int64 // Unix milliseconds, for tests; nil takes the time of Redis

	marks marks
}

// NewRedisStore uses keys that begin with prefix and ":". The caller closes
// the client after the store's last use.
func NewRedisStore(client redis.UniversalClient, prefix string, t Timing) *RedisStore {
	s := &RedisStore{client: client, timing: t.complete()}
	for part := range s.keys {
		for _, name := range []string{"nodes", "held", "users", "due", "open", "hush", "marks"} {
			s.keys[part] = append(s.keys[part], prefix+":{status."+strconv.Itoa(part)+"}:"+name)
		}
	}
	return s
}

func (s *RedisStore) run(ctx context.Context, script *redis.Script, part int, args ...any) *redis.Cmd {
	now := int64(0)
	if s.clock != nil {
		now = s.clock()
	}
	t := s.timing
	first := []any{now, t.Lease.Milliseconds(), t.Grace.Milliseconds(), t.silence().Milliseconds()}
	return script.Run(ctx, s.client, s.keys[part], append(first, args...)...)
}

// Beat implements Store.
func (s *RedisStore) Beat(ctx context.Context, node string) (whole bool, err error) {
	whole = true
	for part, mark := range s.marks.of(node) {
		n, err := s.run(ctx, redisBeat, part, node, mark).Int()
		if err != nil {
			return false, err
		}
		whole = whole && n == 1
	}
	return whole, nil
}

// Arrive implements Store.
func (s *RedisStore) Arrive(ctx context.Context, node string, users []User, entered bool) (whole bool, err error) {
	return s.enter(ctx, redisArrive, node, users, entered)
}

// Depart implements Store.
func (s *RedisStore) Depart(ctx context.Context, node string, users []User, entered bool) error {
	_, err := s.enter(ctx, redisDepart, node, users, entered)
	return err
}

func (s *RedisStore) enter(ctx context.Context, script *redis.Script, node string, users []User, entered bool) (whole bool, err error) {
	whole = true
	mark := s.marks.of(node)
	for part, list := range split(users) {
		for len(list) > 0 {
			some := list[:min(len(list), enterAtOnce)]
			list = list[len(some):]
			args := make([]any, 0, 3+2*len(some))
			args = append(args, node, mark[part], entered)
			for _, u := range some {
				args = append(args, u.ID, u.about())
			}
			n, err := s.run(ctx, script, part, args...).Int64()
			if err != nil {
				return false, err
			}
			if n > 0 {
				mark[part] = n
				s.marks.set(node, part, n)
			}
			whole = whole && n > 0
		}
	}
	return whole, nil
}

// Leave implements Store.
func (s *RedisStore) Leave(ctx context.Context, node string) error {
	for part := range Partitions {
		for done := 0; done == 0; {
			var err error
			if done, err = s.run(ctx, redisLeave, part, node, buryAtOnce).Int(); err != nil {
				return err
			}
		}
	}
	s.marks.forget(node)
	return nil
}

var errScript = errors.New("the answer of a script makes no sense")

// Due implements Store.
func (s *RedisStore) Due(ctx context.Context, part, limit int) (Round, error) {
	a, err := s.run(ctx, redisDue, part, limit, keepFor.Milliseconds()).Slice()
	if err != nil {
		return Round{}, err
	}
	const head, each = 4, 5
	if len(a) < head || (len(a)-head)%each != 0 {
		return Round{}, errScript
	}
	number := func(i int) int64 { n, _ := a[i].(int64); return n }
	word := func(i int) string { w, _ := a[i].(string); return w }
	r := Round{
		More: number(0) == 1, Buried: number(1) == 1,
		Pending: int(number(2)), Oldest: time.Duration(number(3)) * time.Millisecond,
	}
	for i := head; i < len(a); i += each {
		seq, err1 := strconv.ParseInt(word(i+2), 10, 64)
		at, err2 := strconv.ParseInt(word(i+3), 10, 64)
		if err1 != nil || err2 != nil {
			return Round{}, errScript
		}
		r.Events = append(r.Events, newEvent(word(i), number(i+1) == 1, seq, at, word(i+4)))
	}
	return r, nil
}

// Done implements Store.
func (s *RedisStore) Done(ctx context.Context, part int, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	args := []any{keepFor.Milliseconds()}
	for _, e := range events {
		args = append(args, e.User, e.Seq)
	}
	return s.run(ctx, redisDone, part, args...).Err()
}
