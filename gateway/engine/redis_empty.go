package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// empties are the channels whose position this node has read although nothing
// was published to them yet. Redis forgets such an epoch soon unless a reader
// asked to keep it, so that names that are merely tried do not fill it; for as
// long as the node hears the channel, somebody here relies on the epoch, and
// the node prolongs it.
type empties struct {
	mu sync.Mutex
	m  map[string]emptiness
}

type emptiness struct {
	ttl time.Duration // of the epoch
	due time.Time     // when it is prolonged next
}

// add notes a channel whose epoch was just given at least ttl to live.
func (s *empties) add(channel string, ttl time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[string]emptiness)
	}
	ttl = max(ttl, s.m[channel].ttl)
	s.m[channel] = emptiness{ttl, time.Now().Add(ttl / 4)}
}

// take returns the channels that are due and pass; those that do not pass are
// forgotten.
func (s *empties) take(pass func(channel string) bool) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var list []string
	for channel, e := range s.m {
		switch {
		case !pass(channel):
			delete(s.m, channel)
		case !now.Before(e.due):
			list = append(list, channel)
		}
	}
	return list
}

// remove forgets a channel, and tells how long its epoch was to live.
func (s *empties) remove(channel string) (ttl time.Duration, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, known := s.m[channel]
	delete(s.m, channel)
	return e.ttl, known
}

func (s *empties) ttl(channel string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[channel].ttl
}

// keepEmpty prolongs the epochs of channels that are heard and were never
// published to. It calls between every now and then.
func (e *Redis) keepEmpty(ctx context.Context, between func() error) error {
	due := e.empty.take(func(channel string) bool { return e.hearing().wants(e.keys.live(channel)) })
	for chunk := range slices.Chunk(due, presenceChunk) {
		if err := between(); err != nil {
			return err
		}
		ops := make([]*op, len(chunk))
		cmds := make([]*redis.Cmd, len(chunk))
		for i, channel := range chunk {
			var err error
			if ops[i], cmds[i], err = e.touchEmpty(channel, e.empty.ttl(channel)); err != nil {
				return err
			}
		}
		for i, o := range ops {
			if err := o.wait(ctx); err != nil {
				return err
			}
			if n, _ := cmds[i].Int(); n == 0 {
				e.empty.remove(chunk[i])
			} else {
				e.empty.add(chunk[i], 0)
			}
		}
	}
	return nil
}

// leaveEmpty is the end of hearing a channel: from now on the epoch lives for
// as long as its readers asked.
func (e *Redis) leaveEmpty(channel string) {
	if ttl, known := e.empty.remove(channel); known {
		_, _, _ = e.touchEmpty(channel, ttl) // failing that, it was prolonged not long ago
	}
}

// touchEmpty queues the prolonging of one epoch.
func (e *Redis) touchEmpty(channel string, ttl time.Duration) (*op, *redis.Cmd, error) {
	c, cmd := touchScript.eval([]string{e.keys.meta(channel)}, millis(ttl))
	o := &op{cmds: []command{c}}
	return o, cmd, e.lanes.of(c.key).put(o)
}
