package gateway

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

var (
	errBlocked = errors.New("blocked")
	errAway    = fault.New(fault.Unavailable, "sessions_unavailable", "Away.")
	errEnded   = fault.New(fault.Unauthenticated, "token_expired", "Expired.")
)

// setBlock has the store of blocks answer for a user: nil, errBlocked, or
// errAway.
func (th *testHub) setBlock(user string, err error) { th.setToken("block of "+user, err) }

func (th *testHub) blockOf(_ context.Context, user string) (*auth.Block, error) {
	th.mu.Lock()
	defer th.mu.Unlock()
	err := th.sessions["block of "+user]
	if errors.Is(err, errBlocked) {
		return &auth.Block{}, nil
	}
	return nil, err
}

// A blocked user is kept out with a JWT as well.
func TestBlockedJWT(t *testing.T) {
	token := jwt(object{"sub": "bob"})
	t.Run("connects", func(t *testing.T) {
		h := startHub(t, withJWT)
		h.setBlock("bob", errBlocked)
		w := h.dial(dialOptions{})
		w.send(`{"id":1,"connect":{"token":"` + token + `"}}`)
		w.wantEnd(DisconnectBlocked)
		h.setBlock("", errBlocked)
		h.loginJWT(object{}) // nobody is nobody
		h.setBlock("bob", nil)
		h.loginJWT(object{"sub": "bob"})
	})
	t.Run("connects while the store is away", func(t *testing.T) {
		h := startHub(t, withJWT)
		h.setBlock("bob", errAway)
		w := h.dial(dialOptions{})
		w.send(`{"id":1,"connect":{"token":"` + token + `"}}`)
		w.want(`{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}`)
	})
	t.Run("refreshes", func(t *testing.T) {
		h := startHub(t, withJWT)
		w := h.loginJWT(object{"sub": "bob"})
		h.setBlock("bob", errBlocked)
		w.send(`{"id":2,"refresh":{"token":"` + token + `"}}`)
		w.wantEnd(DisconnectBlocked)
	})
	t.Run("between being asked for and being found", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := startHub(t, withJWT)
			before := h.blocked
			h.blocked = func(ctx context.Context, user string) (*auth.Block, error) {
				block, err := before(ctx, user)
				h.setBlock(user, errBlocked)
				h.EndUser(user, DisconnectBlocked)
				return block, err
			}
			w := h.loginJWT(object{"sub": "bob"})
			begin := time.Now()
			w.wantEnd(DisconnectBlocked)
			if took := time.Since(begin); took > time.Second {
				t.Errorf("closed after %v", took)
			}
		})
	})
}

// Where nobody told of a block, the next look at the connection finds it, and
// one that fails is soon followed by another.
func TestBlockFoundLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { withJWT(s); s.Client.PingInterval = 0 })
		w := h.loginJWT(object{"sub": "bob"})
		time.Sleep(time.Minute)
		h.setBlock("bob", errAway)
		time.Sleep(h.settings.Client.SessionCheckInterval)
		w.sync()
		h.setBlock("bob", errBlocked)
		begin := time.Now()
		w.wantEnd(DisconnectBlocked)
		if took := time.Since(begin); took > 2*checkRetry+time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

func TestEndUser(t *testing.T) {
	h := startHub(t, func(s *Settings) { withJWT(s); s.Client.UserConnectionLimit = 0 })
	one, _ := h.login("mg_alice")
	two, other := h.loginJWT(object{"sub": "mg_alice"}), h.loginJWT(object{"sub": "bob"})
	h.EndUser("mg_alice", DisconnectBlocked)
	one.wantEnd(DisconnectBlocked)
	two.wantEnd(DisconnectBlocked)
	other.sync()
}

// After messages were lost every session is verified again at once, however
// the connection began.
func TestVerifyAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { withJWT(s); s.Client.PingInterval = 0 })
		ended, _ := h.login("mg_ann")
		stays, _ := h.login("mg_bob")
		away, _ := h.login("mg_eve")
		blocked := h.loginJWT(object{"sub": "carol"})
		ticket := h.dial(dialOptions{query: "?ticket=ticket-alice"})
		ticket.send(`{"id":1,"connect":{}}`)
		ticket.want(`{"id":1,"connect":{"client":*}`)
		time.Sleep(time.Minute) // they were looked at, and will not be for minutes
		synctest.Wait()
		h.setToken("mg_ann", errEnded)
		h.setToken("alive", errEnded)
		h.setToken("mg_eve", errAway)
		h.setBlock("carol", errBlocked)

		begin := time.Now()
		h.VerifyAll()
		ended.wantEnd(DisconnectExpired)
		ticket.wantEnd(DisconnectExpired)
		blocked.wantEnd(DisconnectBlocked)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("closed after %v", took)
		}
		stays.sync()
		time.Sleep(time.Second)
		synctest.Wait()
		away.sync()
		h.setToken("mg_eve", errEnded)
		away.wantEnd(DisconnectExpired)
		if took := time.Since(begin); took > 2*checkRetry+time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

// A look that had begun before messages were lost does not count.
func TestVerifyAllDuringCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.PingInterval = 0 })
		var slow atomic.Bool
		alive := h.Hub.alive
		h.Hub.alive = func(ctx context.Context, fp auth.Fingerprint) (*auth.Session, error) {
			s, err := alive(ctx, fp)
			if slow.Swap(false) {
				time.Sleep(2 * time.Second)
			}
			return s, err
		}
		w, _ := h.login("alice")
		time.Sleep(time.Minute)
		slow.Store(true)
		h.VerifyAll()
		time.Sleep(time.Second)
		synctest.Wait() // in the middle of it
		h.setToken("alice", errEnded)
		h.doubts.next = h.now() + 5*time.Second // its turn comes after the slow answer
		h.VerifyAll()
		begin := time.Now()
		w.wantEnd(DisconnectExpired)
		if took := time.Since(begin); took > 6*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

// BenchmarkVerifyAll is how long the caller is kept, with 100,000 connections.
func BenchmarkVerifyAll(b *testing.B) {
	h := startHub(b, func(s *Settings) { s.Client.PingInterval = 0 })
	const n = 100_000
	for range n {
		c := newClient(h.Hub, nil)
		c.state, c.checkAt = connected, time.Hour
		h.clients.add(c)
		b.Cleanup(func() { h.wheel.remove(c); h.clients.remove(c) })
	}
	for b.Loop() {
		h.doubts.next = h.now() + time.Hour // nobody's turn comes
		h.VerifyAll()
		b.StopTimer()
		for _, c := range h.clients.list() {
			c.mu.Lock()
			c.doubted, c.checkAt = false, 2*time.Hour
			c.mu.Unlock()
		}
		b.StartTimer()
	}
}

// Turns are spread, and one connection has one of them.
func TestVerifyAllIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.PingInterval = 0 })
		const n = 20
		for i := range n {
			h.login("user" + itoa(i))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		verified := func() int {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.verified
		}
		before := verified()
		begin := h.now() + time.Second
		h.doubts.next = begin // somebody else's turns
		for range 3 {
			h.VerifyAll()
		}
		if got, want := h.doubts.next-begin, n*time.Second/checksPerSecond; got != want {
			t.Errorf("%d connections take turns for %v, want %v", n, got, want)
		}
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		if got := verified() - before; got != 0 {
			t.Errorf("%d were verified before their turn", got)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := verified() - before; got != n {
			t.Errorf("verified %d times, want %d", got, n)
		}
	})
}
