package testdeps

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"
)

// ask sends one inline command to a redis-server and returns the first line
// of the answer.
func ask(t *testing.T, addr, command string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(c)
	if !lines.Scan() {
		t.Fatalf("no answer to %q: %v", command, lines.Err())
	}
	return lines.Text()
}

func TestRedisEndsWithItsTest(t *testing.T) {
	var addr string
	t.Run("test", func(t *testing.T) {
		addr = Redis(t)
		if got := ask(t, addr, "PING"); got != "+PONG" {
			t.Fatalf("PING answered %q", got)
		}
	})
	if err := dialable(addr); err == nil {
		t.Errorf("redis at %s outlived its test", addr)
	}
}

func TestRedisRestart(t *testing.T) {
	tests := []struct {
		name string
		args []string
		end  func(*RedisServer)
		want string
	}{
		{"stopped, kept on disk", []string{"--appendonly", "yes"}, (*RedisServer).Stop, "$1"},
		{"killed, kept on disk", []string{"--appendonly", "yes", "--appendfsync", "always"}, (*RedisServer).Kill, "$1"},
		{"stopped, nothing kept", nil, (*RedisServer).Stop, "$-1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := StartRedis(t, tt.args...)
			if got := ask(t, s.Addr, "SET k v"); got != "+OK" {
				t.Fatalf("SET answered %q", got)
			}
			tt.end(s)
			if err := dialable(s.Addr); err == nil {
				t.Fatalf("redis at %s still accepts", s.Addr)
			}
			s.Restart()
			if got := ask(t, s.Addr, "GET k"); got != tt.want {
				t.Errorf("GET after the restart answered %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRedisServersAreApart(t *testing.T) {
	a, b := Redis(t), Redis(t)
	if got := ask(t, a, "SET k v"); got != "+OK" {
		t.Fatalf("SET answered %q", got)
	}
	if got := ask(t, b, "GET k"); got != "$-1" {
		t.Errorf("the second server answered %q for a key of the first", got)
	}
}
