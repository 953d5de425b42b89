package engine

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// held counts what memory holds on to.
func (m *Memory) held() (channels, results, due int) {
	for i := range m.stripes {
		s := &m.stripes[i]
		s.mu.Lock()
		channels += len(s.channels)
		results += len(s.results)
		due += len(s.due)
		s.mu.Unlock()
	}
	return channels, results, due
}

func TestMemoryIsFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		n := start(t, m, "one")
		o := PublishOptions{
			HistorySize: 3, HistoryTTL: time.Minute, MetaTTL: time.Hour,
			IdempotencyTTL: 10 * time.Second,
		}
		const rooms = 100
		for i := range 10 * rooms {
			room := fmt.Sprint("room", i%rooms)
			o.IdempotencyKey = fmt.Sprint(i)
			n.subscribe(room)
			n.publish(room, "x", o)
			n.enter(room, "a")
			<-n.events
		}
		if c, r, d := m.held(); c != rooms || r != 10*rooms || d != 12*rooms {
			t.Fatalf("%d channels, %d results, %d due", c, r, d)
		}
		for i := range rooms {
			room := fmt.Sprint("room", i)
			_, _ = n.Unsubscribe(t.Context(), room), n.RemovePresence(t.Context(), room, "a")
		}

		time.Sleep(30 * time.Second) // a publication prolongs the life of history
		o.IdempotencyKey = ""
		n.publish("room0", "y", o)
		if c, r, d := m.held(); c != rooms || r != 0 || d != 2*rooms {
			t.Fatalf("after the results: %d channels, %d results, %d due", c, r, d)
		}
		time.Sleep(31 * time.Second)
		if c, _, d := m.held(); c != rooms || d != rooms+1 {
			t.Fatalf("after most histories: %d channels, %d due", c, d)
		}
		if got, _ := n.history("room0", HistoryQuery{Limit: -1, MetaTTL: time.Second}); got != "9=x 10=x 11=y " {
			t.Fatalf("history %q", got)
		}
		time.Sleep(30 * time.Second)
		if got, pos := n.history("room0", HistoryQuery{Limit: -1, MetaTTL: time.Second}); got != "" || pos.Offset != 11 {
			t.Fatalf("history %q at %+v", got, pos)
		}
		time.Sleep(time.Hour)
		if c, r, d := m.held(); c+r+d != 0 {
			t.Fatalf("in the end: %d channels, %d results, %d due", c, r, d)
		}
	})
}

// A channel that was heard, but never published to, ends after it is left.
func TestMemoryForgetsWhatWasOnlyHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		n := start(t, m, "one")
		n.subscribe("room")
		n.history("room", HistoryQuery{Keep: time.Minute, MetaTTL: time.Minute})
		time.Sleep(time.Hour)
		if c, _, _ := m.held(); c != 1 {
			t.Fatalf("%d channels while it is heard", c)
		}
		if err := n.Unsubscribe(t.Context(), "room"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		if c, _, _ := m.held(); c != 1 {
			t.Fatalf("%d channels while somebody may come back", c)
		}
		time.Sleep(2*time.Second + 2*sweepInterval)
		if c, r, d := m.held(); c+r+d != 0 {
			t.Errorf("in the end: %d channels, %d results, %d due", c, r, d)
		}
	})
}

// Expiry does not wait for the sweep.
func TestMemoryExpiresInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, NewMemory(), "one")
		time.Sleep(sweepInterval / 10)
		o := PublishOptions{
			HistorySize: 3, HistoryTTL: time.Millisecond, MetaTTL: 2 * time.Millisecond,
			IdempotencyKey: "k", IdempotencyTTL: time.Millisecond,
		}
		first := n.publish("room", "x", o).Position
		time.Sleep(time.Millisecond)
		if got, pos := n.history("room", HistoryQuery{Limit: -1, MetaTTL: time.Millisecond}); got != "" || pos != first {
			t.Fatalf("%q at %+v", got, pos)
		}
		if n.publish("room", "y", o).Repeated {
			t.Fatal("an expired key counts")
		}
		time.Sleep(2 * time.Millisecond)
		if _, pos := n.history("room", HistoryQuery{}); pos.Epoch == first.Epoch || pos.Offset != 0 {
			t.Fatalf("an expired stream lives on at %+v", pos)
		}
	})
}

func TestWorkerDropsWholeChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard []string
		var lost []string
		dropped := 0
		w := newWorker(
			func(m message) { heard = append(heard, m.channel) },
			func(channels []string) { lost = append(lost, channels...) },
			func() { dropped++ },
		)
		big := string(make([]byte, workerBytes/2))
		w.put(message{channel: "a", payload: big})
		w.put(message{channel: "b", payload: big}) // too much
		w.put(message{channel: "b"})               // would fit, but out of order
		w.put(message{channel: "c"})
		done := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		go func() { defer close(done); w.run(ctx) }()
		synctest.Wait()
		w.put(message{channel: "b"})
		synctest.Wait()
		stop()
		<-done
		if fmt.Sprint(heard, lost, dropped) != "[a c b] [b] 2" {
			t.Fatal(heard, lost, dropped)
		}
	})
}

func TestMetricsLint(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	NewMetrics(reg)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
}

func FuzzParseEnvelope(f *testing.F) {
	for _, seed := range []string{
		"1p12:Abcdefgh:node:7\nbody", "1p0:::\n", "1j0:::\nx", "1l0:::\n", "1b", "1c7:3", "1q7:node:op\nx", "1a7\nx",
		"", "1", "2p1:e::", "1p", "1p-1:e::\n", "1c7:-3", "1c:", "1q7::op", "1p1:e:n:\n", "1x\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseEnvelope(s)
		if err != nil {
			return
		}
		if len(e.body) > len(s) || e.sockets < 0 {
			t.Fatalf("%+v", e)
		}
		if e.kind == kindPublication {
			again := fmt.Sprintf("1p%d:%s:%s:%d\n%s", e.pos.Offset, e.pos.Epoch, e.asker, e.request, e.body)
			if got, err := parseEnvelope(again); len(again) <= maxHeader && (err != nil || got.pos != e.pos || got.asker != e.asker || got.body != e.body) {
				t.Fatalf("%q: %+v became %+v, %v", s, e, got, err)
			}
		}
	})
}

// FuzzDecodeEntry reads what a stream of another program might hold.
func FuzzDecodeEntry(f *testing.F) {
	f.Add("1-0", "\x22\x01x")
	f.Add("x", "")
	f.Add("18446744073709551616-0", "\xff")
	f.Fuzz(func(t *testing.T, id, payload string) {
		pub, err := decodeEntry([]any{id, []any{"d", payload}})
		if (pub == nil) == (err == nil) {
			t.Fatal(pub, err)
		}
	})
}

func TestDecodeEntryOfAnotherShape(t *testing.T) {
	for _, entry := range []any{nil, "x", []any{}, []any{"1-0", nil}, []any{"1-0", []any{"d"}}, []any{1, []any{"d", "x"}}} {
		if _, err := decodeEntry(entry); err == nil {
			t.Errorf("%v is accepted", entry)
		}
	}
}
