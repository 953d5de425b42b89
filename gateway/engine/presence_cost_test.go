package engine

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/minigate/minigate/internal/testdeps"
)

// What presence costs once everybody is entered, in commands, those in scripts
// among them: the beats grow with nodes, the rare touches with channels and
// users, neither with connections.
func TestPresenceCost(t *testing.T) {
	const perBeat, perChannel, users = 8, 3, 25
	for _, c := range []struct{ nodes, channels, clients int }{
		{2, 10, 100},
		{2, 10, 2000},
		{4, 10, 100},
		{2, 25, 100},
	} {
		beats, touches := presenceCost(t, c.nodes, c.channels, c.clients)
		if want := 10 * c.nodes * perBeat; beats != want {
			t.Errorf("%+v: %d commands in ten beats, want %d", c, beats, want)
		}
		if want := c.nodes * (c.channels*perChannel + users); touches != want {
			t.Errorf("%+v: %d commands in a touch, want %d", c, touches, want)
		}
	}
}

// presenceCost counts ten beats and one touch of nodes that have clients of the
// same users, 25 each, in all of the channels.
func presenceCost(t *testing.T, nodes, channels, clients int) (beats, touches int) {
	addr := testdeps.Redis(t)
	raw := openRedis(t, addr)
	still := timing{beat: time.Hour, lease: time.Hour, silence: time.Hour, empty: time.Hour, touch: time.Hour}
	list := make([]*node, nodes)
	for i := range list {
		list[i] = timedNode(t, addr, fmt.Sprint("n", i), still)
		list[i].awaitNodes(i + 1)
	}
	for i := range clients {
		n := list[i%nodes]
		n.enterAs(fmt.Sprint("room", i/nodes%channels), fmt.Sprint("c", i), fmt.Sprint("u", i%50))
		if err := n.AddUser(t.Context(), fmt.Sprint("u", i%50)); err != nil {
			t.Fatal(err)
		}
	}
	before := executed(t, raw)
	for range 10 {
		for _, n := range list {
			e := n.Engine.(*Redis)
			sofar := executed(t, raw)["zadd"]
			e.presence.wake <- struct{}{}
			eventually(t, "a beat", func() bool { return executed(t, raw)["zadd"] > sofar })
		}
	}
	beats = since(before, executed(t, raw))
	before = executed(t, raw)
	for _, n := range list {
		if err := n.Engine.(*Redis).presence.touch(t.Context(), func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return beats, since(before, executed(t, raw))
}

var commandCalls = regexp.MustCompile(`(?m)^cmdstat_([^:]+):calls=(\d+)`)

// executed returns how often each command was.
func executed(t *testing.T, raw redis.UniversalClient) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, m := range commandCalls.FindAllStringSubmatch(raw.Info(t.Context(), "commandstats").Val(), -1) {
		counts[m[1]], _ = strconv.Atoi(m[2])
	}
	return counts
}

// since adds up what was executed for presence: not what the pools and the looks
// at the server cost, which beats have beside them.
func since(before, after map[string]int) (sum int) {
	for _, name := range []string{"evalsha", "zadd", "zrem", "zscore", "zrangebyscore", "hset", "hget", "hdel", "hgetall", "hincrby", "pexpire", "publish"} {
		sum += after[name] - before[name]
	}
	return sum
}
