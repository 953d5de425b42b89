package transfer

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// wantOrphans checks what the last comparison shows, of all kinds.
func (h *house) wantOrphans(want map[string]float64) {
	h.t.Helper()
	kinds := []string{BytesMissing, SizeDiffers, RecordMissing, PartsLeft, UnknownObject}
	if n := testutil.CollectAndCount(h.metrics.orphans); n != len(kinds) {
		h.t.Errorf("%d kinds are shown", n)
	}
	for _, kind := range kinds {
		if got := testutil.ToFloat64(h.metrics.orphans.WithLabelValues(kind)); got != want[kind] {
			h.t.Errorf("%s: %v, want %v", kind, got, want[kind])
		}
	}
}

// What is on one side only is counted, on either side; records stay.
func TestCompareBothSides(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		h.settings.OrphanTTL = 24 * time.Hour
		var records []File
		for _, name := range []string{"whole.txt", "lost.txt", "lost too.txt", "short.txt"} {
			record, err := h.ledger.Get(t.Context(), h.keep(name, "hello").ID)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, record)
		}
		if err := h.Compare(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.wantOrphans(nil)
		for _, f := range records[1:] {
			if err := h.store.Delete(t.Context(), f.Key); err != nil {
				t.Fatal(err)
			}
		}
		h.store1(records[3].Key, "hell")
		h.store1(newFile(alice).Key, "of nobody")
		h.store1("something/else", "not ours")
		for range 2 { // as often as one likes
			if err := h.Compare(t.Context()); err != nil {
				t.Fatal(err)
			}
			h.wantOrphans(map[string]float64{BytesMissing: 2, SizeDiffers: 1, RecordMissing: 1, UnknownObject: 1})
		}
		for kind, want := range map[string]float64{RecordMissing: 9, PartsLeft: 0, UnknownObject: 8} {
			if got := testutil.ToFloat64(h.metrics.orphanBytes.WithLabelValues(kind)); got != want {
				t.Errorf("%s: %v bytes, want %v", kind, got, want)
			}
		}
		for _, f := range records {
			if now, err := h.ledger.Get(t.Context(), f.ID); err != nil || now.State != Ready {
				t.Errorf("the record of %s: %s, %v", f.Name, now.State, err)
			}
		}
	})
}

// One node compares, not at each sweep, and alone shows what it found: what
// another found before is taken back.
func TestCompareIfDue(t *testing.T) {
	l := newTestRedisLedger(t)
	var nodes [2]*house
	for i := range nodes {
		nodes[i] = newHouse(t, &listing{Store: newTestFolder(t)}, l)
	}
	compare := func() (lists int32) {
		t.Helper()
		for _, h := range nodes {
			for range 3 {
				if err := h.compareIfDue(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			lists += h.store.(*listing).count.Swap(0)
		}
		return lists
	}
	shown := func() (n [2]int) {
		for i, h := range nodes {
			n[i] = testutil.CollectAndCount(h.metrics.orphans) + testutil.CollectAndCount(h.metrics.orphanBytes)
		}
		return n
	}
	if n := shown(); n != [2]int{} {
		t.Errorf("before any comparison %v are shown", n)
	}
	if n := compare(); n != 1 {
		t.Errorf("%d comparisons, want 1", n)
	}
	if n := shown(); n != [2]int{8, 0} {
		t.Errorf("the first node compared, and %v are shown", n)
	}
	for _, h := range nodes { // when verify_interval is over
		h.compared = time.Time{}
	}
	if err := l.client.Del(t.Context(), "mg:claim:verify").Err(); err != nil {
		t.Fatal(err)
	}
	nodes[0], nodes[1] = nodes[1], nodes[0] // the other is faster
	if n := compare(); n != 1 {
		t.Errorf("%d comparisons, want 1", n)
	}
	if n := shown(); n != [2]int{8, 0} {
		t.Errorf("the other node compared, and %v are shown", n)
	}
}

// listing counts looks at what is there, at its beginning; where it hangs, they
// take until their context ends.
type listing struct {
	Store
	hangs bool
	count atomic.Int32
}

func (s *listing) List(ctx context.Context, after string, limit int) ([]Object, string, error) {
	if s.hangs {
		<-ctx.Done()
		return nil, "", context.Cause(ctx)
	}
	s.count.Add(1)
	return s.Store.List(ctx, after, limit)
}

// A comparison leaves others room: it looks at no more than compareRate a
// second.
func TestComparePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pages = 5
		for _, most := range []int{0, 3} {
			page := func(_ context.Context, after string, limit int) (VerifyAnswer, error) {
				if after += "x"; len(after) == pages {
					after = ""
				}
				return VerifyAnswer{Checked: limit, Cursor: after}, nil
			}
			ctx, cancel := context.WithCancel(t.Context())
			seen, began := 0, time.Now()
			err := eachPage(ctx, page, func(a VerifyAnswer) {
				if seen++; seen == most {
					cancel()
				}
			})
			cancel()
			if most > 0 && (seen != most || !errors.Is(err, context.Canceled)) {
				t.Errorf("canceled: %v after %d pages", err, seen)
			}
			// The first page and the burst are free.
			if took, want := time.Since(began), (pages-2)*orphanPage/compareRate*time.Second; most == 0 && (err != nil || seen != pages || took < want || took > want+time.Second) {
				t.Errorf("%d pages in %v, want %v: %v", seen, took, want, err)
			}
		}
	})
}

// Sweeps go on while a comparison takes its time.
func TestCompareBesideSweeps(t *testing.T) {
	l := &swept{Ledger: newTestFileLedger(t), sweeps: make(chan struct{})}
	h := newHouse(t, &listing{Store: newTestFolder(t), hangs: true}, l, func(s *Settings) { s.SweepInterval = time.Millisecond })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- h.Run(ctx) }()
	for range 3 {
		select {
		case <-l.sweeps:
		case <-time.After(30 * time.Second):
			t.Fatal("no sweep")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// swept tells of sweeps.
type swept struct {
	Ledger
	sweeps chan struct{}
}

func (l *swept) ExpiredSessions(ctx context.Context, before time.Time, limit int) ([]File, error) {
	select {
	case l.sweeps <- struct{}{}:
	case <-ctx.Done():
	}
	return l.Ledger.ExpiredSessions(ctx, before, limit)
}
