package auth

import (
	"sync"
	"time"
)

const maxVerified = 1 << 17 // sessions a node remembers: some 60 MiB, and what claims they carry

// cache remembers verified sessions for a few seconds.
type cache struct {
	life time.Duration

	mu       sync.Mutex
	sessions recent[Fingerprint, verified]
	drops    uint64 // counts drop calls
}

type verified struct {
	session *Session
	until   time.Time
}

func newCache(life time.Duration) *cache {
	return &cache{life: life, sessions: newRecent[Fingerprint, verified](maxVerified)}
}

// get returns a remembered session, or nil.
func (c *cache) get(fp Fingerprint, now time.Time) *Session {
	c.mu.Lock()
	v, ok := c.sessions.get(fp)
	c.mu.Unlock()
	if !ok || !now.Before(v.until) {
		return nil
	}
	return v.session
}

// mark is to be taken before the store is asked and handed to put after.
func (c *cache) mark() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drops
}

// put remembers what the store said, unless any session ended since mark: it
// may be this one, and the store's answer from before.
func (c *cache) put(s *Session, mark uint64, now time.Time) {
	v := verified{s, now.Add(c.life)}
	if s.Expires.Before(v.until) {
		v.until = s.Expires
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if mark == c.drops {
		c.sessions.put(s.Fingerprint, v)
	}
}

func (c *cache) drop(fp Fingerprint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	c.sessions.remove(fp)
}
