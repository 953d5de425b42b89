package gateway

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/gateway/engine"
)

// quietStorm are settings for storms: no channels but those of the test.
func quietStorm(s *Settings) {
	s.Client.PersonalChannel.Enabled, s.Client.UnionIDNamespace = false, ""
	s.Client.PingInterval = 0
}

// attendee is a connection without a transport, and what it was sent.
type attendee struct {
	*client
	sock *recorder
}

func (th *testHub) attend(user string) attendee {
	sock := &recorder{done: make(chan struct{})}
	c := newClient(th.Hub, sock)
	if th.clients.admit(0) != nil {
		th.t.Error("not admitted")
	}
	th.clients.add(c)
	c.open()
	c.receive([]byte(`{"id":1,"connect":{"token":"` + user + `"}}`))
	return attendee{c, sock}
}

func (a attendee) goAway() { a.gone(cause{}); a.hub.clients.leave() }

// offsets lists the offsets it was sent of a channel, in order, and how the
// subscribe command with this id was answered.
func (a attendee) offsets(t *testing.T, id uint32) (offsets []uint64, res *protocol.SubscribeResult) {
	t.Helper()
	a.sock.mu.Lock()
	defer a.sock.mu.Unlock()
	for _, frame := range a.sock.frames {
		for line := range strings.SplitSeq(frame, "\n") {
			switch r := decode(t, line); {
			case r.Id == id && r.Error != nil:
				t.Errorf("subscribe answered %+v", r.Error)
			case r.Id == id && r.Subscribe != nil:
				res = r.Subscribe
				for _, p := range res.Publications {
					offsets = append(offsets, p.Offset)
				}
			case r.Push != nil && r.Push.Pub != nil && res != nil:
				offsets = append(offsets, r.Push.Pub.Offset)
			}
		}
	}
	return offsets, res
}

