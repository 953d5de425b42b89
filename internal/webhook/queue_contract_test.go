package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

const longLease = time.Hour

// TestQueueContract runs one suite over both queues.
func TestQueueContract(t *testing.T) {
	server := testdeps.StartRedis(t)
	client, prefixes := newRedisClient(t, server.Addr), 0
	for name, open := range map[string]func(t *testing.T, o QueueOptions) *kept{
		"file": openKeptFile,
		"redis": func(t *testing.T, o QueueOptions) *kept {
			prefixes++
			return openKeptRedis(t, client, server.Kill, fmt.Sprint("test", prefixes), o)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, test := range []struct {
				name string
				f    func(*testing.T, Queue)
			}{
				{"round trip", contractRoundTrip},
				{"order", contractOrder},
				{"lease", contractLease},
				{"retry", contractRetry},
				{"dead", contractDead},
				{"too many dead", contractTooManyDead},
				{"too large dead", contractTooLargeDead},
				{"oldest", contractOldest},
				{"full", contractFull},
				{"known ids", contractKnownIDs},
				{"refused", contractRefused},
				{"parallel", contractParallel},
				{"cancelled", contractCancelled},
			} {
				t.Run(test.name, func(t *testing.T) {
					test.f(t, open(t, sealed(contractSettings)).Queue)
				})
			}
			for _, test := range []struct {
				name string
				f    func(*testing.T, *kept)
			}{
				{"sealed", contractSealed},
				{"key rotation", contractKeyRotation},
				{"key gone", contractKeyGone},
				{"tampered", contractTampered},
				{"too old dead", contractTooOldDead},
				{"lowered limits", contractLoweredLimits},
				{"trim is counted", contractTrimIsCounted},
				{"away", contractAway},
			} {
				t.Run(test.name, func(t *testing.T) { test.f(t, open(t, sealed(contractSettings))) })
			}
		})
	}
}

var contractSettings = QueueSettings{
	MaxPending: 100, MaxDead: 3, MaxDeadAge: time.Hour, MaxDeadBytes: 1 << 20, GiveUpAfter: time.Hour, Workers: 8,
}

// newItem's key is the text before the dash of its id.
func newItem(id string) *Item {
	key, _, _ := strings.Cut(id, "-")
	return &Item{ID: id, Hook: "news", Event: "test.event", Key: key, Body: json.RawMessage(`{"id":"` + id + `"}`), Queued: time.UnixMilli(1700000000123).UTC()}
}

func mustEnqueue(t testing.TB, q Queue, ids ...string) {
	t.Helper()
	for _, id := range ids {
		must(t, q.Put(t.Context(), newItem(id)))
	}
}

// wantTake takes the next item, which must be the one with the id, "" for none.
func wantTake(t testing.TB, q Queue, id string) *Claim {
	t.Helper()
	c, err := q.Take(t.Context(), longLease)
	must(t, err)
	got := ""
	if c != nil {
		got = c.Item.ID
	}
	if got != id {
		t.Fatalf("took %q, want %q", got, id)
	}
	return c
}

// awaitTake takes again until there is something.
func awaitTake(t testing.TB, q Queue, lease time.Duration) *Claim {
	t.Helper()
	for limit := time.Now().Add(time.Minute); ; {
		c, err := q.Take(t.Context(), lease)
		must(t, err)
		if c != nil {
			return c
		}
		if time.Now().After(limit) {
			t.Fatal("waited in vain for an item")
		}
	}
}

func wantSize(t testing.TB, q Queue, pending, dead int) {
	t.Helper()
	s, err := q.Size(t.Context())
	must(t, err)
	if s.Pending != pending || s.Dead != dead || (s.DeadBytes > 0) != (dead > 0) || s.Oldest.IsZero() != (pending == 0) {
		t.Errorf("the size is %+v; want %d pending, %d dead", s, pending, dead)
	}
}

func contractRoundTrip(t *testing.T, q Queue) {
	wantTake(t, q, "")
	item := newItem("a-1")
	item.Key, item.Body = "key:\x00\n你", json.RawMessage(`{"text":"你好\u0000"}`)
	must(t, q.Put(t.Context(), item))
	wantSize(t, q, 1, 0)
	c := wantTake(t, q, "a-1")
	c.Item.sealed, item.sealed = nil, nil
	if got := fmt.Sprintf("%+v", *c.Item); got != fmt.Sprintf("%+v", *item) {
		t.Errorf("got %s, want %+v", got, *item)
	}
	must(t, q.Done(t.Context(), c))
	wantTake(t, q, "")
	wantSize(t, q, 0, 0)
}

