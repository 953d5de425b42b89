package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

// Two nodes of a cluster, with and without sharded pub/sub.
func TestNodesOfACluster(t *testing.T) {
	c := testdeps.StartRedisCluster(t)
	for name, partitions := range map[string]int{"plain": 0, "sharded": 32} {
		t.Run(name, func(t *testing.T) {
			open := func(uid string) *node {
				return optionsNode(t, RedisOptions{
					Client: openClient(t, redisclient.Settings{Addresses: c.Addrs}), Prefix: name, Partitions: partitions,
				}, uid, quick)
			}
			a, b := open("a"), open("b")
			a.awaitNodes(2)
			b.awaitNodes(2)
			a.sockets, b.sockets = 2, 5
			count := kept(100)
			count.Count = true
			for i := range 20 { // on all masters
				room := fmt.Sprint("room", i)
				if res := a.publish("nobody", "x", count); res.Sockets != 0 {
					t.Fatalf("nobody: %+v", res)
				}
				b.subscribe(room)
				if res := a.publish(room, "b", count); res.Sockets != 5 {
					t.Fatalf("b alone: %+v", res)
				}
				a.subscribe(room)
				if res := a.publish(room, "both", count); res.Sockets != 7 {
					t.Fatalf("both: %+v", res)
				}
				if err := b.Unsubscribe(t.Context(), room); err != nil {
					t.Fatal(err)
				}
				if res := b.publish(room, "a", count); res.Sockets != 2 {
					t.Fatalf("a alone: %+v", res)
				}
				if got := b.next().data + b.next().data; got != "bboth" {
					t.Fatalf("b heard %q", got)
				}
				first := a.next().data
				if first == "b" { // just before it subscribed
					first = a.next().data
				}
				if got := first + a.next().data; got != "botha" {
					t.Fatalf("a heard %q", got)
				}
			}
			answers, err := b.ask("op", "x")
			if err != nil || len(answers) != 2 {
				t.Fatalf("%q, %v", answers, err)
			}
			a.enter("room0", "x")
			if p := b.present("room0"); len(p) != 1 {
				t.Fatalf("presence %v", p)
			}
		})
	}
}

