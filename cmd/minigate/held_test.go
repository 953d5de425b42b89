package main

import (
	"strconv"
	"testing"

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
