package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

// TestModel takes random steps on one node over Memory, and on three over
// Redis, and compares what clients saw with what was acknowledged: in a
// recoverable channel that is exactly the stream, in order, once, unless they
// were told recovered:false. Set SEED to repeat a run, LONG_TESTS=1 or STEPS for
// more steps.
func TestModel(t *testing.T) {
	for _, seed := range []uint64{1, 2, modelSeed(t)} {
		t.Run(fmt.Sprintf("memory/%d", seed), func(t *testing.T) {
			runModel(t, newMemoryFleet(t), seed, modelSteps(t, 4_000, 100_000))
		})
		t.Run(fmt.Sprintf("redis/%d", seed), func(t *testing.T) {
			runModel(t, newRedisFleet(t), seed, modelSteps(t, 1_500, 100_000))
		})
	}
}

func modelSteps(t *testing.T, short, long int) int {
	if testdeps.Long() {
		short = long
	}
	return int(modelNumber(t, "STEPS", uint64(short)))
}

func modelSeed(t *testing.T) uint64 { return modelNumber(t, "SEED", rand.Uint64()) }

func modelNumber(t *testing.T, name string, otherwise uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// fleet is the nodes of a run and what can happen to them.
type fleet interface {
	hubs() []*Hub
	// restart ends a node and starts another in its place.
	restart(i int)
	// trouble is what only this engine can have.
	trouble(rng *rand.Rand) string
}

func modelSettings() Settings {
	s := testSettings()
	s.Client.ChannelBacklog = 16 // so that many fall behind it
	s.Client.CommandRateLimit = 0
	s.Client.ChannelLinger = 50 * time.Millisecond
	s.Client.UserConnectionLimit = 0
	s.Client.AllowChannelCompaction = true
	all := Access{
		Presence: true, AllowSubscribeForClient: true, AllowTagsFilter: true,
		AllowedDeltaTypes: []string{"fossil"}, DeltaPublish: true,
	}
	s.Channel.Namespaces = []Namespace{
		{Name: "small", Access: all, History: History{HistorySize: 8, HistoryTTL: time.Hour, ForceRecovery: true}},
		{Name: "large", Access: all, History: History{HistorySize: 200, HistoryTTL: time.Hour, ForceRecovery: true}},
		{Name: "api", Access: all, History: History{HistorySize: 50, HistoryTTL: time.Hour, ForceRecovery: true}},
	}
	return s
}

// kept is how many publications each channel of the model keeps.
func kept(channel string) uint64 {
	switch channel[0] {
	case 's':
		return 8
	case 'l':
		return 200
	case 'a':
		return 50
	}
	return 100 // personal channels
}

// modelNode is one hub that runs.
type modelNode struct {
	hub  *Hub
	stop context.CancelFunc
	ran  chan error
}

func startModelNode(e engine.Engine, uid string) *modelNode {
	tokens := &testHub{sessions: map[string]error{}}
	h := New(Options{
		Settings: modelSettings(), Engine: e, Verify: tokens.verifyLogin, Alive: tokens.alive,
		Metrics: NewMetrics(prometheus.NewRegistry()), Node: engine.Node{UID: uid, Name: uid, Version: "test"},
	})
	ctx, cancel := context.WithCancel(context.Background())
	n := &modelNode{hub: h, stop: cancel, ran: make(chan error, 1)}
	go func() { n.ran <- h.Run(ctx) }()
	return n
}

func (n *modelNode) halt(t *testing.T) {
	n.stop()
	if err := <-n.ran; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// nodes is what both kinds of fleets have. Clients look while a step restarts.
type nodes struct {
	t     *testing.T
	mu    sync.Mutex
	list  []*modelNode
	start func() *modelNode
}

func startNodes(t *testing.T, n int, start func() *modelNode) *nodes {
	f := &nodes{t: t, start: start}
	for range n {
		f.list = append(f.list, start())
	}
	t.Cleanup(func() {
		for _, node := range f.list {
			node.halt(t)
		}
	})
	return f
}

func (f *nodes) hubs() []*Hub {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]*Hub, len(f.list))
	for i, n := range f.list {
		list[i] = n.hub
	}
	return list
}

// restart must not hold mu while the node ends: its clients want to know where
// else to go.
func (f *nodes) restart(i int) {
	f.list[i].halt(f.t)
	n := f.start()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list[i] = n
}

// memoryFleet is one node, whose streams end with it.
type memoryFleet struct{ *nodes }

