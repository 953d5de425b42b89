package gateway

import (
	"maps"
	"slices"
	"sync"

	"github.com/minigate/minigate/auth"
)

// registry is the clients of this node, and by user and session those that
// have logged in.
type registry struct {
	metrics *Metrics

	mu       sync.RWMutex
	all      map[*client]struct{}
	users    map[string]clientSet
	sessions map[auth.Fingerprint]clientSet
	closed   bool
	over     bool // connections are cut: those that come late, too
	admitted int  // connections, those not upgraded yet among them

	running sync.WaitGroup // of admitted
}

func newRegistry(m *Metrics) *registry {
	return &registry{
		metrics:  m,
		all:      map[*client]struct{}{},
		users:    map[string]clientSet{},
		sessions: map[auth.Fingerprint]clientSet{},
	}
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
	r.all[c] = struct{}{}
	r.metrics.connections.Inc()
	return r.closed, r.over
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
	if user := s.User.OpenID; limit > 0 && user != "" && r.users[user].len() >= limit {
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

func put[K comparable](m map[K]clientSet, k K, c *client) { m[k] = m[k].with(c) }

func drop[K comparable](m map[K]clientSet, k K, c *client) {
	if set := m[k].without(c); set.len() > 0 {
		m[k] = set
	} else {
		delete(m, k)
	}
}

func (r *registry) list() []*client {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.AppendSeq(make([]*client, 0, len(r.all)), maps.Keys(r.all))
}

func (r *registry) ofUser(user string) []*client {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.users[user].list()
}

func (r *registry) ofSession(fp auth.Fingerprint) []*client {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.sessions[fp].list()
}

// clientSet is the clients of a user or session. There is hardly ever more than
// one, and a map takes some 300 bytes.
type clientSet struct {
	few  []*client
	many map[*client]struct{} // instead of few, once there were more than fewClients
}

const fewClients = 8

func (s clientSet) len() int { return len(s.few) + len(s.many) }

func (s clientSet) has(c *client) bool {
	_, ok := s.many[c]
	return ok || slices.Contains(s.few, c)
}

func (s clientSet) list() []*client {
	if s.many == nil {
		return slices.Clone(s.few)
	}
	return slices.AppendSeq(make([]*client, 0, len(s.many)), maps.Keys(s.many))
}

func (s clientSet) with(c *client) clientSet {
	switch {
	case s.many == nil && slices.Contains(s.few, c):
		return s
	case s.many == nil && len(s.few) < fewClients:
		return clientSet{few: append(s.few, c)}
	case s.many == nil:
		s.many = make(map[*client]struct{}, 2*fewClients)
		for _, old := range s.few {
			s.many[old] = struct{}{}
		}
		s.few = nil
	}
	s.many[c] = struct{}{}
	return s
}

func (s clientSet) without(c *client) clientSet {
	delete(s.many, c)
	if i := slices.Index(s.few, c); i >= 0 {
		s.few = slices.Delete(s.few, i, i+1)
	}
	return s
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
