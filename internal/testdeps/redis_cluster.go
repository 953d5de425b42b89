package testdeps

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RedisCluster starts a Redis Cluster of three masters without replicas, which
// stores nothing on disk, and returns their addresses once all 16384 slots are
// served. kill ends all of them as a crash would.
func RedisCluster(t testing.TB) (addrs []string, kill func()) {
	t.Helper()
	c := startCluster(t, 0)
	return c.Addrs, func() {
		for _, s := range c.Masters {
			s.Kill()
		}
	}
}

// RedisClusterServers is a cluster of three masters with one replica each.
type RedisClusterServers struct {
	Addrs             []string // of the masters it began with
	Masters, Replicas []*RedisServer
}

// StartRedisCluster starts one, which replaces a master two seconds after it
// went away. args go to every command line.
func StartRedisCluster(t testing.TB, args ...string) *RedisClusterServers {
	t.Helper()
	return startCluster(t, 1, args...)
}

func startCluster(t testing.TB, replicas int, args ...string) *RedisClusterServers {
	t.Helper()
	c := new(RedisClusterServers)
	timeout := "5000"
	if replicas > 0 {
		timeout = "2000"
	}
	var all []*RedisServer
	var buses []int
	for range 3 * (1 + replicas) {
		bus := FreePort(t) // else 10000 above the port, where outgoing connections are
		all = append(all, StartRedis(t, append([]string{
			"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus),
			"--cluster-node-timeout", timeout, "--cluster-config-file", "nodes.conf",
			"--repl-diskless-sync-delay", "0",
		}, args...)...))
		buses = append(buses, bus)
	}
	for i, s := range all[:3] {
		first, last := i*16384/3, (i+1)*16384/3-1
		mustRedis(t, s.Addr, fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", first, last))
		c.Masters, c.Addrs = append(c.Masters, s), append(c.Addrs, s.Addr)
	}
	for i, s := range all {
		mustRedis(t, s.Addr, fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", i+1)) // distinct from the start, or they would have to agree
		host, port, _ := net.SplitHostPort(s.Addr)                            // it came from JoinHostPort
		mustRedis(t, all[0].Addr, fmt.Sprintf("CLUSTER MEET %s %s %d", host, port, buses[i]))
	}
	for _, s := range all {
		awaitRedis(t, s.Addr, "CLUSTER INFO", "cluster_state:ok", "cluster_slots_ok:16384", "cluster_size:3",
			fmt.Sprintf("cluster_known_nodes:%d", len(all)))
	}
	for i, s := range all[3:] {
		answer, err := askRedis(c.Masters[i%3].Addr, "CLUSTER MYID")
		if err != nil {
			t.Fatal(err)
		}
		_, id, _ := strings.Cut(strings.TrimSpace(answer), "\n") // after the length
		mustRedis(t, s.Addr, "CLUSTER REPLICATE "+strings.TrimSpace(id))
		c.Replicas = append(c.Replicas, s)
	}
	for i, s := range c.Replicas {
		awaitRedis(t, s.Addr, "INFO replication", "master_link_status:up")
		_, port, _ := strings.Cut(s.Addr, ":")
		for _, m := range c.Masters { // everybody knows who replaces whom
			awaitRedis(t, m.Addr, "CLUSTER NODES", port+"@"+strconv.Itoa(buses[3+i])+" slave")
		}
	}
	return c
}

// RedisSentinel is a master, a replica and a sentinel that watches them.
type RedisSentinel struct {
	Addrs           []string // of the sentinels
	Name            string   // by which they know the master
	Master, Replica *RedisServer

	sentinel *RedisServer
}

// StartRedisSentinel starts one that decides alone, half a second after its
// master went away.
func StartRedisSentinel(t testing.TB) *RedisSentinel {
	t.Helper()
	s := &RedisSentinel{Name: "main", Master: StartRedis(t)}
	host, port, _ := net.SplitHostPort(s.Master.Addr)
	s.Replica = StartRedis(t, "--replicaof", host, port, "--repl-diskless-sync-delay", "0")
	awaitRedis(t, s.Replica.Addr, "INFO replication", "master_link_status:up")

	path := program(t, "redis-server", "redis-server")
	s.sentinel = &RedisServer{server: server{t: t, dir: t.TempDir()}}
	s.sentinel.ready = func(pid int) error { return sentinelReady(s.sentinel.Addr, pid) }
	s.sentinel.startOnFreePort(func(sentinelPort int) {
		s.sentinel.Addr = loopback(sentinelPort)
		config := filepath.Join(s.sentinel.dir, "sentinel.conf") // it writes what it learns into it
		text := fmt.Sprintf("bind 127.0.0.1\nport %d\ndir %s\nsentinel monitor %s %s %s 1\nsentinel down-after-milliseconds %s 500\nsentinel failover-timeout %s 5000\n",
			sentinelPort, s.sentinel.dir, s.Name, host, port, s.Name, s.Name)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.sentinel.command = func() *exec.Cmd { return exec.Command(path, config, "--sentinel") }
	})
	s.Addrs = []string{s.sentinel.Addr}
	awaitRedis(t, s.sentinel.Addr, "SENTINEL REPLICAS "+s.Name, "slave-priority") // only then can it fail over
	return s
}

// Kill ends all of them as a crash would.
func (s *RedisSentinel) Kill() {
	s.sentinel.Kill()
	s.Master.Kill()
	s.Replica.Kill()
}

func sentinelReady(addr string, pid int) error {
	answer, err := askRedis(addr, "INFO server")
	if err == nil && !strings.Contains(answer, "process_id:"+strconv.Itoa(pid)+"\n") {
		err = fmt.Errorf("the sentinel at %s is not ours", addr)
	}
	return err
}

// mustRedis sends one command and fails the test where Redis answers an error.
func mustRedis(t testing.TB, addr, command string) {
	t.Helper()
	if answer, err := askRedis(addr, command); err != nil || strings.HasPrefix(answer, "-") {
		t.Fatalf("redis at %s, %s: %s %v", addr, command, answer, err)
	}
}

// awaitRedis repeats a command until all of want are in its answer.
func awaitRedis(t testing.TB, addr, command string, want ...string) {
	t.Helper()
	deadline := time.Now().Add(startDeadline)
	for {
		answer, err := askRedis(addr, command)
		missing := errors.Join(err)
		for _, w := range want {
			if !strings.Contains(answer, w) {
				missing = fmt.Errorf("%q is missing from %q", w, answer)
			}
		}
		if missing == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("redis at %s, %s: %v", addr, command, missing)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// askRedis sends one command and returns all that comes back, undecoded.
func askRedis(addr, command string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	// The sentinel has no QUIT: reading ends with the answer to a second command.
	if _, err := io.WriteString(c, command+"\r\nPING end-of-answer\r\n"); err != nil {
		return "", err
	}
	var answer strings.Builder
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if lines.Text() == "end-of-answer" {
			return answer.String(), nil
		}
		answer.WriteString(lines.Text() + "\n")
	}
	return answer.String(), io.ErrUnexpectedEOF
}
