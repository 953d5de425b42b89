package gateway

import (
	"maps"
	"slices"
	"sync"
)

// registry is the clients of this node, and by user those that have logged in.
type registry struct {
	metrics *Metrics

	mu       sync.RWMutex
	all      []*client // each knows its seat
	users    map[string]clientSet
	came     uint64 // clients, since the start
	closed   bool
	over     bool // connections are cut: those that come late, too
	admitted int  // connections, those not upgraded yet among them

	running sync.WaitGroup // of admitted
}

func newRegistry(m *Metrics) *registry {
	return &registry{metrics: m, users: map[string]clientSet{}}
}

// admit makes room for a connection that is about to be upgraded, or says why
// not; the caller calls leave at its end. limit 0 is no limit.
func (r *registry) admit(limit int) *refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return refusedShutdown
	case limit > 0 && r.admitted >= limit:
		return refusedLimit
	}
	r.admitted++
	r.running.Add(1)
	return nil
}

// leave is the end of an admitted connection.
func (r *registry) leave() {
	r.mu.Lock()
	r.admitted--
	r.mu.Unlock()
	r.running.Done()
}

// add enters a client. It says whether the hub has closed meanwhile, and
// whether all connections are being cut.
func (r *registry) add(c *client) (closed, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, c)
	c.seat = int32(len(r.all))
	r.came++
	r.metrics.connections.Inc()
	return r.closed, r.over
}

func (r *registry) remove(c *client) {
	c.mu.Lock()
	l := c.login
	c.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unseat(c)
	r.metrics.connections.Dec()
	if l == nil {
		return
	}
	if set := r.users[l.openID].without(c); set.len() > 0 {
		r.users[l.openID] = set
	} else {
		delete(r.users, l.openID)
	}
	r.metrics.users.Set(float64(len(r.users)))
}

// unseat takes a client out of all; mu is held.
func (r *registry) unseat(c *client) {
	if !r.has(c) {
		return
	}
	last := r.all[len(r.all)-1]
	r.all[c.seat-1], last.seat = last, c.seat
	r.all[len(r.all)-1] = nil
	r.all = r.all[:len(r.all)-1]
	c.seat = 0
}

// has tells whether a client is in all; mu is held.
func (r *registry) has(c *client) bool {
	return c.seat > 0 && int(c.seat) <= len(r.all) && r.all[c.seat-1] == c
}

// login enters a client under its user, unless that one has limit clients
// already. limit 0 is no limit; anonymous users have none.
func (r *registry) login(c *client, user string, limit int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if limit > 0 && user != "" && r.users[user].len() >= limit {
		return false
	}
	r.users[user] = r.users[user].with(c)
	r.metrics.users.Set(float64(len(r.users)))
	return true
}

func (r *registry) list() []*client {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.all)
}

// connected lists the clients that have logged in and are not about to end.
func (r *registry) connected() []*client {
	return slices.DeleteFunc(r.list(), func(c *client) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.state != connected
	})
}

func (r *registry) ofUser(user string) []*client {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.users[user].list()
}

// clientSet is the clients of a user. There is hardly ever more than one, and a
// map takes some 200 bytes.
type clientSet struct {
	one  *client
	many map[*client]struct{} // instead of one, once there were more
}

func (s clientSet) len() int {
	if s.one != nil {
		return 1
	}
	return len(s.many)
}

func (s clientSet) has(c *client) bool {
	_, ok := s.many[c]
	return ok || s.one == c
}

func (s clientSet) list() []*client {
	if s.one != nil {
		return []*client{s.one}
	}
	return slices.AppendSeq(make([]*client, 0, len(s.many)), maps.Keys(s.many))
}

func (s clientSet) with(c *client) clientSet {
	switch {
	case s.one == c:
		return s
	case s.one == nil && s.many == nil:
		return clientSet{one: c}
	case s.many == nil:
		s.many = map[*client]struct{}{s.one: {}}
		s.one = nil
	}
	s.many[c] = struct{}{}
	return s
}

func (s clientSet) without(c *client) clientSet {
	if s.one == c {
		return clientSet{}
	}
	delete(s.many, c)
	return s
}

// total counts all that ever came.
func (r *registry) total() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.came
}

func (r *registry) counts() (clients, users int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.all), len(r.users)
}

// cut is close for the end: who is not in the list yet is told so by add.
func (r *registry) cut() []*client {
	r.mu.Lock()
	r.closed, r.over = true, true
	r.mu.Unlock()
	return r.list()
}

// close refuses new clients from now on.
func (r *registry) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
}
