package consumer

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/minigate/minigate/internal/testdeps"
)

// TestKilled ends nodes in the middle of their work, again and again: nothing
// is lost, and no key goes ahead of itself.
func TestKilled(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) []string{
		"standalone": func(t *testing.T) []string { return []string{testdeps.Redis(t)} },
		"cluster": func(t *testing.T) []string {
			addrs, _ := testdeps.RedisCluster(t)
			return addrs
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, open(t)...)
			const each, rooms = 300, 20
			w.put(1, each, keys(rooms)...)
			// Each node but the last stands still after so many calls, with all
			// its workers, and is killed there.
			const limit = 1000
			var mu sync.Mutex
			stuck, count := make(chan string, 3*256), map[string]int{}
			w.do = func(ctx context.Context, c call) error {
				mu.Lock()
				count[c.node]++
				stand := c.node != "last" && count[c.node] > limit
				mu.Unlock()
				if !stand {
					return nil
				}
				stuck <- c.node
				<-ctx.Done()
				return ctx.Err()
			}
			nodes := map[string]*node{}
			for _, name := range []string{"a", "b", "c"} {
				nodes[name] = w.start(name)
			}
			for len(nodes) > 0 {
				select {
				case name := <-stuck:
					if n := nodes[name]; n != nil {
						n.kill()
						delete(nodes, name)
					}
				case <-time.After(patience):
					t.Fatalf("%d nodes never came so far", len(nodes))
				}
			}
			w.start("last")
			w.settled()
			w.mu.Lock()
			defer w.mu.Unlock()
			wantOrder(t, w.calls, each, true)
			if len(w.calls) < each*rooms {
				t.Errorf("%d calls", len(w.calls))
			}
		})
	}
}

// TestShutdown finishes what was begun, begins nothing more, and lets another
// node go on at once.
func TestShutdown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testdeps.Redis(t))
	w.list[0].Stream.VisibilityTimeout = 10 * time.Minute // nobody waits for that
	w.put(1, 10, "room:0")
	gate, begun := make(chan struct{}), make(chan struct{}, 10)
	w.do = func(_ context.Context, c call) error {
		if c.node == "a" {
			begun <- struct{}{}
			<-gate
		}
		return nil
	}
	a := w.start("a")
	<-begun
	w.start("b")
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	if a.Shutdown(expired) == nil {
		t.Fatal("it did not wait for what it has begun")
	}
	close(gate)
	if err := a.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls := w.await(10)
	wantOrder(t, calls, 10, false)
	if calls[0].node != "a" || calls[1].node != "b" {
		t.Errorf("carried out: %v", calls)
	}
	w.settled()
}

// TestLostLease takes the lease away from a node under work: it stops, and
// reads nothing more.
func TestLostLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testdeps.Redis(t))
	begun, ended := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.do = func(ctx context.Context, _ call) (err error) {
		once.Do(func() {
			close(begun)
			<-ctx.Done()
			close(ended)
			err = ctx.Err()
		})
		return err
	}
	w.put(1, 1, "room:0")
	w.start("a")
	<-begun
	lease := leaseKey("test", orders, "minigate")
	if err := w.client.Set(t.Context(), lease, "somebody", 0).Err(); err != nil {
		t.Fatal(err)
	}
	w.put(2, 5, "room:0")
	<-ended
	if p := w.client.XPending(t.Context(), orders, "minigate").Val(); p.Count != 1 {
		t.Errorf("%d are pending, want the one that was read under the lease", p.Count)
	}
	w.start("b")
	w.client.Del(t.Context(), lease)
	wantOrder(t, w.await(5), 5, false)
}