// A slot that moves to another master takes its subscriptions along.
func TestSlotMoves(t *testing.T) {
	c := testdeps.StartRedisCluster(t)
	n := optionsNode(t, RedisOptions{
		Client: openClient(t, redisclient.Settings{Addresses: c.Addrs}), Prefix: "test", Partitions: 8,
	}, "a", quick)
	e := n.Engine.(*Redis)
	moving, staying := "moving", "staying"
	for e.keys.partition(staying) == e.keys.partition(moving) {
		staying += "+"
	}
	n.subscribe(moving)
	n.subscribe(staying)
	var epoch string
	for i := range 2 {
		epoch = n.publish(moving, fmt.Sprint(i), kept(10)).Position.Epoch
		n.want(event{"pub", moving, fmt.Sprint(i), uint64(i + 1), epoch})
	}

	s := slot(e.keys.live(moving))
	from, to := s*3/slotCount, (s*3/slotCount+1)%3
	ids := make([]string, 3)
	clients := make([]redisclient.Client, 3)
	for i, m := range c.Masters {
		clients[i] = openRedis(t, m.Addr)
		id, err := clients[i].Do(t.Context(), "cluster", "myid").Text()
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = id
	}
	do := func(i int, args ...any) {
		t.Helper()
		if err := clients[i].Do(t.Context(), args...).Err(); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
	do(to, "cluster", "setslot", s, "importing", ids[from])
	do(from, "cluster", "setslot", s, "migrating", ids[to])
	keys, err := clients[from].ClusterGetKeysInSlot(t.Context(), s, 100).Result()
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(c.Masters[to].Addr, ":")
	for _, key := range keys {
		do(from, "migrate", host, port, key, 0, 5000)
	}
	// The keys have gone, the slot has not: the publication follows them, and
	// only the master that has the slot knows who hears the channel.
	asked := n.publish(moving, "asked", kept(10)).Position
	for _, i := range []int{to, from, 3 - to - from} {
		do(i, "cluster", "setslot", s, "node", ids[to])
	}
	n.want(event{kind: "lost", channel: moving})
	at := Position{2, epoch}
	if text, top := n.history(moving, HistoryQuery{Since: &at, Limit: -1}); text != "3=asked " || at.Epoch != top.Epoch || top != asked {
		t.Fatalf("%q, %+v, %+v", text, at, top)
	}
	after := n.publish(moving, "after", kept(10))
	n.want(event{"pub", moving, "after", 4, after.Position.Epoch})
	n.publish(staying, "undisturbed", PublishOptions{})
	n.want(event{"pub", staying, "undisturbed", 0, ""})
	if err := n.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestSlots(t *testing.T) {
	c := openRedis(t, testdeps.StartRedis(t, "--cluster-enabled", "yes").Addr)
	for _, key := range []string{"", "x", "123456789", "a{b}c", "a{}b", "{}", "{", "}{", "a{b", "{a}{b}", "{{a}}", "房间", "\x00\xff"} {
		want, err := c.ClusterKeySlot(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		if got := slot(key); got != int(want) {
			t.Errorf("%q is in %d, Redis says %d", key, got, want)
		}
	}
}

func TestPartitionTags(t *testing.T) {
	// They are part of stored keys.
	if got := strings.Join(partitionTags(4), " "); got != "5nw h85 7l1 b3k" {
		t.Errorf("the tags have changed to %s", got)
	}
	for _, n := range []int{1, 3, 16, 100, 1024} {
		tags := partitionTags(n)
		for _, masters := range []int{1, 2, 3, 5, 16} {
			share := make([]int, masters)
			for _, tag := range tags {
				share[slot("{"+tag+"}x")*masters/slotCount]++
			}
			if slices.Max(share)-slices.Min(share) > 1 {
				t.Errorf("%d partitions over %d masters: %v", n, masters, share)
			}
		}
	}
	k := keys{"p", partitionTags(16)}
	share := make([]int, 16)
	for i := range 16000 {
		channel := fmt.Sprint("room:", i)
		share[k.partition(channel)]++
		live := k.live(channel)
		for _, key := range []string{k.meta(channel), k.stream(channel), k.result(channel, "k")} {
			if slot(key) != slot(live) {
				t.Fatalf("%q and %q are apart", key, live)
			}
		}
		if got, ok := k.channelOf(live); !ok || got != channel || k.partitionOf(live) != k.partition(channel) {
			t.Fatalf("%q became %q", live, got)
		}
	}
	if slices.Min(share) < 800 || slices.Max(share) > 1200 {
		t.Errorf("channels are spread %v", share)
	}
	for p := range 16 {
		if k.partitionOf(k.probe(p, "uid")) != p {
			t.Errorf("the probe of %d is in another partition", p)
		}
	}
}

// Names that are merely tried do not stay.
func TestTriedNamesAreForgotten(t *testing.T) {
	addr := testdeps.Redis(t)
	n, raw := redisNode(t, addr, "a"), openRedis(t, addr)
	for i := range 1000 {
		n.history(fmt.Sprint("tried", i), HistoryQuery{Limit: -1})
	}
	n.subscribe("left")
	n.position("left")
	n.elapse(t, "left", HistoryQuery{})
	if err := n.Unsubscribe(t.Context(), "left"); err != nil {
		t.Fatal(err)
	}
	k := n.Engine.(*Redis).keys
	eventually(t, "all is forgotten", func() bool {
		left, err := raw.Keys(t.Context(), k.prefix+":meta:*").Result()
		return err == nil && len(left) == 0
	})
	eventually(t, "the node forgets them", func() bool {
		s := &n.Engine.(*Redis).empty
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.m) == 0
	})
	n.position("short")
	if ttl := raw.PTTL(t.Context(), k.meta("short")).Val(); ttl <= 0 || ttl > quick.empty {
		t.Fatalf("kept for %v", ttl)
	}
	n.publish("short", "x", kept(1))
	n.position("short")
	if ttl := raw.PTTL(t.Context(), k.meta("short")).Val(); ttl < DefaultMetaTTL-time.Minute {
		t.Fatalf("once published to, kept for %v", ttl)
	}
}

func TestUsersOverNodes(t *testing.T) {
	addr := testdeps.Redis(t)
	w := newWire(t, addr)
	a, b, c := redisNode(t, addr, "a"), redisNode(t, w.addr(), "b"), redisNode(t, addr, "c")
	for _, n := range []*node{a, b, c} {
		n.awaitNodes(3)
	}
	add := func(n *node, user string) {
		t.Helper()
		if err := n.AddUser(t.Context(), user); err != nil {
			t.Fatal(err)
		}
	}
	asks := func(user string, want string) bool {
		t.Helper()
		answers, err := c.askUser(user, "op", "x")
		if err != nil {
			t.Fatal(err)
		}
		who := make([]string, len(answers))
		for i, answer := range answers {
			who[i], _, _ = strings.Cut(string(answer), ":")
		}
		slices.Sort(who)
		return strings.Join(who, " ") == want
	}
	wants := func(user, want string) {
		t.Helper()
		if !asks(user, want) {
			t.Fatalf("%s: not %s", user, want)
		}
	}
	wants("u", "c")
	add(a, "u")
	wants("u", "a c")
	add(a, "u")
	add(b, "u")
	add(b, "other")
	wants("u", "a b c")
	a.RemoveUser("u")
	wants("u", "a b c") // one connection is left
	for range 100 {     // a reconnect, in whatever order it is seen
		a.RemoveUser("u")
		add(a, "u")
		add(a, "u")
		a.RemoveUser("u")
	}
	wants("u", "a b c")
	a.RemoveUser("u")
	eventually(t, "a has left", func() bool { return asks("u", "b c") })

	// A node that cannot enter a user is asked for everybody, as soon as it can
	// be reached again, and then no more.
	w.sever()
	eventually(t, "b is away", func() bool { return b.Ping(t.Context()) != nil })
	if err := b.AddUser(t.Context(), "late"); err == nil {
		t.Fatal("entered, though Redis is away")
	}
	b.RemoveUser("other")
	w.mend()
	eventually(t, "b enters its users", func() bool { return asks("late", "b c") })
	eventually(t, "b says so when it is done", func() bool { return asks("other", "c") })
	wants("u", "b c")

	w.sever()
	b.halt() // cannot say good-bye
	c.awaitNodes(2)
	wants("u", "c")
	raw := openRedis(t, addr)
	eventually(t, "the index is cleaned up", func() bool {
		return raw.HLen(t.Context(), c.Engine.(*Redis).keys.user("u")).Val() == 0
	})
}
