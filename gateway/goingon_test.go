package gateway

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// withoutPings keeps the wire quiet, so that only what is tested is on it.
func withoutPings(s *Settings) { withHooks(s); s.Client.PingInterval = 0 }

// wantAfter takes the next question and tells when it came.
func (o *hookBackend) wantAfter(d time.Duration, begin time.Time, path string) {
	o.t.Helper()
	got := <-o.calls
	if took := time.Since(begin); got.path != path || took < d-time.Second || took > d+time.Second {
		o.t.Fatalf("%s was asked after %v, want %s after %v", got.path, took, path, d)
	}
}

func expireIn(d time.Duration) string { return fmt.Sprintf(`"expire_at":%d`, in(d)) }

// The backend is asked when a connection expires; what it says holds, and
// while it says nothing the connection lives on.
func TestAskWhetherConnectionGoesOn(t *testing.T) {
	forBoth(t, func(t *testing.T, opts dialOptions, protocol string) {
		synctest.Test(t, func(t *testing.T) {
			o := newHookBackend(t)
			h := startHub(t, withoutPings, o.into)
			begin := time.Now()
			o.says("/connect", `{"result":{"user":"u","info":{"v":1},`+expireIn(time.Minute)+`}}`)
			w := h.dial(opts)
			w.send(`{"id":1,"connect":{}}`)
			w.want(`{"id":1,"connect":{"client":"*","version":"test","subs":{*}}}`) // which say nothing of a ttl
			<-o.calls
			o.says("/refresh", `500 `, `{"error":{"code":1000,"message":"no"}}`, `{"result":{"info":{"v":2},`+expireIn(10*time.Minute)+`}}`, `{}`)
			o.wantAfter(time.Minute, begin, "/refresh")
			o.wantAfter(2*time.Minute, begin, "/refresh")
			o.wantAfter(3*time.Minute, begin, "/refresh")
			synctest.Wait()
			w.send(`{"id":2,"subscribe":{"channel":"hook:a"}}`, `{"id":3,"presence":{"channel":"hook:a"}}`)
			w.want(`{"id":2,"subscribe":{}}`, `{"id":3,"presence":{*"conn_info":{"v":2}*`)
			<-o.calls
			o.wantAfter(10*time.Minute, begin, "/refresh")
			w.wantEnd(DisconnectExpired)
		})
	})
}

func TestRefreshAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		end    *Disconnect // nil: the connection goes on
	}{
		"expired":    {`{"result":{"expired":true}}`, DisconnectExpired},
		"in past":    {`{"result":{"expire_at":1000}}`, DisconnectExpired},
		"disconnect": {`{"disconnect":{"code":4999,"reason":"gone"}}`, &Disconnect{4999, "gone"}},
		"transform":  {`404 `, &Disconnect{4504, "no such user"}},
		"to error":   {`418 `, nil},
		"for ever":   {`{"result":{}}`, nil},
		"no JSON":    {`hm`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newHookBackend(t)
				h := startHub(t, withoutPings, o.into)
				o.says("/refresh", tc.answer)
				w := h.known(o, dialOptions{}, ","+expireIn(time.Minute))
				o.wantCall("/refresh", `{"client":"*","transport":"websocket","protocol":"json","encoding":"json","user":"u"}`)
				if tc.end != nil {
					w.wantEnd(tc.end)
					return
				}
				synctest.Wait()
				w.sync()
			})
		})
	}
}

// JWTs are refreshed the same way, and logins to which the backend gave an end.
func TestAskWhetherTokensGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newHookBackend(t)
		h := startHub(t, func(s *Settings) { withoutPings(s); withJWT(s) }, o.into)
		w := h.loginJWT(object{"sub": "j", "exp": in(time.Minute)})
		o.wantCall("/refresh", `*"user":"j"}`)
		w.wantEnd(DisconnectExpired)
	})
	synctest.Test(t, func(t *testing.T) {
		o := newHookBackend(t)
		h := startHub(t, func(s *Settings) { withoutPings(s); s.Client.Proxy.Connect.ForLogins = true }, o.into)
		o.says("/connect", `{"result":{`+expireIn(time.Minute)+`}}`)
		w, _ := h.login("alice")
		<-o.calls
		o.wantCall("/refresh", `*"user":"alice"}`)
		w.wantEnd(DisconnectExpired)
	})
}

