package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Commands beyond the rate are told to come later, and whoever does not listen
// is closed.
func TestCommandRate(t *testing.T) {
	const refused = `{"id":*,"error":{"code":111,"message":"too many requests","temporary":true}}`
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) {
			s.Client.PingInterval, s.Client.CommandRateLimit, s.Client.CommandRateBurst = 0, 10, 4
		})
		rpc := `{"id":2,"rpc":{"method":"x"}}`
		const answered = `{"id":2,"error":{"code":108,*`
		w, _ := h.login("alice") // takes one
		w.send(rpc, rpc, rpc, rpc, `{"id":3,"unsubscribe":{"channel":"x"}}`, `{"id":4,"subscribe":{"channel":"feed:a"}}`)
		w.want(answered, answered, answered, refused, `{"id":3,"unsubscribe":{}}`, refused)
		if n, _ := h.channels.counts(); n != 2 {
			t.Errorf("%d channels: what was refused was done", n)
		}
		time.Sleep(200 * time.Millisecond) // two more
		w.send(rpc, rpc, rpc)
		w.want(answered, answered, refused)
		time.Sleep(time.Second) // that was no abuse: all is forgotten
		w.send(rpc, rpc, rpc, rpc, rpc, rpc, rpc, rpc)
		w.want(answered, answered, answered, answered, refused, refused, refused, refused)
		time.Sleep(50 * time.Millisecond)
		w.send(rpc)
		w.wantEnd(DisconnectTooManyRequests)
		if n := testutil.ToFloat64(h.metrics.errors.WithLabelValues("111")); n != 7 {
			t.Errorf("%v refusals counted", n)
		}
	})
}

// Pongs are commands too, but nothing to answer; and a rate that is kept is
// never refused.
func TestCommandRateKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) {
			s.Client.PingInterval, s.Client.CommandRateLimit, s.Client.CommandRateBurst = 0, 10, 2
		})
		w, _ := h.login("alice")
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			w.sync()
		}
		w.send(`{}`, `{}`, `{}`, `{}`, `{}`, `{}`)
		w.wantEnd(DisconnectTooManyRequests)
	})
}