func newMemoryFleet(t *testing.T) memoryFleet {
	return memoryFleet{startNodes(t, 1, func() *modelNode { return startModelNode(engine.NewMemory(), "n0") })}
}

// trouble claims that something was missed.
func (f memoryFleet) trouble(*rand.Rand) string {
	f.hubs()[0].Lost(nil)
	return "lost"
}

// redisFleet is three nodes over one redis-server.
type redisFleet struct {
	*nodes
	admin redisclient.Client
}

func newRedisFleet(t *testing.T) redisFleet {
	addr := testdeps.Redis(t)
	open := func() redisclient.Client {
		c := redisclient.Open(redisclient.Settings{Addresses: []string{addr}})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	var clients []redisclient.Client // opened first, so that they are closed last
	for range 3 {
		clients = append(clients, open())
	}
	count := 0
	start := func() *modelNode {
		count++
		e := engine.NewRedis(engine.RedisOptions{Client: clients[count%len(clients)], Prefix: "model"})
		return startModelNode(e, "n"+strconv.Itoa(count))
	}
	return redisFleet{startNodes(t, 3, start), open()}
}

// trouble cuts all pub/sub connections, or makes Redis forget everything.
func (f redisFleet) trouble(rng *rand.Rand) string {
	ctx := context.Background()
	if rng.IntN(4) == 0 {
		if err := f.admin.FlushAll(ctx).Err(); err != nil {
			f.t.Fatal(err)
		}
		return "flush"
	}
	if err := f.admin.ClientKillByFilter(ctx, "TYPE", "pubsub").Err(); err != nil {
		f.t.Fatal(err)
	}
	return "cut pub/sub"
}

// world is a run of the model.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	fleet   fleet
	clients []*modelClient
	oracle  *oracle
	changed chan struct{} // something happened that settle may wait for
	count   map[string]int
	serial  int
}

// Clients follow the first four on their own, and what the API says.
var modelChannels = []string{"small:a", "small:b", "large:a", "large:b", apiChannel, "#u0", "#u1", "#u2"}

const apiChannel = "api:a"

// modelData is long enough for deltas to be shorter, and not the same every
// time at any place.
func modelData(serial int) string {
	n := strconv.Itoa(serial)
	return `"No. ` + n + ` of some text that repeats 其他的文字 ` + strings.Repeat("x", serial%40) + ` and again ` + n + `"`
}

func isOdd(data string) bool {
	data = strings.TrimSuffix(data, `"`)
	return strings.ContainsAny(data[len(data)-1:], "13579")
}

func runModel(t *testing.T, f fleet, seed uint64, steps int) {
	t.Logf("SEED=%d, %d steps", seed, steps)
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), fleet: f, oracle: newOracle(),
		changed: make(chan struct{}, 1), count: map[string]int{},
	}
	for i := range 12 {
		c := newModelClient(w, i)
		w.clients = append(w.clients, c)
		c.connect()
	}
	defer func() {
		for _, c := range w.clients {
			c.leave()
		}
	}()
	for i := range steps {
		if i == steps/2 {
			w.leastOfAll()
		}
		w.step()
		if i%250 == 249 {
			w.settle()
			if t.Failed() {
				t.Fatalf("SEED=%d, step %d: %v", seed, i, w.count)
			}
		}
	}
	w.settle()
	t.Log(w.count)
	for _, must := range []string{"recovered", "unrecovered", "restart", "deltas", "told again"} {
		if w.count[must] == 0 {
			t.Errorf("the run never had %s: it proves little", must)
		}
	}
}

// step does one random thing.
func (w *world) step() {
	c := w.clients[w.rng.IntN(len(w.clients))]
	channel := modelChannels[w.rng.IntN(len(modelChannels))]
	switch n := w.rng.IntN(1000); {
	case n < 590:
		w.publish(channel, PublishOptions{})
	case n < 600:
		w.subscribe(c)
	case n < 620:
		w.publish(channel, PublishOptions{SkipHistory: true})
	case n < 630:
		for range 40 {
			w.publish(channel, PublishOptions{})
		}
	case n < 640:
		w.publish(channel, PublishOptions{IdempotencyKey: "k" + strconv.Itoa(w.serial/20)})
	case n < 800:
		c.toggle(modelChannels[w.rng.IntN(4)])
	case n < 880:
		c.cut()
	case n < 910:
		c.leave()
	case n < 950:
		c.connect()
	case n < 970:
		c.stall()
	case n < 985:
		c.unstall()
	case n < 990:
		w.removeHistory(channel)
	case n < 993:
		w.unsubscribe(c, modelChannels[w.rng.IntN(5)])
	case n < 996:
		w.disconnect(c)
	case n < 998:
		w.restart()
	default:
		if what := w.fleet.trouble(w.rng); what != "" {
			w.count[what]++
		}
	}
}

