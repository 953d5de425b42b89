package auth

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
)

const (
	tripsAtOnce = 4   // connections that lookups take at most
	tripSize    = 256 // callers that share a round trip
)

// trips joins what many callers ask of Redis at the same time in few round
// trips. When all phones come back at once each would else wait for a connection
// of its own, and so would everything that is not a lookup.
//
// There is no goroutine: whoever finds fewer than tripsAtOnce under way makes the
// next, for all that wait, and then calls one of those to go on.
type trips struct {
	client redis.UniversalClient

	mu      sync.Mutex
	waiting []*trip
	under   int // round trips under way
}

// trip is what one caller asks.
type trip struct {
	cmds []redis.Cmder
	turn chan bool // true: make the next round trip; false, the last: the commands are carried out

	called bool // true is in turn; guarded by trips.mu
}

// do carries commands out, in their order where one server has their keys. It
// returns ctx's error if it ends before; then nobody may look at the commands.
func (t *trips) do(ctx context.Context, cmds ...redis.Cmder) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	mine := &trip{cmds: cmds, turn: make(chan bool, 2)}
	t.mu.Lock()
	t.waiting = append(t.waiting, mine)
	lead := t.under < tripsAtOnce
	if lead {
		t.under++
	}
	t.mu.Unlock()
	for {
		if lead {
			t.lead(mine)
			t.pass()
		}
		select {
		case lead = <-mine.turn:
			if !lead {
				return nil
			}
		case <-ctx.Done():
			t.leave(mine)
			return ctx.Err()
		}
	}
}

// lead makes a round trip for those who have waited longest.
func (t *trips) lead(mine *trip) {
	t.mu.Lock()
	mine.called = false
	n := min(len(t.waiting), tripSize)
	batch := slices.Clone(t.waiting[:n])
	t.waiting = slices.Delete(t.waiting, 0, n)
	t.mu.Unlock()
	// Nobody's context: it must not cut off the others. The client's own
	// timeouts bound it.
	ctx := context.Background()
	_, _ = t.client.Pipelined(ctx, func(p redis.Pipeliner) error { // each command has its own error
		for _, o := range batch {
			for _, cmd := range o.cmds {
				_ = p.Process(ctx, cmd)
			}
		}
		return nil
	})
	for _, o := range batch {
		o.turn <- false
	}
}

// pass ends a round trip: the next in line makes another.
func (t *trips) pass() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, next := range t.waiting {
		if !next.called {
			next.called = true
			next.turn <- true
			return
		}
	}
	t.under--
}

// leave takes a caller out that waits no more, and passes on what it was called
// for.
func (t *trips) leave(mine *trip) {
	t.mu.Lock()
	t.waiting = slices.DeleteFunc(t.waiting, func(o *trip) bool { return o == mine })
	t.mu.Unlock()
	select {
	case lead := <-mine.turn:
		if lead {
			t.pass()
		}
	default:
	}
}

// failure is the first of what went wrong with commands, but for keys that do
// not exist.
func failure(cmds ...redis.Cmder) error {
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
	}
	return nil
}
