package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sync/errgroup"
)

// The parts of the queues' contract about what they keep, and for how long.

const marker = "13800138000" // a phone number, as open_data has it

func marked(id string) *Item {
	item := newItem(id)
	item.Key = "wx-app/o-" + marker
	item.Body = json.RawMessage(`{"phone":"` + marker + `"}`)
	return item
}

func bury(t testing.TB, q Queue, id string) {
	t.Helper()
	c := wantTake(t, q, id)
	c.Item.failed(errTest)
	must(t, q.Bury(t.Context(), c))
}

// Nothing about a user lies open in what is stored, whatever state it is in.
func contractSealed(t *testing.T, q *kept) {
	for _, id := range []string{"dead", "replayed", "retried", "pending"} {
		item := marked(id)
		item.Key += id
		must(t, q.Put(t.Context(), item))
		if id == "pending" {
			break
		}
		c := wantTake(t, q, id)
		c.Item.failed(errTest)
		if id == "retried" {
			must(t, q.Retry(t.Context(), c, longLease))
			continue
		}
		must(t, q.Bury(t.Context(), c))
	}
	must(t, q.Replay(t.Context(), "replayed"))
	wantSize(t, q, 3, 1)
	dump := q.dump()
	for _, open := range []string{"pending", "news", "test.event"} { // or else it is no dump
		if !bytes.Contains(dump, []byte(open)) {
			t.Errorf("%q is not in the %d bytes of the dump", open, len(dump))
		}
	}
	for _, secret := range []string{marker, "phone", "wx-app"} {
		if bytes.Contains(dump, []byte(secret)) {
			t.Errorf("%q can be read in what is stored", secret)
		}
	}
	n := 0
	q.records(func(id, record string) {
		n++
		if strings.Contains(record, marker) || strings.Contains(record, "wx-app") {
			t.Errorf("%s is stored as %q", id, record)
		}
	})
	if n != 4 {
		t.Errorf("%d records", n)
	}
}

func withKeys(keys ...byte) QueueOptions {
	return QueueOptions{Settings: contractSettings, Sealer: newSealer(keys...)}
}

// A new key seals what comes, the old one still opens what was there.
func contractKeyRotation(t *testing.T, q *kept) {
	must(t, q.Put(t.Context(), marked("a-1")))
	must(t, q.Put(t.Context(), marked("a-2")))
	bury(t, q, "a-1")
	both := q.again(withKeys(2, 1))
	must(t, both.Put(t.Context(), marked("a-3")))
	must(t, both.Replay(t.Context(), "a-1")) // seals it anew
	if c := wantTake(t, both, "a-2"); string(c.Item.Body) != string(marked("a-2").Body) {
		t.Errorf("opened as %s", c.Item.Body)
	} else {
		must(t, both.Done(t.Context(), c))
	}
	alone := q.again(withKeys(2))
	for _, id := range []string{"a-3", "a-1"} {
		c := wantTake(t, alone, id)
		if c.Item.Key != marked(id).Key || string(c.Item.Body) != string(marked(id).Body) {
			t.Errorf("%s opened as %+v", id, c.Item)
		}
		must(t, alone.Done(t.Context(), c))
	}
}

// What was sealed with a key that is gone is dead, and holds up nothing; once
// the key is back it can be replayed.
func contractKeyGone(t *testing.T, q *kept) {
	ctx := t.Context()
	must(t, q.Put(ctx, marked("a-1")))
	must(t, q.Put(ctx, marked("a-2")))
	bury(t, q, "a-1") // for another reason
	o := withKeys(2)
	o.Metrics = NewMetrics(prometheus.NewRegistry())
	without := q.again(o)
	must(t, without.Put(ctx, marked("a-3")))
	c := wantTake(t, without, "a-3")
	if n := testutil.ToFloat64(o.Metrics.deliveries.WithLabelValues("news", resultDead)); n != 1 {
		t.Errorf("%v are counted as dead", n)
	}
	must(t, without.Done(ctx, c))
	wantSize(t, without, 0, 2)
	list, err := without.Dead(ctx, 0, 10)
	must(t, err)
	if len(list) != 2 || list[0].ID != "a-2" || !strings.Contains(list[0].Failure, "keys.sealing_old") || list[1].Failure != errTest.Error() {
		t.Errorf("the dead are %+v", list)
	}
	for _, id := range []string{"a-1", "a-2"} {
		if err := without.Replay(ctx, id); !errors.Is(err, ErrSealed) {
			t.Errorf("Replay of %s: %v", id, err)
		}
		i, err := without.Find(ctx, id)
		if !errors.Is(err, ErrSealed) || i == nil || i.ID != id || i.Failure != failureKey || i.Body != nil || i.Key != "" {
			t.Errorf("Find of %s: %+v, %v", id, i, err)
		}
	}
	wantSize(t, without, 0, 2)
	must(t, q.again(withKeys(2, 1)).Replay(ctx, "a-2"))
	if c := wantTake(t, without, "a-2"); string(c.Item.Body) != string(marked("a-2").Body) {
		t.Errorf("replayed as %+v", c.Item)
	}
	must(t, without.Drop(ctx, "a-1"))
	wantSize(t, without, 1, 0)
}

