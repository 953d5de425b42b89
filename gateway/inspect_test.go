package gateway

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Whatever is made to contradict itself is found, in a hub at rest and in one at
// work, where it is a contradiction there, and nothing is found before and after.
func TestContradictionsAreFound(t *testing.T) {
	locked := func(mu sync.Locker, f func()) { mu.Lock(); defer mu.Unlock(); f() }
	type hand struct {
		h  *testHub
		c  *client
		s  *subscription
		ch *channel
	}
	for name, tt := range map[string]struct {
		spoil, mend func(x hand)
		want        string
		restOnly    bool // at work it may be on its way
	}{
		"a user that nobody entered": {
			func(x hand) { locked(&x.h.clients.mu, func() { delete(x.h.clients.users, "alice") }) },
			func(x hand) { locked(&x.h.clients.mu, func() { x.h.clients.users["alice"] = clientSet{one: x.c} }) },
			"is not registered as alice", false,
		},
		"a seat of somebody else": {
			func(x hand) { locked(&x.h.clients.mu, func() { x.c.seat = 2 }) },
			func(x hand) { locked(&x.h.clients.mu, func() { x.c.seat = 1 }) },
			"sits at 1 and thinks it is 2", false,
		},
		"a client of somebody else": {
			func(x hand) { locked(&x.h.clients.mu, func() { x.h.clients.users["bob"] = clientSet{one: x.c} }) },
			func(x hand) { locked(&x.h.clients.mu, func() { delete(x.h.clients.users, "bob") }) },
			"is registered as bob and is alice", false,
		},
		"a user without clients": {
			func(x hand) { locked(&x.h.clients.mu, func() { x.h.clients.users["carol"] = clientSet{} }) },
			func(x hand) { locked(&x.h.clients.mu, func() { delete(x.h.clients.users, "carol") }) },
			"user carol is kept without clients", false,
		},
		"a connection too many": {
			func(x hand) { x.h.clients.admit(0) },
			func(x hand) { x.h.clients.leave() },
			"2 admitted, but 1 clients", true,
		},
		"a place in the wheel": {
			func(x hand) { locked(&x.h.wheel.mu, func() { x.h.wheel.take(x.c) }) },
			func(x hand) { x.h.wheel.set(x.c, x.h.now()+longAway) },
			"is not in the wheel", false,
		},
		"an address counted twice": {
			func(x hand) { x.h.addresses.take(x.c.ip) },
			func(x hand) { x.h.addresses.leave(x.c.ip) },
			"1 clients, 2 counted", true,
		},
		"an address not counted": {
			func(x hand) { x.h.addresses.leave(x.c.ip) },
			func(x hand) { x.h.addresses.take(x.c.ip) },
			"1 clients, 0 counted", false,
		},
		"bytes counted that are not there": {
			func(x hand) { x.h.budget.add(7) },
			func(x hand) { x.h.budget.add(-7) },
			"0 bytes wait, 7 are counted", true,
		},
		"bytes there that are not counted": {
			func(x hand) { x.h.budget.add(-7) },
			func(x hand) { x.h.budget.add(7) },
			"0 bytes wait, -7 are counted", false,
		},
		"a size of no reply": {
			func(x hand) { locked(&x.c.out.mu, func() { x.c.out.open().size += 5 }) },
			func(x hand) { locked(&x.c.out.mu, func() { x.c.out.due.size -= 5 }) },
			"0 bytes of replies counted as 5", false,
		},
		"a reply that nobody writes": {
			func(x hand) { locked(&x.c.out.mu, func() { x.c.out.open().replies = [][]byte{nil} }) },
			func(x hand) { locked(&x.c.out.mu, func() { x.c.out.due.replies = nil }) },
			"nobody writes 1 replies", false,
		},
		"news that nobody writes": {
			func(x hand) { locked(&x.c.out.mu, func() { x.s.dirty = true }) },
			func(x hand) { locked(&x.c.out.mu, func() { x.s.dirty = false }) },
			"feed:a has news that nobody writes", false,
		},
		"a subscriber that nobody woke": {
			func(x hand) { locked(&x.ch.mu, func() { x.ch.open(); x.ch.log.first++ }) },
			func(x hand) { locked(&x.ch.mu, func() { x.ch.log.first-- }) },
			"nobody woke feed:a, which stands at 0 of 1", false,
		},
		"a subscriber that thinks it is another": {
			func(x hand) { locked(&x.ch.mu, func() { x.s.index = 3 }) },
			func(x hand) { locked(&x.ch.mu, func() { x.s.index = 0 }) },
			"subscriber 0 thinks it is 3", false,
		},
		"a subscription that its client forgot": {
			func(x hand) { locked(&x.c.mu, func() { x.c.subs.remove(x.s) }) },
			func(x hand) { locked(&x.c.mu, func() { x.c.subs.add(x.s) }) },
			"that does not know", false,
		},
		"a count of positions": {
			func(x hand) { locked(&x.ch.mu, func() { x.ch.positioned++ }) },
			func(x hand) { locked(&x.ch.mu, func() { x.ch.positioned-- }) },
			"2 of 1 positioned subscribers counted", false,
		},
		"a channel that is not in the hub": {
			func(x hand) { x.h.channels.drop(x.ch) },
			func(x hand) {
				s := x.h.channels.shard("feed:a")
				locked(&s.mu, func() { s.m["feed:a"] = x.ch })
				x.h.metrics.lingering.Inc()
			},
			"a channel feed:a that is not in the hub", false,
		},
		"a handshake that never ended": {
			func(x hand) { x.h.pending.begin(0) },
			func(x hand) { x.h.pending.done() },
			"1 handshakes or connect commands", true,
		},
		"a message for everybody that gave no room back": {
			func(x hand) { x.h.announcements.room.TryAcquire(1) },
			func(x hand) { x.h.announcements.room.Release(1) },
			"left no room", true,
		},
		"a message for everybody that nobody sends": {
			func(x hand) { x.h.announcements.waiting = []*announcement{{}} },
			func(x hand) { x.h.announcements.waiting = nil },
			"messages for everybody are going out", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, func(s *Settings) { s.Client.IPConnectionLimit, s.Client.PingInterval = 9, 0 })
			url := h.overTCP()
			conn, _, err := websocketDial(t, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{`{"id":1,"connect":{"token":"alice"}}`, `{"id":2,"subscribe":{"channel":"feed:a"}}`} {
				if err := conn.Write(t.Context(), 1, []byte(line)); err != nil {
					t.Fatal(err)
				}
				if _, _, err := conn.Read(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			h.settle()
			x := hand{h: h, c: h.clients.list()[0], ch: h.channels.get("feed:a")}
			x.s = x.ch.subs[0]
			tt.spoil(x)
			defer tt.mend(x)
			if err := h.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("at rest %v is found, want %q", err, tt.want)
			}
			in, err := h.Inspect(t.Context(), 10)
			found := strings.Join(in.Problems, "\n")
			if err != nil || !in.Complete || tt.restOnly != (found == "") || !tt.restOnly && !strings.Contains(found, tt.want) {
				t.Errorf("at work %q is found (%v, %+v), want %q", found, err, in, tt.want)
			}
			if looks := map[bool]int{true: 1, false: inspectLooks}[tt.restOnly]; in.Looks != looks {
				t.Errorf("looked %d times, want %d", in.Looks, looks)
			}
		})
	}
}

