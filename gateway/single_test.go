package gateway

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

func onePer(rule string) func(*Settings) {
	return func(s *Settings) { s.Client.SingleConnection = rule }
}

// The newer connection stays, and the older one is told for good.
func TestSingleConnection(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"user":              onePer(singleUser),
		"Centrifugo's name": func(s *Settings) { s.Client.PersonalChannel.SingleConnection = true },
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, change)
			bob, _ := h.login("bob")
			first, _ := h.login("alice/on:phone")
			second, _ := h.login("alice/on:tablet")
			first.wantEnd(DisconnectReplaced)
			third, _ := h.login("alice/on:tablet")
			second.wantEnd(DisconnectReplaced)
			third.sync()
			bob.sync()
		})
	}
	if DisconnectReplaced.Code != 3504 || DisconnectReplaced.Reason == "" {
		t.Error("the SDK would come back")
	}
}

// Per device: by its label or, where there is none, by the login.
func TestSingleConnectionPerDevice(t *testing.T) {
	h := startHub(t, onePer(singleDevice))
	phone, _ := h.login("alice/on:phone")
	tablet, _ := h.login("alice/on:tablet")
	unnamed, _ := h.login("alice/1")
	other, _ := h.login("alice/2")
	phone.sync()
	tablet.sync()
	again, _ := h.login("alice/on:phone#2")
	phone.wantEnd(DisconnectReplaced)
	sameLogin, _ := h.login("alice/1")
	unnamed.wantEnd(DisconnectReplaced)
	for _, w := range []*wire{tablet, other, again, sameLogin} {
		w.sync()
	}
}

// By default, and for nobody, there is no limit.
func TestNoSingleConnection(t *testing.T) {
	h := startHub(t, nil)
	first, _ := h.login("alice")
	_, _ = h.login("alice")
	first.sync()
	h = startHub(t, func(s *Settings) { onePer(singleUser)(s); anonymous(s) })
	one, _ := h.nobodyConnects()
	_, _ = h.nobodyConnects()
	one.sync()
}

// A connect that fails in the end does not cost the user the connection he has.
func TestSingleConnectionOnlyWhenWelcome(t *testing.T) {
	h := startHub(t, func(s *Settings) { onePer(singleUser)(s); s.Client.ChannelLimit = 2 })
	first, _ := h.login("alice")
	w := h.dial(dialOptions{})
	w.send(`{"id":1,"connect":{"token":"alice","subs":{"live:a":{}}}}`)
	w.wantEnd(DisconnectChannelLimit)
	first.sync()
}

// Who asks late learns that a newer connection is there, and leaves that alone;
// numbers of another epoch are older.
func TestSingleConnectionYields(t *testing.T) {
	h := startHub(t, onePer(singleUser))
	w, _ := h.login("alice")
	alice := h.clients.ofUser("alice")[0]
	alice.mu.Lock()
	mine := alice.rare.turn
	alice.mu.Unlock()
	if newer := h.keepOne(&userRequest{User: "alice", Client: "late", Turn: engine.Position{Epoch: mine.Epoch, Offset: mine.Offset - 1}}); newer != 1 {
		t.Errorf("%d newer", newer)
	}
	w.sync()
	if newer := h.keepOne(&userRequest{User: "alice", Client: "late", Turn: engine.Position{Epoch: "other"}}); newer != 0 {
		t.Errorf("%d newer", newer)
	}
	w.wantEnd(DisconnectReplaced)
}

// redisNode is a hub that shares a Redis with others.
func redisNode(t *testing.T, addr, uid string, change func(*Settings)) *testHub {
	t.Helper()
	client := redisclient.Open(redisclient.Settings{Addresses: []string{addr}})
	t.Cleanup(func() { _ = client.Close() })
	return startHub(t, change, func(o *Options) {
		o.Engine = engine.NewRedis(engine.RedisOptions{Client: client, Prefix: "t:"})
		o.Node.UID = uid
	})
}

// welcomed counts the connections of a user that are welcome on all nodes.
func welcomed(user string, nodes ...*testHub) (n int) {
	for _, h := range nodes {
		for _, c := range h.clients.ofUser(user) {
			c.mu.Lock()
			if c.state == connected {
				n++
			}
			c.mu.Unlock()
		}
	}
	return n
}

// However connections of one user race, on two nodes, exactly one is left.
func TestSingleConnectionRaces(t *testing.T) {
	addr := testdeps.Redis(t)
	a, b := redisNode(t, addr, "a", onePer(singleUser)), redisNode(t, addr, "b", onePer(singleUser))
	meet(t, a, b)
	for round := range 25 {
		var work sync.WaitGroup
		var mu sync.Mutex
		welcome, replaced := 0, 0
		for i := range 4 {
			h := []*testHub{a, b}[i%2]
			work.Go(func() {
				w := h.dial(dialOptions{})
				w.send(`{"id":1,"connect":{"token":"alice"}}`)
				first := w.next()
				mu.Lock()
				defer mu.Unlock()
				switch {
				case strings.HasPrefix(first, `{"id":1,"connect":`):
					welcome++
				case strings.Contains(first, `"code":3504`):
					replaced++
				default:
					t.Errorf("connect was answered %s", first)
				}
			})
		}
		work.Wait()
		if welcome == 0 || welcome+replaced != 4 {
			t.Fatalf("round %d: %d welcome, %d replaced", round, welcome, replaced)
		}
		if n := welcomed("alice", a, b); n != 1 {
			t.Fatalf("round %d: %d connections left, %d were welcome", round, n, welcome)
		}
	}
}

// meet waits until the nodes know of each other.
func meet(t *testing.T, nodes ...*testHub) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, h := range nodes {
		for {
			list, err := h.Info(ctx)
			if ctx.Err() != nil {
				t.Fatalf("the nodes do not meet: %v", err)
			}
			if len(list) == len(nodes) {
				break
			}
		}
	}
}

// An operation on a user reaches the connections on every node.
func TestUserOperationsOnTwoNodes(t *testing.T) {
	addr := testdeps.Redis(t)
	a, b := redisNode(t, addr, "a", nil), redisNode(t, addr, "b", nil)
	meet(t, a, b)
	onA, _ := a.login("alice")
	onB, _ := b.login("alice/2")
	a.publish("feed:a", "1")
	a.subscribeUser("alice", "feed:a", Selection{}, SubscribeOptions{Since: &engine.Position{}})
	b.publish("feed:a", "2")
	for _, w := range []*wire{onA, onB} {
		w.want(`{"push":{"channel":"feed:a","subscribe":{"recoverable":true,"epoch":"*","positioned":true}}}`,
			`{"push":{"channel":"feed:a","pub":{"data":1,"offset":1*`, `{"push":{"channel":"feed:a","pub":{"data":2,"offset":2}}}`)
	}
	a.refreshUser("alice", RefreshOptions{ExpireAt: time.Now().Add(time.Hour)})
	for _, w := range []*wire{onA, onB} {
		w.want(`{"push":{"refresh":{"expires":true,"ttl":3600}}}`)
	}
	if err := b.Unsubscribe(t.Context(), "alice", "feed:a", Selection{}); err != nil {
		t.Fatal(err)
	}
	a.refreshUser("alice", RefreshOptions{Expired: true})
	for _, w := range []*wire{onA, onB} {
		w.want(`{"push":{"channel":"feed:a","unsubscribe":{"code":2000,*`)
		w.wantEnd(DisconnectExpired)
	}
}
