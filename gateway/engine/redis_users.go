package engine

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// The index of users: each user has a hash node → lease, kept and restored
// with presence. Only the first and the last connection of a user on a node
// touch Redis.

// AddUser implements Engine.
func (e *Redis) AddUser(ctx context.Context, user string) error {
	if _, err := e.wait(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	o, err := e.presence.addUser(user)
	if o == nil {
		return err
	}
	return o.wait(ctx)
}

// RemoveUser implements Engine.
func (e *Redis) RemoveUser(user string) { e.presence.removeUser(user) }

// addUser counts a connection, and queues the entry of the first one; o is nil
// if there is nothing to wait for.
func (p *presence) addUser(user string) (o *op, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users[user]++
	switch p.users[user] {
	case 0:
		delete(p.users, user) // its removal was faster
	case 1:
		key := p.keys.user(user)
		p.channels[key] = map[string]present{p.uid: {}}
		o, err = p.put(key, p.enter(key, p.channels[key])...)
	}
	return o, err
}

func (p *presence) removeUser(user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users[user]--
	if p.users[user] != 0 {
		return
	}
	delete(p.users, user)
	key := p.keys.user(user)
	delete(p.channels, key)
	// A failure makes the node enter everybody but this user again.
	_, _ = p.put(key, plain(key, redis.NewIntCmd(context.Background(), "hdel", key, p.uid)))
}

func enterUser(key, uid, lease string) []command {
	return []command{plain(key, redis.NewIntCmd(context.Background(), "hset", key, uid, lease)), expireCmd(key)}
}

// SurveyUser implements Engine.
func (e *Redis) SurveyUser(ctx context.Context, user, op string, payload []byte) ([][]byte, error) {
	r, err := e.wait(ctx)
	if err != nil {
		return nil, err
	}
	uids, err := e.nodesWith(ctx, user)
	if err != nil {
		return nil, err
	}
	return e.ask(ctx, r, uids, op, payload)
}

// nodesWith lists the nodes that hold a user, and those that may.
func (e *Redis) nodesWith(ctx context.Context, user string) (uids []string, err error) {
	key := e.keys.user(user)
	entries := redis.NewMapStringStringCmd(ctx, "hgetall", key)
	c, leases := e.presence.leasesCmd(e.timing.lease)
	if err = e.lanes.of(key).do(ctx, plain(key, entries), c); err != nil {
		return nil, err
	}
	holds := entries.Val()
	alive := nodesOf(leases)
	if len(without(holds, alive)) > 0 { // those that ended, or came meanwhile, see presence.alive
		if alive, err = e.uids(ctx); err != nil {
			return nil, err
		}
		if dead := without(holds, alive); len(dead) > 0 {
			c, _ := forgetScript.eval([]string{key}, dead...)
			_ = e.lanes.of(key).put(&op{cmds: []command{c}}) // failing that, the next reader does it
		}
	}
	for uid, partial := range alive {
		if _, ok := holds[uid]; ok || partial {
			uids = append(uids, uid)
		}
	}
	return uids, nil
}

// without lists node, lease, … of those that are not among the nodes.
func without(holds map[string]string, nodes map[string]bool) (list []any) {
	for uid, lease := range holds {
		if _, ok := nodes[uid]; !ok {
			list = append(list, uid, lease)
		}
	}
	return list
}
