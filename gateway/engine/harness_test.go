package engine

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// A pool of go-redis that could not dial looks only once a second
		// whether it has been closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// patience is how long a test waits for what must happen before it gives up.
const patience = 20 * time.Second

// event is one call to a Receiver.
type event struct {
	kind    string // pub, join, leave, lost
	channel string
	data    string
	offset  uint64
	epoch   string
}

// node is an engine that runs, and what it delivered.
type node struct {
	Engine
	t       testing.TB
	uid     string
	sockets int // answer to Publication
	events  chan event
	stop    context.CancelFunc
	done    chan struct{}

	// elapse lets more time pass than the engine keeps an epoch that is read with
	// such a query, while the channel is heard; lapse waits for the end of an
	// epoch that nobody uses.
	elapse func(t *testing.T, channel string, q HistoryQuery)
	lapse  func(t *testing.T, channel string)

	mu     sync.Mutex
	survey func(op string, payload []byte) []byte
	hold   map[string]chan struct{} // publications to these channels wait
}

func (n *node) Publication(channel string, pub *protocol.Publication, epoch string) int {
	n.mu.Lock()
	hold := n.hold[channel]
	n.mu.Unlock()
	if hold != nil {
		<-hold
	}
	n.events <- event{"pub", channel, string(pub.Data), pub.Offset, epoch}
	return n.sockets
}

func (n *node) Join(channel string, info *protocol.ClientInfo) {
	n.events <- event{kind: "join", channel: channel, data: info.Client}
}

func (n *node) Leave(channel string, info *protocol.ClientInfo) {
	n.events <- event{kind: "leave", channel: channel, data: info.Client}
}

func (n *node) Lost(channels []string) {
	for _, channel := range channels {
		n.events <- event{kind: "lost", channel: channel}
	}
}

func (n *node) Survey(op string, payload []byte) []byte {
	n.mu.Lock()
	f := n.survey
	n.mu.Unlock()
	if f != nil {
		return f(op, payload)
	}
	return []byte(n.uid + ":" + op + ":" + string(payload))
}

func (n *node) Self() Node { return Node{UID: n.uid, Name: "name of " + n.uid, Clients: 7} }

// start runs e as node uid until the test ends or halt is called.
func start(t testing.TB, e Engine, uid string) *node {
	ctx, stop := context.WithCancel(context.Background())
	n := &node{
		Engine: e, t: t, uid: uid, sockets: 3,
		events: make(chan event, 1<<16), stop: stop, done: make(chan struct{}),
	}
	go func() {
		defer close(n.done)
		if err := e.Run(ctx, n); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	t.Cleanup(n.halt)
	return n
}

func (n *node) halt() {
	n.stop()
	<-n.done
}

// ask is the Survey of the engine; the name Survey is taken by the Receiver.
func (n *node) ask(op, payload string) ([][]byte, error) {
	return n.Engine.Survey(n.t.Context(), op, []byte(payload))
}

func (n *node) askUser(user, op, payload string) ([][]byte, error) {
	return n.SurveyUser(n.t.Context(), user, op, []byte(payload))
}

// next returns the next event.
func (n *node) next() event {
	n.t.Helper()
	select {
	case e := <-n.events:
		return e
	case <-time.After(patience):
		n.t.Fatal("nothing was delivered")
		return event{}
	}
}

func (n *node) want(want event) {
	n.t.Helper()
	if got := n.next(); got != want {
		n.t.Fatalf("got %+v, want %+v", got, want)
	}
}

// quiet tells that nothing was delivered before a marker published now.
func (n *node) quiet(channel string) {
	n.t.Helper()
	n.subscribe("marker " + channel)
	n.publish("marker "+channel, "mark", PublishOptions{})
	if got := n.next(); got.data != "mark" {
		n.t.Fatalf("unexpected %+v", got)
	}
}

func (n *node) publish(channel, data string, o PublishOptions) PublishResult {
	n.t.Helper()
	pub := &protocol.Publication{Data: protocol.Raw(data)}
	res, err := n.Publish(n.t.Context(), channel, pub, o)
	if err != nil {
		n.t.Fatalf("publish: %v", err)
	}
	if pub.Offset != res.Position.Offset {
		n.t.Fatalf("publication has offset %d, result %d", pub.Offset, res.Position.Offset)
	}
	return res
}

func (n *node) subscribe(channel string) {
	n.t.Helper()
	if err := n.Subscribe(n.t.Context(), channel); err != nil {
		n.t.Fatalf("subscribe: %v", err)
	}
}

// history returns the publications as "offset=data …".
func (n *node) history(channel string, q HistoryQuery) (string, Position) {
	n.t.Helper()
	pubs, pos, err := n.History(n.t.Context(), channel, q)
	if err != nil {
		n.t.Fatalf("history: %v", err)
	}
	text := ""
	for _, p := range pubs {
		text += fmt.Sprintf("%d=%s ", p.Offset, p.Data)
	}
	return text, pos
}

func (n *node) present(channel string) map[string]*protocol.ClientInfo {
	n.t.Helper()
	p, err := n.Presence(n.t.Context(), channel)
	if err != nil {
		n.t.Fatalf("presence: %v", err)
	}
	return p
}

func (n *node) enter(channel, client string) {
	n.t.Helper()
	info := &protocol.ClientInfo{Client: client, User: "user of " + client, ConnInfo: protocol.Raw(`{"a":1}`)}
	if err := n.AddPresence(n.t.Context(), channel, client, info); err != nil {
		n.t.Fatalf("add presence: %v", err)
	}
}

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	give := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-give:
			t.Fatalf("never: %s", what)
		}
	}
}

