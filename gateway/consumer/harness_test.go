package consumer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/settings"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// A pool of go-redis that could not dial looks only once a second
		// whether it has been closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

const patience = time.Minute

var (
	errRefused = fault.New(fault.Invalid, "bad_request", "The request does not make sense.")
	errAway    = fault.New(fault.Unavailable, "redis_unavailable", "Redis is away at the moment: try again.")
)

func openClient(t testing.TB, addrs ...string) redis.UniversalClient {
	client := redisclient.Open(redisclient.Settings{Addresses: addrs})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// call is one that a node has made.
type call struct{ node, method, body, once string }

// key and number are what put has written into a body.
func (c call) key() string {
	key, _, _ := strings.Cut(strings.TrimPrefix(c.body, `{"channel":"`), `"`)
	return key
}

func (c call) number() int {
	_, text, _ := strings.Cut(c.body, `"data":`)
	n, _ := strconv.Atoi(strings.TrimSuffix(text, "}"))
	return n
}

// world is a Redis with one stream, and the nodes that consume it.
type world struct {
	t      testing.TB
	addrs  []string
	client redis.UniversalClient // of the backend
	list   []Consumer
	regs   map[string]*prometheus.Registry // of the nodes

	mu    sync.Mutex
	calls []call
	news  chan struct{}
	do    func(ctx context.Context, c call) error // what a call does; nil: nothing
}

const orders = "orders"

func newWorld(t testing.TB, addrs ...string) *world {
	t.Helper()
	w := &world{t: t, addrs: addrs, client: openClient(t, addrs...), news: make(chan struct{}, 1), regs: map[string]*prometheus.Registry{}}
	var s StreamSettings
	settings.Defaults(&s)
	s.Streams, s.VisibilityTimeout = []string{orders}, 2*time.Second
	w.list = []Consumer{{Name: "test", Enabled: true, Type: TypeRedisStream, Stream: s}}
	return w
}

// node is one that consumes.
type node struct {
	*Consumers
	client redis.UniversalClient
	cut    context.CancelFunc
}

// start runs a node until the test ends.
func (w *world) start(name string) *node {
	client := openClient(w.t, w.addrs...)
	reg := prometheus.NewRegistry()
	w.regs[name] = reg
	n := &node{client: client}
	n.Consumers = New(Options{
		Settings: w.list, Client: client, Prefix: "test", Metrics: NewMetrics(reg),
		Call: func(ctx context.Context, method string, body []byte, once string) error {
			return w.called(ctx, call{name, method, string(body), once})
		},
	})
	var ctx context.Context
	ctx, n.cut = context.WithCancel(context.Background())
	go func() { _ = n.Run(ctx) }()
	w.t.Cleanup(func() {
		n.cut()
		<-n.stopped
	})
	return n
}

// kill ends a node as a crash would: it can say goodbye to nobody.
func (n *node) kill() {
	_ = n.client.Close()
	n.cut()
	<-n.stopped
}

func (w *world) called(ctx context.Context, c call) error {
	if w.do != nil {
		if err := w.do(ctx, c); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, c)
	select {
	case w.news <- struct{}{}:
	default:
	}
	return nil
}

// await waits until so many calls were carried out, and returns them.
func (w *world) await(n int) []call {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		calls := w.calls[:len(w.calls):len(w.calls)]
		w.mu.Unlock()
		if len(calls) >= n {
			return calls
		}
		select {
		case <-w.news:
		case <-deadline:
			w.t.Fatalf("%d calls of %d were carried out", len(calls), n)
		}
	}
}

// until polls Redis until cond holds.
func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			w.t.Fatalf("never happened: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// put adds entries with numbers from 1 on for each key in turn.
func (w *world) put(from, to int, keys ...string) {
	w.t.Helper()
	for from <= to {
		_, err := w.client.Pipelined(w.t.Context(), func(p redis.Pipeliner) error {
			for range 500 {
				for _, key := range keys {
					p.XAdd(w.t.Context(), &redis.XAddArgs{Stream: orders, Values: []string{
						"method", "publish", "payload", fmt.Sprintf(`{"channel":"%s","data":%d}`, key, from),
					}})
				}
				if from++; from > to {
					break
				}
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) add(fields ...string) string {
	w.t.Helper()
	id, err := w.client.XAdd(w.t.Context(), &redis.XAddArgs{Stream: orders, Values: fields}).Result()
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// settled waits until nothing is pending or unread.
func (w *world) settled() {
	w.t.Helper()
	var groups []redis.XInfoGroup
	defer func() {
		if w.t.Failed() {
			w.t.Logf("the groups: %+v", groups)
		}
	}()
	w.until("everything is acknowledged", func() bool {
		s, err := w.client.XInfoStream(w.t.Context(), orders).Result()
		if err != nil {
			return false
		}
		groups, err = w.client.XInfoGroups(w.t.Context(), orders).Result()
		return err == nil && len(groups) > 0 && groups[0].Pending == 0 && groups[0].LastDeliveredID == s.LastGeneratedID
	})
}

// value is a sample of node a's metrics, of a name and the value of one label.
func (w *world) value(name, label string) float64 {
	w.t.Helper()
	families, err := w.regs["a"].Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	w.t.Fatalf("there is no metric %s of %s", name, label)
	return 0
}

// held counts the streams that a node holds.
func (w *world) held(name string) func() float64 {
	reg := w.regs[name]
	return func() (n float64) {
		families, err := reg.Gather()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "minigate_consumer_held" {
					n += m.GetGauge().GetValue()
				}
			}
		}
		return n
	}
}

// wantOrder checks that each key was called from 1 to n in order. Where a
// stretch may be repeated, a call may go back to one that was made before,
// but never ahead.
func wantOrder(t testing.TB, calls []call, n int, repeats bool) {
	t.Helper()
	at, top := map[string]int{}, map[string]int{}
	for i, c := range calls {
		key, number := c.key(), c.number()
		if number != at[key]+1 && (!repeats || number > at[key]) {
			t.Fatalf("call %d: %s has %d after %d", i, key, number, at[key])
		}
		at[key] = number
		top[key] = max(top[key], number)
	}
	for key, last := range at {
		if last != n || top[key] != n {
			t.Errorf("%s ends with %d, want %d", key, last, n)
		}
	}
}

func keys(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("room:%d", i))
	}
	return list
}

func (w *world) dead() []redis.XMessage {
	w.t.Helper()
	list, err := w.client.XRange(w.t.Context(), orders+".dead", "-", "+").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// errOnce makes a client lose the answer of its next command of a name.
type errOnce struct {
	mu   sync.Mutex
	want func(redis.Cmder) bool
}

var errLine = errors.New("the line broke")

func (h *errOnce) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *errOnce) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *errOnce) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		h.mu.Lock()
		defer h.mu.Unlock()
		if err == nil && h.want != nil && h.want(cmd) {
			h.want = nil
			cmd.SetErr(errLine)
			return errLine
		}
		return err
	}
}
