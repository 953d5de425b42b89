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

// presence holds the clients of this node. In Redis each channel has a hash
// client → "<lease>\n<info>". The entry counts for as long as the lease does,
// and the node renews that one lease, whatever the number of its clients.
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
	wake  chan struct{} // renew now

	mu         sync.Mutex
	channels   map[string]map[string]string // channel → client → info in protobuf
	generation int
}

func newPresence(k keys, ls lanes) *presence {
	return &presence{
		keys: k, lanes: ls, generation: 1,
		wake: make(chan struct{}, 1), channels: make(map[string]map[string]string),
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

func (p *presence) doubtAfter(error) { p.stale.Store(true) }

func (p *presence) lease(generation int) string { return p.uid + "~" + strconv.Itoa(generation) }

func (p *presence) current() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lease(p.generation)
}

// put queues an operation that must happen even if its caller goes away. It is
// called with mu held, so that operations queue in the order of our own map.
func (p *presence) put(channel string, cmds ...redis.Cmder) (*op, error) {
	o := &op{cmds: cmds, fail: p.doubtAfter}
	if err := p.lanes.of(channel).put(o); err != nil {
		p.stale.Store(true)
		return nil, err
	}
	return o, nil
}

func (p *presence) add(ctx context.Context, channel, client, info string) error {
	p.mu.Lock()
	clients := p.channels[channel]
	if clients == nil {
		clients = make(map[string]string)
		p.channels[channel] = clients
	}
	clients[client] = info
	o, err := p.put(channel, p.enter(channel, map[string]string{client: info})...)
	p.mu.Unlock()
	if err == nil {
		err = o.wait(ctx)
	}
	if err != nil { // then nobody is there, whatever Redis makes of it
		p.forget(channel, client)
	}
	return err
}

func (p *presence) remove(ctx context.Context, channel, client string) error {
	o := p.forget(channel, client)
	if o == nil {
		return errBusy // restored, without the client, when Redis keeps up again
	}
	return o.wait(ctx)
}

// forget queues the removal of a client. It is nil if the queue is full.
func (p *presence) forget(channel, client string) *op {
	p.mu.Lock()
	defer p.mu.Unlock()
	clients := p.channels[channel]
	delete(clients, client)
	if len(clients) == 0 {
		delete(p.channels, channel)
	}
	o, err := p.put(channel, redis.NewIntCmd(context.Background(), "hdel", p.keys.presence(channel), client))
	if err != nil {
		return nil
	}
	return o
}

// enter makes the commands that enter clients. The caller holds mu.
func (p *presence) enter(channel string, clients map[string]string) []redis.Cmder {
	ctx, key, lease := context.Background(), p.keys.presence(channel), p.lease(p.generation)
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
func (p *presence) own(channel string) map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.channels[channel])
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
	return p.each(ctx, between, func(channel string, _ map[string]string) []redis.Cmder {
		return []redis.Cmder{redis.NewIntCmd(ctx, "pexpire", p.keys.presence(channel), presenceTTL.Milliseconds())}
	})
}

type commandsFunc func(channel string, clients map[string]string) []redis.Cmder

// each carries out what commands makes of every channel, some at a time.
func (p *presence) each(ctx context.Context, between func() error, commands commandsFunc) error {
	p.mu.Lock()
	channels := slices.Collect(maps.Keys(p.channels))
	p.mu.Unlock()
	for chunk := range slices.Chunk(channels, presenceChunk) {
		if err := between(); err != nil {
			return err
		}
		if err := p.some(ctx, chunk, commands); err != nil {
			return err
		}
	}
	return nil
}

func (p *presence) some(ctx context.Context, channels []string, commands commandsFunc) error {
	var ops []*op
	for _, channel := range channels {
		o, err := p.one(channel, commands)
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
func (p *presence) one(channel string, commands commandsFunc) (*op, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	clients := p.channels[channel]
	if len(clients) == 0 {
		return nil, nil
	}
	return p.put(channel, commands(channel, clients)...)
}

// read returns who is in a channel: our own clients as we know them, those of
// other nodes as Redis has them, as far as their leases hold.
func (p *presence) read(ctx context.Context, channel string, ttl time.Duration) (map[string]*protocol.ClientInfo, error) {
	l := p.lanes.of(channel)
	entries := redis.NewMapStringStringCmd(ctx, "hgetall", p.keys.presence(channel))
	leases := p.leasesCmd(ctx, ttl)
	if err := l.do(ctx, entries, leases); err != nil {
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
		p.sweep(l, channel, dead)
	}
	maps.Copy(there, p.own(channel))
	return decodeInfos(there), nil
}

// sweep removes entries of dead nodes, unless they have changed meanwhile. It
// is a courtesy: a failure leaves it to the next reader.
func (p *presence) sweep(l *lane, channel string, dead []any) {
	const most = 2000
	args := append([]any{"evalsha", forgetScript, 1, p.keys.presence(channel)}, dead[:min(len(dead), most)]...)
	_ = l.put(&op{cmds: []redis.Cmder{redis.NewCmd(context.Background(), args...)}})
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
