package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// servers finds the master that a command belongs to. go-redis could do that
// for a cluster, but it also repeats whole batches after a broken connection,
// which publishes twice, and a WAIT must follow the writes it is for.
type servers struct {
	sharded bool
	changed func()               // a server came that we did not know
	single  *server              // outside of a cluster
	cluster *redis.ClusterClient // in one

	mu    sync.Mutex
	nodes map[*redis.Client]*server
}

func newServers(client redis.UniversalClient, sharded bool, changed func()) *servers {
	s := &servers{sharded: sharded, changed: changed}
	switch c := client.(type) {
	case *redis.ClusterClient:
		s.cluster, s.nodes = c, make(map[*redis.Client]*server)
	case *redis.Client:
		s.single = &server{client: c, changed: changed}
	}
	return s
}

// of returns the server that holds key, as far as known.
func (s *servers) of(ctx context.Context, key string) (*server, error) {
	if s.cluster == nil {
		return s.single, nil
	}
	client, err := s.cluster.MasterForKey(ctx, key)
	if err != nil {
		return nil, err
	}
	return s.node(client), nil
}

func (s *servers) node(client *redis.Client) *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[client]
	if n == nil {
		const many = 4096 // nodes come and go; forgetting one costs a round trip
		if len(s.nodes) >= many {
			clear(s.nodes)
		}
		n = &server{client: client, sharded: s.sharded, changed: s.changed}
		s.nodes[client] = n
	}
	return n
}

// renew has every master looked at again. One that is away will be noticed
// otherwise.
func (s *servers) renew(ctx context.Context) {
	if s.single != nil {
		s.single.renew(ctx)
		return
	}
	s.cluster.ReloadState(ctx) // in the background
	for _, m := range s.masters(ctx) {
		m.renew(ctx)
	}
}

// samples are keys all over the slots.
var samples = partitionTags(256)

// masters lists those that hold any of the samples. ClusterClient.ForEachMaster
// would wait for the layout to be loaded again each time.
func (s *servers) masters(ctx context.Context) []*server {
	var list []*server
	for _, key := range samples {
		if n, err := s.of(ctx, key); err == nil && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}

// run carries out commands: one round trip to each master that is concerned.
// Where slots have moved meanwhile, commands follow them.
func (s *servers) run(ctx context.Context, cmds []*command, wait waitFor) {
	if s.cluster == nil {
		s.single.run(ctx, cmds, wait)
		return
	}
	const redirections = 3
	for range redirections {
		s.spread(ctx, cmds, wait)
		moved := cmds[:0:0]
		var to string
		for _, c := range cmds {
			if addr, ok := redis.IsMovedError(c.cmd.Err()); ok {
				moved, to = append(moved, c), addr
			} else if addr, ok := redis.IsAskError(c.cmd.Err()); ok {
				s.ask(ctx, c, addr, wait)
			} else if err := c.cmd.Err(); err != nil && !answered(err) {
				s.cluster.ReloadState(ctx) // in the background: its master may have been replaced
			}
		}
		if len(moved) == 0 || !s.follow(ctx, moved[len(moved)-1].key, to) {
			return
		}
		cmds = moved
	}
}

// answered tells an answer of Redis from a broken connection.
func answered(err error) bool {
	var refused redis.Error
	return errors.As(err, &refused)
}

// spread sends commands to the masters they belong to, at the same time.
func (s *servers) spread(ctx context.Context, cmds []*command, wait waitFor) {
	groups := make(map[*server][]*command, 4)
	for _, c := range cmds {
		n, err := s.of(ctx, c.key)
		if err != nil {
			c.cmd.SetErr(err)
			continue
		}
		groups[n] = append(groups[n], c)
	}
	if len(groups) == 1 {
		for n, group := range groups {
			n.run(ctx, group, wait)
		}
		return
	}
	var wg sync.WaitGroup
	for n, group := range groups {
		wg.Go(func() { n.run(ctx, group, wait) })
	}
	wg.Wait()
}

// follow waits until our view of the cluster knows that key has moved.
func (s *servers) follow(ctx context.Context, key, addr string) bool {
	const patience, step = 500 * time.Millisecond, 10 * time.Millisecond
	for range patience / step {
		s.cluster.ReloadState(ctx) // in the background
		if c, err := s.cluster.MasterForKey(ctx, key); err == nil && c.Options().Addr == addr {
			return true
		}
		time.Sleep(step)
	}
	return false
}

// ask sends one command to the server that its slot is moving to.
func (s *servers) ask(ctx context.Context, c *command, addr string, wait waitFor) {
	all := s.masters(ctx)
	at := slices.IndexFunc(all, func(n *server) bool { return n.client.Options().Addr == addr })
	if at < 0 {
		return // the command keeps its error
	}
	target := all[at]
	i, err := target.known(ctx, nil)
	if err != nil {
		return
	}
	conn := target.client.Conn()
	defer func() { _ = conn.Close() }()
	if err := conn.Process(ctx, redis.NewStatusCmd(ctx, "asking")); err != nil {
		return
	}
	if c.script != nil {
		c.cmd.Args()[1] = i.texts[c.script].hash
	}
	c.cmd.SetErr(nil)
	if err := conn.Process(ctx, c.cmd); err != nil || wait.replicas == 0 {
		return
	}
	waited := redis.NewIntCmd(ctx, "wait", wait.replicas, wait.timeout.Milliseconds())
	if err := conn.Process(ctx, waited); err != nil || int(waited.Val()) < wait.replicas {
		c.cmd.SetErr(errNotReplicated)
	}
}