// What somebody changed, or moved to another delivery, is not delivered.
func contractTampered(t *testing.T, q *kept) {
	ctx := t.Context()
	must(t, q.Put(ctx, marked("a-1")))
	must(t, q.Put(ctx, marked("a-2")))
	records := map[string]string{}
	q.records(func(id, record string) { records[id] = record })
	_, foreign, _ := strings.Cut(records["a-2"], "\n")
	head, _, _ := strings.Cut(records["a-1"], "\n")
	q.set("a-1", head+"\n"+foreign)
	q.set("a-2", strings.Replace(records["a-2"], "test.event", "real.event", 1))
	wantTake(t, q, "")
	wantSize(t, q, 0, 2)
	list, err := q.Dead(ctx, 0, 10)
	must(t, err)
	for _, i := range list {
		if i.Failure != failureBroken {
			t.Errorf("buried as %+v", i)
		}
	}
	if err := q.Replay(ctx, "a-1"); !errors.Is(err, ErrSealed) {
		t.Errorf("Replay: %v", err)
	}
	q.set("a-1", "{") // not even a record
	if list, err = q.Dead(ctx, 0, 10); err != nil || len(list) != 2 {
		t.Errorf("listed %+v, %v", list, err)
	}
	must(t, q.Drop(ctx, "a-1"))
	must(t, q.Drop(ctx, "a-2"))
	wantSize(t, q, 0, 0)
	if _, err := q.Find(ctx, "a-1"); !errors.Is(err, ErrNoDelivery) {
		t.Errorf("Find: %v", err)
	}
}

// The oldest go until the rest fits.
func contractTooLargeDead(t *testing.T, q Queue) {
	for _, id := range []string{"a-1", "a-2", "a-3"} {
		item := newItem(id)
		item.Body = json.RawMessage(`"` + strings.Repeat("x", 400<<10) + `"`)
		must(t, q.Put(t.Context(), item))
		bury(t, q, id)
		awaitNextMilli()
	}
	if ids, err := q.DeadIDs(t.Context(), 10); err != nil || fmt.Sprint(ids) != "[a-2 a-3]" {
		t.Errorf("the dead are %q, %v", ids, err)
	}
	s, err := q.Size(t.Context())
	must(t, err)
	if s.DeadBytes < 800<<10 || s.DeadBytes > 802<<10 {
		t.Errorf("they take %d bytes", s.DeadBytes)
	}
	must(t, q.Replay(t.Context(), "a-2"))
	must(t, q.Drop(t.Context(), "a-3"))
	wantSize(t, q, 1, 0)
}

// The age of the dead is looked at when another one comes, and by Trim.
func contractTooOldDead(t *testing.T, q *kept) {
	s := contractSettings
	s.MaxDeadAge = 30 * time.Millisecond
	short := q.again(sealed(s))
	mustEnqueue(t, q, "a-1", "b-1")
	began := time.Now()
	bury(t, q, "a-1")
	must(t, short.Trim(t.Context()))
	if size, err := short.Size(t.Context()); err != nil || size.Dead != 1 && time.Since(began) < s.MaxDeadAge/2 {
		t.Errorf("%+v, %v: it is not that old", size, err)
	}
	for size := (Size{Dead: 1}); size.Dead > 0; {
		if time.Since(began) > 30*time.Second {
			t.Fatal("it never went")
		}
		must(t, short.Trim(t.Context()))
		var err error
		size, err = short.Size(t.Context())
		must(t, err)
	}
	if took := time.Since(began); took < s.MaxDeadAge-5*time.Millisecond {
		t.Errorf("it went after %v", took)
	}
	bury(t, q, "b-1")
	for later := time.Now().Add(2 * s.MaxDeadAge); time.Now().Before(later); {
		awaitNextMilli()
	}
	mustEnqueue(t, short, "c-1")
	bury(t, short, "c-1")
	wantDead(t, q, 0, 10, "c-1")
	mustEnqueue(t, q, "a-1", "b-1") // nothing of them is left
	wantSize(t, q, 2, 1)
}

