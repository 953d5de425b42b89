package engine

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/centrifugal/protocol"
)

const (
	stripeCount   = 256         // locks; channels are spread over them by hash
	sweepInterval = time.Second // how late the memory of expired data is freed
)

// Memory is the engine of a single node: everything lives in this process and
// is gone with it. Deliveries happen inside Publish, under the lock of the
// channel's stripe, which is what keeps them in the order of the offsets.
type Memory struct {
	life
	start   time.Time
	stripes [stripeCount]stripe
}

// NewMemory returns an engine that needs nothing but Run.
func NewMemory() *Memory {
	m := &Memory{life: newLife(), start: time.Now()}
	for i := range m.stripes {
		m.stripes[i].channels = make(map[string]*memoryChannel)
		m.stripes[i].results = make(map[resultKey]result)
	}
	return m
}

// now is the engine's clock: monotonic, zero when it was made. A moment on it
// takes a third of a time.Time.
func (m *Memory) now() time.Duration { return time.Since(m.start) }

// Run implements Engine; it owns the sweeper of expired data.
func (m *Memory) Run(ctx context.Context, r Receiver) error {
	if err := m.claim(r); err != nil {
		return err
	}
	m.begin()
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			m.stop()
			return nil
		case <-tick.C:
			now := m.now()
			for i := range m.stripes {
				m.stripes[i].sweep(now)
			}
		}
	}
}

// stop refuses new calls and waits for the delivery under way in each stripe.
func (m *Memory) stop() {
	m.end()
	for i := range m.stripes {
		m.stripes[i].mu.Lock()
		//lint:ignore SA2001 passing through is the wait
		m.stripes[i].mu.Unlock()
	}
}

// enter waits for Run and locks the channel's stripe. The caller unlocks it
// unless there is an error.
func (m *Memory) enter(ctx context.Context, channel string) (Receiver, *stripe, error) {
	r, err := m.wait(ctx)
	if err != nil {
		return nil, nil, err
	}
	s := &m.stripes[hash(channel)%stripeCount]
	s.mu.Lock()
	if m.over() {
		s.mu.Unlock()
		return nil, nil, errStopped
	}
	return r, s, nil
}

// Ping implements Engine.
func (m *Memory) Ping(ctx context.Context) error {
	_, err := m.wait(ctx)
	return err
}

// Publish implements Engine.
func (m *Memory) Publish(ctx context.Context, channel string, pub *protocol.Publication, o PublishOptions) (PublishResult, error) {
	r, s, err := m.enter(ctx, channel)
	if err != nil {
		return PublishResult{}, err
	}
	defer s.mu.Unlock()

	now := m.now()
	if pos, ok := s.result(channel, o.IdempotencyKey, now); ok {
		pub.Offset = pos.Offset
		return PublishResult{Position: pos, Repeated: true}, nil
	}
	var res PublishResult
	var c *memoryChannel
	if o.HistorySize > 0 && o.HistoryTTL > 0 {
		c = s.stream(channel, now)
		if c.outdated(o) {
			pub.Offset = c.top
			return PublishResult{Position: c.position(), Suppressed: true}, nil
		}
		s.append(channel, c, pub, o, now)
		res.Position = c.position()
	} else {
		c, pub.Offset = s.channels[channel], 0
	}
	if c != nil && c.subscribed {
		sockets := r.Publication(channel, pub, res.Position.Epoch)
		if o.Count {
			res.Sockets = sockets
		}
	}
	s.keepResult(channel, o, res.Position, now)
	return res, nil
}

// PublishJoin implements Engine.
func (m *Memory) PublishJoin(ctx context.Context, channel string, info *protocol.ClientInfo) error {
	r, s, err := m.enter(ctx, channel)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	if c := s.channels[channel]; c != nil && c.subscribed {
		r.Join(channel, info)
	}
	return nil
}

// PublishLeave implements Engine.
func (m *Memory) PublishLeave(ctx context.Context, channel string, info *protocol.ClientInfo) error {
	r, s, err := m.enter(ctx, channel)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	if c := s.channels[channel]; c != nil && c.subscribed {
		r.Leave(channel, info)
	}
	return nil
}

// Subscribe implements Engine.
func (m *Memory) Subscribe(ctx context.Context, channel string) error {
	_, s, err := m.enter(ctx, channel)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.channel(channel).subscribed = true
	return nil
}

// Unsubscribe implements Engine.
func (m *Memory) Unsubscribe(ctx context.Context, channel string) error {
	_, s, err := m.enter(context.WithoutCancel(ctx), channel)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	if c := s.channels[channel]; c != nil {
		if c.waits() {
			c.known = m.now() + c.lasts
		}
		c.subscribed = false
		s.timeMeta(channel, c)
		s.drop(channel, c)
	}
	return nil
}

