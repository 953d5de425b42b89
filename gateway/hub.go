package gateway

import (
	"context"
	"hash/maphash"
	"log/slog"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/auth/connjwt"
	"github.com/minigate/minigate/gateway/ask"
	"github.com/minigate/minigate/gateway/engine"
)

// Options are what a Hub needs.
type Options struct {
	Settings Settings
	Engine   engine.Engine
	Verify   func(ctx context.Context, token string) (*auth.Session, error)        // as auth.Service.Verify
	Alive    func(ctx context.Context, fp auth.Fingerprint) (*auth.Session, error) // as auth.Service.Alive
	Metrics  *Metrics
	Node     engine.Node // UID, Name and Version of this node

	// VerifyTicket verifies the ?ticket= of a handshake; nil where there are no
	// tickets.
	VerifyTicket func(ctx context.Context, ticket string) (*auth.Session, error)
	// JWTs as an alternative to logins, and for subscriptions; nil is off.
	ConnectTokens, SubscribeTokens *connjwt.Verifier
	RPC                            RPCFunc      // answers rpc commands that no webhook does; nil: there are none
	Ask                            *ask.Backend // webhooks of Settings.Hooks; nil: none
	// Blocked keeps users of JWTs out, as auth.Service.Blocked; nil lets all in.
	// Who is blocked later is to be handed to EndUser as well.
	Blocked func(ctx context.Context, user string) (*auth.Block, error)
	// Calm is called when very many connections came at once and no more do, every
	// ten seconds at most: what their handshakes left behind can be cleared away. It
	// may take its time; nil: nobody does.
	Calm func()
	// Arrived is called for each connection of a user that was let in, Left when
	// it is gone; nil: for none. They must not wait. Nobody has no name.
	Arrived func(auth.User)
	Left    func(auth.User)
}

// Hub is the live side of one node: it holds the connections, knows who is
// subscribed to what, and writes what the engine delivers.
type Hub struct {
	settings Settings
	rules    *rulebook
	engine   engine.Engine
	verify   func(ctx context.Context, token string) (*auth.Session, error)
	metrics  *Metrics

	verifyTicket                   func(ctx context.Context, ticket string) (*auth.Session, error)
	alive                          func(ctx context.Context, fp auth.Fingerprint) (*auth.Session, error)
	connectTokens, subscribeTokens *connjwt.Verifier
	blocked                        func(ctx context.Context, user string) (*auth.Block, error)
	arrived, left                  func(auth.User)

	ask  *ask.Backend
	rpc  RPCFunc         // nil: no rpc
	life context.Context //nolint:containedctx // of what waits for something: until connections are cut
	end  context.CancelFunc

	rate    *rate.Limiter // of handshakes, nil: no limit
	node    engine.Node
	version string
	start   time.Time

	clients  *registry
	lean     lean // what holds connections that cost little
	channels channels
	wheel    wheel

	channelIDs atomic.Int64 // the last number a channel got

	budget *budget // of bytes that wait
	load   load
	burst  burst
	calm   chan struct{} // capacity 1: a burst is over
	onCalm func()        // nil: nobody cares

	pending   pending // handshakes and logins under way
	addresses addresses
	overload  overload
	memory    *memory

	inspecting atomic.Bool // Inspect is under way

	announcements announcements

	news      *queue[pass]     // whom to tell of something to write
	refills   *queue[*channel] // channels that missed something
	retries   retries          // refills that failed
	positions *queue[*channel] // channels of which nothing was heard for a while
	retired   *queue[*channel] // channels that lost their last subscriber a while ago
	checks    *queue[*client]  // sessions to verify again
	asks      *queue[*client]  // of which the backend is to say whether they go on
	doubts    doubts
}