// One frame may hold thousands of commands: each counts, and a client that
// touches one channel after the other leaves next to nothing behind.
func TestHostileFrames(t *testing.T) {
	for name, command := range map[string]string{
		"history":   `{"id":2,"history":{"channel":"asked:%d"}}`,
		"subscribe": `{"id":2,"subscribe":{"channel":"feed:%d"}}`,
		"loop":      `{"id":2,"subscribe":{"channel":"feed:%d"}}` + "\n" + `{"id":3,"unsubscribe":{"channel":"feed:%[1]d"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const burst = 100
				h := startHub(t, func(s *Settings) { s.Client.CommandRateBurst = burst })
				w, _ := h.login("mallory")
				before := h.engine.reads.Load()
				for frame := range 10 {
					var lines []string
					for i := range 500 {
						lines = append(lines, fmt.Sprintf(command, frame*500+i))
					}
					if w.conn.Write(t.Context(), 1, []byte(strings.Join(lines, "\n"))) != nil {
						break // closed already
					}
				}
				got := w.next()
				for !strings.HasPrefix(got, "closed") && got != "broken" {
					got = w.next()
				}
				if want := "closed 3013 too many requests"; got != want {
					t.Errorf("%s, want %s", got, want)
				}
				h.clients.running.Wait()
				if n := h.engine.reads.Load() - before; n < 1 || n > burst {
					t.Errorf("%d reads for a burst of %d", n, burst)
				}
				if kept := h.keptChannels(); kept > burst+2 {
					t.Errorf("%d channels are kept", kept)
				}
				time.Sleep(h.settings.Client.ChannelLinger + 10*time.Second)
				synctest.Wait()
				if kept := h.keptChannels(); kept != 0 {
					t.Errorf("%d channels are left", kept)
				}
			})
		})
	}
}

// keptChannels counts the channels in memory, with or without subscribers.
func (th *testHub) keptChannels() (n int) {
	th.channels.each(func(*channel) { n++ })
	return n
}

// When too much waits on a node, those that have left most unread for longest
// go, and the others stay.
func TestNodeBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) {
			s.Client.QueueMaxSize, s.Client.QueueTotalMaxSize = 256<<10, 256<<10
			s.Client.PingInterval = 0
		})
		good, _ := h.login("good")
		large := []byte(`"` + strings.Repeat("x", 30<<10) + `"`)
		push := func() {
			t.Helper()
			if _, err := h.Push(t.Context(), PushRequest{All: true, Data: large}); err != nil {
				t.Fatal(err)
			}
			good.want(`{"push":{"message":*`)
		}
		h.dial(dialOptions{deaf: true}).send(`{"id":1,"connect":{"token":"lazy"}}`)
		synctest.Wait()
		push()
		push()
		time.Sleep(time.Second) // lazy has been so for a while
		h.dial(dialOptions{deaf: true}).send(`{"id":1,"connect":{"token":"late"}}`)
		synctest.Wait()
		for range 2 { // 4*30 KiB of lazy, 2*30 of late
			push()
		}
		synctest.Wait()
		if n := testutil.ToFloat64(h.metrics.slow.WithLabelValues(slowNode)); n != 0 {
			t.Fatalf("%v closed within the budget", n)
		}
		push()
		push()
		time.Sleep(wheelTick)
		synctest.Wait()
		if n := testutil.ToFloat64(h.metrics.slow.WithLabelValues(slowNode)); n != 1 {
			t.Errorf("%v closed for the budget", n)
		}
		for _, c := range h.clients.list() {
			if w := c.out.waiting(); w.ending != (c.user() == "lazy") {
				t.Errorf("%s is closed: %v", c.user(), w.ending)
			}
		}
		good.sync()
		time.Sleep(time.Minute) // the deaf are given up
		if used := h.budget.used.Load(); used != 0 {
			t.Errorf("%d bytes are still counted", used)
		}
		if err := h.Check(); err != nil {
			t.Error(err)
		}
	})
}

// Who is closed as slow is counted by reason.
func TestSlowReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.QueueMaxSize, s.Client.ChannelBacklog = 64<<10, 2 })
		queue := h.dial(dialOptions{deaf: true})
		queue.send(`{"id":1,"connect":{"token":"queue"}}`)
		synctest.Wait()
		for range 10 {
			_, _ = h.Push(t.Context(), PushRequest{All: true, Data: []byte(`"` + strings.Repeat("x", 10<<10) + `"`)})
		}
		backlog := h.dial(dialOptions{deaf: true})
		backlog.send(`{"id":1,"connect":{"token":"backlog"}}`, `{"id":2,"subscribe":{"channel":"live:a"}}`)
		synctest.Wait()
		for range 9 {
			h.publish("live:a", "1")
		}
		go backlog.pump()
		for got := ""; !strings.HasPrefix(got, "closed"); got = backlog.next() {
		}
		for reason, want := range map[string]float64{slowQueue: 1, slowBacklog: 1, slowNode: 0} {
			if n := testutil.ToFloat64(h.metrics.slow.WithLabelValues(reason)); n != want {
				t.Errorf("%s: %v, want %v", reason, n, want)
			}
		}
	})
}

// Joins and leaves that a subscriber was too slow for are gone, and counted.
func TestDroppedJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.ChannelBacklog = 2 })
		slow := h.dial(dialOptions{deaf: true})
		slow.send(`{"id":1,"connect":{"token":"slow"}}`, `{"id":2,"subscribe":{"channel":"room:a"}}`)
		synctest.Wait()
		w, _ := h.login("alice")
		for range 3 {
			w.send(`{"id":2,"subscribe":{"channel":"room:a"}}`, `{"id":3,"unsubscribe":{"channel":"room:a"}}`)
			synctest.Wait()
		}
		go slow.pump()
		for got := slow.next(); !strings.Contains(got, `"leave"`); got = slow.next() {
		}
		if n := testutil.ToFloat64(h.metrics.dropped.WithLabelValues(droppedPresence)); n != 1 {
			t.Errorf("counted %v times", n)
		}
	})
}

// A leave never overtakes its join.
func TestJoinBeforeLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil)
		a, _ := h.login("alice")
		a.send(`{"id":2,"subscribe":{"channel":"room:a"}}`)
		a.want(`{"id":2,*`, `*"join"*`)
		slow := make(chan struct{})
		wait := func() { <-slow }
		h.engine.joining.Store(&wait)
		b, _ := h.login("bob")
		b.send(`{"id":2,"subscribe":{"channel":"room:a"}}`)
		b.want(`{"id":2,*`)
		synctest.Wait() // until the join is about to be told: else neither would be
		go func() { _ = h.Unsubscribe(context.Background(), "bob", "room:a", Selection{}) }()
		synctest.Wait()
		close(slow)
		a.want(`*"join"*"bob"*`, `*"leave"*"bob"*`)
	})
}

// A request that does not ask for WebSocket is told what is wrong.
func TestPlainRequest(t *testing.T) {
	h := startHub(t, nil)
	client := &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return h.listener.dial(ctx) },
		DisableKeepAlives: true,
	}}
	for name, header := range map[string]http.Header{
		"plain":         {},
		"upgrade only":  {"Upgrade": {"websocket"}},
		"other upgrade": {"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"h2c"}},
	} {
		t.Run(name, func(t *testing.T) {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://minigate/connection/websocket", nil)
			req.Header = header
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			var body struct {
				Error struct{ Code, Message string }
			}
			if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusUpgradeRequired || resp.Header.Get("Upgrade") != "websocket" ||
				body.Error.Code != "upgrade_required" || !strings.Contains(body.Error.Message, "wx.connectSocket") {
				t.Errorf("%d %v %+v", resp.StatusCode, resp.Header, body)
			}
		})
	}
	if n := testutil.ToFloat64(h.metrics.refused.WithLabelValues("upgrade")); n != 3 {
		t.Errorf("%v counted", n)
	}
}
