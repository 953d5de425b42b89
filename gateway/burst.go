package gateway

import (
	"context"
	"time"
)

const (
	burstLook  = 500 * time.Millisecond
	burstRate  = 100              // connections between two looks that are a burst
	burstSize  = 5000             // connections of a burst that leaves enough to be worth an end: 100 MB, collected in part
	burstQuiet = 2                // looks without so many that end it: one may be a stall
	burstPause = 10 * time.Second // between the ends of two bursts
)

// burst notices when very many connections came at once, and no more do. Only
// the clock uses it.
type burst struct {
	looked time.Duration
	total  uint64        // connections by then, since the start
	size   uint64        // connections of the burst under way
	quiet  int           // looks since it was seen
	next   time.Duration // no burst ends before
}

// look is told how many connections have come since the start, and reports
// whether a burst is over.
func (b *burst) look(now time.Duration, total uint64) (over bool) {
	if now-b.looked < burstLook {
		return false
	}
	came := total - b.total
	b.looked, b.total = now, total
	switch {
	case came >= burstRate:
		b.size, b.quiet = b.size+came, 0
	case b.size < burstSize:
		b.size = 0
	case now < b.next:
	default:
		if b.quiet++; b.quiet < burstQuiet {
			return false
		}
		b.size, b.next = 0, now+burstPause
		return true
	}
	return false
}

// rest has Options.Calm called after bursts.
func (h *Hub) rest(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.calm:
			h.onCalm()
		}
	}
}