// A lane's items come one after the other; lanes take turns.
func contractOrder(t *testing.T, q Queue) {
	other := newItem("b-x")
	other.Hook, other.Key = "elsewhere", "a" // the same key of another hook is another lane
	mustEnqueue(t, q, "a-1", "a-2", "a-3")
	awaitNextMilli()
	must(t, q.Put(t.Context(), other))
	first := wantTake(t, q, "a-1")
	second := wantTake(t, q, "b-x")
	wantTake(t, q, "") // a-2 must wait for a-1
	must(t, q.Done(t.Context(), second))
	must(t, q.Done(t.Context(), first))
	for _, id := range []string{"a-2", "a-3"} {
		must(t, q.Done(t.Context(), wantTake(t, q, id)))
	}
	for _, id := range []string{"1", "2"} { // no key, no order
		item := newItem(id)
		item.Key = ""
		must(t, q.Put(t.Context(), item))
	}
	got := []string{awaitTake(t, q, longLease).Item.ID, awaitTake(t, q, longLease).Item.ID}
	if slices.Sort(got); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("took %v", got)
	}
}

// Whoever takes an item and is not heard of again loses it.
func contractLease(t *testing.T, q Queue) {
	mustEnqueue(t, q, "a-1", "a-2")
	lost, err := q.Take(t.Context(), time.Millisecond)
	must(t, err)
	again := awaitTake(t, q, longLease)
	if lost.Item.ID != "a-1" || again.Item.ID != "a-1" {
		t.Errorf("took %s, then %s", lost.Item.ID, again.Item.ID)
	}
	for name, settle := range map[string]error{
		"Done": q.Done(t.Context(), lost), "Retry": q.Retry(t.Context(), lost, 0), "Bury": q.Bury(t.Context(), lost),
	} {
		if !errors.Is(settle, ErrLeaseLost) {
			t.Errorf("%s of who lost it: %v", name, settle)
		}
	}
	wantTake(t, q, "")
	wantSize(t, q, 2, 0)
	must(t, q.Done(t.Context(), again))
	if err := q.Done(t.Context(), again); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Done twice: %v", err)
	}
	late, err := q.Take(t.Context(), time.Nanosecond)
	must(t, err)
	must(t, q.Done(t.Context(), late)) // over, but nobody else has taken it
	wantSize(t, q, 0, 0)
}

func contractRetry(t *testing.T, q Queue) {
	mustEnqueue(t, q, "a-1", "a-2")
	c := wantTake(t, q, "a-1")
	c.Item.failed(errTest)
	must(t, q.Retry(t.Context(), c, time.Hour))
	wantTake(t, q, "") // a-2 waits, too
	mustEnqueue(t, q, "a-3")
	wantTake(t, q, "") // what is put meanwhile does not hasten it
	mustEnqueue(t, q, "b-1")
	c = wantTake(t, q, "b-1")
	c.Item.failed(errTest)
	before := time.Now()
	must(t, q.Retry(t.Context(), c, 30*time.Millisecond))
	again := awaitTake(t, q, longLease)
	if early := 30*time.Millisecond - time.Since(before); early > 5*time.Millisecond {
		t.Errorf("it was due %v before its time", early)
	}
	if again.Item.Attempts != 1 || again.Item.Failure != errTest.Error() {
		t.Errorf("the attempt is not noted: %+v", again.Item)
	}
	wantSize(t, q, 4, 0)
}

