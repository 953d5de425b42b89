package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
)

// What a subscriber asks for in a stream of which the publications from oldest
// to top are left, and what it is told.
func TestRecovery(t *testing.T) {
	const lost = "lost"
	for name, tc := range map[string]struct {
		published int    // of which the newest 10 are kept
		ask       string // E stands for the epoch
		want      string // recovered offsets, or lost
		flag      int
	}{
		"at the top":                       {5, `"offset":5,"epoch":"E"`, "", 0},
		"one missed":                       {5, `"offset":4,"epoch":"E"`, "5", 0},
		"all that is kept":                 {15, `"offset":5,"epoch":"E"`, "6 7 8 9 10 11 12 13 14 15", 0},
		"one more than is kept":            {15, `"offset":4,"epoch":"E"`, lost, 0},
		"beyond the top":                   {5, `"offset":6,"epoch":"E"`, lost, 0},
		"other epoch":                      {5, `"offset":5,"epoch":"other"`, lost, 0},
		"no epoch is judged by offset":     {5, `"offset":3`, "4 5", 0},
		"no position, kept from the start": {5, ``, "1 2 3 4 5", 0},
		"no position, start is gone":       {15, ``, lost, 0},
		"no position, nothing published":   {0, ``, "", 0},
		"lost, and refused if so":          {5, `"offset":6,"epoch":"E"`, "error", 2},
		"recovered with that flag":         {5, `"offset":4,"epoch":"E"`, "5", 2},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, nil)
			for i := range tc.published {
				h.publish("feed:a", fmt.Sprint(i+1))
			}
			_, top, err := h.engine.History(context.Background(), "feed:a", engine.HistoryQuery{})
			if err != nil {
				t.Fatal(err)
			}
			ask := strings.ReplaceAll(tc.ask, `"E"`, `"`+top.Epoch+`"`)
			if ask != "" {
				ask += ","
			}
			w, _ := h.login("alice")
			w.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,%s"flag":%d}}`, ask, tc.flag))
			w.want(recoveryReply(tc.ask, tc.want, top))
			if tc.want == "error" {
				w.sync()
				return
			}
			h.publish("feed:a", "100") // and life goes on from there
			w.want(fmt.Sprintf(`{"push":{"channel":"feed:a","pub":{"data":100,"offset":%d*}}}`, tc.published+1))
		})
	}
}

func recoveryReply(ask, want string, top engine.Position) string {
	offset := func(n uint64) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprintf(`,"offset":%d`, n)
	}
	switch want {
	case "error":
		return `{"id":2,"error":{"code":112,"message":"unrecoverable position"}}`
	case "lost":
		return `{"id":2,"subscribe":{"recoverable":true,"epoch":"` + top.Epoch + `"` + offset(top.Offset) + `,"positioned":true,"was_recovering":true}}`
	}
	var pubs []string
	for _, o := range strings.Fields(want) {
		pubs = append(pubs, fmt.Sprintf(`{"data":%s,"offset":%s}`, o, o))
	}
	list := ""
	if len(pubs) > 0 {
		list = `,"publications":[` + strings.Join(pubs, ",") + `]`
	}
	var from uint64
	_, _ = fmt.Sscanf(ask, `"offset":%d`, &from)
	return `{"id":2,"subscribe":{"recoverable":true,"epoch":"` + top.Epoch + `"` + list + `,"recovered":true` + offset(from) + `,"positioned":true,"was_recovering":true}}`
}

func TestRecoveryAfterHistoryRemove(t *testing.T) {
	h := startHub(t, nil)
	h.publish("feed:a", "1")
	pos := h.publish("feed:a", "2").Position
	if err := h.HistoryRemove(t.Context(), "feed:a"); err != nil {
		t.Fatal(err)
	}
	w, _ := h.login("alice")
	w.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":2,"epoch":"%s"}}`, pos.Epoch))
	w.want(`{"id":2,"subscribe":{*"recovered":true,"offset":2,*}}`)
}

