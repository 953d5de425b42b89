package webhook

import (
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/fault"
)

const (
	breakAfter = 5 // failures in a row
	breakFor   = 5 * time.Second
)

// breaker spares a backend that keeps failing, and its callers the wait: after
// breakAfter failures in a row nobody is let through for breakFor, then one
// probe at a time until one succeeds.
type breaker struct {
	mu       sync.Mutex
	failures int
	until    time.Time
	probing  bool

	open           prometheus.Gauge // 1 from breakAfter failures until a success
	worked, failed time.Time        // last
	reason         string           // of the last failure
}

type outcome uint8

const (
	answered outcome = iota // the backend is there, whatever it said
	failed
	unknown // the caller left before it could be seen
)

// enter lets a caller through, or tells how long to wait.
func (b *breaker) enter(now time.Time) (probe bool, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.failures < breakAfter:
		return false, 0
	case now.Before(b.until):
		return false, b.until.Sub(now)
	case b.probing:
		return false, time.Second
	}
	b.probing = true
	return true, 0
}

// leave is called once by everybody who was let through.
func (b *breaker) leave(probe bool, o outcome, now time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	b.note(o, now, err)
	switch o {
	case answered:
		b.failures = 0
		b.open.Set(0)
	case failed:
		if b.failures++; b.failures >= breakAfter {
			b.until = now.Add(breakFor)
			b.open.Set(1)
		}
	}
}

// note keeps what operators are shown; mu is held.
func (b *breaker) note(o outcome, now time.Time, err error) {
	switch {
	case o == unknown:
	case err == nil:
		b.worked = now
	default:
		why := fault.Of(err)
		b.failed, b.reason = now, why.Code+": "+why.Msg
		if status, ok := errors.AsType[statusError](err); ok {
			b.reason = why.Code + ": " + status.Error()
		}
	}
}