// openRedis returns a client that is closed with the test.
func openRedis(t testing.TB, addr string) redis.UniversalClient {
	return openClient(t, redisclient.Settings{Addresses: []string{addr}})
}

func openClient(t testing.TB, s redisclient.Settings) redis.UniversalClient {
	client := redisclient.Open(s)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// quick is the timing of Redis nodes in tests.
var quick = timing{beat: 50 * time.Millisecond, lease: time.Second, silence: 2 * time.Second, empty: time.Second, touch: time.Second}

func redisNode(t testing.TB, addr, uid string) *node { return timedNode(t, addr, uid, quick) }

func timedNode(t testing.TB, addr, uid string, rhythm timing) *node {
	return optionsNode(t, RedisOptions{Client: openRedis(t, addr), Prefix: "test"}, uid, rhythm)
}

func optionsNode(t testing.TB, o RedisOptions, uid string, rhythm timing) *node {
	e := NewRedis(o)
	e.timing = rhythm
	n := start(t, e, uid)
	n.elapse = func(t *testing.T, channel string, q HistoryQuery) {
		meta, ttl := e.keys.meta(channel), rhythm.empty
		if q.Keep > 0 {
			ttl = q.Keep
		}
		for range 5 {
			for _, long := range []bool{false, true} {
				eventually(t, "the epoch is prolonged", func() bool {
					return o.Client.PTTL(t.Context(), meta).Val() > ttl*8/10 == long
				})
			}
		}
	}
	n.lapse = func(t *testing.T, channel string) {
		eventually(t, "the epoch lapses", func() bool { return o.Client.Exists(t.Context(), e.keys.meta(channel)).Val() == 0 })
	}
	return n
}

// suite is the servers of the contract test, which its tests share.
type suite struct{ sentinel, cluster redisclient.Settings }

func newSuite(t *testing.T) suite {
	sentinel := testdeps.StartRedisSentinel(t)
	cluster := testdeps.StartRedisCluster(t)
	return suite{
		sentinel: redisclient.Settings{Addresses: sentinel.Addrs, SentinelMaster: sentinel.Name},
		cluster:  redisclient.Settings{Addresses: cluster.Addrs},
	}
}

// each runs a test over all engines.
func (s suite) each(t *testing.T, test func(t *testing.T, n *node)) {
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := start(t, NewMemory(), "one")
			n.elapse = func(*testing.T, string, HistoryQuery) { time.Sleep(24 * time.Hour) }
			n.lapse = func(*testing.T, string) { time.Sleep(emptyMemoryTTL + time.Second) }
			test(t, n)
		})
	})
	for name, o := range map[string]struct {
		settings   redisclient.Settings
		partitions int
		wait       int
	}{
		"redis":    {settings: redisclient.Settings{Addresses: []string{testdeps.Redis(t)}}},
		"sentinel": {settings: s.sentinel, wait: 1},
		"cluster":  {settings: s.cluster},
		"sharded":  {settings: s.cluster, partitions: 16, wait: 1},
	} {
		t.Run(name, func(t *testing.T) {
			prefix := strings.ReplaceAll(t.Name(), "/", ".")
			test(t, optionsNode(t, RedisOptions{
				Client: openClient(t, o.settings), Prefix: prefix, Partitions: o.partitions,
				WaitReplicas: o.wait, WaitTimeout: time.Second,
			}, "one", quick))
		})
	}
}