// What was removed from history does not come back by what was under way.
func TestHistoryStaysRemoved(t *testing.T) {
	since := func(h *testHub, offset uint64) (epoch string) {
		h.t.Helper()
		epoch = h.top("feed:a").Epoch
		w, _ := h.login("bob")
		w.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":%d,"epoch":"%s"}}`, offset, epoch))
		w.want(fmt.Sprintf(`{"id":2,"subscribe":{"recoverable":true,"epoch":"%s","offset":2,"positioned":true,"was_recovering":true}}`, epoch))
		return epoch
	}
	t.Run("a read", func(t *testing.T) {
		h := startHub(t, nil)
		h.publish("feed:a", "1")
		h.publish("feed:a", "2")
		remove := func() {
			if err := h.HistoryRemove(context.Background(), "feed:a"); err != nil {
				t.Error(err)
			}
		}
		w, _ := h.login("alice")
		h.engine.after.Store(&remove)
		w.send(`{"id":2,"subscribe":{"channel":"feed:a","recover":true}}`)
		w.want(`{"id":2,"subscribe":{*"publications":[{"data":1,"offset":1},{"data":2,"offset":2}],*`) // read before
		epoch := since(h, 0)
		h.publish("feed:a", "3")
		w.want(`{"push":{"channel":"feed:a","pub":{"data":3,"offset":3}}}`)
		w, _ = h.login("carol")
		w.send(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":2,"epoch":"` + epoch + `"}}`)
		w.want(`{"id":2,"subscribe":{*"publications":[{"data":3,"offset":3}],*`)
	})
	t.Run("a delivery", func(t *testing.T) {
		h := startHub(t, nil)
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":2,"subscribe":*`)
		top := h.publish("feed:a", "1").Position
		payload, _ := json.Marshal(removal{"feed:a", engine.Position{Offset: 2, Epoch: top.Epoch}})
		h.Survey(opForget, payload) // hears of it before the publication
		h.publish("feed:a", "2")
		if _, err := h.engine.RemoveHistory(t.Context(), "feed:a"); err != nil {
			t.Fatal(err)
		}
		w.want(`{"push":{"channel":"feed:a","pub":{"data":1,*`, `{"push":{"channel":"feed:a","pub":{"data":2,*`)
		since(h, 1)
	})
}

// The first thing that was ever pushed to a user who was away for long is
// recovered, whoever found out first where the channel stands.
func TestFirstPublicationAfterLongAway(t *testing.T) {
	for name, tc := range map[string]struct {
		channel   string
		before    string // asked by somebody else before
		options   string
		away      time.Duration
		recovered bool
	}{
		"personal channel":                {"#alice", "", "", 48 * time.Hour, true},
		"alone":                           {"asked:a", "", `"recoverable":true`, 50 * time.Minute, true},
		"told from memory":                {"asked:a", `"positioned":true`, `"recoverable":true`, 50 * time.Minute, true},
		"nobody may come back":            {"asked:a", "", `"positioned":true`, 50 * time.Minute, false},
		"a subscriber who may not, later": {"asked:a", `"recoverable":true`, `"positioned":true`, 50 * time.Minute, true},
		"longer than history lasts":       {"asked:a", "", `"recoverable":true`, 2 * time.Hour, false}, // anybody may make up such names
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startHub(t, func(s *Settings) { s.Channel.find("asked").HistoryTTL = time.Hour })
				if tc.before != "" {
					bob, _ := h.login("bob")
					bob.send(`{"id":2,"subscribe":{"channel":"asked:a",` + tc.before + `}}`)
					bob.want(`{"id":2,"subscribe":*`)
				}
				w, _ := h.login("alice")
				if tc.options != "" {
					w.send(`{"id":2,"subscribe":{"channel":"asked:a",` + tc.options + `}}`)
					w.want(`{"id":2,"subscribe":*`)
				}
				epoch := h.top(tc.channel).Epoch
				for _, c := range h.clients.list() {
					c.sock.abort()
				}
				time.Sleep(tc.away)
				h.publish(tc.channel, "1")

				w = h.dial(dialOptions{})
				since := `"recover":true,"epoch":"` + epoch + `"`
				w.send(`{"id":1,"connect":{"token":"alice","subs":{"#alice":{` + since + `}}}}`)
				if tc.channel == "#alice" {
					w.want(`{"id":1,"connect":{*"publications":[{"data":1,"offset":1}],*"recovered":true*`)
					return
				}
				w.want(`{"id":1,"connect":*`)
				w.send(`{"id":2,"subscribe":{"channel":"asked:a","recoverable":true,` + since + `}}`)
				if tc.recovered {
					w.want(`{"id":2,"subscribe":{*"publications":[{"data":1,"offset":1}],*"recovered":true*`)
				} else {
					w.want(`{"id":2,"subscribe":{"recoverable":true,*"offset":1,"positioned":true,"was_recovering":true}}`)
				}
			})
		})
	}
}

