package gateway

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/centrifugal/protocol"
	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/gateway/engine"
)

// Subscribing in the middle of a torrent loses nothing, doubles nothing, and
// the reply comes first.
func TestSubscribeWhilePublishing(t *testing.T) {
	const rounds, perRound = 50, 20
	h := startHub(t, func(s *Settings) {
		s.Channel.Namespaces[1].HistorySize = 1 << 20
		s.Client.RecoveryLimit = 1 << 20
		s.Client.ChannelBacklog = 1 << 20
		s.Client.PingInterval = 0 // on a busy machine it takes long enough for one
	})
	stop := make(chan struct{})
	var publisher sync.WaitGroup
	var seen atomic.Uint64
	publisher.Go(func() {
		for top := uint64(0); ; runtime.Gosched() {
			select {
			case <-stop:
				return
			default:
				if top < seen.Load()+1<<12 { // not faster for long than the client reads
					top = h.publish("feed:a", "1").Position.Offset
				}
			}
		}
	})
	w, _ := h.login("alice")
	last := uint64(0)
	see := func(p *protocol.Publication) {
		last = follow(t, last, p.Offset)
		seen.Store(last)
	}
	for range rounds {
		w.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":%d}}`, last))
		reply := decode(t, w.next()).Subscribe
		if reply == nil || !reply.Recovered {
			t.Fatalf("after %d: %+v", last, reply)
		}
		for _, p := range reply.Publications {
			see(p)
		}
		for range perRound {
			see(decode(t, w.next()).Push.Pub)
		}
		w.send(`{"id":3,"unsubscribe":{"channel":"feed:a"}}`)
		for m := decode(t, w.next()); m.Id != 3; m = decode(t, w.next()) {
			see(m.Push.Pub)
		}
	}
	close(stop)
	publisher.Wait()
}

func follow(t *testing.T, last, next uint64) uint64 {
	t.Helper()
	if next != last+1 {
		t.Fatalf("offset %d after %d", next, last)
	}
	return next
}

func decode(t *testing.T, line string) *protocol.Reply {
	t.Helper()
	r, err := protocol.NewJSONReplyDecoder([]byte(line)).Decode()
	if r == nil {
		t.Fatalf("%v in %s", err, line)
	}
	return r
}

// All subscribers see all publications in the same order, however they come.
func TestOrder(t *testing.T) {
	const subscribers, publishers, each = 20, 4, 100
	h := startHub(t, func(s *Settings) { s.Client.ChannelBacklog = publishers * each })
	clients := make([]*wire, subscribers)
	for i := range clients {
		clients[i], _ = h.login("user" + itoa(i))
		clients[i].send(`{"id":2,"subscribe":{"channel":"live:a"}}`)
		clients[i].want(`{"id":2,"subscribe":{}}`)
	}
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				h.publish("live:a", fmt.Sprint(p*1000+i))
			}
		})
	}
	wg.Wait()
	var first []string
	for i, w := range clients {
		var got []string
		for range publishers * each {
			got = append(got, w.next())
		}
		if i == 0 {
			first = got
		} else if strings.Join(got, "\n") != strings.Join(first, "\n") {
			t.Fatalf("client %d saw another order", i)
		}
	}
}