// Two thousand clients come back at once and each gets exactly what it missed,
// while more is published; the engine is asked about once.
func TestReconnectStorm(t *testing.T) {
	const clients, published, meanwhile = 2000, 60, 20
	for name, tc := range map[string]struct {
		since    func(i int) (offset int, epoch string) // "" takes the right one
		warm     bool
		reads    int64
		recovers bool
	}{
		"to a node that heard on":             {func(i int) (int, string) { return published - i%40, "" }, true, 0, true},
		"to a new node":                       {func(int) (int, string) { return published - 10, "" }, false, 1, true},
		"to a new node, from everywhere":      {func(i int) (int, string) { return published - i%40, "" }, false, 3, true},
		"from another epoch":                  {func(i int) (int, string) { return i % published, "old" }, true, 3, false},
		"from beyond what history keeps":      {func(int) (int, string) { return 0, "" }, true, 0, false},
		"from ahead, as after a lost stream":  {func(i int) (int, string) { return 1000 + i, "" }, true, 3, false},
		"for the first time, to a known node": {nil, true, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startHub(t, func(s *Settings) {
					quietStorm(s)
					s.Channel.Namespaces[1].HistorySize = published - 1 + meanwhile
					s.Client.ChannelTail = 45 + meanwhile
				})
				if tc.warm {
					a := h.attend("early")
					a.receive([]byte(`{"id":2,"subscribe":{"channel":"feed:a"}}`))
					defer a.goAway()
				}
				epoch := ""
				top := published
				if name == "from beyond what history keeps" {
					top += meanwhile
				}
				for range top {
					epoch = h.publish("feed:a", "1").Position.Epoch
				}
				before := h.engine.reads.Load()
				slowly := func(p engine.Position) engine.Position { // so that the others come meanwhile
					time.Sleep(time.Millisecond)
					return p
				}
				h.engine.top.Store(&slowly)
				attendees := make([]attendee, clients)
				var wg sync.WaitGroup
				for i := range attendees {
					wg.Go(func() {
						attendees[i] = h.attend("user" + itoa(i))
						attendees[i].receive([]byte(subscribeSince(tc.since, i, epoch)))
					})
				}
				wg.Go(func() {
					for range meanwhile {
						h.publish("feed:a", "2")
						runtime.Gosched()
					}
				})
				wg.Wait()
				h.publish("feed:a", "3") // the last word to all
				synctest.Wait()
				reads := h.engine.reads.Load() - before
				t.Logf("%d reads for %d clients", reads, clients)
				if reads > tc.reads {
					t.Errorf("%d reads for %d clients, at most %d are needed", reads, clients, tc.reads)
				}
				wrong := 0
				for i, a := range attendees {
					got, res := a.offsets(t, 2)
					if problem := misled(tc.since, tc.recovers, i, got, res, uint64(top+meanwhile+1)); problem != "" && wrong < 5 {
						t.Errorf("client %d: %s", i, problem)
						wrong++
					}
					a.goAway()
				}
				synctest.Wait()
				if err := h.Check(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// misled says what is wrong with what a client was told and sent, "" if
// nothing.
func misled(since func(int) (int, string), recovers bool, i int, got []uint64, res *protocol.SubscribeResult, top uint64) string {
	if res == nil || res.Recovered != recovers || res.WasRecovering != (since != nil) {
		return fmt.Sprintf("told %+v", res)
	}
	from := res.Offset
	if recovers {
		if o, _ := since(i); from != uint64(o) {
			return fmt.Sprintf("asked from %d and was answered from %d", o, from)
		}
	}
	for _, o := range got {
		if o != from+1 {
			return fmt.Sprintf("offset %d after %d", o, from)
		}
		from = o
	}
	if from != top {
		return fmt.Sprintf("got only to %d of %d", from, top)
	}
	return ""
}

func subscribeSince(since func(int) (int, string), i int, epoch string) string {
	if since == nil {
		return `{"id":2,"subscribe":{"channel":"feed:a"}}`
	}
	o, e := since(i)
	if e == "" {
		e = epoch
	}
	return fmt.Sprintf(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":%d,"epoch":"%s"}}`, o, e)
}

// Where the engine is away all are told so at once, and the next try works.
func TestStormWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, quietStorm)
		h.publish("feed:a", "1")
		h.engine.away.Store(true)
		var wg sync.WaitGroup
		attendees := make([]attendee, 100)
		for i := range attendees {
			wg.Go(func() {
				attendees[i] = h.attend("user" + itoa(i))
				attendees[i].receive([]byte(`{"id":2,"subscribe":{"channel":"feed:a","recover":true}}`))
			})
		}
		wg.Wait()
		synctest.Wait()
		for _, a := range attendees {
			a.goAway()
			if last := a.sock.frames[len(a.sock.frames)-1]; !strings.Contains(last, `"code":100,`) {
				t.Fatalf("told %s", last)
			}
		}
		h.engine.away.Store(false)
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"feed:a","recover":true}}`)
		w.want(`{"id":2,*"publications":[{"data":1,"offset":1}],"recovered":true*`)
	})
}

// A client that knows more than this node has heard is not failed by that: the
// engine decides, and what this node missed comes to all.
func TestClientAheadOfNode(t *testing.T) {
	h := startHub(t, quietStorm)
	w, _ := h.login("alice")
	w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
	w.want(`{"id":2,*`)
	h.publish("feed:a", "1")
	w.want(`*"offset":1*`)
	h.silently("feed:a", 2) // on their way to this node
	bob, _ := h.login("bob")
	bob.send(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":3}}`, `{"id":3,"subscribe":{"channel":"feed:b"}}`)
	bob.want(`{"id":2,*"recovered":true,"offset":3,*`, `{"id":3,*`)
	carol, _ := h.login("carol")
	carol.send(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":1}}`)
	carol.want(`{"id":2,*"recovered":true,"offset":1,*`)
	h.publish("feed:a", "8")
	w.want(`*"data":7,"offset":2*`, `*"data":7,"offset":3*`, `*"data":8,"offset":4*`)
	carol.want(`*"data":7,"offset":2*`, `*"data":7,"offset":3*`, `*"data":8,"offset":4*`)
	bob.want(`*"data":8,"offset":4*`)
}

// What one subscriber read of a stream does not hide from another, who read it
// a moment before, what is delivered a moment later.
func TestLateDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, quietStorm)
		epoch := h.publish("feed:a", "1").Position.Epoch
		early := h.attend("early")
		defer early.goAway()
		early.receive([]byte(`{"id":2,"subscribe":{"channel":"feed:a"}}`))
		// It was told 1. Now 2 is published, another node's client knows it,
		// and here it is delivered last of all.
		h.engineUnsubscribe("feed:a")
		h.publish("feed:a", "2")
		h.engineSubscribe("feed:a")
		ch := h.channels.get("feed:a")
		ch.mu.Lock()
		ch.forget() // as where nothing was known when both came
		ch.mu.Unlock()
		second := h.attend("second")
		defer second.goAway()
		second.receive([]byte(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":1}}`))
		h.deliver("feed:a", 2, epoch)
		synctest.Wait()
		for _, a := range []attendee{early, second} {
			if got, _ := a.offsets(t, 2); !slices.Equal(got, []uint64{2}) {
				t.Errorf("%s got %v", a.user(), got)
			}
		}
	})
}

// A channel is heard on for a moment after its last subscriber: who comes back
// costs nothing. Then nothing is left of it.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, quietStorm)
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`, `{"id":3,"unsubscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":2,*`, `{"id":3,*`)
		reads, subscribes := h.engine.reads.Load(), h.engine.subscribes.Load()
		for range 3 {
			h.publish("feed:a", "1")
		}
		if n, _ := h.channels.counts(); n != 0 || testutil.ToFloat64(h.metrics.channels) != 0 || testutil.ToFloat64(h.metrics.lingering) != 1 {
			t.Errorf("%d channels have subscribers", n)
		}
		time.Sleep(9 * time.Second)
		w.send(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":1}}`)
		w.want(`{"id":2,*"publications":[{"data":1,"offset":2},{"data":1,"offset":3}],"recovered":true,"offset":1,*`)
		if h.engine.reads.Load() != reads || h.engine.subscribes.Load() != subscribes {
			t.Error("the engine was asked")
		}
		time.Sleep(30 * time.Second) // not while somebody is there
		h.publish("feed:a", "1")
		w.want(`*"offset":4*`)
		w.send(`{"id":3,"unsubscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":3,*`)
		time.Sleep(17 * time.Second)
		if h.keptChannels() != 0 || testutil.ToFloat64(h.metrics.lingering) != 0 {
			t.Error("the channel is still there")
		}
		if res, err := h.engine.Publish(t.Context(), "feed:a", &protocol.Publication{Data: protocol.Raw("1")}, engine.PublishOptions{Count: true}); err != nil || res.Sockets != 0 {
			t.Error(res, err)
		}
		w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":2,*"offset":4*`)
		if h.engine.subscribes.Load() != subscribes+1 {
			t.Error("the channel is not heard anew")
		}
	})
}