func contractDead(t *testing.T, q Queue) {
	ctx := t.Context()
	mustEnqueue(t, q, "a-1", "a-2")
	awaitNextMilli()
	mustEnqueue(t, q, "b-1")
	awaitNextMilli()
	for _, id := range []string{"a-1", "b-1"} {
		c := wantTake(t, q, id)
		c.Item.failed(errTest)
		must(t, q.Bury(ctx, c))
		awaitNextMilli()
	}
	wantSize(t, q, 1, 2)
	wantDead(t, q, 0, 10, "b-1", "a-1")
	wantDead(t, q, 1, 10, "a-1")
	wantDead(t, q, 0, 1, "b-1")
	wantDead(t, q, 2, 1)
	wantDead(t, q, 0, 0)
	for _, id := range []string{"nobody", "a-2", ""} {
		if _, err := q.Find(ctx, id); !errors.Is(err, ErrNoDelivery) {
			t.Errorf("Find of %q: %v", id, err)
		}
		if err := q.Replay(ctx, id); !errors.Is(err, ErrNoDelivery) {
			t.Errorf("Replay of %q: %v", id, err)
		}
		if err := q.Drop(ctx, id); !errors.Is(err, ErrNoDelivery) {
			t.Errorf("Drop of %q: %v", id, err)
		}
	}
	if ids, err := q.DeadIDs(ctx, 10); err != nil || !slices.Equal(ids, []string{"a-1", "b-1"}) {
		t.Errorf("the ids of the dead are %q, %v", ids, err)
	}
	if ids, err := q.DeadIDs(ctx, 1); err != nil || !slices.Equal(ids, []string{"a-1"}) {
		t.Errorf("the oldest of the dead is %q, %v", ids, err)
	}
	if i, err := q.Find(ctx, "a-1"); err != nil || string(i.Body) != `{"id":"a-1"}` || i.Key != "a" || i.Died.IsZero() {
		t.Errorf("found %+v, %v", i, err)
	}
	must(t, q.Replay(ctx, "a-1"))
	if err := q.Replay(ctx, "a-1"); !errors.Is(err, ErrNoDelivery) {
		t.Errorf("replayed twice: %v", err)
	}
	must(t, q.Drop(ctx, "b-1"))
	wantSize(t, q, 2, 0)
	must(t, q.Done(ctx, wantTake(t, q, "a-2"))) // it went on when a-1 died
	c := wantTake(t, q, "a-1")
	if c.Item.Attempts != 0 || !c.Item.Died.IsZero() || time.Since(c.Item.Queued) > time.Hour {
		t.Errorf("replayed as %+v", c.Item)
	}
	must(t, q.Done(ctx, c))
	mustEnqueue(t, q, "b-1") // its id is free again
	wantSize(t, q, 1, 0)
}

func wantDead(t *testing.T, q Queue, skip, limit int, ids ...string) {
	t.Helper()
	list, err := q.Dead(t.Context(), skip, limit)
	must(t, err)
	got := []string{}
	for _, i := range list {
		got = append(got, i.ID)
		if i.Died.IsZero() || i.Attempts != 1 || i.Failure == "" || len(i.Body) > 0 || i.Key != "" || i.Hook != "news" || i.Event != "test.event" {
			t.Errorf("listed as %+v", i)
		}
	}
	if !slices.Equal(got, append([]string{}, ids...)) {
		t.Errorf("the dead are %q, want %q", got, ids)
	}
}

func contractTooManyDead(t *testing.T, q Queue) {
	for _, id := range []string{"a-1", "a-2", "a-3", "a-4", "a-5"} {
		mustEnqueue(t, q, id)
		c := wantTake(t, q, id)
		c.Item.failed(errTest)
		must(t, q.Bury(t.Context(), c))
		awaitNextMilli()
	}
	wantDead(t, q, 0, 10, "a-5", "a-4", "a-3")
	wantSize(t, q, 0, 3)
	mustEnqueue(t, q, "a-1")
	wantSize(t, q, 1, 3)
}

// awaitNextMilli lets times that are kept to milliseconds differ: what is due
// or died in the same one comes in any order.
func awaitNextMilli() {
	for before := time.Now().UnixMilli(); time.Now().UnixMilli() == before; {
	}
}

func contractFull(t *testing.T, q Queue) {
	var buried *Claim
	for i := range contractSettings.MaxPending {
		mustEnqueue(t, q, fmt.Sprintf("a-%d", i))
	}
	wantCode(t, q.Put(t.Context(), newItem("b-1")), "webhook_queue_full")
	buried = wantTake(t, q, "a-0")
	must(t, q.Bury(t.Context(), buried))
	mustEnqueue(t, q, "b-1")
	wantCode(t, q.Replay(t.Context(), "a-0"), "webhook_queue_full")
	wantSize(t, q, contractSettings.MaxPending, 1)
}

