package proxy

import (
	"net/netip"
	"sync"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// maxLimited is how many callers a limiter remembers. Only callers that used a
// part of their burst take a place, and only until it has filled up again.
const maxLimited = 1 << 16

// sweepPause is how often those who need no place any more are looked for.
const sweepPause = time.Minute

var errRequestRate = fault.New(fault.Limited, "request_rate", "Too many requests, try again later.")

type (
	userKey    struct{ appID, openID string }
	addressKey = netip.Prefix
)

// limiter holds a token bucket for every caller. A bucket is one number, the
// time at which it is full again (the generic cell rate algorithm); one that
// is full already needs none.
type limiter[K comparable] struct {
	each  time.Duration // what one request costs
	burst time.Duration // what may be used up in advance

	mu    sync.Mutex
	full  map[K]time.Time
	swept time.Time
	limit int
}

// newLimiter returns nil where rate, in requests per second, is 0.
func newLimiter[K comparable](rate float64, burst int) *limiter[K] {
	if rate == 0 {
		return nil
	}
	each := time.Duration(float64(time.Second) / rate)
	return &limiter[K]{each: each, burst: each * time.Duration(burst-1), full: map[K]time.Time{}, limit: maxLimited}
}

// take returns how long k has to wait, 0 where its request is welcome.
func (l *limiter[K]) take(k K) time.Duration {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	full, there := l.full[k]
	if full.Before(now) {
		full = now
	}
	if wait := full.Sub(now) - l.burst; wait > 0 {
		return wait
	}
	if !there {
		l.makeRoom(now)
	}
	l.full[k] = full.Add(l.each)
	return 0
}

// makeRoom forgets whose bucket is full; and where there are too many others,
// any of them, which lets them off early.
func (l *limiter[K]) makeRoom(now time.Time) {
	crowded := len(l.full) >= l.limit
	if now.Sub(l.swept) < sweepPause && !crowded {
		return
	}
	l.swept = now
	for k, full := range l.full {
		if !now.Before(full) {
			delete(l.full, k)
		}
	}
	for k := range l.full {
		// Not just one, or every newcomer would have to look through all.
		if len(l.full) < l.limit-l.limit/8 || !crowded {
			return
		}
		delete(l.full, k)
	}
}

func (rt *route) limitAddress(ip string) error {
	if rt.addresses == nil {
		return nil
	}
	return rt.refuse("ip", rt.addresses.take(rest.Network(ip)))
}

// limitUserOf leaves alone who is nobody: the limit by address is for him.
func (rt *route) limitUserOf(s *auth.Session) error {
	if rt.users == nil || s == nil {
		return nil
	}
	return rt.refuse("user", rt.users.take(userKey{s.User.AppID, s.User.OpenID}))
}

func (rt *route) refuse(by string, wait time.Duration) error {
	if wait == 0 {
		return nil
	}
	rt.counts.limit(by)
	return errRequestRate.After(wait)
}