func TestRecoveryLimit(t *testing.T) {
	h := startHub(t, func(s *Settings) { s.Client.RecoveryLimit = 3 })
	for range 5 {
		h.publish("feed:a", "1")
	}
	w, _ := h.login("alice")
	w.send(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":1}}`, `{"id":3,"unsubscribe":{"channel":"feed:a"}}`,
		`{"id":4,"subscribe":{"channel":"feed:a","recover":true,"offset":2}}`)
	w.want(`{"id":2,"subscribe":{*"offset":5,"positioned":true,"was_recovering":true}}`, `{"id":3,"unsubscribe":{}}`,
		`{"id":4,"subscribe":{*"recovered":true,"offset":2,*}}`)
}

// What is published between reading history and the answer comes after it.
func TestPublishDuringSubscribe(t *testing.T) {
	h := startHub(t, nil)
	h.publish("feed:a", "1")
	w, _ := h.login("alice")
	meanwhile := func() { h.publish("feed:a", "2") }
	h.engine.after.Store(&meanwhile)
	w.send(`{"id":2,"subscribe":{"channel":"feed:a","recover":true}}`)
	w.want(`{"id":2,"subscribe":{*"publications":[{"data":1,"offset":1}],"recovered":true,*}}`, `*"data":2,"offset":2*`)
	w.sync()
}

// Server-side subscriptions are recovered through connect.
func TestServerSideRecovery(t *testing.T) {
	h := startHub(t, nil)
	h.publish("#alice", "1")
	pos := h.publish("#alice", "2").Position
	w := h.dial(dialOptions{})
	w.send(fmt.Sprintf(`{"id":1,"connect":{"token":"alice","subs":{"#alice":{"recover":true,"offset":1,"epoch":"%s"},`+
		`"feed:a":{"recover":true},"live:a":{},"#bob":{"recover":true},"union:#union-bob":{"recover":true}}}}`, pos.Epoch))
	reply := w.next()
	for _, part := range []string{
		`"#alice":{"recoverable":true,"epoch":"` + pos.Epoch + `","publications":[{"data":2,"offset":2}],"recovered":true,"offset":1,"positioned":true,"was_recovering":true}`,
		`"feed:a":{"recoverable":true,"epoch":"`, `"live:a":{}`, `"union:#union-alice":`,
	} {
		if !strings.Contains(reply, part) {
			t.Errorf("no %s in %s", part, reply)
		}
	}
	if strings.Contains(reply, "bob") {
		t.Errorf("got what is someone else's: %s", reply)
	}
	h.publish("#alice", "3")
	w.want(`{"push":{"channel":"#alice","pub":{"data":3,"offset":3}}}`)
}

// Clients get positions only where the namespace lets them ask.
func TestRecoverableOnRequest(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	for _, tc := range [][2]string{
		{`"channel":"asked:a"`, `{"id":2,"subscribe":{}}`},
		{`"channel":"asked:a","positioned":true`, `{"id":2,"subscribe":{"epoch":"*","positioned":true}}`},
		{`"channel":"asked:a","recoverable":true`, `{"id":2,"subscribe":{"recoverable":true,"epoch":"*","positioned":true}}`},
		{`"channel":"asked:a","recover":true`, `{"id":2,"subscribe":{"was_recovering":true}}`},
		{`"channel":"asked:a","recover":true,"flag":2`, `{"id":2,"subscribe":{"was_recovering":true}}`}, // no attempt, no failure
		{`"channel":"live:a","recoverable":true,"positioned":true`, `{"id":2,"subscribe":{}}`},
	} {
		w.send(`{"id":2,"subscribe":{`+tc[0]+`}}`, `{"id":3,"unsubscribe":{"channel":"asked:a"}}`, `{"id":4,"unsubscribe":{"channel":"live:a"}}`)
		w.want(tc[1], `{"id":3,"unsubscribe":{}}`, `{"id":4,"unsubscribe":{}}`)
	}
}

// A publication without history goes to those online and moves nothing.
func TestSkipHistory(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
	w.want(`{"id":2,*`)
	h.publish("feed:a", "1")
	if _, err := h.Publish(t.Context(), "feed:a", []byte("2"), PublishOptions{SkipHistory: true}); err != nil {
		t.Fatal(err)
	}
	h.publish("feed:a", "3")
	w.want(`*"data":1,"offset":1*`, `*"pub":{"data":2}*`, `*"data":3,"offset":2*`)
}

// deliver acts as an engine that delivers what it likes.
func (th *testHub) deliver(channel string, offset uint64, epoch string) {
	th.Publication(channel, &protocol.Publication{Data: protocol.Raw("0"), Offset: offset}, epoch)
}

