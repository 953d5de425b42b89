package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/testdeps"
)

// wire is a TCP proxy before Redis that can be cut or frozen.
type wire struct {
	t      testing.TB
	target string
	ln     net.Listener
	wg     sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn
	cut    bool
	frozen chan struct{} // closed when the connections of this generation freeze
}

func newWire(t testing.TB, target string) *wire {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, target: target, ln: ln, frozen: make(chan struct{})}
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		w.sever()
		w.wg.Wait()
	})
	return w
}

func (w *wire) addr() string { return w.ln.Addr().String() }

func (w *wire) accept() {
	for {
		near, err := w.ln.Accept()
		if err != nil {
			return
		}
		w.mu.Lock()
		target := w.target
		w.mu.Unlock()
		far, err := net.Dial("tcp", target)
		w.mu.Lock()
		if err != nil || w.cut {
			_ = near.Close()
			if far != nil {
				_ = far.Close()
			}
			w.mu.Unlock()
			continue
		}
		w.conns = append(w.conns, near, far)
		frozen := w.frozen
		w.mu.Unlock()
		w.wg.Go(func() { w.copy(near, far, frozen) })
		w.wg.Go(func() { w.copy(far, near, frozen) })
	}
}

// copy forwards until either side closes; frozen, it swallows what it reads.
func (w *wire) copy(dst, src net.Conn, frozen <-chan struct{}) {
	defer func() { _, _ = dst.Close(), src.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-frozen:
			continue
		default:
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

// sever closes every connection and refuses new ones.
func (w *wire) sever() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

// turn leads to another server from now on.
func (w *wire) turn(target string) {
	w.sever()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target, w.cut = target, false
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}

// freeze makes the present connections half-open: nothing passes any more, and
// nobody is told.
func (w *wire) freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.frozen)
	w.frozen = make(chan struct{})
}

func twoNodes(t testing.TB) (addr string, a, b *node) {
	addr = testdeps.Redis(t)
	a, b = redisNode(t, addr, "a"), redisNode(t, addr, "b")
	a.awaitNodes(2)
	b.awaitNodes(2)
	return addr, a, b
}

func (n *node) awaitNodes(count int) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("%s sees %d nodes", n.uid, count), func() bool {
		nodes, err := n.Nodes(n.t.Context())
		return err == nil && len(nodes) == count
	})
}

func TestTwoNodesHearTheSame(t *testing.T) {
	_, a, b := twoNodes(t)
	a.subscribe("room")
	b.subscribe("room")
	var wg sync.WaitGroup
	for _, n := range []*node{a, b} {
		wg.Go(func() {
			for i := range 200 {
				n.publish("room", fmt.Sprint(n.uid, i), kept(1000))
			}
		})
	}
	wg.Wait()
	for i := range 400 {
		x, y := a.next(), b.next()
		if x != y || x.offset != uint64(i+1) {
			t.Fatalf("delivery %d: a heard %+v, b %+v", i, x, y)
		}
	}
	one, _ := a.history("room", HistoryQuery{Limit: -1})
	if other, _ := b.history("room", HistoryQuery{Limit: -1}); one != other {
		t.Fatal("histories differ")
	}
}

func TestCountOverNodes(t *testing.T) {
	addr, a, b := twoNodes(t)
	c := redisNode(t, addr, "c")
	a.sockets, b.sockets = 2, 5
	count := PublishOptions{Count: true}
	if res := c.publish("room", "x", count); res.Sockets != 0 {
		t.Fatalf("nobody: %+v", res)
	}
	a.subscribe("room")
	b.subscribe("room")
	for _, n := range []*node{a, b, c} {
		if res := n.publish("room", "x", count); res.Sockets != 7 {
			t.Fatalf("%s: %+v", n.uid, res)
		}
	}
	o := kept(1)
	o.Count, o.IdempotencyKey = true, "k"
	if res := c.publish("room", "x", o); res.Sockets != 7 || res.Position.Offset != 1 {
		t.Fatalf("with history: %+v", res)
	}
	if res := c.publish("room", "x", o); res.Sockets != 0 || !res.Repeated {
		t.Fatalf("repeated: %+v", res)
	}
	if err := b.Unsubscribe(t.Context(), "room"); err != nil {
		t.Fatal(err)
	}
	if res := c.publish("room", "x", count); res.Sockets != 2 {
		t.Fatalf("after unsubscribe: %+v", res)
	}
}

