package gateway

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil)
		w, _ := h.login("alice")
		begin := time.Now()
		for i := range 20 {
			w.want(`{}`)
			if i == 0 {
				if first := time.Since(begin); first < 12*time.Second || first > 26*time.Second {
					t.Errorf("first ping after %v", first)
				}
				begin = time.Now()
			} else if since := time.Since(begin); since < time.Duration(i)*25*time.Second-time.Second || since > time.Duration(i)*25*time.Second+time.Second {
				t.Errorf("ping %d after %v", i, since)
			}
			w.send(`{}`)
		}
		w.want(`{}`)
		asked := time.Now()
		w.wantEnd(DisconnectNoPong)
		if took := time.Since(asked); took < 8*time.Second || took > 9*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

// Whatever a client says shows that it is alive.
func TestCommandInsteadOfPong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil)
		w, _ := h.login("alice")
		for range 3 {
			w.want(`{}`)
			w.send(`{"id":2,"unsubscribe":{"channel":"x"}}`)
			w.want(`{"id":2,"unsubscribe":{}}`)
		}
	})
}

// A pong that waits behind a slow command is not missed.
func TestPongBehindSlowCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.PongTimeout = time.Second })
		w, _ := h.login("alice")
		w.want(`{}`)
		w.send(`{}`)
		time.Sleep(23 * time.Second)
		slow := func() { time.Sleep(4 * time.Second) }
		h.engine.after.Store(&slow)
		w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
		w.want(`{}`) // in the middle of it
		w.send(`{}`)
		w.want(`{"id":2,"subscribe":{*`, `{}`)
	})
}

func TestNoPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.PingInterval = 0 })
		w := h.dial(dialOptions{})
		w.send(`{"id":1,"connect":{"token":"alice"}}`)
		w.want(`{"id":1,"connect":{"client":"*","version":"test","subs":{*}}}`)
		time.Sleep(time.Hour)
		w.sync()
	})
}

// Who does not log in in time is closed.
func TestStale(t *testing.T) {
	for name, tc := range map[string]struct {
		dial  dialOptions
		send  string
		want  string
		bye   *Disconnect
		after time.Duration
	}{
		"silent":                  {dialOptions{}, "", "", DisconnectStale, 10 * time.Second},
		"pongs only":              {dialOptions{}, "{}", "", DisconnectStale, 10 * time.Second},
		"failed":                  {dialOptions{}, `{"id":1,"connect":{"token":"expired"}}`, `{"id":1,"error":{"code":109,*`, DisconnectStale, 10 * time.Second},
		"expired header":          {dialOptions{header: bearer("expired")}, "", "", DisconnectTokenExpired, time.Second},
		"expired header, connect": {dialOptions{header: bearer("expired")}, `{"id":1,"connect":{}}`, `{"id":1,"error":{"code":109,*`, DisconnectTokenExpired, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startHub(t, nil)
				w := h.dial(tc.dial)
				begin := time.Now()
				if tc.send != "" {
					w.send(tc.send)
				}
				if tc.want != "" {
					w.want(tc.want)
				}
				w.wantEnd(tc.bye)
				if took := time.Since(begin); took < tc.after || took > tc.after+time.Second/2 {
					t.Errorf("closed after %v", took)
				}
			})
		})
	}
}

// A live connection keeps its session alive, and ends with it.
func TestSessionCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.PingInterval = 0 })
		w, _ := h.login("alice")
		h.mu.Lock()
		before := h.verified
		h.mu.Unlock()
		time.Sleep(16 * time.Minute)
		synctest.Wait()
		h.mu.Lock()
		if n := h.verified - before; n != 4 { // right after connect, then every 5 minutes
			t.Errorf("verified %d times in 16 minutes", n)
		}
		h.mu.Unlock()

		h.setToken("alice", fault.New(fault.Unavailable, "sessions_unavailable", "Away."))
		time.Sleep(11 * time.Minute)
		w.sync() // that is not its fault

		h.setToken("alice", fault.New(fault.Unauthenticated, "token_expired", "Expired."))
		w.wantEnd(DisconnectExpired)
	})
}

// Goodbyes are spread, and publications flow until the last one.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.ShutdownSpread = 4 * time.Second })
		clients := map[string]*wire{}
		for _, user := range []string{"a", "b", "c", "d", "e"} {
			clients[user], _ = h.login(user)
		}
		done := make(chan error, 1)
		begin := time.Now()
		go func() { done <- h.Shutdown(t.Context()) }()
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		left := h.clients.list()
		if len(left) != 4 {
			t.Fatalf("%d clients left after the first goodbye", len(left))
		}
		h.publish("#"+left[0].user(), `"still here"`)
		clients[left[0].user()].want(`*"still here"*`)
		if _, resp, err := h.tryDial(dialOptions{}); err == nil || resp.StatusCode != 503 {
			t.Errorf("new connection during shutdown: %v", err)
		}
		for _, w := range clients {
			w.wantEnd(DisconnectShutdown)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// A client that ignores the goodbye is cut when time is up.
func TestShutdownDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil)
		w := h.dial(dialOptions{deaf: true})
		w.send(`{"id":1,"connect":{"token":"alice"}}`)
		ctx, cancel := contextWithTimeout(t, time.Second)
		defer cancel()
		begin := time.Now()
		if err := h.Shutdown(ctx); err == nil {
			t.Error("no error")
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestWheel(t *testing.T) {
	var w wheel
	var c [3]client
	for i := range c {
		c[i].slot = nowhere
	}
	w.set(&c[0], time.Second)
	w.set(&c[1], time.Second)
	w.set(&c[2], 5*time.Second)
	w.set(&c[1], 3*time.Second) // replaces
	w.remove(&c[2])
	w.set(&c[2], time.Second) // is over for good
	for _, step := range []struct {
		at   time.Duration
		want int
	}{{900 * time.Millisecond, 0}, {time.Second, 1}, {2900 * time.Millisecond, 0}, {3 * time.Second, 1}, {time.Hour, 0}} {
		if due := w.advance(step.at, nil); len(due) != step.want {
			t.Errorf("at %v: %d due", step.at, len(due))
		}
	}
	w.set(&c[0], 2*time.Hour) // beyond the horizon: looked at early
	if due := w.advance(time.Hour+103*time.Second, nil); len(due) != 1 {
		t.Errorf("%d due", len(due))
	}
	// Who is set while it is looked at keeps that time.
	w.set(&c[1], 2*time.Hour)
	w.again(&c[1], time.Hour+104*time.Second)
	if due := w.advance(time.Hour+105*time.Second, nil); len(due) != 0 {
		t.Errorf("%d due", len(due))
	}
}
