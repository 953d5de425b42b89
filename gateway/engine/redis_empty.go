package engine

import (
	"context"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
)

// empties are the channels whose position this node has read although nothing
// was published to them yet. Redis forgets such an epoch soon, so that names
// that are merely tried do not fill it; for as long as the node hears the
// channel, somebody here relies on the epoch, and the node keeps it.
type empties struct {
	mu sync.Mutex
	m  map[string]struct{}
}

func (s *empties) add(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[string]struct{})
	}
	s.m[channel] = struct{}{}
}

// take returns all channels that pass; the others are forgotten.
func (s *empties) take(pass func(channel string) bool) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]string, 0, len(s.m))
	for channel := range s.m {
		if pass(channel) {
			list = append(list, channel)
		} else {
			delete(s.m, channel)
		}
	}
	return list
}

func (s *empties) remove(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, channel)
}

// keepEmpty prolongs the epochs of channels that are heard and were never
// published to. It calls between every now and then.
func (e *Redis) keepEmpty(ctx context.Context, between func() error) error {
	heard := e.empty.take(func(channel string) bool { return e.hearing().wants(e.keys.live(channel)) })
	for chunk := range slices.Chunk(heard, presenceChunk) {
		if err := between(); err != nil {
			return err
		}
		ops := make([]*op, len(chunk))
		cmds := make([]*redis.Cmd, len(chunk))
		for i, channel := range chunk {
			var c command
			c, cmds[i] = touchScript.eval([]string{e.keys.meta(channel)}, millis(e.timing.empty))
			ops[i] = &op{cmds: []command{c}}
			if err := e.lanes.of(c.key).put(ops[i]); err != nil {
				return err
			}
		}
		for i, o := range ops {
			if err := o.wait(ctx); err != nil {
				return err
			}
			if n, _ := cmds[i].Int(); n == 0 {
				e.empty.remove(chunk[i])
			}
		}
	}
	return nil
}