func TestSurveyOverNodes(t *testing.T) {
	_, a, b := twoNodes(t)
	for range 3 {
		answers, err := a.ask("op", "x")
		if err != nil || len(answers) != 2 || string(answers[0]) != "a:op:x" || string(answers[1]) != "b:op:x" {
			t.Fatalf("%q, %v", answers, err)
		}
	}
	nodes, err := b.Nodes(t.Context())
	if err != nil || nodes[0] != a.Self() || nodes[1] != b.Self() {
		t.Fatalf("%+v, %v", nodes, err)
	}
	// A node that does not answer in time is left out.
	release := make(chan struct{})
	b.mu.Lock()
	b.survey = func(string, []byte) []byte { <-release; return nil }
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	answers, err := a.Engine.Survey(ctx, "op", nil)
	close(release)
	if err != nil || len(answers) != 1 {
		t.Fatalf("%q, %v", answers, err)
	}
}

func TestPresenceOverNodes(t *testing.T) {
	_, a, b := twoNodes(t)
	a.enter("room", "x")
	b.enter("room", "y")
	for _, n := range []*node{a, b} {
		if p := n.present("room"); len(p) != 2 || p["x"].GetUser() != "user of x" || p["y"] == nil {
			t.Fatalf("%s sees %v", n.uid, p)
		}
	}
	if err := a.RemovePresence(t.Context(), "room", "x"); err != nil {
		t.Fatal(err)
	}
	if p := b.present("room"); len(p) != 1 {
		t.Fatalf("after removal: %v", p)
	}
	b.halt() // in good order: gone at once
	if p := a.present("room"); len(p) != 0 {
		t.Fatalf("after b left: %v", p)
	}
	a.awaitNodes(1)
}

func TestKilledNodeLeavesPresence(t *testing.T) {
	server := testdeps.StartRedis(t)
	w := newWire(t, server.Addr)
	a, b := redisNode(t, server.Addr, "a"), redisNode(t, w.addr(), "b")
	a.awaitNodes(2)
	a.enter("room", "x")
	b.enter("room", "y")
	w.sever()
	b.halt() // cannot say good-bye any more
	if p := a.present("room"); len(p) != 2 {
		t.Fatalf("before the lease ran out: %v", p)
	}
	eventually(t, "the clients of b are gone", func() bool { return len(a.present("room")) == 1 })
	a.awaitNodes(1)
	raw := openRedis(t, server.Addr)
	eventually(t, "Redis is cleaned up", func() bool {
		return raw.HLen(t.Context(), a.Engine.(*Redis).keys.presence("room")).Val() == 1
	})
}

// A node that was cut off for longer than its lease comes back whole.
func TestLeaseLapsesAndReturns(t *testing.T) {
	server := testdeps.StartRedis(t)
	w := newWire(t, server.Addr)
	a, b := redisNode(t, server.Addr, "a"), redisNode(t, w.addr(), "b")
	b.subscribe("room")
	b.enter("room", "stays")
	b.enter("room", "leaves")
	w.sever()
	eventually(t, "b drops out", func() bool { return len(a.present("room")) == 0 })
	if err := b.RemovePresence(t.Context(), "room", "leaves"); fault.Of(err).Code != "redis_unavailable" {
		t.Fatal(err)
	}
	w.mend()
	b.want(event{kind: "lost", channel: "room"})
	eventually(t, "b is back", func() bool { return len(a.present("room")) == 1 })
	for range 500 { // and stays, over some renewals
		if p := a.present("room"); len(p) != 1 || p["stays"] == nil {
			t.Fatalf("presence %v", p)
		}
	}
	a.publish("room", "again", PublishOptions{})
	b.want(event{"pub", "room", "again", 0, ""})
}

