package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/auth/connjwt"
	"github.com/minigate/minigate/gateway/engine"
)

func (th *testHub) subscribeUser(user, channel string, which Selection, o SubscribeOptions) {
	th.t.Helper()
	if err := th.Subscribe(context.Background(), user, channel, which, o); err != nil {
		th.t.Fatalf("subscribe %s to %s: %v", user, channel, err)
	}
}

func (th *testHub) top(channel string) engine.Position {
	th.t.Helper()
	_, top, err := th.engine.History(context.Background(), channel, engine.HistoryQuery{})
	if err != nil {
		th.t.Fatal(err)
	}
	return top
}

// The server subscribes all connections of a user, who are told where the
// stream stands and get what follows; and takes them out again.
func TestSubscribeByServer(t *testing.T) {
	h := startHub(t, nil)
	a1, _ := h.login("alice")
	a2, _ := h.login("alice/2")
	bob, _ := h.login("bob")
	h.publish("feed:a", "1")
	epoch := h.top("feed:a").Epoch

	h.subscribeUser("alice", "feed:a", Selection{}, SubscribeOptions{Data: json.RawMessage(`{"welcome":1}`)})
	h.publish("feed:a", "2")
	for _, w := range []*wire{a1, a2} {
		w.want(`{"push":{"channel":"feed:a","subscribe":{"recoverable":true,"epoch":"`+epoch+`","offset":1,"positioned":true,"data":{"welcome":1}}}}`,
			`{"push":{"channel":"feed:a","pub":{"data":2,"offset":2}}}`)
	}
	bob.sync()
	a1.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
	a1.want(`{"id":2,"error":{"code":105,"message":"already subscribed"}}`)

	if err := h.Unsubscribe(t.Context(), "alice", "feed:a", Selection{}); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*wire{a1, a2} {
		w.want(`{"push":{"channel":"feed:a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`)
	}
	h.publish("feed:a", "3")
	a1.sync()
	a2.sync()
}

// Only the connections that are selected are subscribed.
func TestSubscribeSelection(t *testing.T) {
	h := startHub(t, nil)
	a1, reply := h.login("alice")
	a2, _ := h.login("alice/2")
	id := strings.Split(reply, `"`)[7]
	h.subscribeUser("alice", "live:a", Selection{Client: id}, SubscribeOptions{})
	a1.want(`{"push":{"channel":"live:a","subscribe":{}}}`)
	a2.sync()
	var session string
	for _, info := range h.Connections(10) {
		if info.Client != id {
			session = info.Session
		}
	}
	h.subscribeUser("alice", "live:b", Selection{Session: session}, SubscribeOptions{})
	a2.want(`{"push":{"channel":"live:b","subscribe":{}}}`)
	if err := h.Unsubscribe(t.Context(), "alice", "", Selection{Session: session}); err != nil {
		t.Fatal(err)
	}
	a1.sync()
	for range 3 { // personal, union, live:b
		a2.want(`{"push":{"channel":"*","unsubscribe":{"code":2000,*`)
	}
}

// Who is subscribed by the server is told once more, with the position it has;
// who has subscribed by itself is left alone.
func TestSubscribeTwice(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	h.subscribeUser("alice", "feed:a", Selection{}, SubscribeOptions{})
	w.want(`{"push":{"channel":"feed:a","subscribe":{"recoverable":true,*`)
	h.publish("feed:a", "1")
	w.want(`{"push":{"channel":"feed:a","pub":{"data":1,"offset":1,*`)
	h.subscribeUser("alice", "feed:a", Selection{}, SubscribeOptions{})
	w.want(`{"push":{"channel":"feed:a","subscribe":{"recoverable":true,"epoch":"` + h.top("feed:a").Epoch + `","offset":1,"positioned":true}}}`)
	h.publish("feed:a", "2")
	w.want(`{"push":{"channel":"feed:a","pub":{"data":2,"offset":2}}}`)

	w.send(`{"id":2,"subscribe":{"channel":"feed:own"}}`)
	w.want(`{"id":2,"subscribe":*`)
	h.subscribeUser("alice", "feed:own", Selection{}, SubscribeOptions{})
	w.sync()
}

