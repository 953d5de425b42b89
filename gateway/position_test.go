package gateway

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/gateway/engine"
)

// silently publishes while this node does not hear the channel.
func (th *testHub) silently(channel string, n int) {
	th.t.Helper()
	th.engineUnsubscribe(channel)
	for range n {
		th.publish(channel, "7")
	}
	th.engineSubscribe(channel)
}

// A quiet channel is checked once for all its subscribers on this node, and
// what was missed without a trace is repaired.
func TestPositionCheck(t *testing.T) {
	const subscribers = 20
	for name, tc := range map[string]struct {
		missed int
		want   []string
		result checkResult
	}{
		"nothing missed": {0, nil, checkFine},
		"repaired":       {2, []string{`*"data":7,"offset":2*`, `*"data":7,"offset":3*`}, checkRepaired},
		"lost":           {11, []string{`{"push":{"channel":"feed:a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`}, checkRepaired},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startHub(t, func(s *Settings) {
					s.Client.PingInterval, s.Client.PersonalChannel.Enabled, s.Client.UnionIDNamespace = 0, false, ""
				})
				var clients []*wire
				for i := range subscribers {
					w, _ := h.login("user" + itoa(i))
					w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`, `{"id":3,"subscribe":{"channel":"live:a"}}`)
					w.want(`{"id":2,*`, `{"id":3,*`)
					clients = append(clients, w)
				}
				h.publish("feed:a", "1")
				for _, w := range clients {
					w.want(`*"offset":1*`)
				}
				h.silently("feed:a", tc.missed)
				time.Sleep(39 * time.Second)
				if n := testutil.ToFloat64(h.metrics.reads[readCheck]); n != 0 {
					t.Errorf("%v checks before their time", n)
				}
				time.Sleep(20 * time.Second)
				for _, w := range clients {
					w.want(tc.want...)
					w.sync()
				}
				if n := testutil.ToFloat64(h.metrics.reads[readCheck]); n != 1 {
					t.Errorf("%v reads for %d subscribers", n, subscribers)
				}
				if n := testutil.ToFloat64(h.metrics.checks[tc.result]); n != 1 {
					t.Errorf("%v counted as %s", n, checkResultNames[tc.result])
				}
			})
		})
	}
}

// A channel in which something happens, or that nobody needs a position in,
// is not checked.
// However long nothing was to be checked, a check has all its time.
func TestPositionChecksHaveTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) {
			s.Client.PingInterval, s.Client.PersonalChannel.Enabled, s.Client.UnionIDNamespace = 0, false, ""
			s.Client.RequestTimeout = 100 * time.Millisecond // shorter than checks are apart
		})
		w, _ := h.login("alice")
		for i := range 12 { // more than there are workers
			w.send(fmt.Sprintf(`{"id":%d,"subscribe":{"channel":"feed:%d"}}`, i+2, i))
			w.want(fmt.Sprintf(`{"id":%d,*`, i+2))
		}
		time.Sleep(5 * time.Minute)
		w.sync()
		fine, failed := testutil.ToFloat64(h.metrics.checks[checkFine]), testutil.ToFloat64(h.metrics.checks[checkFailed])
		if fine < 12*4 || failed > 0 {
			t.Errorf("%v checks, and %v that failed", fine, failed)
		}
	})
}

func TestNoPositionCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.PersonalChannel.Enabled, s.Client.UnionIDNamespace = false, "" })
		w, _ := h.login("alice")
		go func() {
			for line := range w.lines {
				if line == "{}" {
					w.send("{}")
				}
			}
		}()
		w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`, `{"id":3,"subscribe":{"channel":"asked:a"}}`)
		gone, _ := h.login("bob") // who needed a position for a while
		gone.send(`{"id":2,"subscribe":{"channel":"asked:a","positioned":true}}`, `{"id":3,"unsubscribe":{"channel":"asked:a"}}`)
		gone.want(`{"id":2,*"positioned":true}}`, `{"id":3,*`)
		_ = gone.conn.CloseNow()
		for range 20 {
			h.publish("feed:a", "1")
			h.publish("asked:a", "1")
			time.Sleep(20 * time.Second)
		}
		time.Sleep(15 * time.Second)
		h.publish("feed:a", "1")
		time.Sleep(30 * time.Second)
		if n := testutil.ToFloat64(h.metrics.reads[readCheck]); n != 0 {
			t.Errorf("%v checks", n)
		}
	})
}

// A stream that fell back in its epoch, as after a failover without WAIT, is
// noticed, and nobody who was beyond is told to be recovered.
func TestStreamFellBack(t *testing.T) {
	fell := func(t *testing.T, h *testHub) (w, server *wire, epoch string) {
		t.Helper()
		w, _ = h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":2,*`)
		for i := range 8 {
			epoch = h.publish("feed:a", itoa(i+1)).Position.Epoch
		}
		for i := range 8 {
			w.want(fmt.Sprintf(`*"offset":%d*`, i+1))
		}
		server, _ = h.login("bob")
		h.publish("#bob", "1")
		server.want(`*"offset":1*`)
		back := func(p engine.Position) engine.Position {
			if p.Epoch == epoch {
				p.Offset -= 3
			} else {
				p.Offset -= min(p.Offset, 1)
			}
			return p
		}
		h.engine.top.Store(&back)
		return w, server, epoch
	}
	unrecovered := func(w *wire, epoch string, offset, top int) {
		w.send(fmt.Sprintf(`{"id":3,"subscribe":{"channel":"feed:a","recover":true,"offset":%d,"epoch":"%s"}}`, offset, epoch))
		w.want(fmt.Sprintf(`{"id":3,"subscribe":{"recoverable":true,"epoch":"%s","offset":%d,"positioned":true,"was_recovering":true}}`, epoch, top))
	}
	const bye = `{"push":{"channel":"feed:a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`
	t.Run("found by a check", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := startHub(t, func(s *Settings) { s.Client.PingInterval = 0 })
			w, server, epoch := fell(t, h)
			time.Sleep(time.Minute)
			w.want(bye)
			server.wantEnd(DisconnectInsufficientState)
			unrecovered(w, epoch, 8, 5)
			if n := testutil.ToFloat64(h.metrics.checks[checkLost]); n != 2 {
				t.Errorf("%v counted as lost", n)
			}
		})
	})
	t.Run("found by a subscriber", func(t *testing.T) {
		h := startHub(t, nil)
		w, _, epoch := fell(t, h)
		other, _ := h.login("carol")
		unrecovered(other, epoch, 9, 5) // ahead of what this node knows: the engine is asked
		w.want(bye)
		unrecovered(w, epoch, 8, 5)
	})
	t.Run("found by a refill", func(t *testing.T) {
		h := startHub(t, nil)
		w, _, epoch := fell(t, h)
		h.Lost([]string{"feed:a"})
		w.want(bye)
		unrecovered(w, epoch, 8, 5)
	})
	t.Run("found by what is delivered", func(t *testing.T) {
		h := startHub(t, nil)
		w, _, epoch := fell(t, h)
		h.engine.top.Store(nil)
		deliver := func(offset uint64) {
			h.Publication("feed:a", &protocol.Publication{Data: protocol.Raw(`"new"`), Offset: offset}, epoch)
		}
		deliver(6)
		w.want(bye)
		for offset := range uint64(3) {
			deliver(offset + 7)
		}
		// The offsets that came twice are nobody's position any more, the
		// others are.
		unrecovered(w, epoch, 8, 9)
		w.send(`{"id":4,"unsubscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":4,"unsubscribe":{}}`)
		w.send(fmt.Sprintf(`{"id":3,"subscribe":{"channel":"feed:a","recover":true,"offset":5,"epoch":"%s"}}`, epoch))
		w.want(`{"id":3,*"publications":[{"data":"new","offset":6},{"data":"new","offset":7},{"data":"new","offset":8},{"data":"new","offset":9}],"recovered":true,"offset":5,*`)
	})
}