func TestRedisRestarts(t *testing.T) {
	for name, args := range map[string][]string{
		"without data": nil,
		"with data":    {"--appendonly", "yes", "--appendfsync", "always"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testdeps.StartRedis(t, args...)
			rhythm := quick
			rhythm.lease = time.Hour // what is wrong under the old lease does not go by itself
			a, b := timedNode(t, server.Addr, "a", rhythm), timedNode(t, server.Addr, "b", rhythm)
			b.awaitNodes(2)
			for i := range 3 * feedBatch / 2 { // more than one batch to subscribe again
				a.subscribe(fmt.Sprint("room", i))
			}
			a.enter("room0", "stays")
			a.enter("room0", "leaves")
			before := b.publish("room0", "x", kept(5)).Position
			a.next()

			server.Stop()
			for call, err := range calls(t.Context(), b.Engine) {
				if f := fault.Of(err); f.Kind != fault.Unavailable || f.Code != "redis_unavailable" {
					t.Errorf("%s while Redis is away: %v", call, err)
				}
			}
			_ = a.RemovePresence(t.Context(), "room0", "leaves") // Redis is away
			server.Restart()

			lost := make(map[string]bool)
			for len(lost) < 3*feedBatch/2 {
				e := a.next()
				if e.kind != "lost" || lost[e.channel] {
					t.Fatalf("unexpected %+v", e)
				}
				lost[e.channel] = true
			}
			eventually(t, "a's client is back, the other is not", func() bool {
				p, err := b.Presence(t.Context(), "room0")
				return err == nil && len(p) == 1 && p["stays"] != nil
			})
			eventually(t, "both work", func() bool {
				return a.Ping(t.Context()) == nil && b.Ping(t.Context()) == nil
			})
			after := b.publish("room0", "y", kept(5)).Position
			a.want(event{"pub", "room0", "y", after.Offset, after.Epoch})
			// A server that comes back may have lost the end of what it had: the
			// epoch is another one, which takes over what there still is.
			since := before
			pubs, top, err := b.History(t.Context(), "room0", HistoryQuery{Since: &since, Limit: -1})
			kept := since.Epoch == top.Epoch && len(pubs) == 1 && pubs[0].Offset == before.Offset+1
			if err != nil || after.Epoch == before.Epoch || top != after || kept != (args != nil) {
				t.Errorf("position was %+v, is %+v; since %+v there is %v, %v", before, after, since, pubs, err)
			}
			b.awaitNodes(2)
		})
	}
}

// Nothing comes from a half-open connection, not even an end.
func TestHalfOpenConnection(t *testing.T) {
	server := testdeps.StartRedis(t)
	w := newWire(t, server.Addr)
	a, b := redisNode(t, server.Addr, "a"), redisNode(t, w.addr(), "b")
	b.subscribe("room")
	w.freeze()
	a.publish("room", "missed", PublishOptions{})
	b.want(event{kind: "lost", channel: "room"})
	a.publish("room", "heard", PublishOptions{})
	b.want(event{"pub", "room", "heard", 0, ""})
}

func TestRedisAwayAtStart(t *testing.T) {
	server := testdeps.StartRedis(t)
	server.Stop()
	n := redisNode(t, server.Addr, "a")
	for call, err := range calls(t.Context(), n.Engine) {
		if fault.Of(err).Kind != fault.Unavailable {
			t.Errorf("%s: %v", call, err)
		}
	}
	server.Restart()
	eventually(t, "the engine works", func() bool { return n.Ping(t.Context()) == nil })
	n.subscribe("room")
	n.publish("room", "x", PublishOptions{})
	for e := n.next(); e.data != "x"; e = n.next() {
	}
	n.awaitNodes(1)
}

func TestScriptsForgotten(t *testing.T) {
	addr := testdeps.Redis(t)
	n := redisNode(t, addr, "a")
	n.publish("room", "x", kept(2))
	if err := openRedis(t, addr).ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if res := n.publish("room", "y", kept(2)); res.Position.Offset != 2 {
		t.Fatalf("%+v", res)
	}
}