// New makes a hub. It does nothing until Run; calls that come earlier wait for
// it as long as their contexts allow.
func New(o Options) *Hub {
	h := &Hub{
		settings: o.Settings,
		rules:    newRulebook(o.Settings),
		engine:   o.Engine,
		verify:   o.Verify,
		metrics:  o.Metrics,

		verifyTicket:    o.VerifyTicket,
		alive:           o.Alive,
		connectTokens:   o.ConnectTokens,
		subscribeTokens: o.SubscribeTokens,
		blocked:         o.Blocked,
		arrived:         o.Arrived,
		left:            o.Left,

		node:     o.Node,
		version:  o.Node.Version,
		start:    time.Now(),
		clients:  newRegistry(o.Metrics),
		channels: channels{seed: maphash.MakeSeed()},
		budget:   newBudget(int64(o.Settings.Client.QueueTotalMaxSize)),

		announcements: announcements{room: semaphore.NewWeighted(maxAnnouncements)},

		news:      newQueue[pass](),
		refills:   newQueue[*channel](),
		positions: newQueue[*channel](),
		retired:   newQueue[*channel](),
		checks:    newQueue[*client](),
		asks:      newQueue[*client](),
	}
	h.node.Started = h.start
	h.pending.metrics = o.Metrics
	h.addresses.limit = o.Settings.Client.IPConnectionLimit
	h.overload = overload{limit: o.Settings.Client.OverloadDelay, metrics: o.Metrics, runs: runWait{read: schedulerWaits()}}
	h.memory = newMemory(int64(o.Settings.Client.MemorySoftLimit), o.Metrics)
	h.budget.lost = o.Metrics.dropped.WithLabelValues(droppedUnsent)
	h.rpc, h.ask = o.RPC, o.Ask
	h.calm, h.onCalm = make(chan struct{}, 1), o.Calm
	h.lean.begun = make(chan struct{})
	h.life, h.end = context.WithCancel(context.Background())
	if n := o.Settings.Client.ConnectionRateLimit; n > 0 {
		h.rate = rate.NewLimiter(rate.Limit(n), n)
	}
	return h
}

// Run works until ctx ends or the engine cannot go on. Then it cuts what
// connections are left, waits for all of its goroutines and returns. Call
// Shutdown first to part with clients in peace.
func (h *Hub) Run(ctx context.Context) error {
	// The engine and the workers outlive ctx a little: connections that end
	// still have presence to remove.
	g, inner := errgroup.WithContext(context.WithoutCancel(ctx))
	inner, stop := context.WithCancel(inner)
	defer stop()
	h.lean.open(inner, g)
	g.Go(func() error { return h.engine.Run(inner, h) })
	g.Go(func() error { h.keepTime(inner); return nil })
	for range min(runtime.GOMAXPROCS(0), 4) {
		g.Go(func() error { h.fanOut(); return nil })
	}
	for range refillWorkers {
		g.Go(func() error { h.refill(inner); return nil })
	}
	for range positionWorkers {
		g.Go(func() error { h.checkPositions(inner); return nil })
	}
	for range retireWorkers {
		g.Go(func() error { h.retireChannels(); return nil })
	}
	g.Go(func() error { h.shed(inner); return nil })
	if h.onCalm != nil {
		g.Go(func() error { h.rest(inner); return nil })
	}
	for range checkWorkers {
		g.Go(func() error { h.checkSessions(); return nil })
	}
	h.startAsking(g)
	select {
	case <-ctx.Done():
	case <-inner.Done():
	}
	h.cut()
	h.clients.running.Wait()
	h.lean.close()
	h.news.close()
	h.refills.close()
	h.positions.close()
	h.retired.close()
	h.checks.close()
	h.asks.close()
	stop()
	return g.Wait()
}

// cut ends all connections at once and lets no new ones in.
func (h *Hub) cut() {
	h.end()
	for _, c := range h.clients.cut() {
		c.sock.abort()
	}
}

// Shutdown tells all connections goodbye, one by one over the configured spread
// (a few take less) so that they do not all reconnect at the same moment, and
// waits until they are gone. Meanwhile publications flow and new connections
// are refused. When ctx ends the rest is cut. Run goes on until its own context
// ends.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.clients.close()
	list := h.clients.list()
	done := make(chan struct{})
	go func() { // ends with the last connection, which cut below makes sure of
		h.clients.running.Wait()
		close(done)
	}()
	begin := time.Now()
	h.announcements.flush(ctx, h.life) // they may say why it goes away
	told := h.sayGoodbye(ctx, list)
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		h.cut()
		<-done
	}
	slog.Info("connections closed", "connections", len(list), "told", told, "took", time.Since(begin))
	return err
}