// A channel that ended since it was listed is none; one that ended and is listed
// still, or is not and goes on, is.
func TestEndedChannels(t *testing.T) {
	h := startHub(t, nil)
	problems := func(ch *channel) (n int) {
		h.checkChannel(ch, complaints{add: func(string) { n++ }})
		return n
	}
	for _, tt := range []struct {
		gone, listed bool
		want         int
	}{{false, true, 0}, {true, false, 0}, {true, true, 1}, {false, false, 1}} {
		ch := h.channels.make(h.Hub, "live:b", h.rules.all[0])
		if ch.gone = tt.gone; !tt.listed {
			h.channels.drop(ch)
		}
		if n := problems(ch); n != tt.want {
			t.Errorf("%+v: %d problems", tt, n)
		}
		h.channels.drop(ch)
	}
}

// settle waits until nothing is under way: a client may know of what the server
// is not quite done with. A contradiction that stays ends the test.
func (th *testHub) settle() {
	th.t.Helper()
	for begun := time.Now(); ; runtime.Gosched() {
		switch err := th.Check(); {
		case err == nil:
			return
		case time.Since(begun) > 10*time.Second:
			th.t.Fatal(err)
		}
	}
}

// A hub that is hard at work contradicts itself nowhere, and an inspection ends.
func TestInspectionUnderLoad(t *testing.T) {
	h := startHub(t, func(s *Settings) {
		quietStorm(s)
		s.Client.CommandRateLimit, s.Client.ChannelLinger, s.Client.IPConnectionLimit = 0, time.Millisecond, 1000
	})
	ctx, cancel := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for ctx.Err() == nil {
				a := h.attend("somebody")
				for range 20 {
					a.receive([]byte(`{"id":2,"subscribe":{"channel":"room:a"}}` + "\n" + `{"id":3,"publish":{"channel":"room:a","data":1}}` + "\n" + `{"id":4,"unsubscribe":{"channel":"room:a"}}`))
				}
				a.goAway()
			}
		})
	}
	for _, limit := range []int{1, 3, 1000, 1000, 1000} {
		in, err := h.Inspect(t.Context(), limit)
		if err != nil || len(in.Problems) > 0 || in.ConnectionsChecked > limit || in.ChannelsChecked > limit {
			t.Errorf("%+v, %v", in, err)
		}
	}
	cancel()
	workers.Wait()
}

// One inspection runs at a time, within limits, and ends with its caller.
func TestInspectionLimits(t *testing.T) {
	h := startHub(t, nil)
	for range 5 {
		h.login("alice")
	}
	for _, limit := range []int{0, -1, maxInspected + 1} {
		if _, err := h.Inspect(t.Context(), limit); !errors.Is(err, errInspectLimit) {
			t.Errorf("a limit of %d: %v", limit, err)
		}
	}
	h.inspecting.Store(true)
	if _, err := h.Inspect(t.Context(), 1); !errors.Is(err, errInspecting) {
		t.Errorf("a second one: %v", err)
	}
	h.inspecting.Store(false)
	in, err := h.Inspect(t.Context(), 2)
	if err != nil || in.Connections != 5 || in.ConnectionsChecked != 2 || in.ChannelsChecked != 2 || in.Complete {
		t.Errorf("%+v, %v", in, err)
	}
	h.budget.add(-1)
	defer h.budget.add(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Inspect(ctx, 100); !errors.Is(err, context.Canceled) {
		t.Errorf("without a caller: %v", err)
	}
	if _, err := h.Inspect(t.Context(), 100); err != nil {
		t.Errorf("after one that was broken off: %v", err)
	}
}

// A channel with more subscribers than the limit is looked at in parts.
func TestInspectionWindow(t *testing.T) {
	if from, to := (complaints{}).window(7); from != 0 || to != 7 {
		t.Error(from, to)
	}
	seen := map[int]bool{}
	for range 1000 {
		from, to := complaints{limit: 3}.window(5)
		if to-from != 3 || from < 0 || to > 5 {
			t.Fatal(from, to)
		}
		seen[from] = true
	}
	if len(seen) != 3 {
		t.Errorf("only %v", seen)
	}
}
