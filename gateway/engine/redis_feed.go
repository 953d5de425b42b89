package engine

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	feedBatch   = 512 // channels in one SUBSCRIBE
	ackTimeout  = 5 * time.Second
	minBackoff  = 50 * time.Millisecond
	maxBackoff  = 2 * time.Second
	steadyAfter = 10 * time.Second // a connection that lived so long resets the back-off
)

var (
	errSilent     = errors.New("pub/sub connection is silent")
	errReplaced   = errors.New("pub/sub connection was replaced")
	errUnanswered = errors.New("pub/sub subscription was not confirmed")
)

// feed keeps one pub/sub connection subscribed to what is wanted. A writer
// brings Redis up to date in batches, one at a time: what changes while one is
// being confirmed makes the next. After a reconnect everything wanted is new
// to the connection and goes the same way. A reader takes in what arrives.
//
// Something of our own must arrive every now and then: a beat to a key that
// was given to keep.
type feed struct {
	metrics *Metrics
	silence time.Duration // longest time without any message
	open    func(context.Context) *redis.PubSub
	receive func(*redis.Message)
	resumed func(keys []string) // messages to these may have been missed
	renewed func()              // the connection was lost and stands again
	shard   *shardFeed          // nil: plain pub/sub

	mu      sync.Mutex
	wanted  map[string]*wish
	changed map[string]struct{} // wanted or unwanted since the writer looked
	down    error               // why the last attempt to connect failed
	tried   chan struct{}       // closed when the first attempt is over
	once    sync.Once
	wake    chan struct{}
}

// wish is a channel that somebody subscribed to. done is closed when Redis
// confirmed it for the first time, or when it failed and err is set.
type wish struct {
	done      chan struct{}
	err       error
	confirmed bool
	kept      bool // our own: it stays whatever happens
}

func newFeed(m *Metrics) *feed {
	return &feed{
		metrics: m,
		renewed: func() {},
		wanted:  make(map[string]*wish),
		changed: make(map[string]struct{}),
		wake:    make(chan struct{}, 1),
		tried:   make(chan struct{}),
	}
}

// keep wants key for as long as the feed lives.
func (f *feed) keep(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted[key] = &wish{done: make(chan struct{}), kept: true}
	f.change(key)
}

// subscribe returns when Redis has confirmed key.
func (f *feed) subscribe(ctx context.Context, key string) error {
	w, err := f.want(key)
	if err != nil {
		return err
	}
	return w.await(ctx, func() { f.unsubscribe(key) })
}

// want notes that key is wanted, unless that is in vain now.
func (f *feed) want(key string) (*wish, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.wanted[key]
	if w == nil {
		if f.down != nil {
			return nil, errAway.Because(f.down)
		}
		w = &wish{done: make(chan struct{})}
		f.wanted[key] = w
		f.change(key)
	}
	return w, nil
}

func (w *wish) await(ctx context.Context, giveUp func()) error {
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		giveUp()
		return ctx.Err()
	}
}

// unsubscribe forgets key at once; Redis hears of it a little later.
func (f *feed) unsubscribe(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.wanted[key]
	if w == nil {
		return
	}
	delete(f.wanted, key)
	f.change(key)
	if !w.confirmed {
		w.err = errAway
		close(w.done)
	}
}

// confirmed lists what Redis has confirmed at some time.
func (f *feed) confirmed() (keys []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, w := range f.wanted {
		if w.confirmed {
			keys = append(keys, key)
		}
	}
	return keys
}

func (f *feed) wants(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wanted[key] != nil
}

// change notes key for the writer. The caller holds mu.
func (f *feed) change(key string) {
	f.changed[key] = struct{}{}
	f.nudge()
}

func (f *feed) nudge() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// health is nil while a connection stands.
func (f *feed) health() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.down
}

// run holds a connection until ctx ends.
func (f *feed) run(ctx context.Context) {
	backoff := minBackoff
	for {
		began := time.Now()
		err := f.session(ctx)
		if ctx.Err() != nil {
			f.fail(errStopped)
			return
		}
		f.metrics.reconnects.Inc()
		if f.fail(errAway.Because(err)) {
			slog.Warn("redis pub/sub not connected, retrying", "err", err)
		}
		if f.shard != nil {
			f.shard.suspect() // its master may have been replaced
		}
		if time.Since(began) > steadyAfter {
			backoff = minBackoff
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff/2 + rand.N(backoff)):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// fail ends the wait of those whose wish is not confirmed, and tells whether
// the connection was up before.
func (f *feed) fail(err error) (wasUp bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.over()
	wasUp = f.down == nil
	f.down = err
	for key, w := range f.wanted {
		if !w.confirmed && !w.kept {
			w.err = err
			close(w.done)
			delete(f.wanted, key)
		}
	}
	return wasUp
}

// over lets those go on who wait for the first attempt to connect.
func (f *feed) over() { f.once.Do(func() { close(f.tried) }) }

// connected marks everything wanted as new to the connection.
func (f *feed) connected() {
	f.mu.Lock()
	for key := range f.wanted {
		f.changed[key] = struct{}{}
	}
	f.mu.Unlock()
}

// up lets new wishes in, once the first of what is wanted was confirmed.
func (f *feed) up() {
	f.mu.Lock()
	again := f.down != nil
	f.down = nil
	f.mu.Unlock()
	f.over()
	if again {
		slog.Info("redis pub/sub connection restored")
		f.renewed()
	}
}

// next picks changes that Redis has not heard of, those of our own first.
func (f *feed) next(active map[string]struct{}, ours bool) (subs, unsubs []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.changed {
		w := f.wanted[key]
		if ours && (w == nil || !w.kept) {
			continue
		}
		_, isActive := active[key]
		owned := f.shard == nil || f.shard.owns(key)
		switch {
		case !owned: // told to another master, or once we know to which
			delete(active, key)
		case w != nil && !isActive:
			subs = append(subs, key)
		case w == nil && isActive:
			unsubs = append(unsubs, key)
		case w != nil:
			f.confirm(key) // unwanted and wanted again before Redis heard of it
		}
		delete(f.changed, key)
		if len(subs)+len(unsubs) == feedBatch {
			break
		}
	}
	return subs, unsubs
}

// settle tells the subscribers that Redis has confirmed keys. Those that had
// been confirmed on an earlier connection may have missed messages.
func (f *feed) settle(keys []string) {
	var resumed []string
	f.mu.Lock()
	for _, key := range keys {
		if f.confirm(key) {
			resumed = append(resumed, key)
		}
	}
	f.mu.Unlock()
	if len(resumed) > 0 {
		f.resumed(resumed)
	}
}

// confirm tells whether key had been confirmed before. The caller holds mu.
func (f *feed) confirm(key string) (before bool) {
	w := f.wanted[key]
	if w == nil {
		return false
	}
	if !w.confirmed {
		w.confirmed = true
		close(w.done)
		return false
	}
	return true
}