// A limit that was lowered holds after Trim.
func contractLoweredLimits(t *testing.T, q *kept) {
	const many = trimAtOnce + 10
	s := contractSettings
	s.MaxDead, s.MaxPending = many, many
	wide := q.again(sealed(s))
	all := new(errgroup.Group)
	for i := range many {
		all.Go(func() error { return wide.Put(t.Context(), newItem(fmt.Sprint(i))) })
	}
	must(t, all.Wait())
	for range many {
		c := awaitTake(t, wide, longLease)
		all.Go(func() error { return wide.Bury(t.Context(), c) })
	}
	must(t, all.Wait())
	wantSize(t, wide, 0, many)
	must(t, q.Trim(t.Context()))
	wantSize(t, q, 0, contractSettings.MaxDead)
	s.MaxDead = 0
	none := q.again(sealed(s))
	must(t, none.Trim(t.Context()))
	wantSize(t, none, 0, 0)
	mustEnqueue(t, none, "a-1")
	bury(t, none, "a-1")
	wantSize(t, none, 0, 0)
}

func contractTrimIsCounted(t *testing.T, q *kept) {
	m := NewMetrics(prometheus.NewRegistry())
	one, large, old := contractSettings, contractSettings, contractSettings
	one.MaxDead, large.MaxDeadBytes, old.MaxDeadAge = 1, 1, time.Nanosecond
	for reason, s := range map[string]QueueSettings{"count": one, "bytes": large, "age": old} {
		q := q.again(QueueOptions{s, newSealer(1), m})
		mustEnqueue(t, q, "a-"+reason, "b-"+reason)
		for range 2 {
			c := awaitTake(t, q, longLease)
			must(t, q.Bury(t.Context(), c))
		}
		must(t, q.Trim(t.Context()))
		want := map[string]float64{"count": 1, "bytes": 2, "age": 2}[reason]
		if got := testutil.ToFloat64(m.trimmed.WithLabelValues(reason)); got != want {
			t.Errorf("%v are counted as removed for %s, want %v", got, reason, want)
		}
		ids, err := q.DeadIDs(t.Context(), 10)
		must(t, err)
		for _, id := range ids {
			must(t, q.Drop(t.Context(), id))
		}
	}
}

// The oldest is the one that was put first, however often it was tried.
func contractOldest(t *testing.T, q Queue) {
	ctx, before := t.Context(), time.Now()
	oldest := func() time.Time {
		s, err := q.Size(ctx)
		must(t, err)
		return s.Oldest
	}
	put := func(id string) {
		item := newItem(id)
		item.Queued = time.Now()
		must(t, q.Put(ctx, item))
		awaitNextMilli()
	}
	if !oldest().IsZero() {
		t.Errorf("the oldest of none is of %v", oldest())
	}
	put("a-1")
	first := oldest()
	put("b-1")
	if age := first.Sub(before); age < -time.Second || age > time.Minute {
		t.Errorf("the oldest is of %v, %v after the start", first, age)
	}
	c := wantTake(t, q, "a-1")
	must(t, q.Retry(ctx, c, 0))
	if !oldest().Equal(first) {
		t.Errorf("a retry makes it younger: %v, %v", first, oldest())
	}
	b := wantTake(t, q, "b-1")
	must(t, q.Bury(ctx, b))
	must(t, q.Done(ctx, wantTake(t, q, "a-1")))
	if !oldest().IsZero() {
		t.Errorf("an empty queue has waited since %v", oldest())
	}
	awaitNextMilli()
	must(t, q.Replay(ctx, "b-1"))
	if !oldest().After(first) {
		t.Errorf("what was replayed is as old as ever: %v", oldest())
	}
}
