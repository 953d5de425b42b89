package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

// resume reads on from a position as a subscriber does, and tells whether it
// is still part of the stream.
func (n *node) resume(channel string, from Position) (text string, whole bool) {
	n.t.Helper()
	at := from
	text, top := n.history(channel, HistoryQuery{Since: &at, Limit: -1})
	return text, at.Epoch == top.Epoch && at.Offset <= top.Offset
}

// persistently publishes until it succeeds.
func (n *node) persistently(channel, data string, o PublishOptions) PublishResult {
	n.t.Helper()
	var res PublishResult
	eventually(n.t, "published "+data, func() bool {
		var err error
		res, err = n.Publish(n.t.Context(), channel, &protocol.Publication{Data: protocol.Raw(data)}, o)
		return err == nil
	})
	return res
}

// A replica that is promoted without the last publications gives their
// offsets out again: positions in what was lost are recognised.
func TestFailoverLosesTheEnd(t *testing.T) {
	master := testdeps.StartRedis(t)
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := testdeps.StartRedis(t, "--replicaof", host, port, "--repl-diskless-sync-delay", "0")
	w := newWire(t, master.Addr)
	rhythm := quick
	rhythm.empty = time.Minute
	n, raw := timedNode(t, w.addr(), "a", rhythm), openRedis(t, replica.Addr)

	n.subscribe("room")
	shared := n.publish("room", "1", kept(10)).Position
	quiet := n.publish("quiet", "1", kept(10)).Position
	empty := n.position("empty")
	eventually(t, "the replica has it", func() bool {
		return raw.HExists(t.Context(), n.Engine.(*Redis).keys.meta("empty"), "s").Val()
	})
	if err := raw.SlaveOf(t.Context(), "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	n.publish("room", "lost 2", kept(10))
	lost := n.publish("room", "lost 3", kept(10)).Position
	lostFirst := n.publish("empty", "lost 1", kept(10)).Position
	for range 3 {
		n.next()
	}
	w.turn(replica.Addr)

	n.persistently("room", "2", kept(10))
	n.persistently("room", "3", kept(10))
	fourth := n.persistently("room", "4", kept(10)).Position // the offsets are beyond those lost
	if fourth.Offset != 4 || fourth.Epoch == lost.Epoch {
		t.Fatalf("published at %+v after %+v was lost", fourth, lost)
	}
	if text, whole := n.resume("room", lost); whole {
		t.Errorf("a position that was lost leads to %q", text)
	}
	if text, whole := n.resume("room", shared); !whole || text != "2=2 3=3 4=4 " {
		t.Errorf("from the last position that was kept: %q, %v", text, whole)
	}
	var before Position
	if _, top := n.history("room", HistoryQuery{Before: &before}); before != shared || lost.Under(top, before) != lost {
		t.Errorf("the epoch before ended at %+v, want %+v", before, shared)
	}
	if text, whole := n.resume("room", quiet); whole {
		t.Errorf("the epoch of another channel counts: %q", text)
	}
	if text, whole := n.resume("quiet", quiet); !whole || text != "" { // reading is enough
		t.Errorf("nothing was lost, but %q, %v", text, whole)
	}
	n.publish("empty", "1", kept(10))
	if text, whole := n.resume("empty", lostFirst); whole {
		t.Errorf("a first publication that was lost leads to %q", text)
	}
	if text, whole := n.resume("empty", empty); !whole || text != "1=1 " {
		t.Errorf("from the beginning: %q, %v", text, whole)
	}
	for e := n.next(); e.kind != "lost"; e = n.next() { // the subscribers were told
		if e.offset == 4 {
			t.Fatal("nobody was told")
		}
	}
}

// What was acknowledged after waiting for replicas survives a failover.
func TestFailoverLosesNothingAcknowledged(t *testing.T) {
	t.Run("sentinel", func(t *testing.T) {
		s := testdeps.StartRedisSentinel(t)
		failover(t, redisclient.Settings{Addresses: s.Addrs, SentinelMaster: s.Name}, 0, func(string) { s.Master.Kill() })
	})
	for name, partitions := range map[string]int{"cluster": 0, "sharded": 16} {
		t.Run(name, func(t *testing.T) {
			c := testdeps.StartRedisCluster(t)
			failover(t, redisclient.Settings{Addresses: c.Addrs}, partitions, func(meta string) {
				killMasterOf(t, c, meta)
			})
		})
	}
}

// killMasterOf kills the master that holds a key.
func killMasterOf(t *testing.T, c *testdeps.RedisClusterServers, key string) {
	t.Helper()
	client := newServers(openClient(t, redisclient.Settings{Addresses: c.Addrs}), false, func() {})
	s, err := client.of(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Masters {
		if m.Addr == s.client.Options().Addr {
			m.Kill()
			return
		}
	}
	t.Fatalf("no master is %s", s.client.Options().Addr)
}

func failover(t *testing.T, settings redisclient.Settings, partitions int, kill func(key string)) {
	rooms := []string{"a", "b", "c", "d", "e", "f"}
	open := func(uid string) *node {
		return optionsNode(t, RedisOptions{
			Client: openClient(t, settings), Prefix: "test", Partitions: partitions,
			WaitReplicas: 1, WaitTimeout: time.Second,
		}, uid, quick)
	}
	pub, sub := open("pub"), open("sub")
	for _, room := range rooms {
		sub.subscribe(room)
	}
	sub.enter("a", "client")
	keep := PublishOptions{HistorySize: 1 << 20, HistoryTTL: time.Hour}
	before := pub.publish("a", "before", keep).Position

	// Publishers go on through the failover, and note what was acknowledged.
	// The victim is not the master that sub's plain connection leads to: nothing
	// of that ends.
	keys := sub.Engine.(*Redis).keys
	victim := rooms[slices.IndexFunc(rooms, func(room string) bool {
		return slot(keys.meta(room))*3/slotCount != slot(keys.inbox("sub"))*3/slotCount
	})]
	ctx, stop := context.WithCancel(t.Context())
	acked := make([]map[string]uint64, len(rooms))
	refused := make([]int, len(rooms))
	var wg sync.WaitGroup
	for i, room := range rooms {
		acked[i] = make(map[string]uint64)
		wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				data := fmt.Sprint(room, k)
				res, err := pub.Publish(ctx, room, &protocol.Publication{Data: protocol.Raw(data)}, keep)
				if err == nil {
					acked[i][data] = res.Position.Offset
				} else if ctx.Err() == nil {
					refused[i]++
					if fault.Of(err).Kind != fault.Unavailable {
						t.Errorf("publish: %v", err)
					}
				}
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // publications are under way
	kill(keys.meta(victim))
	lost := make(map[string]bool)
	for !lost[victim] {
		if e := sub.next(); e.kind == "lost" {
			lost[e.channel] = true
		}
	}
	stop()
	wg.Wait()
	if refused[slices.Index(rooms, victim)] == 0 {
		t.Error("there was no failover")
	}

	for i, room := range rooms {
		var pubs []*protocol.Publication
		eventually(t, "history of "+room, func() bool {
			var err error
			pubs, _, err = pub.History(t.Context(), room, HistoryQuery{Limit: -1})
			return err == nil
		})
		for j := 1; j < len(pubs); j++ {
			if pubs[j].Offset != pubs[j-1].Offset+1 {
				t.Errorf("%s: %d follows %d", room, pubs[j].Offset, pubs[j-1].Offset)
			}
		}
		for _, p := range pubs {
			if offset, ok := acked[i][string(p.Data)]; ok && offset == p.Offset {
				delete(acked[i], string(p.Data))
			}
		}
		if len(acked[i]) > 0 {
			t.Errorf("%s: %d acknowledged publications are lost of %d: %v", room, len(acked[i]), len(pubs), acked[i])
		}
	}
	if _, whole := pub.resume("a", before); !whole {
		t.Error("a position that all servers agree on does not count any more")
	}
	eventually(t, "all works again", func() bool {
		return pub.Ping(t.Context()) == nil && sub.Ping(t.Context()) == nil
	})
	eventually(t, "presence is back", func() bool {
		p, err := pub.Presence(t.Context(), "a")
		return err == nil && p["client"] != nil
	})
	for _, room := range rooms {
		pub.persistently(room, "after", PublishOptions{})
		for e := sub.next(); e.channel != room || e.data != "after"; e = sub.next() {
		}
	}
}

func TestReplicasDoNotConfirm(t *testing.T) {
	o := RedisOptions{Client: openRedis(t, testdeps.Redis(t)), Prefix: "test", WaitReplicas: 1, WaitTimeout: 10 * time.Millisecond}
	n := optionsNode(t, o, "a", quick)
	n.subscribe("room")
	opts := kept(5)
	opts.IdempotencyKey = "k"
	for range 2 {
		pub := &protocol.Publication{Data: protocol.Raw("x")}
		res, err := n.Publish(t.Context(), "room", pub, opts)
		if f := fault.Of(err); !errors.Is(err, errNotReplicated) || f.Kind != fault.Unavailable || f.Code != "not_replicated" {
			t.Fatal(err)
		}
		if res.Position.Offset != 1 || pub.Offset != 1 {
			t.Fatalf("%+v, publication at %d", res, pub.Offset)
		}
	}
	n.want(event{"pub", "room", "x", 1, n.position("room").Epoch})
	n.publish("room", "live", PublishOptions{}) // waits for nobody
}

func (n *node) position(channel string) Position {
	n.t.Helper()
	_, top := n.history(channel, HistoryQuery{})
	return top
}

// A repeat or a suppressed version is acknowledged only once the replicas have
// what it answers with: WAIT only waits for writes, so there must be one.
func TestRepeatsWaitToo(t *testing.T) {
	s := testdeps.StartRedisSentinel(t)
	rhythm := quick
	rhythm.beat, rhythm.empty = time.Hour, time.Hour // nothing else writes
	n := optionsNode(t, RedisOptions{
		Client: openRedis(t, s.Master.Addr), Prefix: "test", WaitReplicas: 1, WaitTimeout: 100 * time.Millisecond,
	}, "n", rhythm)
	n.awaitNodes(1)
	raw := openRedis(t, s.Master.Addr)
	written := func() string {
		info := raw.Info(t.Context(), "persistence").Val()
		_, rest, _ := strings.Cut(info, "rdb_changes_since_last_save:")
		changes, _, _ := strings.Cut(rest, "\r")
		return changes
	}
	s.Replica.Pause(t)
	opts := kept(5)
	opts.IdempotencyKey, opts.Version = "k", 7
	other := opts
	other.IdempotencyKey = ""
	for i, o := range []PublishOptions{opts, opts, other} {
		before := written()
		res, err := n.Publish(t.Context(), "room", &protocol.Publication{}, o)
		if !errors.Is(err, errNotReplicated) || res.Position.Offset != 1 || res.Repeated != (i == 1) || res.Suppressed != (i == 2) {
			t.Fatalf("%d: %+v, %v", i, res, err)
		}
		if written() == before {
			t.Fatalf("%d: nothing was written", i)
		}
	}
	s.Replica.Resume(t)
	eventually(t, "the replica confirms", func() bool {
		_, err := n.Publish(t.Context(), "room", &protocol.Publication{}, opts)
		return err == nil
	})
	s.Kill()
}
