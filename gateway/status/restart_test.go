package status

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

// These tests run real Trackers over a real Redis that restarts, by the clock
// of Redis.

// crowd is some nodes, and the backend they tell.
type crowd struct {
	t    *testing.T
	mu   sync.Mutex
	told map[string][]Event // without repeats
}

func (c *crowd) tell(_ context.Context, _ int, events []Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range events {
		if list := c.told[e.User]; len(list) == 0 || list[len(list)-1] != e {
			c.told[e.User] = append(list, e)
		}
	}
	return nil
}

// statuses is what a user was told to be, one after the other.
func (c *crowd) statuses(user string) (list []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.told[user] {
		if i > 0 && e.Seq <= c.told[user][i-1].Seq {
			c.t.Errorf("%+v after %+v", e, c.told[user][i-1])
		}
		list = append(list, e.Status)
	}
	return list
}

// await waits until each user was told to be what is wanted.
func (c *crowd) await(what string, users []string, want ...string) {
	c.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		late := slices.IndexFunc(users, func(u string) bool { return !slices.Equal(c.statuses(u), want) })
		if late < 0 {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: %s was told to be %q, want %q", what, users[late], c.statuses(users[late]), want)
		}
	}
}

func (c *crowd) join(client redisclient.Client, node string, users ...string) *Tracker {
	timing := Timing{Grace: 2 * time.Second, Lease: 5 * time.Second}
	tr := New(Options{Store: NewRedisStore(client, "test", timing), Timing: timing, Node: node, Batch: MaxBatch, Tell: c.tell})
	for _, u := range users {
		tr.Arrived(User{ID: u})
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- tr.Run(ctx) }()
	c.t.Cleanup(func() { cancel(); must(c.t, <-done) })
	return tr
}

func TestRedisRestarts(t *testing.T) {
	for name, kept := range map[string]bool{"with its data": true, "without data": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var args []string
			if kept {
				args = []string{"--appendonly", "yes", "--appendfsync", "always"}
			}
			redis := testdeps.StartRedis(t, args...)
			client := newClient(t, redis.Addr)
			c := &crowd{t: t, told: map[string][]Event{}}
			var onA, onB []string
			for i := range 100 {
				onA, onB = append(onA, fmt.Sprint("a", i)), append(onB, fmt.Sprint("b", i))
			}
			a, b := c.join(client, "a", onA...), c.join(client, "b", onB...)
			c.await("coming", append(onA, onB...), "online")

			redis.Kill()
			a.Left("a0") // for good
			b.Left("b0") // to the other node
			a.Arrived(User{ID: "b0"})
			redis.Restart()
			if kept {
				c.await("going", []string{"a0"}, "online", "offline")
				c.await("staying", append(onA[1:], onB...), "online")
				return
			}
			c.await("coming again", append(onA[1:], onB...), "online", "online")
			c.await("going", []string{"a0"}, "online", "offline")
			c.await("staying", append(onA[1:], onB...), "online", "online")
		})
	}
}

// A failover may take back what was entered last: the node finds out, and what
// it enters under another name holds.
func TestRedisFallsBack(t *testing.T) {
	client := newClient(t, testdeps.Redis(t))
	k, s := openRedis(t, client, nil)
	k.live(t, "a", "b")
	k.arrive(t, "a", "ann", "eve")
	k.told(t, "ann online", "eve online")
	before := map[string]string{}
	for _, keys := range s.keys {
		for _, key := range keys {
			before[key] = client.Dump(t.Context(), key).Val() // "" if there is no such key
		}
	}
	k.depart(t, "a", "ann")
	k.arrive(t, "a", "bob")
	bob := k.told(t, "bob online")
	for key, value := range before {
		must(t, client.Del(t.Context(), key).Err())
		if value != "" {
			must(t, client.Restore(t.Context(), key, 0, value).Err())
		}
	}
	k.pass(time.Second)
	k.beat(t, "b", true)
	k.beat(t, "a", false)
	k.beat(t, "a~2", true)
	whole, err := k.Arrive(t.Context(), "a~2", users("eve", "bob"), true)
	if !whole || err != nil {
		t.Fatalf("arrived: %v, %v", whole, err)
	}
	k.depart(t, "a~2", "ann")
	must(t, k.Leave(t.Context(), "a"))
	if again := k.told(t, "bob online"); again[0].Seq <= bob[0].Seq {
		t.Errorf("%+v after %+v", again[0], bob[0])
	}
	k.live(t, "a~2", "b")
	k.told(t, "ann offline")
	k.live(t, "a~2", "b")
	k.want(t)
}