// A client that brings a new login in between is asked about all the same.
func TestNewLoginIsAskedAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newHookBackend(t)
		h := startHub(t, func(s *Settings) { withoutPings(s); s.Client.Proxy.Connect.ForLogins = true }, o.into)
		begin := time.Now()
		o.says("/connect", `{"result":{`+expireIn(time.Minute)+`}}`)
		w, _ := h.login("alice")
		<-o.calls
		w.send(`{"id":2,"refresh":{"token":"alice/2"}}`)
		w.want(`{"id":2,"refresh":{}}`)
		time.Sleep(2 * time.Minute)
		select {
		case got := <-o.calls:
			if got.path != "/refresh" {
				t.Errorf("asked %s", got.path)
			}
		default:
			t.Fatalf("nobody was asked in %v", time.Since(begin))
		}
		w.wantEnd(DisconnectExpired)
	})
}

// An end beyond all times is none that has passed.
func TestExpiresInFarFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newHookBackend(t)
		h := startHub(t, withoutPings, o.into)
		time.Sleep(time.Minute)
		w := h.known(o, dialOptions{}, fmt.Sprintf(`,"expire_at":%d`, 1<<40))
		c := h.clients.list()[0]
		c.mu.Lock()
		if at := h.connDeadline(time.Unix(1<<40, 0)); at < 99*365*24*time.Hour || c.endAt < 99*365*24*time.Hour {
			t.Errorf("ends after %v", c.endAt)
		}
		c.mu.Unlock()
		time.Sleep(time.Hour)
		w.sync()
		o.wantNoCall()
	})
}

// Without the refresh proxy clients are told of the end, and bring a token.
func TestConnectExpiresUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newHookBackend(t)
		h := startHub(t, func(s *Settings) { withoutPings(s); s.Client.Proxy.Refresh.Enabled = false }, o.into)
		o.says("/connect", `{"result":{"user":"u",`+expireIn(time.Minute)+`}}`)
		w := h.dial(dialOptions{})
		w.send(`{"id":1,"connect":{}}`)
		w.want(`{"id":1,"connect":{*"expires":true,"ttl":60,*`)
		begin := time.Now()
		w.wantEnd(DisconnectExpired)
		if took := time.Since(begin); took < 85*time.Second || took > 86*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

func TestAskWhetherSubscriptionGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newHookBackend(t)
		h := startHub(t, withoutPings, o.into)
		w := h.known(o, dialOptions{}, "")
		begin := time.Now()
		o.says("/subscribe", `{"result":{`+expireIn(time.Minute)+`}}`)
		o.says("/sub_refresh", `500 `, `{"result":{"info":{"v":2},`+expireIn(5*time.Minute)+`}}`, `{"result":{"expired":true}}`)
		w.send(`{"id":2,"subscribe":{"channel":"hook:a"}}`)
		w.want(`{"id":2,"subscribe":{}}`)
		<-o.calls
		o.wantCall("/sub_refresh", commonFields+`"channel":"hook:a"}`)
		o.wantAfter(2*time.Minute, begin, "/sub_refresh")
		synctest.Wait()
		w.send(`{"id":3,"publish":{"channel":"hook:a","data":1}}`)
		if got := w.next() + w.next(); !strings.Contains(got, `"chan_info":{"v":2}`) || !strings.Contains(got, `{"id":3,"publish":{}}`) {
			t.Errorf("got %s", got) // in whatever order
		}
		<-o.calls
		o.wantAfter(5*time.Minute, begin, "/sub_refresh")
		w.want(`{"push":{"channel":"hook:a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}`)
		w.sync() // the connection goes on
	})
}

// SDKs would forget a subscription of the server, so the connection ends.
func TestServerSubscriptionGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newHookBackend(t)
		h := startHub(t, withoutPings, o.into)
		w := h.known(o, dialOptions{}, `,"subs":{"hook:a":{`+expireIn(time.Minute)+`}}`)
		o.wantCall("/sub_refresh", commonFields+`"channel":"hook:a"}`) // it says {}
		w.wantEnd(DisconnectSubscriptionExpired)
	})
}

// A backend that lets everybody wait holds up no checks of sessions.
func TestSlowBackendHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newHookBackend(t)
		h := startHub(t, func(s *Settings) {
			withoutPings(s)
			s.Client.Proxy.Refresh.Timeout = 20 * time.Second
			s.Client.SessionCheckInterval = time.Minute
		}, o.into)
		var last *wire
		for range 2 * askWorkers {
			last = h.known(o, dialOptions{}, ","+expireIn(time.Minute))
		}
		alice, _ := h.login("alice")
		o.hold = make(chan struct{})
		h.setToken("alice", fault.New(fault.Unauthenticated, "token_expired", "Expired."))
		begin := time.Now()
		alice.wantEnd(DisconnectExpired)
		if took := time.Since(begin); took > 62*time.Second {
			t.Errorf("the session was checked after %v", took)
		}
		h.EndUser("u", DisconnectForced) // what is being asked is broken off
		last.wantEnd(DisconnectForced)
	})
}