// What was published since a position comes right after the subscription.
func TestSubscribeSince(t *testing.T) {
	h := startHub(t, nil)
	for i := range 4 {
		h.publish("feed:a", fmt.Sprint(i+1))
	}
	top := h.top("feed:a")
	w, _ := h.login("alice")
	h.subscribeUser("alice", "feed:a", Selection{}, SubscribeOptions{Since: &engine.Position{Offset: 2, Epoch: top.Epoch}})
	h.publish("feed:a", "5")
	w.want(`{"push":{"channel":"feed:a","subscribe":{"recoverable":true,"epoch":"`+top.Epoch+`","offset":2,"positioned":true}}}`,
		`{"push":{"channel":"feed:a","pub":{"data":3,"offset":3}}}`, `{"push":{"channel":"feed:a","pub":{"data":4,"offset":4}}}`,
		`{"push":{"channel":"feed:a","pub":{"data":5,"offset":5}}}`)

	lost, _ := h.login("bob") // from a position that is none: it begins where the stream is
	h.subscribeUser("bob", "feed:a", Selection{}, SubscribeOptions{Since: &engine.Position{Offset: 2, Epoch: "other"}})
	lost.want(`{"push":{"channel":"feed:a","subscribe":{"recoverable":true,"epoch":"` + top.Epoch + `","offset":5,"positioned":true}}}`)
	lost.sync()
}

// Overrides and info hold for the subscription.
func TestSubscribeOverride(t *testing.T) {
	h := startHub(t, nil)
	on, off := true, false
	w, _ := h.login("alice")
	h.subscribeUser("alice", "live:a", Selection{}, SubscribeOptions{
		Info: json.RawMessage(`{"seat":7}`), Override: connjwt.Override{Presence: &on, JoinLeave: &on, ForcePushJoinLeave: &on, ForceRecovery: &on},
	})
	w.want(`{"push":{"channel":"live:a","subscribe":{}}}`, // without history nothing can be recovered
		`{"push":{"channel":"live:a","join":{"info":{"user":"alice","client":"*","chan_info":{"seat":7}}}}}`)
	h.subscribeUser("alice", "feed:a", Selection{}, SubscribeOptions{Override: connjwt.Override{ForceRecovery: &off}})
	w.want(`{"push":{"channel":"feed:a","subscribe":{}}}`)
	present, err := h.engine.Presence(t.Context(), "live:a")
	if err != nil || len(present) != 1 {
		t.Errorf("%v %v", present, err)
	}
}

