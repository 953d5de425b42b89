package gateway

import (
	"sync"

	"github.com/minigate/minigate/auth"
)

// registry is the clients of this node, and by user and session those that
// have logged in.
type registry struct {
	metrics *Metrics

	mu       sync.RWMutex
	all      map[*client]struct{}
	users    map[string]map[*client]struct{}
	sessions map[auth.Fingerprint]map[*client]struct{}
	closed   bool
	admitted int // connections, those not upgraded yet among them

	running sync.WaitGroup // of admitted
}

func newRegistry(m *Metrics) *registry {
	return &registry{
		metrics:  m,
		all:      map[*client]struct{}{},
		users:    map[string]map[*client]struct{}{},
		sessions: map[auth.Fingerprint]map[*client]struct{}{},
	}
}

// admit makes room for a connection that is about to be upgraded; the caller
// calls leave at its end. limit 0 is no limit.
func (r *registry) admit(limit int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || limit > 0 && r.admitted >= limit {
		return false
	}
	r.admitted++
	r.running.Add(1)
	return true
}

// leave is the end of an admitted connection.
func (r *registry) leave() {
	r.mu.Lock()
	r.admitted--
	r.mu.Unlock()
	r.running.Done()
}

// add enters a client; false says that the hub has closed meanwhile.
func (r *registry) add(c *client) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[c] = struct{}{}
	r.metrics.connections.Inc()
	return !r.closed
}

func (r *registry) remove(c *client) {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, c)
	r.metrics.connections.Dec()
	if s != nil {
		drop(r.users, s.User.OpenID, c)
		drop(r.sessions, s.Fingerprint, c)
		r.metrics.users.Set(float64(len(r.users)))
	}
}

// login enters a client under its user, unless that one has limit clients
// already. limit 0 is no limit; anonymous users have none.
func (r *registry) login(c *client, s *auth.Session, limit int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if user := s.User.OpenID; limit > 0 && user != "" && len(r.users[user]) >= limit {
		return false
	}
	put(r.users, s.User.OpenID, c)
	put(r.sessions, s.Fingerprint, c)
	r.metrics.users.Set(float64(len(r.users)))
	return true
}

// relogin moves a client to another session of the same user.
func (r *registry) relogin(c *client, from, to *auth.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	drop(r.sessions, from.Fingerprint, c)
	put(r.sessions, to.Fingerprint, c)
}

func put[K comparable](m map[K]map[*client]struct{}, k K, c *client) {
	if m[k] == nil {
		m[k] = make(map[*client]struct{}, 1)
	}
	m[k][c] = struct{}{}
}

func drop[K comparable](m map[K]map[*client]struct{}, k K, c *client) {
	if delete(m[k], c); len(m[k]) == 0 {
		delete(m, k)
	}
}

func (r *registry) list() []*client { return r.pick(func() map[*client]struct{} { return r.all }) }

func (r *registry) ofUser(user string) []*client {
	return r.pick(func() map[*client]struct{} { return r.users[user] })
}

func (r *registry) ofSession(fp auth.Fingerprint) []*client {
	return r.pick(func() map[*client]struct{} { return r.sessions[fp] })
}

func (r *registry) pick(from func() map[*client]struct{}) []*client {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m := from()
	list := make([]*client, 0, len(m))
	for c := range m {
		list = append(list, c)
	}
	return list
}

func (r *registry) counts() (clients, users int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.all), len(r.users)
}

// close refuses new clients from now on.
func (r *registry) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
}
