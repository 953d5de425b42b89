package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/centrifugal/protocol"
	"github.com/redis/go-redis/v9"

	"github.com/minigate/minigate/internal/testdeps"
)

func (n *node) stats(channel string) string {
	n.t.Helper()
	clients, users, err := n.PresenceStats(n.t.Context(), channel)
	if err != nil {
		n.t.Fatalf("presence stats: %v", err)
	}
	return fmt.Sprintf("%d clients, %d users", clients, users)
}

func (n *node) wantStats(channel, want string) {
	n.t.Helper()
	if got := n.stats(channel); got != want {
		n.t.Fatalf("%s in %q: %s, want %s", n.uid, channel, got, want)
	}
}

func (n *node) enterAs(channel, client, user string) {
	n.t.Helper()
	if err := n.AddPresence(n.t.Context(), channel, client, &protocol.ClientInfo{Client: client, User: user}); err != nil {
		n.t.Fatalf("add presence: %v", err)
	}
}

func (n *node) part(channel, client string) {
	n.t.Helper()
	if err := n.RemovePresence(n.t.Context(), channel, client); err != nil {
		n.t.Fatalf("remove presence: %v", err)
	}
}

func contractPresenceStats(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		n.wantStats("room", "0 clients, 0 users")
		n.enterAs("room", "a", "ann")
		n.enterAs("room", "b", "bob")
		n.enterAs("room", "b2", "bob")
		n.enterAs("room", "c", "") // no user is one, too
		n.enterAs("room", "d", "")
		n.enterAs("other", "a", "ann")
		n.wantStats("room", "5 clients, 3 users")
		n.enterAs("room", "a", "ann") // once more
		n.wantStats("room", "5 clients, 3 users")
		n.enterAs("room", "a", "3\nx\x00\xff") // another user, of an awkward name
		n.wantStats("room", "5 clients, 3 users")
		if who := n.present("room")["a"]; who.GetUser() != "3\nx\x00\xff" || who.GetClient() != "a" {
			t.Fatalf("a is %+v", who)
		}
		for _, step := range []struct{ leaves, want string }{
			{"b", "4 clients, 3 users"},
			{"b", "4 clients, 3 users"},
			{"b2", "3 clients, 2 users"},
			{"never there", "3 clients, 2 users"},
			{"d", "2 clients, 2 users"},
			{"c", "1 clients, 1 users"},
			{"a", "0 clients, 0 users"},
		} {
			n.part("room", step.leaves)
			n.wantStats("room", step.want)
		}
		n.wantStats("other", "1 clients, 1 users")
	})
}

// A user on two nodes is one; what a node that died left behind is not counted,
// whoever else the user has.
func TestStatsOverNodes(t *testing.T) {
	server := testdeps.StartRedis(t)
	w := newWire(t, server.Addr)
	a, b := redisNode(t, server.Addr, "a"), redisNode(t, w.addr(), "b")
	a.awaitNodes(2)
	a.enterAs("room", "1", "ann")
	b.enterAs("room", "2", "ann")
	for i := range 700 { // more than one step of reaping
		b.enterAs("room", fmt.Sprint("b", i), fmt.Sprint("user", i))
	}
	b.enterAs("room", "3", "bob")
	for _, n := range []*node{a, b} {
		n.wantStats("room", "703 clients, 702 users")
	}
	b.part("room", "3")
	a.wantStats("room", "702 clients, 701 users")
	w.sever()
	b.halt() // cannot say good-bye any more
	a.wantStats("room", "702 clients, 701 users")
	eventually(t, "the clients of b are gone", func() bool { return a.stats("room") == "1 clients, 1 users" })
	counted(t, openRedis(t, server.Addr), a.Engine.(*Redis).keys.presence("room"))
}

// Whatever happens to nodes and their connections, the numbers come right.
func TestStatsStayRight(t *testing.T) {
	server := testdeps.StartRedis(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newWire(t, server.Addr)
	raw := openRedis(t, server.Addr)
	nodes := []*node{redisNode(t, server.Addr, "a"), redisNode(t, w.addr(), "b")}
	nodes[0].awaitNodes(2)
	there := map[string]string{} // client → user
	for i := range 600 {
		at := rng.IntN(2)
		client := fmt.Sprint(at, "-", rng.IntN(20))
		var err error
		if rng.IntN(2) == 0 {
			user := strconv.Itoa(rng.IntN(8))
			if err = nodes[at].AddPresence(t.Context(), "room", client, &protocol.ClientInfo{Client: client, User: user}); err == nil {
				there[client] = user
			} else {
				delete(there, client)
			}
		} else {
			err = nodes[at].RemovePresence(t.Context(), "room", client)
			delete(there, client)
		}
		if err != nil && (at == 0 || errors.Is(err, errReply)) {
			t.Fatal(err)
		}
		switch i {
		case 150, 300: // b is away, at times for longer than its lease
			w.sever()
		case 200, 350:
			if i == 350 {
				nodes[0].awaitNodes(1)
			}
			w.mend()
		case 450:
			raw.FlushAll(t.Context())
		}
	}
	users := map[string]bool{}
	for _, user := range there {
		users[user] = true
	}
	want := fmt.Sprintf("%d clients, %d users", len(there), len(users))
	for _, n := range nodes {
		eventually(t, "the numbers are "+want, func() bool {
			clients, users, err := n.PresenceStats(t.Context(), "room")
			return err == nil && fmt.Sprintf("%d clients, %d users", clients, users) == want
		})
	}
	counted(t, raw, nodes[0].Engine.(*Redis).keys.presence("room"))
}

// counted compares the hashes that count with the one that is counted.
func counted(t *testing.T, raw redis.UniversalClient, key string) {
	t.Helper()
	eventually(t, "the counts are those of the entries", func() bool {
		pipe := raw.TxPipeline()
		var all [3]*redis.MapStringStringCmd
		for i, k := range presenceKeys(key) {
			all[i] = pipe.HGetAll(t.Context(), k)
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		users, leases := map[string]int{}, map[string]int{}
		for _, entry := range all[0].Val() {
			lease, who := parsePresent(entry)
			users[who.user]++
			leases[lease]++
		}
		return same(users, all[1].Val()) && same(leases, all[2].Val())
	})
}

func same(want map[string]int, got map[string]string) bool {
	for k, n := range want {
		if got[k] != strconv.Itoa(n) {
			return false
		}
	}
	return len(want) == len(got)
}

// FuzzParsePresent reads what another program might have left in the hash.
func FuzzParsePresent(f *testing.F) {
	f.Add("node~1\n3\nann\x12\x01c")
	f.Add("node~1\n0\n")
	f.Add("no lease")
	f.Add("x\n9\nshort")
	f.Add("x\n-1\n")
	f.Fuzz(func(t *testing.T, entry string) {
		lease, who := parsePresent(entry)
		if len(lease)+len(who.user)+len(who.info) > len(entry) {
			t.Fatalf("%q became %q %+v", entry, lease, who)
		}
		if strings.Contains(lease, "\n") {
			t.Fatalf("lease %q", lease)
		}
		if again, same := parsePresent(who.entry(lease)); again != lease || same != who {
			t.Fatalf("%q became %q %+v, then %q %+v", entry, lease, who, again, same)
		}
	})
}