func TestSubscribeRefused(t *testing.T) {
	h := startHub(t, func(s *Settings) { s.Client.ChannelLimit = 2 })
	past := time.Now().Add(-time.Second)
	for name, tc := range map[string]struct {
		user, channel string
		o             SubscribeOptions
		code          uint32
	}{
		"nobody is online":  {"alice", "live:a", SubscribeOptions{}, 0},
		"no user":           {"", "live:a", SubscribeOptions{}, 107},
		"no channel":        {"alice", "", SubscribeOptions{}, 107},
		"unknown namespace": {"alice", "nope:a", SubscribeOptions{}, 102},
		"info is not JSON":  {"alice", "live:a", SubscribeOptions{Info: json.RawMessage(`{`)}, 107},
		"data is not JSON":  {"alice", "live:a", SubscribeOptions{Data: json.RawMessage("\xff")}, 107},
		"expired":           {"alice", "live:a", SubscribeOptions{ExpireAt: past}, 110},
	} {
		err := h.Subscribe(t.Context(), tc.user, tc.channel, Selection{}, tc.o)
		if (err == nil) != (tc.code == 0) || err != nil && CodeOf(err).Code != tc.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	w, _ := h.login("alice") // in two channels already
	if err := h.Subscribe(t.Context(), "alice", "live:a", Selection{}, SubscribeOptions{}); CodeOf(err).Code != 100 {
		t.Errorf("no room: %v", err)
	}
	w.wantEnd(DisconnectChannelLimit)
}

// Whoever asked is told if no connection could be subscribed; one is enough.
func TestSubscribeFails(t *testing.T) {
	h := startHub(t, nil)
	a1, _ := h.login("alice")
	a2, _ := h.login("alice/2")
	h.engine.away.Store(true)
	since := SubscribeOptions{Since: &engine.Position{Epoch: "other"}} // which takes a read
	if err := h.Subscribe(t.Context(), "alice", "feed:a", Selection{}, since); CodeOf(err) != internalError {
		t.Errorf("the engine is away: %v", err)
	}
	a1.sync() // and goes on
	a2.sync()
	h.engine.away.Store(false)
	a1.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
	a1.want(`{"id":2,"subscribe":*`)
	h.engine.away.Store(true)
	h.subscribeUser("alice", "feed:a", Selection{}, since)
	a2.sync()
	h.engine.away.Store(false)
	h.subscribeUser("alice", "feed:a", Selection{}, since)
	a2.want(`{"push":{"channel":"feed:a","subscribe":*`)
}

// What was missed may be more than the queue of a connection takes: it is sent
// as the client reads.
func TestSubscribeSinceLongAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.QueueMaxSize = 64 << 10 })
		large := `"` + strings.Repeat("x", 20<<10) + `"`
		for range 10 {
			h.publish("feed:a", large)
		}
		top := h.top("feed:a")
		w := h.dial(dialOptions{deaf: true})
		w.send(`{"id":1,"connect":{"token":"alice"}}`)
		synctest.Wait()
		h.subscribeUser("alice", "feed:a", Selection{}, SubscribeOptions{Since: &engine.Position{Epoch: top.Epoch}})
		if size := h.waiting(); size > 1<<10 {
			t.Errorf("%d bytes wait", size)
		}
		h.subscribeUser("alice", "feed:a", Selection{}, SubscribeOptions{}) // told once more, wherever it is by then
		h.publish("feed:a", "11")
		go w.pump()
		w.want(`{"id":1,"connect":*`, `{"push":{"channel":"feed:a","subscribe":{"recoverable":true,"epoch":"`+top.Epoch+`","positioned":true}}}`)
		at := uint64(0)
		for again := false; at < 11; {
			p := decode(t, w.next()).Push
			switch {
			case p.Subscribe != nil && !again && p.Subscribe.Offset == at:
				again = true
			case p.Pub != nil && p.Pub.Offset == at+1:
				at++
			default:
				t.Fatalf("at %d: %.200v", at, p)
			}
		}
		w.sync()
	})
}

// A subscription that expires closes the connection: SDKs would forget it on
// an unsubscribe push.
func TestSubscribeExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.PingInterval = 0; s.Client.ExpiredSubDelay = 10 * time.Second })
		w, _ := h.login("alice")
		h.subscribeUser("alice", "live:a", Selection{}, SubscribeOptions{ExpireAt: time.Now().Add(time.Minute)})
		w.want(`{"push":{"channel":"live:a","subscribe":{}}}`)
		time.Sleep(time.Minute + 9*time.Second)
		w.sync()
		w.wantEnd(DisconnectSubscriptionExpired)
	})
}

// What the server does while a client connects is done after the reply.
func TestSubscribeWhileConnecting(t *testing.T) {
	h := startHub(t, nil)
	subscribe := func() { h.subscribeUser("alice", "live:a", Selection{}, SubscribeOptions{}) }
	h.engine.after.Store(&subscribe) // when connect reads the history of the personal channel
	w := h.dial(dialOptions{})
	w.send(`{"id":1,"connect":{"token":"alice"}}`)
	w.want(`{"id":1,"connect":{"client":"*`, `{"push":{"channel":"live:a","subscribe":{}}}`)
	h.publish("live:a", "1")
	w.want(`{"push":{"channel":"live:a","pub":{"data":1}}}`)
}

