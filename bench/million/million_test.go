//go:build linux

package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestRuns holds a few sockets on several nodes in each of the three ways, and
// wants every one of them to get the message.
func TestRuns(t *testing.T) {
	for name, o := range map[string]options{
		"alone":   {n: 50, per: 20},
		"channel": {n: 30, per: 20, channel: "feed:all"},
		"redis":   {n: 50, per: 20, redis: true},
		"hurry":   {n: 50, per: 20, within: time.Nanosecond},
	} {
		o.hold, o.patience, o.ping, o.markdown = 10*time.Millisecond, time.Minute, 25*time.Second, true
		r, err := run(t.Context(), o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		nodes, n := (o.n+o.per-1)/o.per, o.n
		if o.within > 0 {
			nodes, n = 1, o.per
		}
		if r.sockets != n || r.nodes != nodes || r.deliveries != int64(n) || r.wanted != int64(n) || r.failed != 0 || r.servers <= 0 || r.max <= 0 {
			t.Errorf("%s: %+v", name, r)
		}
		if (r.redis > 0) != o.redis {
			t.Errorf("%s: Redis takes %d bytes", name, r.redis)
		}
		var table strings.Builder
		if err := r.print(&table, o); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(table.String(), "\n|---|---:|\n") || strings.Count(table.String(), "\n") < 13 {
			t.Errorf("%s: got\n%s", name, table.String())
		}
	}
}

func TestBadArguments(t *testing.T) {
	for _, o := range []options{{}, {n: 1, per: 1 << 30}, {n: 1, per: -1}, {n: 1, per: 1, ping: time.Millisecond}} {
		if _, err := run(context.Background(), o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
