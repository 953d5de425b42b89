package engine

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/redis/go-redis/v9"
)

const (
	presenceTTL   = time.Hour        // of a channel's presence key, should every node die
	presenceTouch = 20 * time.Minute // how often a node prolongs the keys of its channels
	presenceChunk = 256              // channels restored in one go
)

// presence holds the clients of this node, by the key of their channel. In
// Redis each channel has a hash client → "<lease>\n<info>". The entry counts
// for as long as the lease does, and the node renews that one lease, whatever
// the number of its clients: what it costs grows with nodes, and every twenty
// minutes with channels. Users have such hashes too, see redis_users.go.
//
// Whenever Redis may not hold what this node believes (it restarted, an
// operation failed halfway, the lease lapsed), the node takes a new lease,
// enters everybody again under it and gives up the old one: what was wrong
// under the old lease counts no more.
type presence struct {
	keys  keys
	lanes lanes
	uid   string
	stale atomic.Bool   // Redis may not hold what we believe
	away  atomic.Bool   // the last beat failed
	wake  chan struct{} // renew now

	mu         sync.Mutex
	channels   map[string]map[string]string // key of the hash → client → info in protobuf
	users      map[string]int               // connections by user
	generation int
}

func newPresence(k keys, ls lanes) *presence {
	return &presence{
		keys: k, lanes: ls, generation: 1,
		wake: make(chan struct{}, 1), channels: make(map[string]map[string]string), users: make(map[string]int),
	}
}

// doubt makes the node enter its clients again.
func (p *presence) doubt() {
	p.stale.Store(true)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// doubtAfter is doubt after an operation that failed. While Redis is known to
// be away the next beat is soon enough.
func (p *presence) doubtAfter(error) {
	p.stale.Store(true)
	if !p.away.Load() {
		p.doubt()
	}
}

func (p *presence) lease(generation int) string { return p.uid + "~" + strconv.Itoa(generation) }

func (p *presence) current() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lease(p.generation)
}

// put queues an operation that must happen even if its caller goes away. It is
// called with mu held, so that operations queue in the order of our own map.
func (p *presence) put(key string, cmds ...redis.Cmder) (*op, error) {
	o := &op{fail: p.doubtAfter}
	for _, cmd := range cmds {
		o.cmds = append(o.cmds, plain(key, cmd))
	}
	if err := p.lanes.of(key).put(o); err != nil {
		p.doubtAfter(err)
		return nil, err
	}
	return o, nil
}

func (p *presence) add(ctx context.Context, key, client, info string) error {
	p.mu.Lock()
	clients := p.channels[key]
	if clients == nil {
		clients = make(map[string]string)
		p.channels[key] = clients
	}
	clients[client] = info
	o, err := p.put(key, p.enter(key, map[string]string{client: info})...)
	p.mu.Unlock()
	if err == nil {
		err = o.wait(ctx)
	}
	if err != nil { // then nobody is there, whatever Redis makes of it
		p.forget(key, client)
	}
	return err
}

func (p *presence) remove(ctx context.Context, key, client string) error {
	o := p.forget(key, client)
	if o == nil {
		return errBusy // restored, without the client, when Redis keeps up again
	}
	return o.wait(ctx)
}

// forget queues the removal of a client. It is nil if the queue is full.
func (p *presence) forget(key, client string) *op {
	p.mu.Lock()
	defer p.mu.Unlock()
	clients := p.channels[key]
	delete(clients, client)
	if len(clients) == 0 {
		delete(p.channels, key)
	}
	o, err := p.put(key, redis.NewIntCmd(context.Background(), "hdel", key, client))
	if err != nil {
		return nil
	}
	return o
}

// enter makes the commands that enter clients. The caller holds mu.
func (p *presence) enter(key string, clients map[string]string) []redis.Cmder {
	ctx, lease := context.Background(), p.lease(p.generation)
	set := make([]any, 0, 2+2*len(clients))
	set = append(set, "hset", key)
	for client, info := range clients {
		set = append(set, client, lease+"\n"+info)
	}
	return []redis.Cmder{
		redis.NewIntCmd(ctx, set...),
		redis.NewIntCmd(ctx, "pexpire", key, presenceTTL.Milliseconds()),
	}
}

