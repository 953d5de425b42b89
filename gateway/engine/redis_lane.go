package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/minigate/minigate/internal/fault"
)

const (
	laneQueue = 4096 // operations waiting for one lane; more are refused
	laneBatch = 512  // operations in one round trip
)

var (
	errAway = fault.New(fault.Unavailable, "redis_unavailable", "Redis is away at the moment: try again.").After(time.Second)
	errBusy = fault.New(fault.Unavailable, "redis_overloaded", "Redis cannot keep up at the moment: try again.").After(time.Second)
)

// lane sends operations to Redis, many in one round trip: what comes in while
// a round trip is under way makes the next one. A channel always takes the
// same lane, hence its operations keep the order they were put in.
type lane struct {
	client  redis.UniversalClient
	metrics *Metrics
	queue   chan *op
	ended   chan struct{} // closed when run has returned
}

// op is some commands that travel together.
type op struct {
	ctx   context.Context // nil: carried out even if nobody waits for it
	cmds  []redis.Cmder
	fail  func(error)     // where set, called by the lane with every failure
	done  chan error      // capacity 1; set by put
	ended <-chan struct{} // the lane's; set by put
}

func newLane(client redis.UniversalClient, m *Metrics) *lane {
	return &lane{client: client, metrics: m, queue: make(chan *op, laneQueue), ended: make(chan struct{})}
}

// put queues o, or refuses it at once.
func (l *lane) put(o *op) error {
	o.done, o.ended = make(chan error, 1), l.ended
	select {
	case l.queue <- o:
		return nil
	default:
		l.metrics.refused.Inc()
		return errBusy
	}
}

// wait returns once o is done, or ctx or its lane has ended. Only in the first
// case the commands may be looked at.
func (o *op) wait(ctx context.Context) error {
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-o.ended:
		return errStopped
	}
}

// do is put and wait, for an operation that is pointless without its caller.
func (l *lane) do(ctx context.Context, cmds ...redis.Cmder) error {
	o := &op{ctx: ctx, cmds: cmds}
	if err := l.put(o); err != nil {
		return err
	}
	return o.wait(ctx)
}

// run sends until ctx ends; what is queued then is refused.
func (l *lane) run(ctx context.Context) {
	defer close(l.ended)
	batch := make([]*op, 0, laneBatch)
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-l.queue:
			batch = l.collect(append(batch[:0], o))
			l.exec(batch)
			clear(batch)
		}
	}
}

// collect adds what is queued already.
func (l *lane) collect(batch []*op) []*op {
	for len(batch) < laneBatch {
		select {
		case o := <-l.queue:
			batch = append(batch, o)
		default:
			return batch
		}
	}
	return batch
}

// exec makes one round trip. Its time is bounded by the client's own timeouts:
// a caller's context must not cut off the others.
func (l *lane) exec(batch []*op) {
	ctx := context.Background()
	pipe := l.client.Pipeline()
	live := batch[:0]
	for _, o := range batch {
		if o.ctx != nil && o.ctx.Err() != nil {
			o.done <- o.ctx.Err()
			continue
		}
		live = append(live, o)
		for _, cmd := range o.cmds {
			_ = pipe.Process(ctx, cmd) // only queues; never fails
		}
	}
	if len(live) == 0 {
		return
	}
	began := time.Now()
	l.metrics.batch.Observe(float64(pipe.Len()))
	_, err := pipe.Exec(ctx) // each command has its own error
	if err != nil {
		l.retryUnknownScripts(ctx, live)
	}
	l.metrics.roundTrip.Observe(time.Since(began).Seconds())
	for _, o := range live {
		err := firstError(o.cmds)
		if err != nil && o.fail != nil {
			o.fail(err)
		}
		o.done <- err
	}
}

// retryUnknownScripts repeats, with their source, the scripts that Redis did
// not know: it has restarted, or never saw them. They were not executed.
func (l *lane) retryUnknownScripts(ctx context.Context, ops []*op) {
	pipe := l.client.Pipeline()
	var unknown, again []*redis.Cmd
	for _, o := range ops {
		for _, cmd := range o.cmds {
			c, ok := cmd.(*redis.Cmd)
			if !ok || !redis.HasErrorPrefix(c.Err(), "NOSCRIPT") {
				continue
			}
			args := append([]any(nil), c.Args()...)
			args[0], args[1] = "eval", scriptSources[args[1].(string)]
			repeat := redis.NewCmd(ctx, args...)
			_ = pipe.Process(ctx, repeat)
			unknown, again = append(unknown, c), append(again, repeat)
		}
	}
	if len(again) == 0 {
		return
	}
	_, _ = pipe.Exec(ctx)
	for i, c := range unknown {
		c.SetVal(again[i].Val())
		c.SetErr(again[i].Err())
	}
}

func firstError(cmds []redis.Cmder) error {
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return translate(err)
		}
	}
	return nil
}

// translate turns an error of go-redis into ours. "ERR" and "WRONGTYPE" are
// Redis refusing a command of ours, a bug; all else (LOADING, READONLY, OOM, a
// broken connection) is Redis being away for us.
func translate(err error) error {
	var refused redis.Error
	if errors.As(err, &refused) && (redis.HasErrorPrefix(err, "ERR") || redis.HasErrorPrefix(err, "WRONGTYPE")) {
		return fault.New(fault.Internal, "redis_refused", "Something went wrong on our side.").Because(err)
	}
	return errAway.Because(err)
}

// lanes spreads channels over lanes. More than one keeps Redis busy while a
// batch is being written or read on our side.
type lanes []*lane

func newLanes(n int, client redis.UniversalClient, m *Metrics) lanes {
	ls := make(lanes, n)
	for i := range ls {
		ls[i] = newLane(client, m)
	}
	return ls
}

func (ls lanes) of(channel string) *lane { return ls[hash(channel)%uint64(len(ls))] }

func (ls lanes) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, l := range ls {
		wg.Go(func() { l.run(ctx) })
	}
	wg.Wait()
}
