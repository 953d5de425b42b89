package consumer

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/minigate/minigate/internal/testdeps"
)

func TestManyInOrder(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) []string{
		"standalone": func(t *testing.T) []string { return []string{testdeps.Redis(t)} },
		"cluster": func(t *testing.T) []string {
			addrs, _ := testdeps.RedisCluster(t)
			return addrs
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, open(t)...)
			const each, rooms = 200, 50
			w.put(1, each/2, keys(rooms)...) // before anybody is there
			w.start("a")
			w.put(each/2+1, each, keys(rooms)...)
			calls := w.await(each * rooms)
			wantOrder(t, calls, each, false)
			if c := calls[0]; c.method != "publish" || !strings.HasPrefix(c.once, orders+" 1") || !strings.Contains(c.once, "-") {
				t.Errorf("the first call is %+v", c)
			}
			w.settled()
			w.until("the numbers are shown", func() bool {
				return w.value("minigate_consumer_entries_total", resultDone) == each*rooms &&
					w.value("minigate_consumer_held", orders) == 1 && w.value("minigate_consumer_lag_entries", orders) == 0
			})
			if len(w.dead()) != 0 {
				t.Errorf("set aside: %v", w.dead())
			}
		})
	}
}

// TestKeysInParallel holds up one key; the others go on, and with them more of
// its own than there are workers.
func TestKeysInParallel(t *testing.T) {
	w := newWorld(t, testdeps.Redis(t))
	gate, held := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.do = func(_ context.Context, c call) error {
		if c.key() == "room:0" {
			once.Do(func() { close(held) })
			<-gate
		}
		return nil
	}
	w.put(1, 20, keys(1)...)
	w.start("a")
	<-held
	w.put(1, 20, "room:1", "room:2")
	wantOrder(t, w.await(40), 20, false)
	close(gate)
	wantOrder(t, w.await(60), 20, false)
}

