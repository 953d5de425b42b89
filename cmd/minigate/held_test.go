package main

import (
	"strconv"
	"testing"
	"time"

	"github.com/minigate/minigate/gateway/epoll"
)

// TestConnectionsAreHeldAsConfigured makes sure that other tests of sockets
// test what they think they do.
func TestConnectionsAreHeldAsConfigured(t *testing.T) {
	_, wechatURL := simulator(t)
	for _, on := range []bool{true, false} {
		p := startServe(t, baseConfig(t, wechatURL)+"websocket: {epoll: "+strconv.FormatBool(on)+"}\n")
		dial(t, p.Public)
		held := map[bool]string{true: "epoll", false: "goroutine"}[on && epoll.Supported]
		// A connection is counted after its handshake was answered.
		eventually(t, "a connection counted", func() bool { return p.metric(t, "minigate_connections_accepted_total") == 1 })
		if n := p.metric(t, `minigate_connections_accepted_total\{held_by="`+held+`"\}`); n != 1 {
			t.Errorf("epoll %v: %v connections are held by %s, want 1", on, n, held)
		}
	}
}

// A node alone has nothing to miss, and asks rarely whether it did.
func TestPositionChecksAlone(t *testing.T) {
	for _, c := range []struct {
		redis       []string
		given, want time.Duration
	}{
		{nil, 40 * time.Second, alonePositionCheck},
		{nil, time.Hour, time.Hour},
		{nil, 0, 0},
		{[]string{"127.0.0.1:6379"}, 40 * time.Second, 40 * time.Second},
	} {
		var cfg Config
		cfg.Redis.Addresses, cfg.Client.PositionCheckDelay = c.redis, c.given
		if got := cfg.gateway().Client.PositionCheckDelay; got != c.want {
			t.Errorf("with Redis %v, %v given: %v, want %v", c.redis, c.given, got, c.want)
		}
	}
}
