package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// postbox is a backend that remembers what arrived when.
type postbox struct {
	mu       sync.Mutex
	start    time.Time
	arrived  []string // event:delivery:body
	attempts map[string][]time.Duration
	status   func(delivery string, attempt int) int // nil is always 200
}

func newPostbox() *postbox {
	return &postbox{start: time.Now(), attempts: map[string][]time.Duration{}}
}

func (p *postbox) serve(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil || Verify(r.Header, body, []Key{keyA}, time.Now()) != nil {
		return respond(401, ""), nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id := r.Header.Get(HeaderDelivery)
	p.attempts[id] = append(p.attempts[id], time.Since(p.start))
	status := 200
	if p.status != nil {
		status = p.status(id, len(p.attempts[id]))
	}
	if status == 200 {
		p.arrived = append(p.arrived, r.Header.Get(HeaderEvent)+":"+id+":"+string(body))
	}
	return respond(status, ""), nil
}

// office is a Dispatcher over a FileQueue with a postbox behind it.
type office struct {
	*Dispatcher
	t   *testing.T
	box *postbox
	reg *prometheus.Registry
}

func newOffice(t *testing.T, change ...func(*QueueSettings)) *office {
	t.Helper()
	s := testSettings().Queue
	for _, f := range change {
		f(&s)
	}
	o := &office{t: t, box: newPostbox(), reg: prometheus.NewRegistry()}
	m := NewMetrics(o.reg)
	q, _ := newFileQueue(t, QueueOptions{s, newSealer(1), m})
	o.Dispatcher = NewDispatcher(q, s, m, newEndpoint(t, "news", "http://b.example", 5*time.Second, o.box.serve))
	return o
}

// run runs the dispatcher until the test calls the result.
func (o *office) run() (stop func()) {
	ctx, cancel := context.WithCancel(o.t.Context())
	done := make(chan error)
	go func() { done <- o.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			o.t.Errorf("Run: %v", err)
		}
	}
}

func (o *office) enqueue(key, id string) {
	o.t.Helper()
	must(o.t, o.Enqueue(o.t.Context(), id, "news", "test", key, map[string]string{"id": id}))
}

func (o *office) counted(result string) float64 {
	return testutil.ToFloat64(o.metrics.deliveries.WithLabelValues("news", result))
}

func TestDispatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.enqueue("a", "early")
		stop := o.run()
		time.Sleep(time.Minute)
		o.enqueue("a", "late") // wakes the dispatcher
		time.Sleep(pollEvery / 2)
		stop()
		want := []string{`test:early:{"id":"early"}`, `test:late:{"id":"late"}`}
		if !slices.Equal(o.box.arrived, want) {
			t.Errorf("arrived %q", o.box.arrived)
		}
		wantSize(t, o.Queue(), 0, 0)
		if n := o.counted(resultDelivered); n != 2 {
			t.Errorf("%v deliveries are counted", n)
		}
		if problems, err := testutil.GatherAndLint(o.reg); err != nil || len(problems) > 0 {
			t.Errorf("metrics: %v %v", problems, err)
		}
		err := o.Enqueue(t.Context(), "x", "nowhere", "test", "", 1)
		wantCode(t, err, "webhook_item")
	})
}

// A lane does not wait for the poll between its items.
func TestDispatchKeepsGoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		for i := range 20 {
			o.enqueue("a", fmt.Sprintf("%02d", i))
		}
		start := time.Now()
		stop := o.run()
		for n := 1; n > 0; {
			time.Sleep(10 * time.Millisecond)
			size, err := o.Queue().Size(t.Context())
			must(t, err)
			n = size.Pending
		}
		took := time.Since(start) // of the bubble's clock
		stop()
		if took > time.Second || !slices.IsSorted(o.box.arrived) || len(o.box.arrived) != 20 {
			t.Errorf("%d arrived after %v: %q", len(o.box.arrived), took, o.box.arrived)
		}
	})
}