func (h *Hub) sayGoodbye(ctx context.Context, list []*client) (told int) {
	if len(list) == 0 {
		return 0
	}
	const pause = 20 * time.Millisecond
	rounds := int(h.settings.Client.ShutdownSpread/pause) + 1
	batch := (len(list) + rounds - 1) / rounds
	t := time.NewTicker(pause)
	defer t.Stop()
	for part := range slices.Chunk(list, batch) {
		for _, c := range part {
			c.disconnect(DisconnectShutdown)
			told++
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return told
		}
	}
	return told
}

// sleep waits for d and reports whether ctx lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (h *Hub) checkSessions() {
	for {
		c, ok := h.checks.pop()
		if !ok {
			return
		}
		ctx, cancel := h.timeout()
		c.check(ctx)
		cancel()
	}
}

// keepTime turns the wheel and has channels looked after.
func (h *Hub) keepTime(ctx context.Context) {
	t := time.NewTicker(wheelTick)
	defer t.Stop()
	var due []*client
	var swept []*channel
	var late time.Duration
	for shard := 0; ; {
		select {
		case <-ctx.Done():
			return
		case at := <-t.C:
			late = time.Since(at)
		}
		now := h.now()
		in, out := h.news.progress()
		h.overload.measure(now, late, in, out)
		h.memory.look(now, &h.overload)
		due = h.wheel.turn(now, due)
		for range 2 {
			swept = h.sweep(shard, swept)
			shard = (shard + 1) % len(h.channels.shards)
		}
		h.load.measure(now)
		if h.burst.look(now, h.clients.total()) {
			select {
			case h.calm <- struct{}{}:
			default: // it was told, and is still at it
			}
		}
		h.retries.due(now, h.refills)
	}
}

// EndSession closes the connections of a user's session on this node. code is
// 3000 to 4999, see Disconnect.
func (h *Hub) EndSession(user string, fp auth.Fingerprint, code uint32, reason string) {
	for _, c := range h.clients.ofUser(user) {
		if c.isOf(fp) {
			c.disconnectFor(&Disconnect{code, plainReason(reason)}, endSession)
		}
	}
}

// EndUser closes the connections of a user on this node, however they came in.
func (h *Hub) EndUser(user string, d *Disconnect) {
	for _, c := range h.clients.ofUser(user) {
		c.disconnect(d)
	}
}

// ConnectionInfo describes one connection for the console.
type ConnectionInfo struct {
	Client    string    `json:"client"`
	User      string    `json:"user"` // openid
	AppID     string    `json:"appid"`
	UnionID   string    `json:"unionid,omitempty"`
	Session   string    `json:"session"`          // its fingerprint
	Device    string    `json:"device,omitempty"` // as the phone called itself at login
	IP        string    `json:"ip"`
	UserAgent string    `json:"user_agent,omitempty"`
	Name      string    `json:"name,omitempty"` // of the SDK, as it says
	Version   string    `json:"version,omitempty"`
	Since     time.Time `json:"since"`
	Channels  []string  `json:"channels"`
	Transport string    `json:"transport"`
	Protocol  string    `json:"protocol"` // json or protobuf
}

// Connections lists logged in connections of this node, the newest first, at
// most limit of them.
func (h *Hub) Connections(limit int) []ConnectionInfo {
	list := h.clients.list()
	infos := make([]ConnectionInfo, 0, len(list))
	for _, c := range list {
		if info, ok := c.describe(); ok {
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b ConnectionInfo) int { return b.Since.Compare(a.Since) })
	return slices.Clip(infos[:min(len(infos), max(limit, 0))])
}

func (c *client) describe() (ConnectionInfo, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.login == nil {
		return ConnectionInfo{}, false
	}
	info := ConnectionInfo{IP: c.ip, Transport: "websocket", Protocol: c.protocol()}
	u := c.login.user()
	info.Client, info.User, info.AppID, info.UnionID = c.id.String(), u.OpenID, u.AppID, u.UnionID
	info.Session, info.Device = c.login.fingerprint.String(), c.login.device.Value()
	s := c.software.Value()
	info.UserAgent, info.Name, info.Version, info.Since = s.agent, s.name, s.version, c.hub.start.Add(c.since)
	info.Channels = make([]string, 0, c.subs.len())
	for s := range c.subs.all() {
		info.Channels = append(info.Channels, s.name)
	}
	slices.Sort(info.Channels)
	return info, true
}
