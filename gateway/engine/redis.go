package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

const (
	laneCount        = 4
	beatInterval     = 3 * time.Second  // how often a node renews its lease
	leaseTTL         = 10 * time.Second // how long a dead node's clients are shown
	feedSilence      = 10 * time.Second // without a beat of our own pub/sub is considered broken
	subscribeTimeout = 3 * time.Second
	questionQueue    = 64
)

// RedisOptions say where the Redis engine lives.
type RedisOptions struct {
	Client  redis.UniversalClient // not closed by the engine; must not repeat commands by itself
	Prefix  string                // of all keys; must hold no braces
	Metrics *Metrics              // may be nil
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
	lanes     lanes
	feed      *feed
	workers   []*worker
	presence  *presence
	inquiries *inquiries
	questions chan envelope
	timing    timing
}

// timing is the rhythm of a node; tests make it faster.
type timing struct{ beat, lease, silence time.Duration }

// NewRedis returns an engine that connects when it runs.
func NewRedis(o RedisOptions) *Redis {
	if o.Metrics == nil {
		o.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	e := &Redis{
		life:      newLife(),
		client:    o.Client,
		metrics:   o.Metrics,
		keys:      keys{o.Prefix},
		lanes:     newLanes(laneCount, o.Client, o.Metrics),
		inquiries: newInquiries(),
		questions: make(chan envelope, questionQueue),
		timing:    timing{beatInterval, leaseTTL, feedSilence},
	}
	e.presence = newPresence(e.keys, e.lanes)
	e.feed = newFeed(o.Client, o.Metrics)
	e.feed.receive = e.route
	e.feed.resumed = e.resumed
	e.feed.renewed = e.presence.doubt
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
	e.feed.inbox, e.feed.silence = e.keys.inbox(uid), e.timing.silence
	laneCtx, stopLanes := context.WithCancel(context.WithoutCancel(ctx))
	var sending, working sync.WaitGroup
	sending.Go(func() { e.lanes.run(laneCtx) })
	working.Go(func() { e.feed.run(ctx) })
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
	return e.feed.health()
}

// Publish implements Engine.
func (e *Redis) Publish(ctx context.Context, channel string, pub *protocol.Publication, o PublishOptions) (PublishResult, error) {
	if _, err := e.wait(ctx); err != nil {
		return PublishResult{}, err
	}
	pub.Offset = 0 // the stream and the envelope say it
	payload, err := pub.MarshalCF()
	if err != nil {
		return PublishResult{}, err
	}
	asker := ":"
	var q *inquiry
	if o.Count {
		q = e.inquiries.start()
		defer e.inquiries.end(q)
		asker = e.presence.uid + ":" + strconv.FormatUint(q.id, 10)
	}
	res, heard, err := e.publish(ctx, channel, payload, asker, o)
	if err != nil {
		return PublishResult{}, err
	}
	pub.Offset = res.Position.Offset
	if q != nil && heard > 0 {
		_, res.Sockets = q.await(ctx, heard, countLimit)
	}
	return res, nil
}

// publish sends a publication and tells how many nodes hear it.
func (e *Redis) publish(ctx context.Context, channel string, payload []byte, asker string, o PublishOptions) (res PublishResult, heard int, err error) {
	live, l := e.keys.live(channel), e.lanes.of(channel)
	history := o.HistorySize > 0 && o.HistoryTTL > 0
	if !history && o.IdempotencyKey == "" {
		cmd := redis.NewIntCmd(ctx, "publish", live, "1p0::"+asker+"\n"+string(payload))
		err := l.do(ctx, cmd)
		if err != nil {
			return res, 0, err
		}
		return res, int(cmd.Val()), nil
	}
	size, ttl, meta := 0, time.Duration(0), time.Duration(0)
	if history {
		size, ttl, meta = o.HistorySize, o.HistoryTTL, max(orDefault(o.MetaTTL, DefaultMetaTTL), o.HistoryTTL)
	}
	keep := time.Duration(0)
	if o.IdempotencyKey != "" {
		keep = orDefault(o.IdempotencyTTL, DefaultIdempotencyTTL)
	}
	cmd := redis.NewCmd(ctx, "evalsha", publishScript, 3,
		e.keys.meta(channel), e.keys.stream(channel), e.keys.result(channel, o.IdempotencyKey),
		newEpoch(), payload, size, millis(ttl), millis(meta), live, asker, millis(keep))
	if err := l.do(ctx, cmd); err != nil {
		return res, 0, err
	}
	return publishReply(cmd)
}

func publishReply(cmd *redis.Cmd) (res PublishResult, heard int, err error) {
	reply, err := cmd.Slice()
	if err != nil || len(reply) != 4 {
		return res, 0, errReply
	}
	offset, _ := reply[0].(string)
	res.Position.Epoch, _ = reply[1].(string)
	n, _ := reply[2].(int64)
	repeated, _ := reply[3].(int64)
	res.Repeated = repeated == 1
	if res.Position.Offset, err = strconv.ParseUint(offset, 10, 64); err != nil {
		return res, 0, errReply
	}
	return res, int(n), nil
}

var errReply = errors.New("engine: unexpected reply of a script")

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// millis rounds up: a ttl of less than a millisecond is not none.
func millis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// PublishJoin implements Engine.
func (e *Redis) PublishJoin(ctx context.Context, channel string, info *protocol.ClientInfo) error {
	return e.publishInfo(ctx, channel, kindJoin, info)
}

// PublishLeave implements Engine.
func (e *Redis) PublishLeave(ctx context.Context, channel string, info *protocol.ClientInfo) error {
	return e.publishInfo(ctx, channel, kindLeave, info)
}

func (e *Redis) publishInfo(ctx context.Context, channel string, kind byte, info *protocol.ClientInfo) error {
	if _, err := e.wait(ctx); err != nil {
		return err
	}
	body, err := info.MarshalCF()
	if err != nil {
		return err
	}
	message := "1" + string(kind) + "0:::\n" + string(body)
	return e.lanes.of(channel).do(ctx, redis.NewIntCmd(ctx, "publish", e.keys.live(channel), message))
}

// Subscribe implements Engine.
func (e *Redis) Subscribe(ctx context.Context, channel string) error {
	if _, err := e.wait(ctx); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, subscribeTimeout)
	defer cancel()
	err := e.feed.subscribe(limited, e.keys.live(channel))
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
	e.feed.unsubscribe(e.keys.live(channel))
	return nil
}