// What fails is tried again after growing pauses and holds up only its lane.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.box.status = func(id string, attempt int) int {
			if id == "bad" && attempt <= 4 {
				return 400
			}
			return 200
		}
		o.enqueue("a", "bad")
		o.enqueue("a", "behind")
		o.enqueue("b", "other")
		stop := o.run()
		time.Sleep(time.Minute)
		stop()
		want := []string{`test:other:{"id":"other"}`, `test:bad:{"id":"bad"}`, `test:behind:{"id":"behind"}`}
		if !slices.Equal(o.box.arrived, want) {
			t.Errorf("arrived %q", o.box.arrived)
		}
		times := o.box.attempts["bad"]
		for i, longest := range []time.Duration{1, 2, 4, 8} {
			longest *= time.Second
			if gap := times[i+1] - times[i]; gap < longest/2 || gap > longest+pollEvery+time.Second/10 {
				t.Errorf("attempt %d came %v after the one before", i+2, gap)
			}
		}
		if o.counted(resultRetried) != 4 {
			t.Errorf("%v retries are counted", o.counted(resultRetried))
		}
	})
}

// What is too old goes to the dead; its lane goes on, and it can be replayed.
func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, func(s *QueueSettings) { s.GiveUpAfter = time.Hour })
		var back atomic.Bool
		o.box.status = func(id string, _ int) int {
			if id == "bad" && !back.Load() {
				return 400
			}
			return 200
		}
		o.enqueue("a", "bad")
		o.enqueue("a", "behind")
		stop := o.run()
		time.Sleep(time.Hour - time.Second)
		wantSize(t, o.Queue(), 2, 0)
		time.Sleep(longestPause + time.Minute)
		wantSize(t, o.Queue(), 0, 1)
		dead, err := o.Queue().Dead(t.Context(), 0, 10)
		must(t, err)
		if len(dead) != 1 || dead[0].ID != "bad" || dead[0].Attempts < 10 || dead[0].Failure == "" {
			t.Errorf("the dead are %+v", dead[0])
		}
		if !slices.Equal(o.box.arrived, []string{`test:behind:{"id":"behind"}`}) || o.counted(resultDead) != 1 {
			t.Errorf("arrived %q; %v given up", o.box.arrived, o.counted(resultDead))
		}
		back.Store(true)
		must(t, o.Queue().Replay(t.Context(), "bad"))
		time.Sleep(2 * pollEvery)
		wantSize(t, o.Queue(), 0, 0)
		time.Sleep(measureEvery)
		stop()
		if n := testutil.ToFloat64(o.metrics.queued.WithLabelValues("dead")); n != 0 || len(o.box.arrived) != 2 {
			t.Errorf("%v dead, arrived %q", n, o.box.arrived)
		}
	})
}

// A backend that says when to come back is listened to.
func TestRetryAfterIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		later := func(r *http.Request) (*http.Response, error) {
			res, err := o.box.serve(r)
			res.Header.Set("Retry-After", "100")
			return res, err
		}
		o.endpoints["news"] = newEndpoint(t, "news", "http://b.example", time.Second, later)
		o.box.status = func(_ string, attempt int) int { return map[bool]int{true: 503, false: 200}[attempt == 1] }
		o.enqueue("a", "x")
		stop := o.run()
		time.Sleep(3 * time.Minute)
		stop()
		if times := o.box.attempts["x"]; len(times) != 2 || times[1]-times[0] < 100*time.Second {
			t.Errorf("attempts came at %v", times)
		}
	})
}

// Run ends with what is under way, not before it.
func TestRunFinishesItsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		slow := func(r *http.Request) (*http.Response, error) {
			time.Sleep(3 * time.Second)
			return o.box.serve(r)
		}
		o.endpoints["news"] = newEndpoint(t, "news", "http://b.example", 5*time.Second, slow)
		o.enqueue("a", "1")
		o.enqueue("a", "2")
		stop := o.run()
		time.Sleep(time.Second)
		stop()
		wantSize(t, o.Queue(), 1, 0)
		if len(o.box.arrived) != 1 {
			t.Errorf("arrived %q", o.box.arrived)
		}
	})
}

// An item whose hook is no longer configured waits for one that is.
func TestHookWithoutEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.enqueue("a", "x")
		endpoint := o.endpoints["news"]
		delete(o.endpoints, "news")
		stop := o.run()
		time.Sleep(time.Minute)
		stop()
		wantSize(t, o.Queue(), 1, 0)
		o.endpoints["news"] = endpoint
		stop = o.run()
		time.Sleep(2 * time.Minute)
		stop()
		wantSize(t, o.Queue(), 0, 0)
	})
}

// brokenQueue fails as a queue does whose Redis is away.
type brokenQueue struct {
	Queue
	broken atomic.Bool
}

