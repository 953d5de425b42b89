package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/fault"
)

const (
	pollEvery     = time.Second     // for what other nodes put, and for retries
	measureEvery  = 2 * time.Second // the size of the queue
	settleTimeout = 5 * time.Second
	leaseMargin   = 30 * time.Second // beyond the longest timeout of an endpoint
	firstPause    = time.Second
	longestPause  = 10 * time.Minute
)

// Dispatcher delivers what is in a Queue. It is safe for concurrent use.
type Dispatcher struct {
	queue     Queue
	endpoints map[string]*Endpoint // by hook
	settings  QueueSettings
	metrics   *Metrics
	lease     time.Duration
	wake      chan struct{} // capacity 1; there may be something to take
	look      chan struct{} // capacity 1; the size has changed by hand

	mu      sync.Mutex
	failing map[string]bool // by hook; "" is the queue itself
}

// NewDispatcher makes a Dispatcher that delivers to endpoints. m may be nil.
func NewDispatcher(q Queue, s QueueSettings, m *Metrics, endpoints ...*Endpoint) *Dispatcher {
	if m == nil {
		m = NewMetrics(prometheus.NewRegistry())
	}
	d := &Dispatcher{
		queue: q, settings: s, metrics: m, lease: leaseMargin,
		endpoints: make(map[string]*Endpoint, len(endpoints)), failing: make(map[string]bool),
		wake: make(chan struct{}, 1), look: make(chan struct{}, 1),
	}
	for _, e := range endpoints {
		d.endpoints[e.hook] = e
		d.lease = max(d.lease, e.timeout+leaseMargin)
	}
	return d
}

// Enqueue has body delivered to hook, at least once and in the order of other
// items with the same hook and key, unless key is "". The delivery is safe
// when Enqueue returns; the id tells repeats apart, see [NewID]. Faults: as of
// Queue.Put, and Invalid `webhook_item` for a hook without an endpoint.
func (d *Dispatcher) Enqueue(ctx context.Context, id, hook, event, key string, body any) error {
	if d.endpoints[hook] == nil {
		return errItem.Because(fmt.Errorf("there is no endpoint for %q", hook))
	}
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if err := d.queue.Put(ctx, &Item{ID: id, Hook: hook, Event: event, Key: key, Body: data, Queued: time.Now()}); err != nil {
		return err
	}
	d.rouse()
	return nil
}

// Queue is what the dispatcher delivers from.
func (d *Dispatcher) Queue() Queue { return d.queue }

func (d *Dispatcher) rouse() { nudge(d.wake) }

func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // somebody has
	}
}

// Run delivers until ctx ends, and then until the calls under way have ended,
// which their timeouts bound.
func (d *Dispatcher) Run(ctx context.Context) error {
	var busy sync.WaitGroup
	defer busy.Wait()
	busy.Go(func() { d.measure(ctx) })
	if len(d.endpoints) == 0 { // other nodes may have them; the dead still age
		<-ctx.Done()
		return nil
	}
	workers := make(chan struct{}, d.settings.Workers)
	for {
		select {
		case <-ctx.Done():
			return nil
		case workers <- struct{}{}:
		}
		c, err := d.queue.Take(ctx, d.lease)
		if ctx.Err() == nil {
			d.observe("", err)
		}
		if c == nil {
			<-workers
			d.idle(ctx)
			continue
		}
		busy.Go(func() {
			d.deliver(context.WithoutCancel(ctx), c)
			<-workers
			d.rouse() // its lane may have more
		})
	}
}

func (d *Dispatcher) idle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-d.wake:
	case <-time.After(pollEvery):
	}
}

// deliver makes one attempt and settles the claim.
func (d *Dispatcher) deliver(ctx context.Context, c *Claim) {
	item, result := c.Item, resultDelivered
	err := d.post(ctx, item)
	d.observe(item.Hook, err)
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	var settled error
	switch {
	case err == nil:
		settled = d.queue.Done(ctx, c)
	case time.Since(item.Queued) >= d.settings.GiveUpAfter:
		result = resultDead
		item.failed(err)
		slog.Warn("a delivery is given up", "hook", item.Hook, "event", item.Event, "delivery", item.ID, "attempts", item.Attempts, "error", err)
		settled = d.queue.Bury(ctx, c)
		nudge(d.look)
	default:
		result = resultRetried
		item.failed(err)
		settled = d.queue.Retry(ctx, c, max(pause(item.Attempts), fault.Of(err).RetryAfter))
	}
	d.metrics.deliveries.WithLabelValues(item.Hook, result).Inc()
	if settled != nil {
		slog.Warn("a delivery is not settled and will be repeated", "hook", item.Hook, "delivery", item.ID, "error", settled)
	}
}

func (d *Dispatcher) post(ctx context.Context, item *Item) error {
	e := d.endpoints[item.Hook]
	if e == nil { // of an earlier configuration, or of another node's
		return errAway.Because(errors.New("there is no endpoint for this hook"))
	}
	return e.Post(ctx, Call{ID: item.ID, Event: item.Event, Body: item.Body})
}

// observe speaks up only when a hook begins or ceases to fail.
func (d *Dispatcher) observe(hook string, err error) {
	d.mu.Lock()
	before := d.failing[hook]
	d.failing[hook] = err != nil
	d.mu.Unlock()
	what := "deliveries to the backend"
	if hook == "" {
		what = "the queue of deliveries"
	}
	switch {
	case err != nil && !before:
		slog.Warn(what+" fail: trying again", "hook", hook, "error", err)
	case err == nil && before:
		slog.Info(what+" work again", "hook", hook)
	}
}

// measure keeps the gauges, and the dead within their limits.
func (d *Dispatcher) measure(ctx context.Context) {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		trimmed := d.queue.Trim(ctx)
		if size, err := d.queue.Size(ctx); trimmed == nil && err == nil { // Take tells about errors
			d.metrics.measured(size, time.Now())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.look:
		}
	}
}

// pause is how long to wait after a number of failed attempts: twice as long
// each time, and up to half of it less, so that what failed together does not
// come back together.
func pause(attempts int) time.Duration {
	longest := min(firstPause<<min(attempts-1, 20), longestPause)
	return longest - rand.N(longest/2)
}