func TestKeys(t *testing.T) {
	for payload, want := range map[string]string{
		`{"channel":"c"}`:                     "c",
		`{"user":"u","channel":"c"}`:          "u",
		`{"channels":["c"]}`:                  "c",
		`{"channels":["c","d"]}`:              "",
		`{"users":["u"]}`:                     "u",
		`{"unionids":["n"]}`:                  "n",
		`{"users":["u"],"channels":["c"]}`:    "",
		`{"users":["u"],"all":true}`:          "",
		`{"all":true}`:                        "",
		`{"commands":[]}`:                     "",
		`{"channel":1}`:                       "",
		`{"channel":"c","users":["u"]}`:       "",
		`{"users":null,"channels":["c"] }`:    "c",
		`{"data":{"user":"x"},"channel":"c"}`: "c",
	} {
		if got := keyOf([]byte(payload)); got != want {
			t.Errorf("%s has the key %q, want %q", payload, got, want)
		}
	}
	e, err := decode([]string{"method", "push", "key", "mine", "payload", `{"user":"u"}`, "other", "x"})
	if err != nil || e.key != "mine" || e.size != 42 {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestPoison sets aside what can never be carried out, in its place.
func TestPoison(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testdeps.Redis(t))
	w.list[0].Stream.MaxEntry = 1 << 10
	w.do = func(_ context.Context, c call) error {
		if c.method == "nosuch" || strings.Contains(c.body, "bad") {
			return errRefused
		}
		return nil
	}
	w.put(1, 1, "room:1")
	bad := map[string]string{
		w.add("payload", "{}"): "no field method",

		w.add("method", strings.Repeat("m", 65), "payload", ""):                         "no field method",
		w.add("method", "publish"):                                                      "no field payload",
		w.add("method", "publish", "payload", "{}", "method", "push"):                   "twice",
		w.add("method", "publish", "payload", "{}", "key", "\xff"):                      "key",
		w.add("method", "publish", "payload", "{}", "key", strings.Repeat("k", 256)):    "key",
		w.add("method", "nosuch", "payload", "{}"):                                      "bad_request: The request does not make sense.",
		w.add("method", "publish", "payload", `{"channel":"room:1","bad":1}`, "x", "y"): "bad_request",
		w.add("method", "publish", "payload", strings.Repeat("x", 1<<10)):               "1044 bytes, more than max_entry",
	}
	w.put(2, 2, "room:1")
	w.start("a")
	wantOrder(t, w.await(2), 2, false)
	w.settled()
	dead := w.dead()
	if len(dead) != len(bad) {
		t.Errorf("%d are set aside, want %d", len(dead), len(bad))
	}
	for _, d := range dead {
		id, reason := d.Values["entry"].(string), d.Values["reason"].(string)
		if want := bad[id]; want == "" || !strings.Contains(reason, want) || d.Values["stream"] != orders {
			t.Errorf("%s is set aside because %q, want %q", id, reason, want)
		}
		if strings.Contains(reason, "sense") && d.Values["method"] == nil || d.Values["x"] == "y" && !strings.Contains(d.Values["payload"].(string), "bad") {
			t.Errorf("its content is lost: %v", d.Values)
		}
	}
	if got := w.value("minigate_consumer_entries_total", resultPoison); got != float64(len(bad)) {
		t.Errorf("%v are counted as poison", got)
	}
}

// TestForNow fails one key for a while: it keeps its order, the others go on,
// and what waits behind it is not kept.
func TestForNow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testdeps.Redis(t))
	var mu sync.Mutex
	failures, mended := 0, false
	w.do = func(_ context.Context, c call) error {
		mu.Lock()
		defer mu.Unlock()
		if c.key() != "room:0" || mended {
			return nil
		}
		failures++
		return errAway
	}
	w.start("a")
	w.put(1, 1, "room:0")
	w.until("it fails", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return failures > 1
	})
	w.put(2, 2*maxLoaded, "room:0") // more than is ever loaded
	w.put(1, 100, "room:1")
	wantOrder(t, w.await(100), 100, false)
	mu.Lock()
	mended = true
	mu.Unlock()
	calls := w.await(2*maxLoaded + 100)
	wantOrder(t, calls[100:], 2*maxLoaded, false)
	w.settled()
	if got := w.value("minigate_consumer_failures_total", "test"); got < 2 {
		t.Errorf("%v failures are counted", got)
	}
	if len(w.dead()) != 0 {
		t.Errorf("set aside: %v", w.dead())
	}
}

// TestBounded reads no more than there is room for.
func TestBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testdeps.Redis(t))
	gate, bigGate := make(chan struct{}), make(chan struct{})
	w.do = func(_ context.Context, c call) error {
		if strings.HasPrefix(c.body, "x") {
			<-bigGate
		} else {
			<-gate
		}
		return nil
	}
	w.put(1, 100, keys(50)...)
	w.start("a")
	pending := func() int64 {
		p, err := w.client.XPending(t.Context(), orders, "minigate").Result()
		if err != nil {
			return 0 // there is no group yet
		}
		return p.Count
	}
	w.until("as much is read as there is room for", func() bool {
		n := pending()
		if n > maxLoaded {
			t.Fatalf("%d are read", n)
		}
		return n == maxLoaded
	})
	close(gate)
	wantOrder(t, w.await(5000), 100, false)
	w.settled()

	big := strings.Repeat("x", 1<<20-100)
	for range 40 {
		w.add("method", "publish", "payload", big)
	}
	w.until("as many bytes are read as there is room for", func() bool { return pending() >= maxLoadedBytes>>20 })
	if n := pending(); n > maxLoadedBytes>>20+1 {
		t.Errorf("%d are read", n)
	}
	close(bigGate)
	w.settled()
}

func TestGivenUp(t *testing.T) {
	w := newWorld(t, testdeps.Redis(t))
	w.list[0].Stream.GiveUpAfter = 1 // no configuration has so little
	w.do = func(_ context.Context, c call) error {
		if c.number() == 1 {
			return errAway
		}
		return nil
	}
	w.put(1, 2, "room:0")
	w.start("a")
	if calls := w.await(1); calls[0].number() != 2 {
		t.Errorf("carried out: %v", calls)
	}
	w.settled()
	dead := w.dead()
	if len(dead) != 1 || !strings.Contains(dead[0].Values["reason"].(string), "redis_unavailable") || dead[0].Values["method"] != "publish" {
		t.Errorf("set aside: %v", dead)
	}
	if got := w.value("minigate_consumer_entries_total", resultGivenUp); got != 1 {
		t.Errorf("%v are counted as given up", got)
	}
}

