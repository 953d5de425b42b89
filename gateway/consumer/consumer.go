package consumer

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// Call carries out a method of the server API. once is an idempotency key for
// what it publishes. Faults of the kinds Internal, Timeout, Limited, Upstream,
// Unavailable and UpstreamTimeout may be gone when it is repeated; others stay.
type Call func(ctx context.Context, method string, body []byte, once string) error

// Options are what Consumers are made of.
type Options struct {
	Settings []Consumer // that passed Check
	Client   redis.UniversalClient
	Prefix   string // of the leases
	Call     Call
	Metrics  *Metrics // nil counts for nobody
}

// Consumers consume all streams of a configuration.
type Consumers struct {
	streams  []*stream
	stopping context.Context
	stop     context.CancelFunc
	stopped  chan struct{} // Run has returned
}

// New makes Consumers; nothing runs yet. The caller closes the client after
// Run has returned.
func New(o Options) *Consumers {
	if o.Metrics == nil {
		o.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	c := &Consumers{stopped: make(chan struct{})}
	share := &share{node: rand.Text()}
	c.stopping, c.stop = context.WithCancel(context.Background())
	for _, s := range o.Settings {
		if !s.Enabled {
			continue
		}
		for _, name := range s.Stream.Streams {
			c.streams = append(c.streams, newStream(o, s, name, share))
		}
	}
	return c
}

// Run consumes until Shutdown is called, or until ctx ends, which cuts off
// whatever is under way.
func (c *Consumers) Run(ctx context.Context) error {
	defer close(c.stopped)
	stopping, stop := context.WithCancel(c.stopping)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	var running sync.WaitGroup
	for _, s := range c.streams {
		running.Go(func() { s.run(ctx, stopping) })
	}
	running.Wait()
	<-stopping.Done()
	return nil
}

// Shutdown begins nothing more and returns once Run has: what was begun is
// finished and acknowledged, the streams are free for other nodes. It gives up
// when ctx ends.
func (c *Consumers) Shutdown(ctx context.Context) error {
	c.stop()
	select {
	case <-c.stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stream is one stream and what is the same in all times this node holds it.
type stream struct {
	StreamSettings
	consumer, name, lease string

	client  redis.UniversalClient
	call    Call
	metrics *Metrics
	share   *share
	trouble trouble
}

func newStream(o Options, c Consumer, name string, share *share) *stream {
	s := &stream{
		StreamSettings: c.Stream, consumer: c.Name, name: name, lease: leaseKey(o.Prefix, name, c.Stream.ConsumerGroup),
		client: o.Client, call: o.Call, metrics: o.Metrics, share: share,
	}
	s.trouble.log = slog.With("consumer", c.Name, "stream", name)
	for _, result := range []string{resultDone, resultPoison, resultGivenUp, resultGone} {
		s.metrics.entries.WithLabelValues(s.consumer, result).Add(0)
	}
	s.metrics.failures.WithLabelValues(s.consumer).Add(0)
	s.released()
	return s
}

func (s *stream) released() {
	s.metrics.held.WithLabelValues(s.consumer, s.name).Set(0)
	s.metrics.lag.WithLabelValues(s.consumer, s.name).Set(0)
	s.metrics.oldest.WithLabelValues(s.consumer, s.name).Set(0)
}

// run takes the lease whenever it is free, and consumes while it holds it.
func (s *stream) run(ctx, stopping context.Context) {
	for stopping.Err() == nil {
		pause := min(acquireEvery, s.VisibilityTimeout/4)
		ses, err := s.acquire(stopping)
		if stopping.Err() == nil {
			s.trouble.observe(err)
		}
		if ses != nil {
			s.metrics.held.WithLabelValues(s.consumer, s.name).Set(1)
			s.trouble.log.Info("this node consumes the stream")
			s.share.hold(1)
			ses.run(ctx, stopping)
			s.share.hold(-1)
			s.released()
			if ses.given {
				pause = 3 * acquireEvery // who wants it is faster
			}
		}
		sleep(stopping, pause)
	}
}

// share is how many of the streams this node holds, all consumers together.
type share struct {
	node string // its id

	mu   sync.Mutex
	held int
	gave time.Time
}

func (s *share) hold(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held += n
}

func (s *share) holds() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// gives tells whether to let go of a stream for a node that holds so many: the
// other must be better off with fewer than this one is left with, and one at a
// time is enough.
func (s *share) gives(held int, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if held < 0 || s.held <= held+1 || now.Sub(s.gave) < giveEvery {
		return false
	}
	s.gave = now
	return true
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// trouble is a dependency that fails, of which the log is told when that
// begins and when it ends.
type trouble struct {
	log *slog.Logger

	mu      sync.Mutex
	failing bool
}

func (t *trouble) observe(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil && !t.failing:
		t.log.Warn("the stream cannot be consumed: trying again", "error", err)
	case err == nil && t.failing:
		t.log.Info("the stream can be consumed again")
	}
	t.failing = err != nil
}
