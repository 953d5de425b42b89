package engine

import (
	"context"
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"sync/atomic"

	"github.com/minigate/minigate/internal/fault"
)

var (
	// errStopped answers calls that come after Run has ended.
	errStopped = fault.New(fault.Unavailable, "engine_stopped", "This node is shutting down.")

	errTwice = errors.New("engine: Run called twice")
)

// life makes the methods of an engine wait for Run and refuse after it.
type life struct {
	taken    atomic.Bool
	started  chan struct{}
	stopped  chan struct{}
	receiver Receiver // set by claim
}

func newLife() life {
	return life{started: make(chan struct{}), stopped: make(chan struct{})}
}

// claim makes the caller the one Run.
func (l *life) claim(r Receiver) error {
	if !l.taken.CompareAndSwap(false, true) {
		return errTwice
	}
	l.receiver = r
	return nil
}

// begin lets the other methods in.
func (l *life) begin() { close(l.started) }

func (l *life) end() { close(l.stopped) }

// wait returns the receiver as soon as Run has started.
func (l *life) wait(ctx context.Context) (Receiver, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-l.started: // nearly always: a ctx that is not waited for costs less
	default:
		select {
		case <-l.started:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if l.over() {
		return nil, errStopped
	}
	return l.receiver, nil
}

func (l *life) over() bool {
	select {
	case <-l.stopped:
		return true
	default:
		return false
	}
}

var hashSeed = maphash.MakeSeed()

// hash spreads channels over locks, lanes and workers of this process.
func hash(channel string) uint64 { return maphash.String(hashSeed, channel) }

// newEpoch names a stream: eight random letters. Two streams of one channel
// share a name once in 50 million million times.
func newEpoch() string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b := make([]byte, 8)
	for i := range b {
		b[i] = letters[rand.IntN(len(letters))]
	}
	return string(b)
}
