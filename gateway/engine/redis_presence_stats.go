package engine

import (
	"context"
	"strconv"
	"time"
)

// PresenceStats implements Engine. It costs the same however many clients there
// are, except once for each node that died: then what the node left behind has
// to be found.
func (e *Redis) PresenceStats(ctx context.Context, channel string) (clients, users int, err error) {
	if _, err := e.wait(ctx); err != nil {
		return 0, 0, err
	}
	const rounds = 3 // nodes that die meanwhile are left to the next call
	key := e.keys.presence(channel)
	for range rounds {
		var dead []any
		clients, users, dead, err = e.presence.count(ctx, key, e.timing.lease)
		if err != nil || len(dead) == 0 {
			break
		}
		if err = e.presence.reap(ctx, key, dead); err != nil {
			break
		}
	}
	return clients, users, err
}

// count reads the numbers of a channel, and which leases in it have ended: users
// are only right without any.
func (p *presence) count(ctx context.Context, key string, ttl time.Duration) (clients, users int, dead []any, err error) {
	counts, cmd := countScript.eval(presenceKeys(key))
	c, leases := p.leasesCmd(ttl)
	if err := p.lanes.of(key).do(ctx, counts, c); err != nil {
		return 0, 0, nil, err
	}
	var byLease []string
	if users, byLease, err = countReply(cmd.Slice()); err != nil {
		return 0, 0, nil, err
	}
	clients, dead = p.sum(key, byLease, leaseSet(leases))
	if len(dead) > 0 {
		alive, err := p.alive(ctx, ttl)
		if err != nil {
			return 0, 0, nil, err
		}
		clients, dead = p.sum(key, byLease, alive)
	}
	return clients, users, dead, nil
}

func countReply(reply []any, err error) (users int, byLease []string, _ error) {
	if err != nil || len(reply) != 2 {
		return 0, nil, errReply
	}
	n, _ := reply[0].(int64)
	flat, _ := reply[1].([]any)
	for _, v := range flat {
		s, _ := v.(string)
		byLease = append(byLease, s)
	}
	return int(n), byLease, nil
}

// sum adds up lease, count, …: our own clients as we know them, those of other
// nodes as far as their leases hold.
func (p *presence) sum(key string, byLease []string, alive map[string]bool) (clients int, dead []any) {
	current := p.current()
	for i := 0; i+1 < len(byLease); i += 2 {
		lease := byLease[i]
		switch {
		case lease == current:
		case !alive[lease]:
			dead = append(dead, lease)
		case !p.isOwn(lease): // an own one is about to be given up
			n, _ := strconv.Atoi(byLease[i+1])
			clients += n
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return clients + len(p.channels[key]), dead
}

// reap removes all that dead leases left in a channel, in steps that hold up
// nobody.
func (p *presence) reap(ctx context.Context, key string, dead []any) error {
	const most = 64
	dead = dead[:min(len(dead), most)]
	for cursor := "0"; ; {
		c, cmd := reapScript.eval(presenceKeys(key), append([]any{cursor}, dead...)...)
		if err := p.lanes.of(key).do(ctx, c); err != nil {
			return err
		}
		var err error
		if cursor, err = cmd.Text(); err != nil {
			return errReply
		}
		if cursor == "0" {
			return nil
		}
	}
}