// What was removed from history is not kept in memory either, and what history
// let go of is let go of.
func TestTailEndsWithHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, quietStorm)
		w, _ := h.login("alice")
		lost := func(published int) {
			t.Helper()
			bob, _ := h.login("bob")
			bob.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":%d}}`, published-1),
				`{"id":3,"unsubscribe":{"channel":"feed:a"}}`,
				fmt.Sprintf(`{"id":4,"subscribe":{"channel":"feed:a","recover":true,"offset":%d}}`, published))
			bob.want(fmt.Sprintf(`{"id":2,*"offset":%d,"positioned":true,"was_recovering":true}}`, published), `{"id":3,*`,
				fmt.Sprintf(`{"id":4,*"recovered":true,"offset":%d,*`, published))
		}
		w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":2,*`)
		h.publish("feed:a", "1")
		h.publish("feed:a", "2")
		if err := h.HistoryRemove(t.Context(), "feed:a"); err != nil {
			t.Fatal(err)
		}
		lost(2)
		h.publish("feed:a", "3")
		time.Sleep(h.settings.Channel.Namespaces[1].HistoryTTL + 10*time.Second)
		lost(3)
		if ch := h.channels.get("feed:a"); ch.tail.pubs != nil {
			t.Error("the tail is still kept")
		}
	})
}