// What the engine did not deliver is read from history once for all.
func TestMissedDeliveries(t *testing.T) {
	subscribed := func(t *testing.T) (*testHub, *wire, string) {
		h := startHub(t, nil)
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":2,*`)
		epoch := h.publish("feed:a", "1").Position.Epoch
		w.want(`*"offset":1*`)
		return h, w, epoch
	}
	silently := func(h *testHub, n int) { // published while this node does not hear
		h.engineUnsubscribe("feed:a")
		for range n {
			h.publish("feed:a", "7")
		}
		h.engineSubscribe("feed:a")
	}
	t.Run("gap", func(t *testing.T) {
		h, w, _ := subscribed(t)
		silently(h, 3)
		h.publish("feed:a", "8")
		w.want(`*"data":7,"offset":2*`, `*"data":7,"offset":3*`, `*"data":7,"offset":4*`, `*"data":8,"offset":5*`)
	})
	t.Run("engine says so", func(t *testing.T) {
		h, w, _ := subscribed(t)
		silently(h, 2)
		h.Lost(nil)
		w.want(`*"data":7,"offset":2*`, `*"data":7,"offset":3*`)
		h.Lost([]string{"feed:a", "unknown"})
		h.publish("feed:a", "8")
		w.want(`*"data":8,"offset":4*`)
	})
	t.Run("more than history keeps", func(t *testing.T) {
		h, w, _ := subscribed(t)
		silently(h, 11)
		h.publish("feed:a", "8")
		w.want(`{"push":{"channel":"feed:a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`)
		w.send(`{"id":3,"subscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":3,"subscribe":{*"offset":13,*}}`)
	})
	t.Run("repeated", func(t *testing.T) {
		h, w, epoch := subscribed(t)
		h.Publication("feed:a", &protocol.Publication{Data: protocol.Raw("1"), Offset: 1}, epoch)
		h.publish("feed:a", "2")
		w.want(`*"data":2,"offset":2*`)
	})
	t.Run("other epoch", func(t *testing.T) {
		h, w, _ := subscribed(t)
		h.deliver("feed:a", 2, "other")
		w.want(`{"push":{"channel":"feed:a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`)
		w.sync()
	})
	t.Run("other epoch, server-side", func(t *testing.T) {
		h, w, _ := subscribed(t)
		h.deliver("#alice", 1, "other")
		w.wantEnd(DisconnectInsufficientState)
	})
}

// While history is away a gap stays open; then it is closed, or nobody who
// needs a position is left in the dark.
func TestHistoryAway(t *testing.T) {
	for name, tc := range map[string]struct {
		back time.Duration
		want []string
	}{
		"comes back": {2 * time.Second, []string{`*"data":7,"offset":2*`, `*"data":8,"offset":3*`}},
		"does not":   {time.Hour, []string{`*"unsubscribe":{"code":2500,*`}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startHub(t, func(s *Settings) { s.Client.PingInterval = 0 })
				w, _ := h.login("alice")
				w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
				w.want(`{"id":2,*`)
				h.publish("feed:a", "1")
				w.want(`*"offset":1*`)
				h.engine.away.Store(true)
				h.engineUnsubscribe("feed:a")
				h.publish("feed:a", "7")
				h.engineSubscribe("feed:a")
				h.publish("feed:a", "8")
				w.sync()
				time.Sleep(tc.back)
				h.engine.away.Store(false)
				w.want(tc.want...)
				w.send(`{"id":3,"subscribe":{"channel":"feed:b"}}`) // and others live on
				w.want(`{"id":3,*`)
			})
		})
	}
}

// A command that needs the engine while it is away fails for now only.
func TestEngineAway(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	h.engine.away.Store(true)
	w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
	w.want(`{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}`)
	h.engine.away.Store(false)
	w.send(`{"id":3,"subscribe":{"channel":"feed:a"}}`)
	w.want(`{"id":3,"subscribe":{*`)
	other := h.dial(dialOptions{})
	h.engine.away.Store(true)
	other.send(`{"id":1,"connect":{"token":"bob"}}`)
	other.want(`{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}`)
	if n, _ := h.channels.counts(); n != 3 {
		t.Errorf("%d channels, want alice's three", n)
	}
}

func (th *testHub) engineUnsubscribe(channel string) {
	if err := th.engine.Unsubscribe(th.t.Context(), channel); err != nil {
		th.t.Fatal(err)
	}
}

func (th *testHub) engineSubscribe(channel string) {
	if err := th.engine.Subscribe(th.t.Context(), channel); err != nil {
		th.t.Fatal(err)
	}
}