func (q *brokenQueue) Take(ctx context.Context, lease time.Duration) (*Claim, error) {
	if q.broken.Load() {
		return nil, errQueueAway
	}
	return q.Queue.Take(ctx, lease)
}

func (q *brokenQueue) Done(ctx context.Context, c *Claim) error {
	if q.broken.Load() {
		return errQueueAway
	}
	return q.Queue.Done(ctx, c)
}

// A delivery that cannot be settled is repeated once its lease is over.
func TestQueueBreaksMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		q := &brokenQueue{Queue: o.queue}
		o.queue = q
		o.box.status = func(_ string, attempt int) int { q.broken.Store(attempt == 1); return 200 }
		o.enqueue("a", "x")
		stop := o.run()
		time.Sleep(time.Minute)
		q.broken.Store(false)
		time.Sleep(time.Minute)
		stop()
		if n := len(o.box.attempts["x"]); n != 2 {
			t.Errorf("%d attempts", n)
		}
		wantSize(t, o.Queue(), 0, 0)
	})
}

func TestDamagedItemIsDropped(t *testing.T) {
	q, db := newFileQueue(t, sealed(contractSettings))
	mustEnqueue(t, q, "a-1", "a-2")
	damage(t, db, "a-1")
	must(t, q.Done(t.Context(), wantTake(t, q, "a-2")))
	wantSize(t, q, 0, 0)

	r := NewRedisQueue(newRedisClient(t, redisAddr(t)), "test", sealed(contractSettings))
	mustEnqueue(t, r, "a-1", "a-2")
	must(t, r.client.HSet(t.Context(), r.items, "a-1", "{").Err())
	must(t, r.Done(t.Context(), wantTake(t, r, "a-2")))
	wantSize(t, r, 0, 0)
	if keys, err := r.client.Keys(t.Context(), "*").Result(); err != nil || !slices.Equal(keys, []string{r.number}) {
		t.Errorf("an empty queue leaves %q, %v", keys, err)
	}
}

// What JSON a body is made of is the caller's affair, but it must be some.
func TestEnqueueRefuses(t *testing.T) {
	o := newOffice(t)
	if err := o.Enqueue(t.Context(), "x", "news", "test", "", func() {}); err == nil {
		t.Error("a function is taken for JSON")
	}
	var wrong *json.UnsupportedTypeError
	if err := o.Enqueue(t.Context(), "x", "news", "test", "", make(chan int)); !errors.As(err, &wrong) {
		t.Errorf("a channel: %v", err)
	}
}

// A node that delivers nothing still measures and lets the dead age; what
// operators do shows at once.
func TestNodeWithoutEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, func(s *QueueSettings) { s.MaxDeadAge = time.Hour })
		for _, id := range []string{"a-1", "b-1"} {
			mustEnqueue(t, o.Queue(), id)
			bury(t, o.Queue(), id)
		}
		item := newItem("c-1")
		item.Queued = time.Now()
		must(t, o.Queue().Put(t.Context(), item))
		o.endpoints = nil
		stop := o.run()
		gauges := func(pending, dead, oldest float64) {
			t.Helper()
			synctest.Wait()
			p, d := testutil.ToFloat64(o.metrics.queued.WithLabelValues("pending")), testutil.ToFloat64(o.metrics.queued.WithLabelValues("dead"))
			if age := math.Floor(testutil.ToFloat64(o.metrics.oldest)); p != pending || d != dead || age != oldest || (testutil.ToFloat64(o.metrics.deadBytes) > 0) != (dead > 0) {
				t.Errorf("%v pending, %v dead, the oldest of %v s; want %v, %v, %v", p, d, age, pending, dead, oldest)
			}
		}
		time.Sleep(10*measureEvery + measureEvery/2)
		gauges(1, 2, (10 * measureEvery).Seconds())
		desk{o.Dispatcher, t}.ask(o.ServeDrop, `{"delivery":"a-1"}`, 200, nil)
		gauges(1, 1, (10*measureEvery + measureEvery/2).Seconds())
		time.Sleep(time.Hour)
		stop()
		wantSize(t, o.Queue(), 1, 0)
		if n := testutil.ToFloat64(o.metrics.trimmed.WithLabelValues("age")); n != 1 {
			t.Errorf("%v are counted as too old", n)
		}
	})
}
