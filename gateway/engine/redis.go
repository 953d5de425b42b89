package engine

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

const (
	beatInterval     = 3 * time.Second  // how often a node renews its lease
	leaseTTL         = 10 * time.Second // how long a dead node's clients are shown
	feedSilence      = 10 * time.Second // without a beat of our own pub/sub is considered broken
	subscribeTimeout = 3 * time.Second
	emptyTTL         = 10 * time.Minute // how long the epoch of a channel that was read but never published to is kept, unless a reader asked for more
	questionQueue    = 64
)

// RedisOptions say where the Redis engine lives.
type RedisOptions struct {
	Client  redis.UniversalClient // not closed by the engine; must not repeat commands by itself
	Prefix  string                // of all keys; must hold no braces
	Metrics *Metrics              // may be nil

	// Partitions of sharded pub/sub, for a cluster of Redis 7 or newer; 0 has
	// every message go to every master. It must be the same on all nodes, and
	// another number begins all streams anew.
	Partitions int
	// WaitReplicas makes publications with history wait for so many replicas,
	// WaitTimeout at most; see Engine.Publish. The timeout must be below the
	// client's own.
	WaitReplicas int
	WaitTimeout  time.Duration
}

// Redis is the engine of a cluster: every node that uses the same Redis and
// prefix hears the same channels.
//
// While Redis is away, calls fail with fault.Unavailable within seconds. When
// it is back the engine subscribes to its channels again, enters its clients
// into presence again and calls Receiver.Lost.
type Redis struct {
	life
	client    redis.UniversalClient
	metrics   *Metrics
	keys      keys
	servers   *servers
	lanes     lanes
	durable   lanes   // of publications that wait for replicas
	feed      *feed   // of the inbox, and of channels unless there are shards
	shards    *shards // of channels with sharded pub/sub, or nil
	empty     empties
	workers   []*worker
	presence  *presence
	inquiries *inquiries
	questions chan envelope
	timing    timing

	acquainted atomic.Bool // every server was looked at once
}

// timing is the rhythm of a node; tests make it faster.
type timing struct{ beat, lease, silence, empty, touch time.Duration }

// NewRedis returns an engine that connects when it runs.
func NewRedis(o RedisOptions) *Redis {
	if o.Metrics == nil {
		o.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	e := &Redis{
		life:      newLife(),
		client:    o.Client,
		metrics:   o.Metrics,
		keys:      keys{o.Prefix, partitionTags(o.Partitions)},
		inquiries: newInquiries(),
		questions: make(chan envelope, questionQueue),
		timing:    timing{beatInterval, leaseTTL, feedSilence, emptyTTL, presenceTouch},
	}
	e.servers = newServers(o.Client, o.Partitions > 0, e.replaced)
	e.lanes = newLanes(e.servers, waitFor{}, o.Metrics)
	e.durable = newLanes(e.servers, waitFor{o.WaitReplicas, o.WaitTimeout}, o.Metrics)
	e.presence = newPresence(e.keys, e.lanes)
	e.feed = newFeed(o.Metrics)
	e.feed.open = func(ctx context.Context) *redis.PubSub { return o.Client.Subscribe(ctx) }
	e.feed.receive = e.route
	e.feed.resumed = e.resumed
	e.feed.renewed = e.presence.doubt
	if o.Partitions > 0 && e.servers.cluster != nil {
		e.shards = newShards(e)
	}
	e.workers = make([]*worker, max(4, runtime.GOMAXPROCS(0)))
	for i := range e.workers {
		e.workers[i] = newWorker(e.deliver, func(channels []string) { e.receiver.Lost(channels) }, e.metrics.dropped.Inc)
	}
	return e
}

// Run implements Engine. It fails only if Receiver.Self has no usable UID.
func (e *Redis) Run(ctx context.Context, r Receiver) error {
	uid := r.Self().UID
	if !validUID(uid) {
		return fmt.Errorf("engine: node UID %q is not usable", uid)
	}
	if err := e.claim(r); err != nil {
		return err
	}
	e.presence.uid = uid
	e.feed.silence = e.timing.silence
	e.feed.keep(e.keys.inbox(uid))
	laneCtx, stopLanes := context.WithCancel(context.WithoutCancel(ctx))
	var sending, working sync.WaitGroup
	sending.Go(func() { e.lanes.run(laneCtx) })
	sending.Go(func() { e.durable.run(laneCtx) })
	working.Go(func() { e.feed.run(ctx) })
	if e.shards != nil {
		working.Go(func() { e.shards.run(ctx) })
	}
	working.Go(func() { e.answerSurveys(ctx) })
	working.Go(func() { e.keep(ctx) })
	for _, w := range e.workers {
		working.Go(func() { w.run(ctx) })
	}
	<-e.feed.tried // answers to this node would be lost before; ends with ctx too
	e.begin()
	<-ctx.Done()
	e.end()
	working.Wait() // the keeper's farewell needs the lanes
	stopLanes()
	sending.Wait()
	return nil
}

// validUID keeps a UID from running into the separators around it.
func validUID(uid string) bool {
	if uid == "" || len(uid) > 64 {
		return false
	}
	for _, c := range []byte(uid) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// Ping implements Engine: Redis answers, and messages come in.
func (e *Redis) Ping(ctx context.Context) error {
	if _, err := e.wait(ctx); err != nil {
		return err
	}
	if err := e.client.Ping(ctx).Err(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return translate(err)
	}
	if e.shards != nil {
		if err := e.shards.health(); err != nil {
			return err
		}
	}
	return e.feed.health()
}

// Subscribe implements Engine.
func (e *Redis) Subscribe(ctx context.Context, channel string) error {
	if _, err := e.wait(ctx); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, subscribeTimeout)
	defer cancel()
	err := e.hearing().subscribe(limited, e.keys.live(channel))
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return errAway
	}
	return err
}

