package auth

import (
	"sync"
	"time"
	"unsafe"
)

const (
	maxVerified      = 1 << 17   // sessions a node remembers
	maxVerifiedBytes = 128 << 20 // what they take together, about; with few claims the count is reached first
	maxBlocksCached  = 1 << 16   // answers whether a user is blocked: some 10 MiB

	// cacheOverhead is what an entry takes beside what it points to: key, expiry
	// and its place in the map.
	cacheOverhead = 128 // bytes
)

// cache remembers for a few seconds what the store said. A key that is dropped
// is not brought back by an answer of the store from before.
type cache[K comparable, V any] struct {
	life time.Duration
	born time.Time

	mu      sync.Mutex
	entries recent[K, remembered[V]]
	drops   uint64 // counts drop calls
}

type remembered[V any] struct {
	value V
	until time.Duration // since the cache was born: a third of a time.Time
}

// newCache bounds the number of entries and, where weigh is not nil, what
// their values weigh together.
func newCache[K comparable, V any](life time.Duration, limit, weight int, weigh func(V) int) *cache[K, V] {
	c := &cache[K, V]{life: life, born: time.Now(), entries: newRecent[K, remembered[V]](limit)}
	if weigh != nil {
		c.entries.halfWeight = weight / 2
		c.entries.weigh = func(r remembered[V]) int { return weigh(r.value) }
	}
	return c
}

func newSessionCache(life time.Duration) *cache[Fingerprint, *Session] {
	return newCache[Fingerprint](life, maxVerified, maxVerifiedBytes, (*Session).weight)
}

// get returns what is remembered.
func (c *cache[K, V]) get(k K, now time.Time) (v V, ok bool) {
	c.mu.Lock()
	r, ok := c.entries.get(k)
	c.mu.Unlock()
	if !ok || now.Sub(c.born) >= r.until {
		return v, false
	}
	return r.value, true
}

// mark is to be taken before the store is asked and handed to put after.
func (c *cache[K, V]) mark() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drops
}

// put remembers what the store said, at most until the end given, zero for
// none; unless anything was dropped since mark: it may be this one, and the
// store's answer from before.
func (c *cache[K, V]) put(k K, v V, end time.Time, mark uint64, now time.Time) {
	life := c.life
	if !end.IsZero() {
		life = min(life, end.Sub(now))
	}
	r := remembered[V]{v, now.Sub(c.born) + life}
	c.mu.Lock()
	defer c.mu.Unlock()
	if mark == c.drops {
		c.entries.put(k, r)
	}
}

func (c *cache[K, V]) drop(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	c.entries.remove(k)
}

// clear drops everything.
func (c *cache[K, V]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	c.entries.clear()
}

// age forgets what nobody asked for since the last but one call. Entries that
// are over would stay until others need their room: it is called every life.
func (c *cache[K, V]) age() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.turn()
}

// weight is about what a session takes in memory, in bytes.
func (s *Session) weight() int {
	n := int(unsafe.Sizeof(*s)) + cacheOverhead +
		len(s.User.AppID) + len(s.User.OpenID) + len(s.User.UnionID) + len(s.Device) + len(s.IP) + cap(s.Claims)
	for _, name := range s.Channels {
		n += len(name) + int(unsafe.Sizeof(name))
	}
	return n
}