// AddPresence implements Engine.
func (e *Redis) AddPresence(ctx context.Context, channel, client string, info *protocol.ClientInfo) error {
	if _, err := e.wait(ctx); err != nil {
		return err
	}
	body, err := info.MarshalCF()
	if err != nil {
		return err
	}
	return e.presence.add(ctx, channel, client, string(body))
}

// RemovePresence implements Engine. Where Redis is away the client is not
// entered again once it is back, and the error only says that.
func (e *Redis) RemovePresence(ctx context.Context, channel, client string) error {
	if _, err := e.wait(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return e.presence.remove(ctx, channel, client)
}

// Presence implements Engine.
func (e *Redis) Presence(ctx context.Context, channel string) (map[string]*protocol.ClientInfo, error) {
	if _, err := e.wait(ctx); err != nil {
		return nil, err
	}
	return e.presence.read(ctx, channel, e.timing.lease)
}

// route takes a message from the connection to where it is handled.
func (e *Redis) route(m *redis.Message) {
	if m.Channel == e.feed.inbox {
		e.readInbox(m.Payload)
		return
	}
	if channel, ok := e.keys.channelOf(m.Channel); ok {
		e.worker(channel).put(message{channel: channel, payload: m.Payload})
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
	sockets := 0
	if e.feed.wants(e.keys.live(m.channel)) {
		if sockets, err = e.receive(m.channel, env); err != nil {
			slog.Warn("message from redis ignored", "channel", m.channel, "err", err)
		}
	}
	switch env.asker {
	case "":
	case e.presence.uid:
		e.inquiries.answer(env.request, sockets, nil)
	default:
		e.tell(env.asker, "1c"+strconv.FormatUint(env.request, 10)+":"+strconv.Itoa(sockets))
	}
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
