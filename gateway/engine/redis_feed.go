package engine

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
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
type feed struct {
	client  redis.UniversalClient
	metrics *Metrics
	inbox   string        // always subscribed; a beat must come through it
	silence time.Duration // longest time between beats
	receive func(*redis.Message)
	resumed func(keys []string) // messages to these may have been missed
	renewed func()              // the connection was lost and stands again

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
}

func newFeed(client redis.UniversalClient, m *Metrics) *feed {
	return &feed{
		client: client, metrics: m,
		wanted:  make(map[string]*wish),
		changed: make(map[string]struct{}),
		wake:    make(chan struct{}, 1),
		tried:   make(chan struct{}),
	}
}

// subscribe returns when Redis has confirmed key.
func (f *feed) subscribe(ctx context.Context, key string) error {
	f.mu.Lock()
	w := f.wanted[key]
	if w == nil {
		if f.down != nil {
			defer f.mu.Unlock()
			return errAway.Because(f.down)
		}
		w = &wish{done: make(chan struct{})}
		f.wanted[key] = w
		f.change(key)
	}
	f.mu.Unlock()
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		f.unsubscribe(key)
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

func (f *feed) wants(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wanted[key] != nil
}

// change notes key for the writer. The caller holds mu.
func (f *feed) change(key string) {
	f.changed[key] = struct{}{}
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
		if !w.confirmed {
			w.err = err
			close(w.done)
			delete(f.wanted, key)
		}
	}
	return wasUp
}

// over lets those go on who wait for the first attempt to connect.
func (f *feed) over() { f.once.Do(func() { close(f.tried) }) }

// session is the life of one connection.
type session struct {
	feed    *feed
	pubsub  *redis.PubSub
	active  map[string]struct{} // what Redis has confirmed on this connection
	waiting atomic.Int64        // confirmations on their way
	acked   chan struct{}       // the last of them came
	lastRx  atomic.Int64        // when the inbox last got something, Unix ns
	ended   chan struct{}       // the reader has returned
	err     error               // why, set before ended is closed
}

// session connects, and returns why the connection ended. The caller's ctx
// ends it too.
func (f *feed) session(ctx context.Context) error {
	s := &session{
		feed:   f,
		pubsub: f.client.Subscribe(ctx),
		active: make(map[string]struct{}),
		acked:  make(chan struct{}, 1),
		ended:  make(chan struct{}),
	}
	s.waiting.Store(1)
	if err := s.pubsub.Subscribe(ctx, f.inbox); err != nil {
		_ = s.pubsub.Close() // the first error says it all
		return err
	}
	go s.read(ctx)
	err := s.write(ctx)
	_ = s.pubsub.Close() // unblocks the reader
	<-s.ended
	if err == nil {
		err = s.err
	}
	return err
}

// read takes in messages until the connection fails. go-redis reconnects a
// broken one behind our back and says nothing; a second confirmation of the
// inbox gives that away, and we start over, since messages may be missing.
func (s *session) read(ctx context.Context) {
	defer close(s.ended)
	inboxes := 0
	for {
		m, err := s.pubsub.Receive(ctx)
		if err != nil {
			s.err = err
			return
		}
		switch m := m.(type) {
		case *redis.Message:
			if m.Channel == s.feed.inbox {
				s.lastRx.Store(time.Now().UnixNano())
			}
			s.feed.receive(m)
		case *redis.Subscription:
			if m.Channel == s.feed.inbox {
				inboxes++
			}
			if inboxes > 1 {
				s.err = errReplaced
				return
			}
			if s.waiting.Add(-1) == 0 {
				s.acked <- struct{}{}
			}
		}
	}
}

// write keeps Redis up to date until the connection fails or falls silent.
func (s *session) write(ctx context.Context) error {
	if err := s.confirmed(ctx); err != nil {
		return err
	}
	s.lastRx.Store(time.Now().UnixNano())
	s.feed.connected()
	check := time.NewTicker(s.feed.silence / 4)
	defer check.Stop()
	for {
		subs, unsubs := s.feed.next(s.active)
		if len(subs)+len(unsubs) > 0 {
			if err := s.update(ctx, subs, unsubs); err != nil {
				return err
			}
			continue
		}
		select {
		case <-s.feed.wake:
		case <-check.C:
			if time.Since(time.Unix(0, s.lastRx.Load())) > s.feed.silence {
				return errSilent
			}
		case <-s.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// update makes one round trip of subscriptions.
func (s *session) update(ctx context.Context, subs, unsubs []string) error {
	s.waiting.Store(int64(len(subs) + len(unsubs)))
	if len(unsubs) > 0 { // none would mean all
		if err := s.pubsub.Unsubscribe(ctx, unsubs...); err != nil {
			return err
		}
	}
	if len(subs) > 0 {
		if err := s.pubsub.Subscribe(ctx, subs...); err != nil {
			return err
		}
	}
	if err := s.confirmed(ctx); err != nil {
		return err
	}
	for _, key := range unsubs {
		delete(s.active, key)
	}
	for _, key := range subs {
		s.active[key] = struct{}{}
	}
	s.feed.settle(subs)
	return nil
}

// confirmed waits until Redis has answered all that was sent.
func (s *session) confirmed(ctx context.Context) error {
	timer := time.NewTimer(ackTimeout)
	defer timer.Stop()
	select {
	case <-s.acked:
		return nil
	case <-timer.C:
		return errUnanswered
	case <-s.ended:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connected marks everything wanted as new to the connection.
func (f *feed) connected() {
	f.mu.Lock()
	again := f.down != nil
	f.down = nil
	for key := range f.wanted {
		f.changed[key] = struct{}{}
	}
	f.mu.Unlock()
	f.over()
	if again {
		slog.Info("redis pub/sub connection restored")
		f.renewed()
	}
}

// next picks changes that Redis has not heard of.
func (f *feed) next(active map[string]struct{}) (subs, unsubs []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.changed {
		_, isActive := active[key]
		switch isWanted := f.wanted[key] != nil; {
		case isWanted && !isActive:
			subs = append(subs, key)
		case !isWanted && isActive:
			unsubs = append(unsubs, key)
		case isWanted:
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