// An epoch that was replaced unheard is noticed by whoever brings the new one.
func TestEpochReplacedUnheard(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
	w.want(`{"id":2,*`)
	h.publish("feed:a", "1")
	w.want(`*"offset":1*`)
	other := func(p engine.Position) engine.Position { return engine.Position{Offset: p.Offset, Epoch: "new"} }
	h.engine.top.Store(&other)
	bob, _ := h.login("bob")
	bob.send(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":1,"epoch":"new"}}`)
	bob.want(`{"id":2,"subscribe":{"recoverable":true,"epoch":"new","recovered":true,"offset":1,*`)
	w.want(`*"unsubscribe":{"code":2500,*`)
}

// Channels whose history is away wait aside: others are repaired at once.
func TestRefillsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.PingInterval = 0 })
		w, _ := h.login("alice")
		var names []string
		for i := range 3 * refillWorkers {
			names = append(names, "feed:"+itoa(i))
		}
		names = append(names, "feed:fine")
		for _, name := range names {
			w.send(`{"id":2,"subscribe":{"channel":"` + name + `"}}`)
			w.want(`{"id":2,*`)
			h.publish(name, "1")
			w.want(`*"data":1,"offset":1*`)
		}
		broken := func(channel string) bool { return strings.HasPrefix(channel, "feed:") && channel != "feed:fine" }
		h.engine.broken.Store(&broken)
		for _, name := range names {
			h.silently(name, 1)
		}
		begin := time.Now()
		h.Lost(names)
		w.want(`*"feed:fine"*"data":7,"offset":2*`)
		if took := time.Since(begin); took != 0 {
			t.Errorf("the channel that could be repaired waited %v", took)
		}
		time.Sleep(2 * time.Second)
		h.engine.broken.Store(nil)
		for range 3 * refillWorkers {
			w.want(`*"data":7,"offset":2*`)
		}
		if took := time.Since(begin); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("the others were repaired after %v", took)
		}
		h.retries.mu.Lock()
		defer h.retries.mu.Unlock()
		if len(h.retries.list) != 0 {
			t.Error("something is still to be retried")
		}
	})
}