// Unsubscribe implements Engine. A delivery that is under way may still come.
func (e *Redis) Unsubscribe(ctx context.Context, channel string) error {
	if _, err := e.wait(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	e.hearing().unsubscribe(e.keys.live(channel))
	e.leaveEmpty(channel)
	return nil
}

// listener is a feed or the shards.
type listener interface {
	subscribe(ctx context.Context, key string) error
	unsubscribe(key string)
	wants(key string) bool
}

func (e *Redis) hearing() listener {
	if e.shards != nil {
		return e.shards
	}
	return e.feed
}

// AddPresence implements Engine.
func (e *Redis) AddPresence(ctx context.Context, channel, client string, info *protocol.ClientInfo) error {
	if _, err := e.wait(ctx); err != nil {
		return err
	}
	who, err := presentOf(info)
	if err != nil {
		return err
	}
	return e.presence.add(ctx, e.keys.presence(channel), client, who)
}

// RemovePresence implements Engine. Where Redis is away the client is not
// entered again once it is back, and the error only says that.
func (e *Redis) RemovePresence(ctx context.Context, channel, client string) error {
	if _, err := e.wait(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return e.presence.remove(ctx, e.keys.presence(channel), client)
}

// Presence implements Engine.
func (e *Redis) Presence(ctx context.Context, channel string) (map[string]*protocol.ClientInfo, error) {
	if _, err := e.wait(ctx); err != nil {
		return nil, err
	}
	there, err := e.presence.read(ctx, e.keys.presence(channel), e.timing.lease)
	if err != nil {
		return nil, err
	}
	return decodeInfos(there), nil
}

// route takes a message from the connection to where it is handled.
func (e *Redis) route(m *redis.Message) {
	if m.Channel == e.keys.inbox(e.presence.uid) {
		e.readInbox(m.Payload)
		return
	}
	if channel, ok := e.keys.channelOf(m.Channel); ok {
		e.worker(channel).put(message{key: m.Channel, channel: channel, payload: m.Payload})
	}
}

// replaced is told of every server that we did not know. It may have lost what
// was entered with the one before; and what that one did not get through to
// the other masters of a cluster is missed without a connection of ours ending.
func (e *Redis) replaced() {
	if !e.acquainted.Load() {
		return // all are new
	}
	e.presence.doubt()
	if e.servers.cluster != nil && e.shards == nil {
		e.resumed(e.feed.confirmed())
	}
}

// resumed lets the workers say Lost, in line with the messages.
func (e *Redis) resumed(live []string) {
	for _, key := range live {
		if channel, ok := e.keys.channelOf(key); ok {
			e.worker(channel).put(message{channel: channel, lost: true})
		}
	}
}

func (e *Redis) worker(channel string) *worker {
	return e.workers[hash(channel)%uint64(len(e.workers))]
}

// deliver hands one message to the hub.
func (e *Redis) deliver(m message) {
	if m.lost {
		e.receiver.Lost([]string{m.channel})
		return
	}
	env, err := parseEnvelope(m.payload)
	if err != nil {
		slog.Warn("message from redis ignored", "channel", m.channel, "err", err)
		return
	}
	sockets, wanted := 0, e.hearing().wants(m.key)
	if wanted {
		if sockets, err = e.receive(m.channel, env); err != nil {
			slog.Warn("message from redis ignored", "channel", m.channel, "err", err)
		}
	}
	switch env.asker {
	case "":
	case e.presence.uid:
		if wanted || !e.countsByAsking() { // else nobody waits for it
			e.inquiries.answer(env.request, e.presence.uid, sockets, nil)
		}
	default:
		e.tellCount(env, sockets)
	}
}

func (e *Redis) tellCount(env envelope, sockets int) {
	e.tell(env.asker, "1c"+strconv.FormatUint(env.request, 10)+":"+strconv.Itoa(sockets)+":"+e.presence.uid)
}

func (e *Redis) receive(channel string, env envelope) (sockets int, err error) {
	if env.kind == kindPublication {
		pub := new(protocol.Publication)
		if err := pub.UnmarshalCF([]byte(env.body)); err != nil {
			return 0, err
		}
		pub.Offset = env.pos.Offset
		return e.receiver.Publication(channel, pub, env.pos.Epoch), nil
	}
	info := new(protocol.ClientInfo)
	if err := info.UnmarshalCF([]byte(env.body)); err != nil {
		return 0, err
	}
	switch env.kind {
	case kindJoin:
		e.receiver.Join(channel, info)
	case kindLeave:
		e.receiver.Leave(channel, info)
	}
	return 0, nil
}
