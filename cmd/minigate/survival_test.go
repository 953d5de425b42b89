package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

// hubCluster makes a node for tests of the live side.
func hubCluster(t testing.TB, wechatURL, redis string) string {
	return baseConfig(t, wechatURL) + fmt.Sprintf(`
keys:
  sealing: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
  signing: [MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDM=]
  tickets: [{id: t1, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDI=}]
redis: %s
channel:
  namespaces:
    - name: room
      presence: true
      history_size: 300
      history_ttl: 300s
      force_recovery: true
      allow_subscribe_for_client: true
`, redis)
}

// survival is some nodes, those who follow channels through them, and one who
// publishes.
type survival struct {
	t         *testing.T
	config    func() string
	mu        sync.Mutex
	list      []*program
	followers []*follower
	*publisher
}

var survivalRooms = []string{"room:a", "room:b", "room:c", "room:d"}

func startSurvival(t *testing.T, nodes int, redis string) *survival {
	sim, wechatURL := simulator(t)
	s := &survival{t: t, config: func() string { return hubCluster(t, wechatURL, redis) }}
	for range nodes {
		s.list = append(s.list, startServe(t, s.config()))
	}
	s.publisher = &publisher{t: t, nodes: s.nodes, run: "r", newest: map[string]int{}}
	for i := range 12 {
		code := func() string { return sim.NewCode(testAppID, fmt.Sprint("user", i)) }
		s.followers = append(s.followers, follow(t, s.nodes, code, survivalRooms[i%4], survivalRooms[(i+1)%4]))
	}
	s.settle("the start")
	return s
}