// leastOfAll is what has to be in every run, whatever chance brings.
func (w *world) leastOfAll() {
	w.restart()
	for _, c := range w.clients {
		c.connect()
		w.subscribe(c)
		w.subscribe(c)
	}
}

func (w *world) restart() {
	w.fleet.restart(w.rng.IntN(len(w.fleet.hubs())))
	w.count["restart"]++
}

func (w *world) anyHub() *Hub {
	hubs := w.fleet.hubs()
	return hubs[w.rng.IntN(len(hubs))]
}

// within bounds one call of a step.
func within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 5*time.Second)
}

func (w *world) publish(channel string, o PublishOptions) {
	w.serial++
	data := modelData(w.serial)
	o.Tags = map[string]string{"p": "even"}
	if isOdd(data) {
		o.Tags["p"] = "odd"
	}
	w.oracle.attempt(channel, data)
	ctx, cancel := within()
	defer cancel()
	res, err := w.anyHub().Publish(ctx, channel, json.RawMessage(data), o)
	switch {
	case err != nil:
		w.count["publish failed"]++ // whether it happened, only the stream knows
	case res.Repeated || o.SkipHistory:
	default:
		w.oracle.acknowledge(w.t, channel, res.Position, data)
	}
}

func (w *world) removeHistory(channel string) {
	ctx, cancel := within()
	defer cancel()
	// What was published so far may be gone from now on, whatever the answer is.
	w.oracle.remove(channel)
	if err := w.anyHub().HistoryRemove(ctx, channel); err != nil {
		w.count["remove failed"]++
	}
}

// subscribe subscribes all connections of a client's user by the API, at times
// from a place a little before the top.
func (w *world) subscribe(c *modelClient) {
	var o SubscribeOptions
	if top := w.oracle.top(apiChannel); w.rng.IntN(2) == 0 {
		o.Since = &engine.Position{Offset: top.Offset - min(top.Offset, w.rng.Uint64N(60)), Epoch: top.Epoch}
	}
	ctx, cancel := within()
	defer cancel()
	if err := w.anyHub().Subscribe(ctx, c.user, apiChannel, Selection{}, o); err != nil {
		w.count["subscribe failed"]++
	}
}

func (w *world) unsubscribe(c *modelClient, channel string) {
	ctx, cancel := within()
	defer cancel()
	if err := w.anyHub().Unsubscribe(ctx, c.user, channel, Selection{}); err != nil {
		w.count["unsubscribe failed"]++
	}
}

func (w *world) disconnect(c *modelClient) {
	ctx, cancel := within()
	defer cancel()
	if err := w.anyHub().Disconnect(ctx, c.user, DisconnectOptions{Code: 3011, Reason: "come back"}); err != nil {
		w.count["disconnect failed"]++
	}
}

// settle lets everything come to rest and compares it with the oracle.
func (w *world) settle() {
	for _, c := range w.clients {
		c.unstall()
	}
	// A flush or a lost message is noticed with the next publication.
	give := time.After(60 * time.Second)
	for _, channel := range modelChannels {
		w.serial += 1 + w.serial%2 // the last is odd now, the next one passes filters
		failed := w.count["publish failed"]
		for w.publish(channel, PublishOptions{}); w.count["publish failed"] > failed; w.publish(channel, PublishOptions{}) {
			failed = w.count["publish failed"]
			w.serial++
		}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		why := w.unsettled()
		if why == "" {
			break
		}
		select {
		case <-w.changed:
		case <-tick.C:
		case <-give:
			w.t.Fatalf("never settled: %s", why)
		}
	}
	for _, c := range w.clients {
		c.verify(w.count)
	}
}

// unsettled tells what is still missing, "" if nothing is.
func (w *world) unsettled() string {
	present := map[string]int{}
	for _, c := range w.clients {
		if why := c.unsettled(present); why != "" {
			return why
		}
	}
	for _, channel := range modelChannels[:5] {
		ctx, cancel := within()
		who, err := w.anyHub().Presence(ctx, channel)
		cancel()
		if err != nil || len(who) != present[channel] {
			return fmt.Sprintf("%s has %d present, want %d: %v", channel, len(who), present[channel], err)
		}
	}
	for _, h := range w.fleet.hubs() {
		if err := h.Check(); err != nil {
			return err.Error()
		}
	}
	return ""
}