// TestLostAnswer loses the answer to a reading: what it gave out is found
// again, before anything later.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testdeps.Redis(t))
	n := w.start("a")
	hook := &errOnce{}
	n.client.AddHook(hook)
	w.put(1, 10, "room:0")
	w.await(10)
	hook.mu.Lock()
	hook.want = func(cmd redis.Cmder) bool {
		list, ok := cmd.(*redis.Cmd)
		if !ok || cmd.Name() != "evalsha" || cmd.Args()[1] != readScript.Hash() {
			return false
		}
		entries, _ := list.Val().([]any)
		return len(entries) > 0
	}
	hook.mu.Unlock()
	w.put(11, 20, "room:0")
	w.put(21, 300, "room:0")
	wantOrder(t, w.await(300), 300, false)
	w.settled()
	hook.mu.Lock()
	defer hook.mu.Unlock()
	if hook.want != nil {
		t.Error("no answer was lost")
	}
}

// TestAdopted takes over what another program of the same group has left, in
// its place, also where it left it later.
func TestAdopted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testdeps.Redis(t))
	ctx := t.Context()
	if err := w.client.XGroupCreateMkStream(ctx, orders, "minigate", "0").Err(); err != nil {
		t.Fatal(err)
	}
	w.put(1, 3, "room:0")
	read := &redis.XReadGroupArgs{Group: "minigate", Consumer: "centrifugo", Streams: []string{orders, ">"}, Block: -1}
	if err := w.client.XReadGroup(ctx, read).Err(); err != nil {
		t.Fatal(err)
	}
	w.start("a")
	wantOrder(t, w.await(3), 3, false)
	if _, err := w.client.TxPipelined(ctx, func(p redis.Pipeliner) error { // before our node can
		p.XAdd(ctx, &redis.XAddArgs{Stream: orders, Values: []string{"method", "publish", "payload", `{"channel":"room:0","data":4}`}})
		p.XReadGroup(ctx, read)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wantOrder(t, w.await(4), 4, false)
	w.settled()
}

// TestRedisRestarts loses Redis for a while: everything is carried out, the
// keys in their order.
func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	server := testdeps.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	w := newWorld(t, server.Addr)
	const each, rooms = 200, 10
	w.put(1, each/2, keys(rooms)...)
	reached := make(chan struct{})
	var once sync.Once
	w.do = func(_ context.Context, c call) error {
		if c.number() == each/4 {
			once.Do(func() { close(reached) })
		}
		return nil
	}
	w.start("a")
	w.start("b")
	<-reached
	server.Kill()
	server.Restart()
	w.put(each/2+1, each, keys(rooms)...)
	w.settled()
	w.mu.Lock()
	defer w.mu.Unlock()
	wantOrder(t, w.calls, each, true)
}

// TestRedisForgets loses Redis with all that was in it.
func TestRedisForgets(t *testing.T) {
	t.Parallel()
	server := testdeps.StartRedis(t)
	w := newWorld(t, server.Addr)
	w.put(1, 10, "room:0")
	w.start("a")
	w.await(10)
	server.Kill()
	server.Restart()
	w.until("Redis is back", func() bool { return w.client.Ping(t.Context()).Err() == nil })
	w.put(11, 20, "room:0")
	wantOrder(t, w.await(20), 20, false)
}

// TestSeveralStreams spreads over nodes: what one leaves another takes.
func TestSeveralStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testdeps.Redis(t))
	w.list[0].Stream.Streams = []string{orders, "{t}.1", "t:{x}:2"}
	for i, name := range w.list[0].Stream.Streams {
		if err := w.client.XAdd(t.Context(), &redis.XAddArgs{Stream: name, Values: []string{
			"method", "publish", "payload", fmt.Sprintf(`{"channel":"c%d","data":1}`, i),
		}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	w.start("a")
	wantOrder(t, w.await(3), 1, false)
	a := w.held("a")
	w.until("a holds all", func() bool { return a() == 3 })
	w.start("b")
	b := w.held("b")
	w.until("b has its share", func() bool { return a() == 2 && b() == 1 })
	n := w.start("c")
	c := w.held("c")
	w.until("c has its share", func() bool { return a() == 1 && b() == 1 && c() == 1 })
	n.kill()
	w.until("another takes it over", func() bool { return a()+b() == 3 })
}
