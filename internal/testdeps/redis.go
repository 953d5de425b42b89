package testdeps

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RedisServer is a redis-server of one test.
type RedisServer struct {
	// Addr is host:port; it stays the same over Restart.
	Addr string

	server
}

// Redis starts a redis-server that stores nothing on disk and returns its
// address.
func Redis(t testing.TB) string {
	t.Helper()
	return StartRedis(t).Addr
}

// StartRedis starts a redis-server for tests that stop, kill or restart it.
// args go to the command line: with "--appendonly", "yes" the data outlives a
// Restart, otherwise nothing is stored on disk.
func StartRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	path := program(t, "redis-server", "redis-server")
	s := &RedisServer{server: server{t: t, dir: t.TempDir()}}
	s.ready = func(pid int) error { return redisReady(s.Addr, pid) }
	s.startOnFreePort(func(port int) {
		s.Addr = loopback(port)
		s.command = func() *exec.Cmd {
			return exec.Command(path, append([]string{
				"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", s.dir,
				"--save", "", "--appendonly", "no",
			}, args...)...)
		}
	})
	return s
}

// redisReady asks for the server's own process id, which tells it from a
// stranger on the same port, and waits until it has loaded its data.
func redisReady(addr string, pid int) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("INFO\r\nQUIT\r\n")); err != nil {
		return err
	}
	missing := map[string]bool{"process_id:" + strconv.Itoa(pid): true, "loading:0": true}
	lines := bufio.NewScanner(c)
	for lines.Scan() && len(missing) > 0 {
		delete(missing, strings.TrimSpace(lines.Text()))
	}
	if len(missing) > 0 {
		return errors.Join(fmt.Errorf("redis at %s is not ours or still loads", addr), lines.Err())
	}
	return nil
}
