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
	enterChunk    = 256              // clients entered by one script
)

// presence holds the clients of this node, by the key of their channel. In
// Redis each channel has a hash client → lease, user and info, see enterScript,
// and beside it two that count: user → clients, lease → clients. An entry counts
// for as long as its lease does, and the node renews that one lease, whatever
// the number of its clients: what it costs grows with nodes, and every twenty
// minutes with channels. Users have hashes too, see redis_users.go.
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
	channels   map[string]map[string]present // key of the hash → client
	users      map[string]int                // connections by user
	generation int
}

// present is a client of a channel.
type present struct{ user, info string } // info is the rest, in protobuf

func presentOf(info *protocol.ClientInfo) (present, error) {
	rest := &protocol.ClientInfo{Client: info.Client, ConnInfo: info.ConnInfo, ChanInfo: info.ChanInfo}
	body, err := rest.MarshalCF()
	return present{info.User, string(body)}, err
}

// entry is how p stands in Redis.
func (p present) entry(lease string) string {
	return lease + "\n" + strconv.Itoa(len(p.user)) + "\n" + p.user + p.info
}

// parsePresent is the inverse of entry. What is no entry has no lease.
func parsePresent(entry string) (lease string, p present) {
	lease, rest, _ := strings.Cut(entry, "\n")
	size, rest, ok := strings.Cut(rest, "\n")
	n, err := strconv.ParseUint(size, 10, 31)
	if !ok || err != nil || n > uint64(len(rest)) {
		return "", present{}
	}
	return lease, present{rest[:n], rest[n:]}
}

func newPresence(k keys, ls lanes) *presence {
	return &presence{
		keys: k, lanes: ls, generation: 1,
		wake: make(chan struct{}, 1), channels: make(map[string]map[string]present), users: make(map[string]int),
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
func (p *presence) put(key string, cmds ...command) (*op, error) {
	o := &op{fail: p.doubtAfter, cmds: cmds}
	if err := p.lanes.of(key).put(o); err != nil {
		p.doubtAfter(err)
		return nil, err
	}
	return o, nil
}

func (p *presence) add(ctx context.Context, key, client string, who present) error {
	p.mu.Lock()
	clients := p.channels[key]
	if clients == nil {
		clients = make(map[string]present)
		p.channels[key] = clients
	}
	clients[client] = who
	o, err := p.put(key, p.enter(key, map[string]present{client: who})...)
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
	c, _ := leaveScript.eval(presenceKeys(key), client)
	o, err := p.put(key, c)
	if err != nil {
		return nil
	}
	return o
}

// presenceKeys are the hash of a channel and those that count what it has, all
// in one slot.
func presenceKeys(key string) []string { return []string{key, key + ":users", key + ":leases"} }

// enter makes the commands that enter clients, or a user. The caller holds mu.
func (p *presence) enter(key string, clients map[string]present) []command {
	lease, ttl := p.lease(p.generation), presenceTTL.Milliseconds()
	if p.keys.isUser(key) {
		return enterUser(key, p.uid, lease)
	}
	var cmds []command
	args := []any{lease, ttl}
	for client, who := range clients {
		args = append(args, client, who.user, who.entry(lease))
		if len(args) >= 3*enterChunk {
			c, _ := enterScript.eval(presenceKeys(key), args...)
			cmds, args = append(cmds, c), []any{lease, ttl}
		}
	}
	if len(args) > 2 {
		c, _ := enterScript.eval(presenceKeys(key), args...)
		cmds = append(cmds, c)
	}
	return cmds
}

// untouched tells whether nobody was entered yet.
func (p *presence) untouched() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.channels) == 0
}

// own returns this node's clients in a channel.
func (p *presence) own(key string) map[string]present {
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
	return p.each(ctx, between, func(key string, _ map[string]present) []command {
		if p.keys.isUser(key) {
			return []command{expireCmd(key)}
		}
		var cmds []command
		for _, k := range presenceKeys(key) {
			cmds = append(cmds, expireCmd(k))
		}
		return cmds
	})
}

func expireCmd(key string) command {
	return plain(key, redis.NewIntCmd(context.Background(), "pexpire", key, presenceTTL.Milliseconds()))
}

type commandsFunc func(key string, clients map[string]present) []command

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

// read returns who is in a channel: our own clients as we know them, those of
// other nodes as Redis has them, as far as their leases hold.
func (p *presence) read(ctx context.Context, key string, ttl time.Duration) (map[string]present, error) {
	entries := redis.NewMapStringStringCmd(ctx, "hgetall", key)
	c, leases := p.leasesCmd(ttl)
	if err := p.lanes.of(key).do(ctx, plain(key, entries), c); err != nil {
		return nil, err
	}
	there, dead := p.sort(entries.Val(), leaseSet(leases))
	if len(dead) > 0 {
		alive, err := p.alive(ctx, ttl)
		if err != nil {
			return nil, err
		}
		if there, dead = p.sort(entries.Val(), alive); len(dead) > 0 {
			p.sweep(key, dead)
		}
	}
	maps.Copy(there, p.own(key))
	return there, nil
}

// alive lists the leases that hold. What was entered under any other by the
// time of the call is dead: a lease is taken before it is used, and never again
// after it lapsed. A list that was asked for together with the entries does not
// say so much, as the masters of a cluster answer in any order.
func (p *presence) alive(ctx context.Context, ttl time.Duration) (map[string]bool, error) {
	c, leases := p.leasesCmd(ttl)
	if err := p.lanes.of(p.keys.leases()).do(ctx, c); err != nil {
		return nil, err
	}
	return leaseSet(leases), nil
}

func leaseSet(leases *redis.Cmd) map[string]bool {
	alive := make(map[string]bool)
	for lease := range pairs(leases) {
		alive[lease] = true
	}
	return alive
}

// sort tells the clients of other nodes that are there from entries that do not
// count any more, which come as client, entry, ….
func (p *presence) sort(entries map[string]string, alive map[string]bool) (there map[string]present, dead []any) {
	there = make(map[string]present)
	for client, entry := range entries {
		lease, who := parsePresent(entry)
		switch {
		case p.isOwn(lease):
		case alive[lease]:
			there[client] = who
		default:
			dead = append(dead, client, entry)
		}
	}
	return there, dead
}

func (p *presence) isOwn(lease string) bool { return strings.HasPrefix(lease, p.uid+"~") }

// sweep removes entries of dead nodes, unless they have changed meanwhile. It
// is a courtesy: a failure leaves it to the next reader.
func (p *presence) sweep(key string, dead []any) {
	const most = 2000
	c, _ := sweepScript.eval(presenceKeys(key), dead[:min(len(dead), most)]...)
	_ = p.lanes.of(key).put(&op{cmds: []command{c}})
}

func decodeInfos(there map[string]present) map[string]*protocol.ClientInfo {
	infos := make(map[string]*protocol.ClientInfo, len(there))
	for client, who := range there {
		info := new(protocol.ClientInfo)
		if err := info.UnmarshalCF([]byte(who.info)); err != nil {
			slog.Warn("presence entry in redis is damaged", "client", client, "err", err)
			continue
		}
		info.User = who.user
		infos[client] = info
	}
	return infos
}
