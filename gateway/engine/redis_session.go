package engine

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// session is the life of one connection.
type session struct {
	feed   *feed
	pubsub *redis.PubSub
	active map[string]struct{} // what Redis has confirmed on this connection; the writer's
	heard  atomic.Bool         // a message came since the writer looked
	ended  chan struct{}       // the reader has returned
	err    error               // why, set before ended is closed

	mu      sync.Mutex
	pending map[string]bool // confirmations on their way; false: it will not be
	acked   chan struct{}   // the last of them came
}

// session connects, and returns why the connection ended. The caller's ctx
// ends it too.
func (f *feed) session(ctx context.Context) error {
	s := &session{
		feed:    f,
		pubsub:  f.open(ctx),
		active:  make(map[string]struct{}),
		pending: make(map[string]bool),
		acked:   make(chan struct{}, 1),
		ended:   make(chan struct{}),
	}
	f.connected()
	first, _ := f.next(s.active, true)
	if err := s.send(ctx, first, nil); err != nil {
		_ = s.pubsub.Close() // the first error says it all
		return err
	}
	go s.read(ctx)
	err := s.write(ctx, first)
	_ = s.pubsub.Close() // unblocks the reader
	<-s.ended
	if err == nil {
		err = s.err
	}
	return err
}

// read takes in messages until the connection fails. go-redis reconnects a
// broken one behind our back and says nothing; a confirmation that nobody
// waits for gives that away, and we start over, since messages may be missing.
func (s *session) read(ctx context.Context) {
	defer close(s.ended)
	for {
		m, err := s.pubsub.Receive(ctx)
		if err != nil {
			if s.moved(err) {
				continue
			}
			s.err = err
			return
		}
		switch m := m.(type) {
		case *redis.Message:
			s.heard.Store(true)
			s.feed.receive(m)
		case *redis.Subscription:
			if s.confirmed(m.Channel) {
				continue
			}
			if m.Kind != "sunsubscribe" {
				s.err = errReplaced
				return
			}
			s.feed.shard.lost(s.feed.shard.keys.partitionOf(m.Channel)) // its slot has moved
		}
	}
}

// moved handles the answer to an SSUBSCRIBE for a slot that another master
// has: "MOVED 3999 127.0.0.1:6381".
func (s *session) moved(err error) bool {
	shard := s.feed.shard
	if _, ok := redis.IsMovedError(err); !ok || shard == nil {
		return false
	}
	_, rest, _ := strings.Cut(err.Error(), "MOVED ")
	number, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		return false
	}
	s.mu.Lock()
	for key := range s.pending {
		if slot(key) == n {
			s.pending[key] = false
		}
	}
	s.mu.Unlock()
	shard.lostSlot(n)
	s.checkAcked()
	return true
}

// confirmed files a confirmation, and tells whether it was waited for.
func (s *session) confirmed(key string) bool {
	s.mu.Lock()
	_, ok := s.pending[key]
	if ok {
		delete(s.pending, key)
	}
	s.mu.Unlock()
	if ok {
		s.checkAcked()
	}
	return ok
}

func (s *session) checkAcked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, comes := range s.pending {
		if comes {
			return
		}
	}
	select {
	case s.acked <- struct{}{}:
	default:
	}
}

// write keeps Redis up to date until the connection fails or falls silent.
func (s *session) write(ctx context.Context, first []string) error {
	if err := s.settle(ctx, first, nil); err != nil {
		return err
	}
	s.feed.up()
	last := time.Now()
	check := time.NewTicker(s.feed.silence / 4)
	defer check.Stop()
	for {
		subs, unsubs := s.feed.next(s.active, false)
		if len(subs)+len(unsubs) > 0 {
			if err := s.send(ctx, subs, unsubs); err != nil {
				return err
			}
			if err := s.settle(ctx, subs, unsubs); err != nil {
				return err
			}
			continue
		}
		select {
		case <-s.feed.wake:
		case <-check.C:
			if s.heard.Swap(false) {
				last = time.Now()
			} else if time.Since(last) > s.feed.silence {
				return errSilent
			}
		case <-s.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send asks for subscriptions.
func (s *session) send(ctx context.Context, subs, unsubs []string) error {
	s.mu.Lock()
	clear(s.pending)
	for _, key := range subs {
		s.pending[key] = true
	}
	for _, key := range unsubs {
		s.pending[key] = true
	}
	select {
	case <-s.acked: // of the round before
	default:
	}
	s.mu.Unlock()
	subscribe, unsubscribe := s.pubsub.Subscribe, s.pubsub.Unsubscribe
	if s.feed.shard != nil {
		subscribe, unsubscribe = s.pubsub.SSubscribe, s.pubsub.SUnsubscribe
	}
	for _, group := range s.groups(unsubs) {
		if err := unsubscribe(ctx, group...); err != nil {
			return err
		}
	}
	for _, group := range s.groups(subs) {
		if err := subscribe(ctx, group...); err != nil {
			return err
		}
	}
	return nil
}

// groups splits keys into what one command may carry: of shard channels, those
// of one slot.
func (s *session) groups(keys []string) [][]string {
	switch {
	case len(keys) == 0:
		return nil
	case s.feed.shard == nil:
		return [][]string{keys}
	}
	bySlot := make(map[int][]string)
	for _, key := range keys {
		n := slot(key)
		bySlot[n] = append(bySlot[n], key)
	}
	groups := make([][]string, 0, len(bySlot))
	for _, group := range bySlot {
		groups = append(groups, group)
	}
	return groups
}

// settle waits until Redis has answered all that was sent, and passes it on.
func (s *session) settle(ctx context.Context, subs, unsubs []string) error {
	if len(subs)+len(unsubs) == 0 {
		return nil
	}
	timer := time.NewTimer(ackTimeout)
	defer timer.Stop()
	select {
	case <-s.acked:
	case <-timer.C:
		return errUnanswered
	case <-s.ended:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, key := range unsubs {
		delete(s.active, key)
	}
	s.mu.Lock()
	confirmed := make([]string, 0, len(subs))
	for _, key := range subs {
		if _, refused := s.pending[key]; !refused {
			s.active[key] = struct{}{}
			confirmed = append(confirmed, key)
		}
	}
	s.mu.Unlock()
	s.feed.settle(confirmed)
	return nil
}