// In cache mode who recovers gets the newest publication, if there is one and
// it is not what the client has.
func TestCacheMode(t *testing.T) {
	const top = 3
	for name, tc := range map[string]struct {
		published int
		auto      bool
		removed   bool
		ask       string
		want      string // what the result has between epoch and positioned
	}{
		"behind":                   {top, false, false, `"recover":true,"offset":1,"epoch":"E"`, `,"publications":[{"data":3,"offset":3}],"recovered":true,"offset":1`},
		"other epoch":              {top, false, false, `"recover":true,"offset":1,"epoch":"x"`, `,"publications":[{"data":3,"offset":3}],"recovered":true,"offset":1`},
		"no position":              {top, false, false, `"recover":true`, `,"publications":[{"data":3,"offset":3}],"recovered":true`},
		"at the top":               {top, false, false, `"recover":true,"offset":3,"epoch":"E"`, `,"recovered":true,"offset":3`},
		"at the top, other epoch":  {top, false, false, `"recover":true,"offset":3,"epoch":"x"`, `,"publications":[{"data":3,"offset":3}],"recovered":true,"offset":3`},
		"empty":                    {0, false, false, `"recover":true`, ``},
		"empty, flag 2":            {0, false, false, `"recover":true,"flag":2`, ``},
		"removed, flag 2":          {top, false, true, `"recover":true,"offset":1,"epoch":"E","flag":2`, `,"offset":3`},
		"not asked":                {top, false, false, ``, `,"offset":3`},
		"not asked, but automatic": {top, true, false, ``, `,"publications":[{"data":3,"offset":3}],"recovered":true`},
		"removed":                  {top, false, true, `"recover":true,"offset":1,"epoch":"E"`, `,"offset":3`},
		"removed, at the top":      {top, false, true, `"recover":true,"offset":3,"epoch":"E"`, `,"recovered":true,"offset":3`},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, func(s *Settings) {
				s.Channel.Namespaces[1].ForceRecoveryMode, s.Channel.Namespaces[1].AutoCacheRecover = "cache", tc.auto
			})
			for i := range tc.published {
				h.publish("feed:a", itoa(i+1))
			}
			if tc.removed {
				if err := h.HistoryRemove(t.Context(), "feed:a"); err != nil {
					t.Fatal(err)
				}
			}
			_, at, err := h.engine.Memory.History(t.Context(), "feed:a", engine.HistoryQuery{})
			if err != nil {
				t.Fatal(err)
			}
			was := ""
			if tc.auto || tc.ask != "" {
				was = `,"was_recovering":true`
			}
			ask := strings.ReplaceAll(tc.ask, `"E"`, `"`+at.Epoch+`"`)
			if ask != "" {
				ask = "," + ask
			}
			w, _ := h.login("alice")
			for _, source := range []string{"engine", "memory"} {
				w.send(`{"id":2,"subscribe":{"channel":"feed:a"`+ask+`}}`, `{"id":3,"unsubscribe":{"channel":"feed:a"}}`)
				want := `{"id":2,"subscribe":{"recoverable":true,"epoch":"` + at.Epoch + `"` + tc.want + `,"positioned":true` + was + `}}`
				if got := w.next(); got != want {
					t.Errorf("from %s:\ngot  %s\nwant %s", source, got, want)
				}
				w.want(`{"id":3,"unsubscribe":{}}`)
			}
			if tc.auto && !tc.removed { // of several in memory too
				h.publish("feed:a", "4")
				h.publish("feed:a", "5")
				w.send(`{"id":4,"subscribe":{"channel":"feed:a"}}`)
				w.want(`{"id":4,*"publications":[{"data":5,"offset":5}],"recovered":true,*`)
			}
		})
	}
}

