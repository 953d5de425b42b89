package apikey

import (
	"crypto/sha256"
	"crypto/subtle"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/minigate/minigate/internal/fault"
)

// Keys tell who calls.
type Keys struct {
	allowShort bool
	metrics    *Metrics // nil: nobody counts

	replacing sync.Mutex
	present   atomic.Pointer[[]*entry]
}

// entry is a key that counts. It never changes: a key that is given other
// rights gets another entry.
type entry struct {
	key   Key
	sum   [sha256.Size]byte
	limit *rate.Limiter // nil: none
}

// New refuses what Check and, unless allowShort is set as dev does,
// CheckLength find. No keys at all let nobody in.
func New(keys []Key, allowShort bool) (*Keys, error) {
	k := &Keys{allowShort: allowShort}
	k.present.Store(new([]*entry))
	if _, err := k.Replace(keys); err != nil {
		return nil, err
	}
	return k, nil
}

// Count has m count what the keys are used for.
func (k *Keys) Count(m *Metrics) { k.metrics = m }

// Change is what a Replace did, by the names of the keys.
type Change struct {
	Added, Removed []string
	Changed        []string // the key itself, its scope or its limits
}

// Replace lets other keys count from now on: calls that are under way go on. A
// key that stays as it is keeps what it has used of its limit. Where New would
// refuse the keys nothing changes.
func (k *Keys) Replace(keys []Key) (Change, error) {
	if err := check(keys, k.allowShort); err != nil {
		return Change{}, err
	}
	k.replacing.Lock()
	defer k.replacing.Unlock()
	var change Change
	before, after := *k.present.Load(), make([]*entry, 0, len(keys))
	for _, key := range keys {
		i := slices.IndexFunc(before, func(e *entry) bool { return e.key.Name == key.Name })
		switch {
		case i < 0:
			change.Added = append(change.Added, key.Name)
		case before[i].key == key:
			after = append(after, before[i])
			continue
		default:
			change.Changed = append(change.Changed, key.Name)
		}
		after = append(after, newEntry(key))
	}
	for _, e := range before {
		if !slices.ContainsFunc(after, func(a *entry) bool { return a.key.Name == e.key.Name }) {
			change.Removed = append(change.Removed, e.key.Name)
			k.metrics.forget(e.key.Name)
		}
	}
	k.present.Store(&after)
	return change, nil
}

func newEntry(key Key) *entry {
	e := &entry{key: key, sum: sha256.Sum256([]byte(key.Key.Value()))}
	if key.Rate > 0 {
		burst := key.Burst
		if burst == 0 {
			burst = max(1, int(math.Ceil(key.Rate)))
		}
		e.limit = rate.NewLimiter(rate.Limit(key.Rate), burst)
	}
	return e
}

// Caller is the key that somebody came with. The zero value is nobody's.
type Caller struct {
	keys  *Keys
	entry *entry
}

// Name is what the key is called, "" for nobody.
func (c Caller) Name() string {
	if c.entry == nil {
		return ""
	}
	return c.entry.key.Name
}

// Scope is what the key may do, "" for nobody.
func (c Caller) Scope() string {
	if c.entry == nil {
		return ""
	}
	return c.entry.key.Scope
}

// Present tells whether the key still counts, with the same rights: for
// whoever remembers a caller.
func (c Caller) Present() bool {
	return c.entry != nil && slices.Contains(*c.keys.present.Load(), c.entry)
}

// What Admit and Take refuse with.
var (
	ErrUnknown = fault.New(fault.Unauthenticated, "api_key_unknown", "A known API key is required: X-API-Key: KEY.")
	ErrScope   = fault.New(fault.Forbidden, "scope_too_small", "The scope of this API key is too small.")
	ErrLimited = fault.New(fault.Limited, "too_many_requests", "This API key makes too many calls.")
)

// Admit lets a call through that needs a scope; "" needs none. Faults:
// ErrUnknown, ErrScope and ErrLimited, which says when to try again. With the
// latter two it tells who called, too.
func (k *Keys) Admit(r *http.Request, needed string) (Caller, error) {
	c, ok := k.Authenticate(r)
	switch {
	case !ok:
		return c, ErrUnknown
	case needed != "" && !Allows(c.Scope(), needed):
		k.metrics.count(c, "refused")
		return c, fault.New(ErrScope.Kind, ErrScope.Code, "The key "+c.Name()+" has the scope "+c.Scope()+"; this needs "+needed+".")
	}
	return c, c.Take()
}

// Take counts one call against the limit of the key. Fault: ErrLimited, which
// says when to try again.
func (c Caller) Take() error {
	if l := c.entry.limit; l != nil {
		if wait := take(l, time.Now()); wait > 0 {
			c.keys.metrics.count(c, "limited")
			return ErrLimited.After(wait)
		}
	}
	c.keys.metrics.count(c, "allowed")
	return nil
}

// take takes a token, or says how long to wait for one.
func take(l *rate.Limiter, now time.Time) (wait time.Duration) {
	r := l.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// Authenticate finds the key in the three places in which Centrifugo takes it:
// "X-API-Key: KEY", "Authorization: apikey KEY" and "?api_key=KEY". The first
// of them that is there counts. How long it takes says nothing about keys.
func (k *Keys) Authenticate(r *http.Request) (Caller, bool) { return k.Find(given(r)) }

// Find is Authenticate for a key that came another way.
func (k *Keys) Find(key string) (Caller, bool) {
	sum := sha256.Sum256([]byte(key))
	var found *entry
	for _, e := range *k.present.Load() {
		if subtle.ConstantTimeCompare(sum[:], e.sum[:]) == 1 {
			found = e // and goes on: as long for the first key as for the last
		}
	}
	return Caller{k, found}, found != nil
}

func given(r *http.Request) string {
	if key := r.Header.Get("X-Api-Key"); key != "" {
		return key
	}
	if scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "apikey") {
		return strings.TrimSpace(key)
	}
	return r.URL.Query().Get("api_key")
}
