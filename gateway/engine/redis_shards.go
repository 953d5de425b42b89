package engine

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// rehomePause is how long to wait before asking the cluster again where a
// partition is.
const rehomePause = 100 * time.Millisecond

// shards hears channels by sharded pub/sub: one feed for each master that has
// partitions. A partition that moves to another master takes what is wanted in
// it along, to the feed of that one.
type shards struct {
	engine *Redis
	keys   keys
	wake   chan struct{}

	mu    sync.Mutex // taken before that of a feed
	homes []*feed    // by partition; nil: not known at the moment
	feeds map[*redis.Client]*shardFeed
	lone  []map[string]*wish // by partition: what waits for a home
	down  error              // why the cluster's layout is not known
}

// shardFeed is a feed and the partitions it is responsible for.
type shardFeed struct {
	*feed
	shards *shards
	keys   keys
	stop   context.CancelFunc
	owned  []bool // by partition; guarded by feed.mu
}

func newShards(e *Redis) *shards {
	n := len(e.keys.tags)
	return &shards{
		engine: e, keys: e.keys,
		wake:  make(chan struct{}, 1),
		homes: make([]*feed, n),
		feeds: make(map[*redis.Client]*shardFeed),
		lone:  make([]map[string]*wish, n),
	}
}

// owns tells whether the feed is responsible for key; feed.mu is held.
func (f *shardFeed) owns(key string) bool { return f.owned[f.keys.partitionOf(key)] }

func (f *shardFeed) suspect() { f.shards.doubt() }

// lost says that the feed's master does not have a partition any more.
func (f *shardFeed) lost(partition int) {
	s := f.shards
	s.mu.Lock()
	if s.homes[partition] == f.feed {
		s.evict(partition)
	}
	s.mu.Unlock()
	s.doubt()
}

func (f *shardFeed) lostSlot(n int) {
	for p, tag := range f.keys.tags {
		if slot(tag) == n {
			f.lost(p)
		}
	}
}

func (s *shards) doubt() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// evict takes a partition from its feed; mu is held.
func (s *shards) evict(partition int) {
	f := s.homes[partition]
	if f == nil {
		return
	}
	s.homes[partition] = nil
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shard.owned[partition] = false
	for key, w := range f.wanted {
		if s.keys.partitionOf(key) == partition {
			delete(f.wanted, key)
			f.change(key)
			s.lone[partition][key] = w
		}
	}
}

// settle gives a partition to a feed; mu is held.
func (s *shards) settle(partition int, f *feed) {
	s.homes[partition] = f
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shard.owned[partition] = true
	for key, w := range s.lone[partition] {
		f.wanted[key] = w
		f.change(key)
	}
	clear(s.lone[partition])
}

// run follows the layout of the cluster until ctx ends.
func (s *shards) run(ctx context.Context) {
	s.mu.Lock()
	for p := range s.lone {
		s.lone[p] = map[string]*wish{
			s.keys.probe(p, s.engine.presence.uid): {done: make(chan struct{}), kept: true},
		}
	}
	s.mu.Unlock()
	var feeds sync.WaitGroup
	defer feeds.Wait()
	beat := time.NewTicker(s.engine.timing.beat)
	defer beat.Stop()
	for turn := 0; ; turn++ {
		settled := s.rehome(ctx, &feeds)
		var again <-chan time.Time
		if !settled {
			s.engine.servers.cluster.ReloadState(ctx) // in the background
			again = time.After(rehomePause)
		}
		select {
		case <-ctx.Done():
			s.abandon()
			return
		case <-again:
		case <-beat.C:
			s.beat(turn)
		case <-s.wake:
			s.engine.servers.cluster.ReloadState(ctx)
			select { // not more often than that
			case <-ctx.Done():
			case <-time.After(rehomePause):
			}
		}
	}
}