// A client that does not read costs nothing but its cursor, and is closed as
// soon as it can be written to no more; the others do not notice.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil)
		deaf := h.dial(dialOptions{deaf: true})
		deaf.send(`{"id":1,"connect":{"token":"deaf"}}`, `{"id":2,"subscribe":{"channel":"live:a"}}`)
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"live:a"}}`)
		w.want(`{"id":2,"subscribe":{}}`)
		for range 1000 {
			h.publish("live:a", "1")
			w.want(`*"data":1*`)
		}
		time.Sleep(h.settings.WebSocket.WriteTimeout + time.Second)
		if n, _ := h.clients.counts(); n != 1 {
			t.Errorf("%d clients, want the one that reads", n)
		}
		w.sync()
	})
}

// A reader that comes back in time gets what it can have from history, and is
// closed where nobody can tell what it missed.
func TestLateReader(t *testing.T) {
	for _, tc := range []struct {
		name, channel string
		published     int
		want          []string
	}{
		{"repaired", "feed:a", 9, []string{`*"offset":2*`, `*"offset":3*`, `*"offset":4*`, `*"offset":5*`, `*"offset":6*`, `*"offset":7*`, `*"offset":8*`, `*"offset":9*`}},
		{"beyond history", "feed:a", 30, []string{`*"unsubscribe":{"code":2500,*`}},
		{"without history", "live:a", 9, []string{`*"disconnect":{"code":3008,"reason":"slow"}*`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startHub(t, func(s *Settings) { s.Client.ChannelBacklog = 2 })
				w := h.dial(dialOptions{deaf: true})
				w.send(`{"id":1,"connect":{"token":"alice"}}`, `{"id":2,"subscribe":{"channel":"`+tc.channel+`"}}`)
				synctest.Wait() // its writer hangs in the first frame
				for range tc.published {
					h.publish(tc.channel, "1")
				}
				go w.pump()
				var got []string
				for range 2 + len(tc.want) { // connect, subscribe
					got = append(got, w.next())
				}
				// The first publication may be in the backlog or repaired.
				for _, want := range tc.want {
					found := false
					for _, line := range got {
						found = found || match(want, line)
					}
					if !found {
						got = append(got, w.next())
						if !match(want, got[len(got)-1]) {
							t.Fatalf("no %s in\n%s", want, strings.Join(got, "\n"))
						}
					}
				}
			})
		})
	}
}

// A client that recovers more than may wait for it gets all of it, as fast as
// it reads.
func TestLargeReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.QueueMaxSize = 64 << 10 })
		large := `"` + strings.Repeat("x", 20<<10) + `"`
		w := h.dial(dialOptions{deaf: true})
		commands := []string{`{"id":1,"connect":{"token":"alice"}}`}
		for i := range 5 {
			channel := "feed:" + itoa(i)
			for range 10 {
				h.publish(channel, large)
			}
			commands = append(commands, `{"id":`+itoa(i+2)+`,"subscribe":{"channel":"`+channel+`","recover":true}}`)
		}
		w.send(commands...)
		synctest.Wait() // its writer hangs, and the reader behind it
		if size := h.waiting(); size < 64<<10 || size > 2*200<<10+64<<10 {
			t.Errorf("%d bytes wait", size)
		}
		go w.pump()
		w.want(`{"id":1,"connect":*`)
		for i := range 5 {
			if r := decode(t, w.next()); r.Id != uint32(i+2) || len(r.Subscribe.Publications) != 10 {
				t.Fatalf("reply %d has %d publications", r.Id, len(r.Subscribe.Publications))
			}
		}
		w.sync()
	})
}

// waiting is how many bytes of replies wait for clients.
func (th *testHub) waiting() (size int) {
	for _, c := range th.clients.list() {
		c.out.mu.Lock()
		size += c.out.pending().size
		c.out.mu.Unlock()
	}
	return size
}

// What is long takes long on a slow line, and comes whole; see TestSlowReader
// for lines that stand still.
func TestSlowLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := &boundedConn{Conn: near, timeout: 2 * time.Second}
		const size = 10*writePiece + 1
		var reader sync.WaitGroup
		reader.Go(func() {
			buf := make([]byte, writePiece)
			for err := error(nil); err == nil; _, err = far.Read(buf) {
				time.Sleep(time.Second)
			}
		})
		if n, err := c.Write(make([]byte, size)); n != size || err != nil {
			t.Errorf("wrote %d: %v", n, err)
		}
		_ = near.Close()
		reader.Wait()
	})
}

// Nothing is left of a connection, however it ended.
func TestNoRemains(t *testing.T) {
	for name, end := range map[string]func(*testHub, *wire){
		"cut":       func(_ *testHub, w *wire) { _ = w.conn.CloseNow() },
		"closed":    func(_ *testHub, w *wire) { _ = w.conn.Close(websocket.StatusNormalClosure, "") },
		"ended":     func(h *testHub, _ *wire) { _ = h.Disconnect(context.Background(), "alice", DisconnectOptions{}) },
		"malformed": func(_ *testHub, w *wire) { w.send("x") },
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, nil)
			w, _ := h.login("alice")
			remains := remainsOf(h.clients.list()[0])
			end(h, w)
			h.clients.running.Wait()
			for n := 0; remains(); n++ {
				if n == 10 {
					t.Fatal("the connection is still in memory")
				}
				runtime.GC()
			}
		})
	}
}

// remainsOf tells whether a client's connection is in memory.
func remainsOf(c *client) func() bool {
	if s, ok := c.sock.(*leanSocket); ok {
		conn := weak.Make(s.conn())
		return func() bool { return conn.Value() != nil }
	}
	conn := weak.Make(c.sock.(*wsSocket).raw)
	return func() bool { return conn.Value() != nil }
}

// Replies that nobody reads are bounded too.
func TestReplyQueueBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.QueueMaxSize, s.Client.CommandRateLimit = 64<<10, 0 })
		w := h.dial(dialOptions{deaf: true})
		w.send(`{"id":1,"connect":{"token":"alice"}}`)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for w.conn.Write(t.Context(), 1, []byte(`{"id":2,"rpc":{}}`)) == nil {
			}
		}()
		synctest.Wait()
		if size := h.waiting(); size < 64<<10 || size > 65<<10 {
			t.Errorf("%d bytes wait", size)
		}
		<-done // once its writer has given up
		if n := testutil.ToFloat64(h.metrics.disconnects.WithLabelValues("3009", endSlowWrite)); n != 1 {
			t.Errorf("%v closed for not reading", n)
		}
		time.Sleep(time.Minute)
		if n, _ := h.clients.counts(); n != 0 {
			t.Errorf("%d clients", n)
		}
	})
}

// Messages to everybody do not wait for those who do not read.
func TestMessageQueueBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.QueueMaxSize = 64 << 10 })
		h.dial(dialOptions{deaf: true}).send(`{"id":1,"connect":{"token":"alice"}}`)
		synctest.Wait()
		for range 10 {
			if _, err := h.Push(t.Context(), PushRequest{All: true, Data: []byte(`"` + strings.Repeat("x", 10<<10) + `"`)}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := testutil.ToFloat64(h.metrics.disconnects.WithLabelValues("3008", slowQueue)); n != 1 {
			t.Errorf("%v closed as slow", n)
		}
	})
}

func TestBacklog(t *testing.T) {
	sized := func(size int64, at time.Duration) *message {
		m := &message{at: at}
		m.size.Store(size)
		return m
	}
	var b backlog
	for i := range 10 {
		b.add(sized(10, time.Duration(i)), 4, 1000)
	}
	if b.first != 6 || b.next() != 10 || b.bytes.Load() != 40 {
		t.Errorf("by count: %d..%d, %d bytes", b.first, b.next(), b.bytes.Load())
	}
	b.add(sized(25, 10), 4, 50)
	if b.first != 8 || b.bytes.Load() != 45 {
		t.Errorf("by bytes: from %d, %d bytes", b.first, b.bytes.Load())
	}
	b.add(sized(99, 11), 4, 50)
	if b.first != 11 || b.bytes.Load() != 99 {
		t.Errorf("the newest stays: from %d, %d bytes", b.first, b.bytes.Load())
	}
	if ms, missed := b.from(10); !missed || len(ms) != 1 {
		t.Errorf("from 10: %d, %v", len(ms), missed)
	}
	if ms, missed := b.from(12); missed || len(ms) != 0 {
		t.Errorf("from 12: %d, %v", len(ms), missed)
	}
	b.drop(0)
	for i := range 3 {
		b.add(sized(1, 11), 4, 1000)
		if b.drop(1); len(b.messages) != 1 || b.messages[0] == nil || b.next() != uint64(13+i) {
			t.Errorf("one of two stays: %v, next %d", b.messages, b.next())
		}
		for _, m := range b.messages[1:cap(b.messages)] {
			if m != nil {
				t.Error("what was dropped is held on to")
			}
		}
	}
	b.expire(12)
	if ms, missed := b.from(14); !missed || ms != nil || b.bytes.Load() != 0 {
		t.Errorf("expired: %d, %v, %d bytes", len(ms), missed, b.bytes.Load())
	}
}

// A channel with one subscriber keeps no more than the message that he was sent
// last; one with two keeps what the other may need.
func TestLoneSubscriberKeepsNoBacklog(t *testing.T) {
	h := startHub(t, nil)
	first, _ := h.login("alice")
	enter := func(w *wire) {
		w.send(`{"id":2,"subscribe":{"channel":"live:a"}}`)
		w.want(`{"id":2,"subscribe":{*}}`)
	}
	enter(first)
	n := 0
	publish := func(to ...*wire) (kept []int) {
		for range 100 {
			n++
			h.publish("live:a", itoa(n))
			for _, w := range to {
				w.want(`{"push":{"channel":"live:a","pub":{"data":` + itoa(n) + `}}}`)
			}
		}
		ch := h.channels.get("live:a")
		ch.mu.Lock()
		defer ch.mu.Unlock()
		for i := range ch.log.messages {
			kept = append(kept, int(ch.log.first)+i+1) // what is published here has its number in the log as data
		}
		return kept
	}
	if kept := publish(first); !slices.Equal(kept, []int{n}) {
		t.Errorf("kept for one subscriber: %v of %d", kept, n)
	}
	second, _ := h.login("bob")
	enter(second)
	if kept := publish(first, second); len(kept) < 100 {
		t.Errorf("kept for two: %v", kept)
	}
	first.send(`{"id":3,"unsubscribe":{"channel":"live:a"}}`)
	first.want(`{"id":3,"unsubscribe":{}}`)
	if kept := publish(second); !slices.Equal(kept, []int{n}) {
		t.Errorf("kept for the other: %v of %d", kept, n)
	}
	h.settle()
}

// Whoever has left, and is still being written to, drops nothing from the log
// of whom he left there.
func TestLettingGoAfterLeaving(t *testing.T) {
	h := startHub(t, nil)
	ch := h.channels.make(h.Hub, "live:a", h.rules.all[0])
	stays, leaves := &subscription{channel: ch}, &subscription{channel: ch}
	logged := func() int {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		return len(ch.log.messages)
	}
	ch.mu.Lock()
	ch.subs, ch.queued = []*subscription{stays, leaves}, true // the hub is not to write to them
	ch.add(newMessage(&protocol.Publication{Data: protocol.Raw("1")}, ""))
	ch.subs = ch.subs[:1]
	ch.mu.Unlock()
	leaves.cursor++
	leaves.letGo()
	if n := logged(); n != 1 {
		t.Errorf("%d messages left for who stays", n)
	}
	stays.cursor++
	stays.letGo()
	if n := logged(); n != 0 {
		t.Errorf("%d messages left for nobody", n)
	}
	ch.mu.Lock()
	ch.subs = nil
	ch.mu.Unlock()
}

func TestContinuous(t *testing.T) {
	pubs := func(offsets ...uint64) (list []*protocol.Publication) {
		for _, o := range offsets {
			list = append(list, &protocol.Publication{Offset: o})
		}
		return list
	}
	top := engine.Position{Offset: 5, Epoch: "e"}
	for _, tc := range []struct {
		from engine.Position
		pubs []*protocol.Publication
		want bool
	}{
		{engine.Position{Offset: 5, Epoch: "e"}, nil, true},
		{engine.Position{Offset: 5}, nil, true},
		{engine.Position{Offset: 4, Epoch: "e"}, nil, false},
		{engine.Position{Offset: 6, Epoch: "e"}, nil, false},
		{engine.Position{Offset: 5, Epoch: "x"}, nil, false},
		{engine.Position{Offset: 3, Epoch: "e"}, pubs(4, 5), true},
		{engine.Position{Offset: 2, Epoch: "e"}, pubs(4, 5), false},
		{engine.Position{Offset: 3, Epoch: "e"}, pubs(4), false},
		{engine.Position{Offset: 2, Epoch: "e"}, pubs(3, 5), false},
	} {
		if got := continuous(tc.from, tc.pubs, top); got != tc.want {
			t.Errorf("from %+v with %d: %v", tc.from, len(tc.pubs), got)
		}
	}
}

// Who leaves a channel while something is being written to it has lost nothing
// and is not slow, although the messages may go with the last subscriber.
func TestLeaveWhileWriting(t *testing.T) {
	h := startHub(t, nil)
	for _, name := range []string{"live:a", "#alice"} { // the second one made by the server, with a position
		a := h.attend("alice")
		defer a.goAway()
		a.receive([]byte(`{"id":2,"subscribe":{"channel":"live:a"}}`))
		a.mu.Lock()
		s := a.subs.get(name)
		a.mu.Unlock()
		a.silence(s) // as the writer, which has taken s and not looked yet
		h.publish(name, "1")
		a.leave(t.Context(), s, nil)
		b := newBatch(a.client)
		a.follow(s, s.collect(b), b)
		a.out.mu.Lock()
		if a.out.bye != nil {
			t.Errorf("%s: closed with %v", name, a.out.bye)
		}
		a.out.mu.Unlock()
	}
}