// History implements Engine.
func (m *Memory) History(ctx context.Context, channel string, q HistoryQuery) ([]*protocol.Publication, Position, error) {
	_, s, err := m.enter(ctx, channel)
	if err != nil {
		return nil, Position{}, err
	}
	defer s.mu.Unlock()
	now := m.now()
	c := s.stream(channel, now)
	c.prolong(q.MetaTTL, q.Keep, now)
	return c.read(q), c.position(), nil
}

// RemoveHistory implements Engine.
func (m *Memory) RemoveHistory(ctx context.Context, channel string) (top Position, err error) {
	_, s, err := m.enter(ctx, channel)
	if err != nil {
		return top, err
	}
	defer s.mu.Unlock()
	if c := s.channels[channel]; c != nil && c.epoch != "" {
		if c.kept != nil {
			c.kept.pubs = nil
		}
		top = c.position()
	}
	return top, nil
}

// AddPresence implements Engine.
func (m *Memory) AddPresence(ctx context.Context, channel, client string, info *protocol.ClientInfo) error {
	_, s, err := m.enter(ctx, channel)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	c := s.channel(channel)
	c.part(client)
	if c.crowd == nil {
		c.crowd = &crowd{clients: make(map[string]*protocol.ClientInfo), users: make(map[string]int)}
	}
	c.crowd.clients[client] = info
	c.crowd.users[info.User]++
	return nil
}

// RemovePresence implements Engine.
func (m *Memory) RemovePresence(ctx context.Context, channel, client string) error {
	_, s, err := m.enter(context.WithoutCancel(ctx), channel)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	if c := s.channels[channel]; c != nil {
		c.part(client)
		s.drop(channel, c)
	}
	return nil
}

// Presence implements Engine.
func (m *Memory) Presence(ctx context.Context, channel string) (map[string]*protocol.ClientInfo, error) {
	_, s, err := m.enter(ctx, channel)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	c := s.channels[channel]
	if c == nil || c.crowd == nil {
		return map[string]*protocol.ClientInfo{}, nil
	}
	return maps.Clone(c.crowd.clients), nil
}

// PresenceStats implements Engine.
func (m *Memory) PresenceStats(ctx context.Context, channel string) (clients, users int, err error) {
	_, s, err := m.enter(ctx, channel)
	if err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	if c := s.channels[channel]; c != nil && c.crowd != nil {
		clients, users = len(c.crowd.clients), len(c.crowd.users)
	}
	return clients, users, nil
}

// AddUser implements Engine: every user is here.
func (m *Memory) AddUser(ctx context.Context, _ string) error {
	_, err := m.wait(ctx)
	return err
}

// RemoveUser implements Engine.
func (m *Memory) RemoveUser(string) {}

// SurveyUser implements Engine.
func (m *Memory) SurveyUser(ctx context.Context, _, op string, payload []byte) ([][]byte, error) {
	return m.Survey(ctx, op, payload)
}

// Survey implements Engine: there is only this node to ask.
func (m *Memory) Survey(ctx context.Context, op string, payload []byte) ([][]byte, error) {
	r, err := m.wait(ctx)
	if err != nil {
		return nil, err
	}
	return [][]byte{r.Survey(op, payload)}, nil
}

// Nodes implements Engine: there is only this node.
func (m *Memory) Nodes(ctx context.Context) ([]Node, error) {
	r, err := m.wait(ctx)
	if err != nil {
		return nil, err
	}
	return []Node{r.Self()}, nil
}

// stripe holds the channels whose names hash to it.
type stripe struct {
	mu       sync.Mutex
	channels map[string]*memoryChannel
	results  map[resultKey]result
	due      dueHeap
	epoch    string // of streams that are made; "": there has to be a new one
}

// memoryChannel is all that is known about a channel. It is dropped as soon as
// none of it says anything. Most are heard and empty: what others have is
// behind pointers.
type memoryChannel struct {
	stream
	crowd *crowd // who is present; nil: nobody
}

// crowd is who is present in a channel.
type crowd struct {
	clients map[string]*protocol.ClientInfo
	users   map[string]int // clients by user
}

// part takes a client out of presence, if it is there.
func (c *memoryChannel) part(client string) {
	if c.crowd == nil || c.crowd.clients[client] == nil {
		return
	}
	user := c.crowd.clients[client].User
	delete(c.crowd.clients, client)
	if c.crowd.users[user]--; c.crowd.users[user] == 0 {
		delete(c.crowd.users, user)
	}
	if len(c.crowd.clients) == 0 {
		c.crowd = nil
	}
}

func (s *stripe) channel(name string) *memoryChannel {
	c := s.channels[name]
	if c == nil {
		c = &memoryChannel{}
		s.channels[name] = c
	}
	return c
}

func (s *stripe) drop(name string, c *memoryChannel) {
	if !c.subscribed && c.crowd == nil && c.epoch == "" {
		delete(s.channels, name)
	}
}