func (s *survival) nodes() []*program {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// during publishes to all rooms while something happens, and a little longer.
func (s *survival) during(what func()) {
	done := make(chan struct{})
	go func() { defer close(done); what() }()
	for rounds := 5; rounds > 0; {
		for _, ch := range survivalRooms {
			s.publish(ch)
		}
		select {
		case <-done:
			rounds--
		default:
		}
	}
}

// settle publishes everywhere until all have the newest: who was told to start
// over meanwhile sees only what comes after.
func (s *survival) settle(after string) {
	s.t.Helper()
	defer func() { // says who is late, if somebody stays so
		for _, f := range s.followers {
			if s.t.Failed() && !f.caughtUp(s.newest) {
				s.t.Logf("late: %s", f.describe())
			}
		}
	}()
	began := time.Now()
	var next time.Time
	eventually(s.t, "everybody is connected and has everything after "+after, func() bool {
		if time.Now().After(next) {
			for _, ch := range survivalRooms {
				s.publish(ch)
			}
			next = time.Now().Add(2 * time.Second)
		}
		return !slices.ContainsFunc(s.followers, func(f *follower) bool { return !f.caughtUp(s.newest) })
	})
	s.t.Logf("%s: all caught up after %v", after, time.Since(began).Round(time.Millisecond))
}

// kill ends node i as a power cut does, and leaves the rest to the others.
func (s *survival) kill(i int) {
	s.mu.Lock()
	p := s.list[i]
	s.list = slices.Delete(slices.Clone(s.list), i, i+1)
	s.mu.Unlock()
	p.kill()
}

func (s *survival) add() {
	p := startServe(s.t, s.config())
	s.mu.Lock()
	s.list = append(slices.Clone(s.list), p)
	s.mu.Unlock()
}

// present compares the presence of all rooms, as each node sees it, with who is
// there.
func (s *survival) present(after string) {
	s.t.Helper()
	began := time.Now()
	eventually(s.t, "presence is exact after "+after, func() bool {
		for _, ch := range survivalRooms {
			var want []string
			for _, f := range s.followers {
				f.mu.Lock()
				if slices.Contains(f.channels, ch) {
					want = append(want, f.id)
				}
				f.mu.Unlock()
			}
			slices.Sort(want)
			for _, p := range s.nodes() {
				var answer struct {
					Result struct{ Presence map[string]any }
				}
				call(s.t, "POST", p.Ops+"/api/presence", map[string]string{"X-API-Key": testAPIKey}, fmt.Sprintf(`{"channel":%q}`, ch), &answer)
				var got []string
				for id := range answer.Result.Presence {
					got = append(got, id)
				}
				if slices.Sort(got); !slices.Equal(got, want) {
					return false
				}
			}
		}
		return true
	})
	s.t.Logf("%s: presence exact after %v", after, time.Since(began).Round(time.Millisecond))
}

func (s *survival) verify(lossless bool) {
	s.t.Helper()
	told, got := 0, 0
	for _, f := range s.followers {
		told += f.verify(lossless)
		for _, r := range f.rooms {
			got += len(r.got)
		}
	}
	s.t.Logf("%d publications to %d followers, %d arrived, recovered:false %d times", s.newest["room:a"]*4, len(s.followers), got, told)
}

// TestNodesSurvive lets nodes die, and Redis restart with its data, under
// three nodes: nobody misses anything, nor is told so.
func TestNodesSurvive(t *testing.T) {
	t.Parallel()
	redis := testdeps.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	s := startSurvival(t, 3, fmt.Sprintf("{addresses: [%s]}", redis.Addr))
	s.present("the start")
	s.during(func() { s.kill(1) })
	s.settle("kill -9 of a node")
	s.present("kill -9 of a node")
	s.during(s.add)
	s.settle("a new node")
	s.during(func() { s.kill(0) })
	s.settle("kill -9 of another node")
	s.during(func() { redis.Stop(); redis.Restart() })
	s.settle("a restart of Redis with its data")
	s.present("a restart of Redis with its data")
	s.verify(true)
}

// TestRedisForgets restarts Redis without its data under two nodes: logins are gone
// with the streams. Everybody is told, logs in again and follows the new ones.
func TestRedisForgets(t *testing.T) {
	t.Parallel()
	redis := testdeps.StartRedis(t)
	s := startSurvival(t, 2, fmt.Sprintf("{addresses: [%s]}", redis.Addr))
	s.during(func() {})
	s.settle("the beginning")
	s.during(func() { redis.Kill(); redis.Restart() })
	s.settle("a restart of Redis without data")
	s.verify(false)
}

// TestRedisFailsOver kills a master of a Redis Cluster of three masters and
// three replicas. Where replicas are waited for, nothing acknowledged is lost.
func TestRedisFailsOver(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]string{
		"plain":               "wait_replicas: 1",
		"sharded":             "wait_replicas: 1, sharded_pub_sub_partitions: 16",
		"sharded, no waiting": "sharded_pub_sub_partitions: 16",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := testdeps.StartRedisCluster(t)
			s := startSurvival(t, 2, fmt.Sprintf("{addresses: [%s], %s}", strings.Join(cluster.Addrs, ", "), options))
			s.during(func() {
				cluster.Masters[0].Kill()
				promoted(t, cluster)
				cluster.Masters[0].Restart() // as a replica, which those who wait for one need
			})
			s.settle("the failover")
			s.present("the failover")
			s.during(func() { s.kill(0) })
			s.settle("kill -9 of a node")
			s.verify(strings.Contains(options, "wait_replicas"))
		})
	}
}

// promoted waits until the first replica has taken over.
func promoted(t *testing.T, cluster *testdeps.RedisClusterServers) {
	c := redisclient.Open(redisclient.Settings{Addresses: []string{cluster.Masters[1].Addr}})
	defer func() { _ = c.Close() }()
	eventually(t, "the replica is master", func() bool {
		for line := range strings.Lines(c.ClusterNodes(t.Context()).Val()) {
			if strings.Contains(line, cluster.Replicas[0].Addr) && strings.Contains(line, "master") {
				return true
			}
		}
		return false
	})
}
