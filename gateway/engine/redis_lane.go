package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	laneQueue = 4096 // operations waiting for one lane; more are refused
	laneBatch = 512  // operations in one round trip
)

// lane sends operations to Redis, many in one round trip: what comes in while
// a round trip is under way makes the next one. A place always takes the
// same lane, hence its operations keep the order they were put in.
type lane struct {
	servers *servers
	wait    waitFor // after every batch
	metrics *Metrics
	queue   chan *op
	ended   chan struct{} // closed when run has returned
}

// op is some commands that travel together.
type op struct {
	ctx   context.Context // nil: carried out even if nobody waits for it
	cmds  []command
	fail  func(error)     // where set, called by the lane with every failure
	done  chan error      // capacity 1; set by put
	ended <-chan struct{} // the lane's; set by put
}

func newLane(s *servers, wait waitFor, m *Metrics) *lane {
	return &lane{servers: s, wait: wait, metrics: m, queue: make(chan *op, laneQueue), ended: make(chan struct{})}
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
func (l *lane) do(ctx context.Context, cmds ...command) error {
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
	cmds := make([]*command, 0, laneBatch)
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-l.queue:
			batch = l.collect(append(batch[:0], o))
			cmds = l.exec(batch, cmds[:0])
			clear(batch)
			clear(cmds)
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
// a caller's context must not cut off the others. cmds is the caller's, to be
// used again.
func (l *lane) exec(batch []*op, cmds []*command) []*command {
	live := batch[:0]
	for _, o := range batch {
		if o.ctx != nil && o.ctx.Err() != nil {
			o.done <- o.ctx.Err()
			continue
		}
		live = append(live, o)
		for i := range o.cmds {
			cmds = append(cmds, &o.cmds[i])
		}
	}
	if len(cmds) > 0 {
		began := time.Now()
		l.metrics.batch.Observe(float64(len(cmds)))
		l.servers.run(context.Background(), cmds, l.wait)
		l.metrics.roundTrip.Observe(time.Since(began).Seconds())
	}
	for _, o := range live {
		err := firstError(o.cmds)
		if err != nil && o.fail != nil {
			o.fail(err)
		}
		o.done <- err
	}
	return cmds
}

func firstError(cmds []command) error {
	for i := range cmds {
		if err := cmds[i].cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return translate(err)
		}
	}
	return nil
}

// lanes spreads places over lanes. More than one keeps Redis busy while a
// batch is being written or read on our side. In a cluster each lane has a
// range of slots: most talk to one master only, and one that is away holds up
// its own.
type lanes struct {
	list  []*lane
	slots bool
}

const (
	laneCount        = 4
	clusterLaneCount = 16
)

func newLanes(s *servers, wait waitFor, m *Metrics) lanes {
	n := laneCount
	if s.cluster != nil {
		n = clusterLaneCount
	}
	ls := lanes{list: make([]*lane, n), slots: s.cluster != nil}
	for i := range ls.list {
		ls.list[i] = newLane(s, wait, m)
	}
	return ls
}

// of returns the lane of a key.
func (ls lanes) of(key string) *lane {
	if ls.slots {
		return ls.list[slot(key)*len(ls.list)/slotCount]
	}
	return ls.list[hash(key)%uint64(len(ls.list))]
}

func (ls lanes) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, l := range ls.list {
		wg.Go(func() { l.run(ctx) })
	}
	wg.Wait()
}

func (ls lanes) waits() bool { return ls.list[0].wait.replicas > 0 }