// rehome brings partitions to the feeds of their masters, and tells whether
// all have one.
func (s *shards) rehome(ctx context.Context, feeds *sync.WaitGroup) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	settled := true
	used := make(map[*feed]bool)
	s.down = nil
	for p, tag := range s.keys.tags {
		client, err := s.engine.servers.cluster.MasterForKey(ctx, tag)
		if err != nil {
			s.down, settled = errAway.Because(err), false
			used[s.homes[p]] = true
			continue
		}
		f := s.feeds[client]
		if f == nil {
			f = s.start(ctx, client, feeds)
		}
		used[f.feed] = true
		if s.homes[p] != f.feed {
			s.evict(p)
			s.settle(p, f.feed)
		}
	}
	for client, f := range s.feeds {
		if !used[f.feed] {
			f.stop()
			delete(s.feeds, client)
		}
	}
	return settled
}

// start makes the feed of a master; mu is held.
func (s *shards) start(ctx context.Context, client *redis.Client, feeds *sync.WaitGroup) *shardFeed {
	ctx, stop := context.WithCancel(ctx)
	f := newFeed(s.engine.metrics)
	f.silence = s.engine.timing.silence
	f.open = func(ctx context.Context) *redis.PubSub { return client.SSubscribe(ctx) }
	f.receive, f.resumed = s.engine.route, s.engine.resumed
	f.shard = &shardFeed{feed: f, shards: s, keys: s.keys, stop: stop, owned: make([]bool, len(s.keys.tags))}
	s.feeds[client] = f.shard
	feeds.Go(func() { f.run(ctx) })
	return f.shard
}

// abandon fails those who still wait for a home.
func (s *shards) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, lone := range s.lone {
		for key, w := range lone {
			if !w.confirmed && !w.kept {
				w.err = errStopped
				close(w.done)
			}
			delete(lone, key)
		}
	}
	for _, f := range s.feeds {
		f.stop()
	}
}

// beat sends one message through each connection, each time by another of its
// partitions.
func (s *shards) beat(turn int) {
	s.mu.Lock()
	byFeed := make(map[*feed][]int)
	for p, f := range s.homes {
		if f != nil {
			byFeed[f] = append(byFeed[f], p)
		}
	}
	s.mu.Unlock()
	for _, partitions := range byFeed {
		key := s.keys.probe(partitions[turn%len(partitions)], s.engine.presence.uid)
		cmd := redis.NewIntCmd(context.Background(), "spublish", key, strconv.Itoa(turn))
		_ = s.engine.lanes.of(key).put(&op{cmds: []command{plain(key, cmd)}}) // silence will tell
	}
}

// subscribe implements listener.
func (s *shards) subscribe(ctx context.Context, key string) error {
	p := s.keys.partitionOf(key)
	s.mu.Lock()
	w, err := s.want(p, key)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return w.await(ctx, func() { s.unsubscribe(key) })
}

// want is feed.want in the right place; mu is held.
func (s *shards) want(partition int, key string) (*wish, error) {
	if f := s.homes[partition]; f != nil {
		return f.want(key)
	}
	if s.down != nil {
		return nil, s.down
	}
	w := s.lone[partition][key]
	if w == nil {
		w = &wish{done: make(chan struct{})}
		s.lone[partition][key] = w
	}
	return w, nil
}

// unsubscribe implements listener.
func (s *shards) unsubscribe(key string) {
	p := s.keys.partitionOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.homes[p]; f != nil {
		f.unsubscribe(key)
		return
	}
	if w := s.lone[p][key]; w != nil {
		delete(s.lone[p], key)
		if !w.confirmed {
			w.err = errAway
			close(w.done)
		}
	}
}

// wants implements listener.
func (s *shards) wants(key string) bool {
	p := s.keys.partitionOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.homes[p]; f != nil {
		return f.wants(key)
	}
	return s.lone[p][key] != nil
}

// health is nil while every partition has a feed whose connection stands.
func (s *shards) health() error {
	s.mu.Lock()
	feeds := slices.Clone(s.homes)
	down := s.down
	s.mu.Unlock()
	if down != nil {
		return down
	}
	for _, f := range feeds {
		if f == nil {
			return errAway
		}
		if err := f.health(); err != nil {
			return err
		}
	}
	return nil
}
