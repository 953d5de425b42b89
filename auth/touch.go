package auth

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/minigate/minigate/internal/rest"
)

const (
	touchDelay = time.Second      // how long a session that was used waits for others to be written with
	touchRetry = 10 * time.Second // how long after a write that did not work
	touchBatch = 1000             // sessions in one write, so that logins get their turn in between
	maxTouched = 10_000           // sessions that wait
)

// touched are sessions to be written anew. Each socket's session is, every ten
// minutes, and a write for each by itself would be a wait for the disk for each:
// thirty a second on a node with 19,000 idle sockets.
type touched struct {
	mu   sync.Mutex
	list map[Fingerprint]*Session
	news chan struct{} // has one while there are some
}

func newTouched() *touched {
	return &touched{list: make(map[Fingerprint]*Session), news: make(chan struct{}, 1)}
}

// add reports whether there was room.
func (t *touched) add(s *Session) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.list[s.Fingerprint] == nil && len(t.list) >= maxTouched {
		return false
	}
	t.list[s.Fingerprint] = s
	t.call()
	return true
}

// back takes what could not be written, but for what was used again meanwhile or
// has ended.
func (t *touched) back(list []*Session, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range list {
		if t.list[s.Fingerprint] == nil && len(t.list) < maxTouched && now.Before(s.Expires) {
			t.list[s.Fingerprint] = s
			t.call()
		}
	}
}

// call wakes the writer; mu is held.
func (t *touched) call() {
	select {
	case t.news <- struct{}{}:
	default:
	}
}

// take empties it. What lies next to each other in the store is next to each
// other in the result.
func (t *touched) take() []*Session {
	t.mu.Lock()
	list := make([]*Session, 0, len(t.list))
	for _, s := range t.list {
		list = append(list, s)
	}
	clear(t.list)
	t.mu.Unlock()
	slices.SortFunc(list, func(a, b *Session) int { return slices.Compare(a.Fingerprint[:], b.Fingerprint[:]) })
	return list
}

// slide moves a session's expiry, and notes when and where it was last seen,
// where that is worth a write: after a hundredth of its lifetime, but between
// one and ten minutes. That is written with others, and a crash takes what was
// not yet; the next use makes up for it, since what may end before that is
// written at once.
func (s *Service) slide(ctx context.Context, ses *Session) *Session {
	ttl, now := s.settings.TTL, time.Now()
	step := min(max(ttl/100, time.Minute), ttl/10, 10*time.Minute)
	if now.Sub(ses.LastSeen) < step {
		return ses
	}
	seen := *ses
	seen.LastSeen, seen.Expires = now, s.expiry(ses.Created, now)
	seen.IP = ""
	if s.settings.StoreIP {
		seen.IP = cmp.Or(rest.ClientIP(ctx), ses.IP)
	}
	if !endsSoon(ses.Expires.Sub(now), ttl) && s.touched.add(&seen) {
		return &seen
	}
	if err := s.store.Touch(ctx, []*Session{&seen}); err != nil {
		slog.WarnContext(ctx, "a session in use was not extended", "openid", ses.User.OpenID, "error", err)
		return ses
	}
	return &seen
}

// endsSoon tells whether a session with so much time left may end before it is
// used again. More than a minute is left where it does not: sessions are
// remembered for no longer than that (session.verify_cache), so nobody takes for
// alive what the store has let go.
func endsSoon(left, ttl time.Duration) bool {
	return left < max(time.Minute, min(ttl/2, time.Hour))
}

// writeTouched writes what slide leaves to it, until ctx ends and then for the
// last time.
func (s *Service) writeTouched(ctx context.Context) {
	pause := touchDelay
	for over := false; !over; {
		select {
		case <-ctx.Done():
		case <-s.touched.news:
		}
		select {
		case <-ctx.Done():
			over = true
		case <-time.After(pause):
		}
		pause = touchDelay
		if failed, err := s.touch(context.WithoutCancel(ctx), s.touched.take()); err != nil {
			slog.WarnContext(ctx, "sessions in use are not extended yet", "sessions", len(failed), "error", err)
			s.touched.back(failed, time.Now())
			pause = touchRetry
		}
	}
}

// touch writes sessions anew, and returns those it could not write. One that
// cannot be written does not keep the others waiting behind it.
func (s *Service) touch(ctx context.Context, list []*Session) (failed []*Session, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout) // for all, since the end of the node waits for it
	defer cancel()
	for part := range slices.Chunk(list, touchBatch) {
		if wrong := s.store.Touch(ctx, part); wrong != nil {
			failed, err = append(failed, part...), wrong
		}
	}
	return failed, err
}
