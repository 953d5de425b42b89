package gateway

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/minigate/minigate/gateway/engine"
)

const (
	refillWorkers = 4
	checkWorkers  = 4
	retireWorkers = 4
	// How many position checks may be under way: they are in no hurry.
	positionWorkers = 2
)

// refillPauses are how long to wait after each failed refill.
var refillPauses = [...]time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}

// refill repairs channels that missed something. A channel whose history is
// away waits its turn aside, not in a worker.
func (h *Hub) refill(ctx context.Context) {
	for {
		ch, ok := h.refills.pop()
		if !ok {
			return
		}
		err := h.refillOnce(ctx, ch)
		if err == nil || h.retryRefill(ch) {
			continue
		}
		slog.Warn("missed publications cannot be read", "channel", ch.name, "error", err)
		ch.giveUp()
	}
}

func (h *Hub) refillOnce(ctx context.Context, ch *channel) error {
	ctx, cancel := context.WithTimeout(ctx, h.settings.Client.RequestTimeout)
	defer cancel()
	return ch.refillFrom(ctx, h.engine)
}

// retryRefill has a refill tried again later; false says that it was tried
// often enough.
func (h *Hub) retryRefill(ch *channel) bool {
	ch.mu.Lock()
	ch.open()
	n := ch.tries
	ch.tries++
	ch.mu.Unlock()
	if n >= len(refillPauses) {
		return false
	}
	h.retries.add(ch, h.now()+refillPauses[n])
	return true
}

// retries holds channels until their refill is tried again. It is empty but in
// trouble, so a list does.
type retries struct {
	mu   sync.Mutex
	list []retry
}

type retry struct {
	ch *channel
	at time.Duration
}

func (r *retries) add(ch *channel, at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, retry{ch, at})
}

// due hands over what waited long enough.
func (r *retries) due(now time.Duration, to *queue[*channel]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) == 0 {
		return
	}
	left := r.list[:0]
	for _, e := range r.list {
		if now >= e.at {
			to.push(e.ch)
		} else {
			left = append(left, e)
		}
	}
	clear(r.list[len(left):])
	if r.list = left; len(left) == 0 {
		r.list = nil
	}
}

// sweep looks after the channels of one shard. The clock calls it for one
// shard after the other, so that all are seen every six seconds or so and what
// they need comes spread over time.
func (h *Hub) sweep(shard int, buf []*channel) []*channel {
	now := h.now()
	buf = h.channels.shards[shard].list(buf)
	for _, ch := range buf {
		ch.sweep(now)
	}
	clear(buf)
	return buf
}

// backlogAge is how long messages stay for connections that are behind: longer
// than a write may take, after which such a connection is given up anyway.
const backlogAge = 15 * time.Second

// sweep drops what is old and asks for what is due.
func (ch *channel) sweep(now time.Duration) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.traffic != nil {
		ch.log.expire(now - backlogAge)
		if len(ch.tail.pubs) > 0 && now >= ch.tail.until {
			ch.tail.reset()
		}
	}
	if !ch.retiring && ch.lingered(now) {
		ch.retiring = true
		ch.hub.retired.push(ch)
	}
	delay := ch.hub.settings.Client.PositionCheckDelay
	if delay > 0 && ch.positioned > 0 && !ch.checking && !ch.lost && ch.top.Epoch != "" && now-ch.verified.duration() > delay+ch.jitter(delay/4) {
		ch.checking = true
		ch.hub.positions.push(ch)
	}
}

// jitter spreads the position checks of channels: it is less than limit, and
// each has its own.
func (ch *channel) jitter(limit time.Duration) time.Duration {
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio: multiples of it spread evenly
	return time.Duration(float64(uint64(ch.id)*golden>>11) / (1 << 53) * float64(limit))
}

func (h *Hub) retireChannels() {
	for {
		ch, ok := h.retired.pop()
		if !ok {
			return
		}
		ctx, cancel := h.timeout()
		if err := h.retire(ctx, ch); err != nil {
			slog.Debug("engine did not unsubscribe", "channel", ch.name, "error", err)
		}
		cancel()
	}
}

// checkResult is what a position check found.
type checkResult uint8

const (
	checkFine checkResult = iota
	checkRepaired
	checkLost
	checkFailed
	checkResults
)

var checkResultNames = [checkResults]string{"fine", "behind", "lost", "failed"}

// checkPositions asks the engine where streams stand of which nothing was
// heard for a while: a delivery may have been lost without a trace.
func (h *Hub) checkPositions(ctx context.Context) {
	ch, ok := h.positions.pop()
	for ok {
		ch, ok = h.checkSome(ctx, ch)
	}
}

// checkSome checks ch and those that come within request_timeout, which each of
// them may take at least, and returns the one behind them. A context for each was
// more than half of what idle connections left to the garbage collector.
func (h *Hub) checkSome(ctx context.Context, ch *channel) (next *channel, ok bool) {
	timeout := h.settings.Client.RequestTimeout
	ctx, cancel := context.WithTimeout(ctx, 2*timeout)
	defer cancel()
	for until := h.now() + timeout; ; {
		h.metrics.checks[ch.check(ctx)].Inc()
		if ch, ok = h.positions.pop(); !ok || h.now() >= until {
			return ch, ok
		}
	}
}

// check is one look for all subscribers of the channel on this node.
func (ch *channel) check(ctx context.Context) checkResult {
	ch.mu.RLock()
	before, keep := ch.top, ch.kept.duration()
	ch.mu.RUnlock()
	ch.hub.metrics.reads[readCheck].Inc()
	_, top, err := ch.hub.engine.History(ctx, ch.name, engine.HistoryQuery{MetaTTL: ch.rules.HistoryMetaTTL, Keep: keep})
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.checking = false
	if err != nil {
		ch.verified = ticksDown(ch.hub.now()) // not known, but asking on and on helps nobody
		return checkFailed
	}
	res := ch.learn(before, top, nil)
	if res == checkRepaired {
		ch.refill()
	}
	return res
}