// own returns this node's clients in a channel.
func (p *presence) own(key string) map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.channels[key])
}

// restore enters everybody under a new lease, which must hold already. It
// calls between every now and then, to keep it so.
func (p *presence) restore(ctx context.Context, between func() error) error {
	p.mu.Lock()
	p.generation++
	p.mu.Unlock()
	return p.each(ctx, between, p.enter)
}

// touch prolongs the keys of all channels with clients of this node.
func (p *presence) touch(ctx context.Context, between func() error) error {
	return p.each(ctx, between, func(key string, _ map[string]string) []redis.Cmder {
		return []redis.Cmder{redis.NewIntCmd(ctx, "pexpire", key, presenceTTL.Milliseconds())}
	})
}

type commandsFunc func(key string, clients map[string]string) []redis.Cmder

// each carries out what commands makes of every channel, some at a time.
func (p *presence) each(ctx context.Context, between func() error, commands commandsFunc) error {
	p.mu.Lock()
	all := slices.Collect(maps.Keys(p.channels))
	p.mu.Unlock()
	for chunk := range slices.Chunk(all, presenceChunk) {
		if err := between(); err != nil {
			return err
		}
		if err := p.some(ctx, chunk, commands); err != nil {
			return err
		}
	}
	return nil
}

func (p *presence) some(ctx context.Context, list []string, commands commandsFunc) error {
	var ops []*op
	for _, key := range list {
		o, err := p.one(key, commands)
		if err != nil {
			return err
		}
		if o != nil {
			ops = append(ops, o)
		}
	}
	for _, o := range ops {
		if err := o.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// one queues the commands for a channel, if anybody is still there.
func (p *presence) one(key string, commands commandsFunc) (*op, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	clients := p.channels[key]
	if len(clients) == 0 {
		return nil, nil
	}
	return p.put(key, commands(key, clients)...)
}

// read returns who is in a hash: our own clients as we know them, those of
// other nodes as Redis has them, as far as their leases hold.
func (p *presence) read(ctx context.Context, key string, ttl time.Duration) (map[string]string, error) {
	entries := redis.NewMapStringStringCmd(ctx, "hgetall", key)
	c, leases := p.leasesCmd(ttl)
	if err := p.lanes.of(key).do(ctx, plain(key, entries), c); err != nil {
		return nil, err
	}
	alive := make(map[string]bool)
	for lease := range pairs(leases) {
		alive[lease] = true
	}
	there := make(map[string]string)
	var dead []any
	for client, entry := range entries.Val() {
		lease, info, _ := strings.Cut(entry, "\n")
		switch {
		case strings.HasPrefix(lease, p.uid+"~"):
		case alive[lease]:
			there[client] = info
		default:
			dead = append(dead, client, entry)
		}
	}
	if len(dead) > 0 {
		p.sweep(key, dead)
	}
	maps.Copy(there, p.own(key))
	return there, nil
}

// sweep removes entries of dead nodes, unless they have changed meanwhile. It
// is a courtesy: a failure leaves it to the next reader.
func (p *presence) sweep(key string, dead []any) {
	const most = 2000
	c, _ := forgetScript.eval([]string{key}, dead[:min(len(dead), most)]...)
	_ = p.lanes.of(key).put(&op{cmds: []command{c}})
}

func decodeInfos(there map[string]string) map[string]*protocol.ClientInfo {
	infos := make(map[string]*protocol.ClientInfo, len(there))
	for client, body := range there {
		info := new(protocol.ClientInfo)
		if err := info.UnmarshalCF([]byte(body)); err != nil {
			slog.Warn("presence entry in redis is damaged", "client", client, "err", err)
			continue
		}
		infos[client] = info
	}
	return infos
}