// Whoever stood beyond the place that a stream fell back to is told so, even
// where the news was gone from the log before it came to it.
func TestStreamFellBackUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, quietStorm)
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":2,*`)
		var at engine.Position
		for i := range 8 {
			at = h.publish("feed:a", itoa(i)).Position
			w.want(`*"offset":` + itoa(i+1) + `*`)
		}
		ch := h.channels.get("feed:a")
		ch.mu.Lock()
		ch.rewind(engine.Position{Offset: 5, Epoch: at.Epoch})
		ch.log.drop(len(ch.log.messages))
		ch.mu.Unlock()
		h.deliver("feed:a", 6, at.Epoch)
		w.want(`{"push":{"channel":"feed:a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`)
	})
}

// After a stream fell back no delta is made of a publication that is not part
// of it any more.
func TestNoDeltaAcrossRewind(t *testing.T) {
	h := startHub(t, quietStorm)
	w, _ := h.login("alice")
	w.send(`{"id":2,"subscribe":{"channel":"delta:a","delta":"fossil"}}`)
	w.want(`{"id":2,*"delta":true}}`)
	data := `"` + strings.Repeat("abcdefgh", 20)
	var at engine.Position
	for i := range 3 {
		at = h.publish("delta:a", data+itoa(i)+`"`).Position
		w.want(`*"offset":` + itoa(i+1) + `*`)
	}
	w.send(`{"id":3,"unsubscribe":{"channel":"delta:a"}}`)
	w.want(`{"id":3,*`)
	back := func(engine.Position) engine.Position { return engine.Position{Offset: 2, Epoch: at.Epoch} }
	h.engine.top.Store(&back)
	ch := h.channels.get("delta:a")
	ch.check(t.Context())
	h.engine.top.Store(nil)
	deliver := func(offset uint64, text string) {
		h.Publication("delta:a", &protocol.Publication{Data: protocol.Raw(text), Offset: offset, Delta: true}, at.Epoch)
	}
	deliver(3, `"something else altogether"`) // heard by nobody
	w.send(fmt.Sprintf(`{"id":4,"subscribe":{"channel":"delta:a","delta":"fossil","recover":true,"offset":2,"epoch":%q}}`, at.Epoch))
	w.want(`{"id":4,*something else altogether*,"recovered":true,*`)
	deliver(4, data+`4"`)
	w.want(`{"push":{"channel":"delta:a","pub":{"data":"\"abcdefgh*4\"","offset":4}}}`)
}

// A refill that comes back to a channel that has started over is not put on top
// of what came since.
func TestStaleRefill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, quietStorm)
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":2,*`)
		h.publish("feed:a", "1")
		w.want(`*"offset":1*`)
		ch := h.channels.get("feed:a")
		done := make(chan struct{})
		meanwhile := func() {
			defer close(done)
			ch.mu.Lock()
			ch.forget()
			ch.mu.Unlock()
			h.publish("feed:a", "9")
		}
		h.engine.after.Store(&meanwhile)
		h.silently("feed:a", 2)
		h.Lost([]string{"feed:a"})
		<-done
		w.want(`*"data":7,"offset":2*`, `*"data":7,"offset":3*`, `*"data":9,"offset":4*`)
		h.publish("feed:a", "10")
		w.want(`*"data":10,"offset":5*`)
		synctest.Wait()
		if err := h.Check(); err != nil {
			t.Error(err)
		}
	})
}

// A channel that somebody came back to is not retired under him.
func TestRetireTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { quietStorm(s); s.Client.ChannelLinger = 1 })
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":2,*`)
		if err := h.retire(t.Context(), h.channels.get("feed:a")); err != nil {
			t.Fatal(err)
		}
		h.publish("feed:a", "1")
		w.want(`*"offset":1*`)
		synctest.Wait()
		if err := h.Check(); err != nil {
			t.Error(err)
		}
	})
}