// TestDeadMaxLen keeps none.
func TestDeadMaxLen(t *testing.T) {
	w := newWorld(t, testdeps.Redis(t))
	w.list[0].Stream.DeadMaxLen = 0
	w.add("no", "method")
	w.start("a")
	w.settled()
	if len(w.dead()) != 0 {
		t.Errorf("set aside: %v", w.dead())
	}
}

// TestTrim removes what all groups have acknowledged, and nothing else.
func TestTrim(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testdeps.Redis(t))
	ctx := t.Context()
	w.put(1, 1000, "room:0")
	if err := w.client.XGroupCreate(ctx, orders, "other", "0").Err(); err != nil {
		t.Fatal(err)
	}
	ses := (&node{Consumers: New(Options{Settings: w.list, Client: w.client, Prefix: "test"})}).streams[0]
	tend := func() { (&session{stream: ses}).tendOnce(ctx) }
	a := w.start("a")
	w.await(1000)
	w.settled()
	if err := a.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	tend()
	if n := w.client.XLen(ctx, orders).Val(); n != 1000 {
		t.Errorf("%d are left of what another group has not read", n)
	}
	if err := w.client.XGroupDestroy(ctx, orders, "other").Err(); err != nil {
		t.Fatal(err)
	}
	tend()
	if n := w.client.XLen(ctx, orders).Val(); n > 100 { // Redis removes whole nodes of its tree
		t.Errorf("%d are left of what everybody has acknowledged", n)
	}
	w.put(1001, 2000, "room:0")
	tend()
	if n := w.client.XLen(ctx, orders).Val(); n < 1000 {
		t.Errorf("only %d are left of 1000 that nobody has read", n)
	}
	ses.Trim = false
	w.list = slices.Clone(w.list)
	w.list[0].Stream.Trim = false // b tends by itself
	w.start("b")
	w.await(2000)
	tend()
	if n := w.client.XLen(ctx, orders).Val(); n < 1000 {
		t.Errorf("%d are left where nothing is to be removed", n)
	}
}

// TestGone acknowledges what was deleted before its turn.
func TestGone(t *testing.T) {
	w := newWorld(t, testdeps.Redis(t))
	ctx := t.Context()
	w.put(1, 1, "room:0")
	id := w.add("method", "publish", "payload", `{"channel":"room:0","data":2}`)
	if err := w.client.XGroupCreate(ctx, orders, "minigate", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.client.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "minigate", Consumer: reader, Streams: []string{orders, ">"}}).Err(); err != nil {
		t.Fatal(err)
	}
	w.client.XDel(ctx, orders, id)
	w.put(3, 3, "room:0")
	w.start("a")
	calls := w.await(2)
	if calls[0].number() != 1 || calls[1].number() != 3 {
		t.Errorf("carried out: %v", calls)
	}
	w.settled()
	if got := w.value("minigate_consumer_entries_total", resultGone); got != 1 {
		t.Errorf("%v are counted as gone", got)
	}
}

func FuzzEntry(f *testing.F) {
	f.Add("method", "publish", "payload", `{"channel":"c","data":1}`, "key", "k")
	f.Add("payload", `{"users":["a"]}`, "method", "push", "x", "y")
	f.Add("method", "", "payload", "", "key", "\xff")
	f.Add("method", "m", "method", "m", "payload", `{"user":1,"channels":{}}`)
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g string) {
		fields := []string{a, b, c, d, e, g}
		got, err := decode(fields)
		if got == nil || got.size != len(strings.Join(fields, "")) && err == nil {
			t.Fatalf("decoded as %+v", got)
		}
		if err == nil && (got.method == "" || len(got.method) > maxMethod || len(got.payload) == 0) {
			t.Fatalf("taken: %+v", got)
		}
	})
}