func contractKnownIDs(t *testing.T, q Queue) {
	mustEnqueue(t, q, "a-1", "a-1")
	wantSize(t, q, 1, 0)
	must(t, q.Bury(t.Context(), wantTake(t, q, "a-1")))
	mustEnqueue(t, q, "a-1")
	wantSize(t, q, 0, 1)
}

func contractRefused(t *testing.T, q Queue) {
	for code, changes := range map[string][]func(*Item){
		"webhook_item": {
			func(i *Item) { i.ID = "" }, func(i *Item) { i.ID = "a:b" }, func(i *Item) { i.Hook = "" }, func(i *Item) { i.Event = "a b" },
			func(i *Item) { i.Key = strings.Repeat("k", maxKey+1) }, func(i *Item) { i.Body = nil }, func(i *Item) { i.Body = json.RawMessage("{") },
		},
		"webhook_item_too_large": {func(i *Item) { i.Body = json.RawMessage(`"` + strings.Repeat("x", maxBody) + `"`) }},
		"":                       {func(i *Item) { i.Body = json.RawMessage(`"` + strings.Repeat("x", maxBody-2) + `"`) }},
	} {
		for n, change := range changes {
			item := newItem("a-1")
			change(item)
			if err := q.Put(t.Context(), item); err != nil || code != "" {
				wantCode(t, err, code)
				continue
			}
			if c := wantTake(t, q, "a-1"); len(c.Item.Body) != maxBody {
				t.Errorf("%d: %d bytes came back", n, len(c.Item.Body))
			}
		}
	}
}

// Many put and many take: everything arrives once and in its lane's order.
func contractParallel(t *testing.T, q Queue) {
	const lanes, perLane = 10, 10
	var all sync.WaitGroup
	for lane := range lanes {
		all.Go(func() {
			for n := range perLane {
				if err := q.Put(t.Context(), newItem(fmt.Sprintf("%d-%02d", lane, n))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var mu sync.Mutex
	seen, total := map[string][]string{}, 0
	for range 8 {
		all.Go(func() {
			for t.Context().Err() == nil && !t.Failed() {
				c, err := q.Take(t.Context(), longLease)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if c != nil {
					seen[c.Item.Key] = append(seen[c.Item.Key], c.Item.ID)
					total++
				}
				over := total == lanes*perLane
				mu.Unlock()
				if c != nil {
					if err := q.Done(t.Context(), c); err != nil {
						t.Error(err)
					}
				}
				if over {
					return
				}
			}
		})
	}
	all.Wait()
	for lane, ids := range seen {
		if len(ids) != perLane || !slices.IsSorted(ids) {
			t.Errorf("lane %s came as %v", lane, ids)
		}
	}
	wantSize(t, q, 0, 0)
}

func callAll(ctx context.Context, q Queue, c *Claim) map[string]error {
	_, take := q.Take(ctx, longLease)
	_, size := q.Size(ctx)
	_, ids := q.DeadIDs(ctx, 1)
	_, find := q.Find(ctx, "x")
	_, dead := q.Dead(ctx, 0, 1)
	return map[string]error{
		"Put": q.Put(ctx, newItem("x-1")), "Take": take, "Done": q.Done(ctx, c), "Retry": q.Retry(ctx, c, 0), "Bury": q.Bury(ctx, c),
		"Size": size, "Dead": dead, "DeadIDs": ids, "Find": find, "Trim": q.Trim(ctx), "Replay": q.Replay(ctx, "x"), "Drop": q.Drop(ctx, "x"),
	}
}

func contractCancelled(t *testing.T, q Queue) {
	mustEnqueue(t, q, "a-1")
	c := wantTake(t, q, "a-1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range callAll(ctx, q, c) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want the cancellation", name, err)
		}
	}
	must(t, q.Done(t.Context(), c))
}

func contractAway(t *testing.T, q *kept) {
	mustEnqueue(t, q, "a-1")
	c := wantTake(t, q, "a-1")
	q.breakIt()
	for name, err := range callAll(t.Context(), q.Queue, c) {
		if err == nil {
			t.Errorf("%s works without what it stands on", name)
			continue
		}
		wantCode(t, err, "webhook_queue_unavailable")
	}
}