// Publications come whole and in order while the server subscribes, however
// the two meet; the client's own commands and its leaving may come between.
func TestSubscribeRaces(t *testing.T) {
	h := startHub(t, nil)
	for round := range 30 {
		channel := fmt.Sprintf("feed:%d", round)
		w, _ := h.login("alice")
		var work sync.WaitGroup
		work.Go(func() {
			for i := range 8 { // fewer than are kept
				_, _ = h.Publish(context.Background(), channel, json.RawMessage(fmt.Sprint(i+1)), PublishOptions{})
			}
		})
		work.Go(func() { _ = h.Subscribe(context.Background(), "alice", channel, Selection{}, SubscribeOptions{}) })
		if round%3 == 1 {
			work.Go(func() {
				w.send(`{"id":2,"unsubscribe":{"channel":"`+channel+`"}}`, `{"id":3,"presence":{"channel":"`+channel+`"}}`)
			})
		}
		if round%3 == 2 {
			work.Go(func() { _ = w.conn.CloseNow() })
		}
		if round%3 == 0 {
			next := uint64(0)
			for next != 8 {
				var m struct {
					Push struct {
						Subscribe *struct{ Offset uint64 }
						Pub       *struct{ Offset uint64 }
					}
				}
				if err := json.Unmarshal([]byte(w.next()), &m); err != nil {
					t.Fatal(err)
				}
				switch {
				case m.Push.Subscribe != nil:
					next = m.Push.Subscribe.Offset
				case m.Push.Pub != nil && m.Push.Pub.Offset == next+1:
					next++
				default:
					t.Fatalf("after %d came %+v", next, m)
				}
			}
		}
		work.Wait()
		_ = w.conn.CloseNow()
	}
}

func (th *testHub) refreshUser(user string, o RefreshOptions) {
	th.t.Helper()
	if err := th.Refresh(context.Background(), user, Selection{}, o); err != nil {
		th.t.Fatal(err)
	}
}

// The server may say anew how long a connection goes on.
func TestRefreshByServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.PingInterval = 0 })
		w, _ := h.login("alice")
		h.refreshUser("alice", RefreshOptions{ExpireAt: time.Now().Add(time.Minute), Info: json.RawMessage(`{"n":1}`)})
		w.want(`{"push":{"refresh":{"expires":true,"ttl":60}}}`)
		w.send(`{"id":2,"subscribe":{"channel":"room:a"}}`)
		w.want(`{"id":2,"subscribe":*`, `{"push":{"channel":"room:a","join":{"info":{"user":"alice","client":"*","conn_info":{"n":1}}}}}`)
		h.refreshUser("alice", RefreshOptions{})
		w.want(`{"push":{"refresh":{}}}`)
		time.Sleep(3 * time.Hour)
		w.sync()
		h.refreshUser("alice", RefreshOptions{ExpireAt: time.Now().Add(time.Minute)})
		w.want(`{"push":{"refresh":{"expires":true,"ttl":60}}}`)
		time.Sleep(time.Minute + 24*time.Second)
		w.sync()
		w.wantEnd(DisconnectExpired)

		w, _ = h.login("alice")
		h.refreshUser("alice", RefreshOptions{ExpireAt: time.Now().Add(time.Minute)})
		w.want(`{"push":{"refresh":{"expires":true,"ttl":60}}}`)
		w.send(`{"id":3,"refresh":{"token":"alice/2"}}`) // a login slides, whatever the server said before
		w.want(`{"id":3,"refresh":{}}`)
		time.Sleep(time.Hour)
		w.sync()
		h.refreshUser("alice", RefreshOptions{Expired: true})
		w.wantEnd(DisconnectExpired)

		w, _ = h.login("alice")
		h.refreshUser("alice", RefreshOptions{ExpireAt: time.Now().Add(-time.Minute)})
		w.wantEnd(DisconnectExpired)
	})
}