// A stream whose meta key was evicted belongs to an epoch that is over.
func TestMetaLost(t *testing.T) {
	addr := testdeps.Redis(t)
	n, raw := redisNode(t, addr, "a"), openRedis(t, addr)
	meta := n.Engine.(*Redis).keys.meta("room")
	first := n.publish("room", "x", kept(5)).Position
	raw.Del(t.Context(), meta)
	if got, pos := n.history("room", HistoryQuery{Limit: -1}); got != "" || pos.Offset != 0 || pos.Epoch == first.Epoch {
		t.Fatalf("%q at %+v", got, pos)
	}
	n.publish("room", "y", kept(5))
	raw.Del(t.Context(), meta)
	n.publish("room", "z", kept(5))
	if got, _ := n.history("room", HistoryQuery{Limit: -1}); got != "1=z " {
		t.Fatalf("%q", got)
	}
	const high = 1<<53 - 2 // the last integers that Lua knows exactly
	raw.HSet(t.Context(), meta, "s", high)
	if res := n.publish("room", "far", kept(5)); res.Position.Offset != high+1 {
		t.Fatalf("%+v", res)
	}
	if got, pos := n.history("room", HistoryQuery{Limit: 1, Reverse: true}); got != "9007199254740991=far " || pos.Offset != high+1 {
		t.Fatalf("%q at %+v", got, pos)
	}
}

// Foreign bytes on our pub/sub channels harm nobody.
func TestForeignMessages(t *testing.T) {
	addr := testdeps.Redis(t)
	n, raw := redisNode(t, addr, "a"), openRedis(t, addr)
	n.subscribe("room")
	k := n.Engine.(*Redis).keys
	for _, bytes := range []string{"", "x", "1p", "1p1:e::\n\xff", "2p1:e:::\n", "1z", "1c9:9", "1a9\nx"} {
		raw.Publish(t.Context(), k.live("room"), bytes)
		raw.Publish(t.Context(), k.inbox("a"), bytes)
	}
	raw.HSet(t.Context(), k.presence("room"), "c", "no lease")
	n.publish("room", "fine", PublishOptions{})
	n.want(event{"pub", "room", "fine", 0, ""})
	if p := n.present("room"); len(p) != 0 {
		t.Fatalf("presence %v", p)
	}
}

func TestUnusableUID(t *testing.T) {
	for _, uid := range []string{"", "a:b", "a~1", "a\nb", string(make([]byte, 65))} {
		if err := NewRedis(RedisOptions{}).Run(t.Context(), &node{uid: uid}); err == nil {
			t.Errorf("%q is accepted", uid)
		}
	}
}

func TestLaneRefusesWhenFull(t *testing.T) {
	l := NewRedis(RedisOptions{}).lanes.list[0] // does not run
	for range laneQueue {
		if err := l.put(&op{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.do(t.Context()); !errors.Is(err, errBusy) || fault.Of(err).Kind != fault.Unavailable {
		t.Fatal(err)
	}
}

func TestPublishGivesUpWithItsContext(t *testing.T) {
	addr := testdeps.Redis(t)
	w := newWire(t, addr)
	n := redisNode(t, w.addr(), "a")
	n.publish("room", "x", PublishOptions{})
	w.freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := n.Publish(ctx, "room", &protocol.Publication{}, PublishOptions{})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestSlowChannelHoldsUpNoOther(t *testing.T) {
	n := redisNode(t, testdeps.Redis(t), "a")
	e := n.Engine.(*Redis)
	fast := "fast"
	for e.worker(fast) == e.worker("slow") {
		fast += "+"
	}
	n.subscribe("slow")
	n.subscribe(fast)
	hold := make(chan struct{})
	n.mu.Lock()
	n.hold = map[string]chan struct{}{"slow": hold}
	n.mu.Unlock()
	n.publish("slow", "1", PublishOptions{})
	n.publish("slow", "2", PublishOptions{})
	n.publish(fast, "3", PublishOptions{})
	n.want(event{"pub", fast, "3", 0, ""})
	close(hold)
	n.want(event{"pub", "slow", "1", 0, ""})
	n.want(event{"pub", "slow", "2", 0, ""})
}
