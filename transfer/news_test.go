package transfer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"
)

// events are what was told, in order.
func (h *house) events() (list []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.told {
		list = append(list, n.Delivery)
	}
	return list
}

func (h *house) setDeaf(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deaf = err
}

func (h *house) wantEvents(when string, want ...string) {
	h.t.Helper()
	if got := h.events(); !slices.Equal(got, want) {
		h.t.Errorf("%s: told %q, want %q", when, got, want)
	}
}

func (h *house) wantOwed(when string, want ...string) {
	h.t.Helper()
	files, err := h.ledger.Owed(h.t.Context(), time.Now().Add(time.Hour), 10)
	if err != nil {
		h.t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, f.ID)
	}
	if !slices.Equal(got, want) {
		h.t.Errorf("%s: %q are owed, want %q", when, got, want)
	}
}

func TestNews(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		f := h.keep("a.txt", "hello")
		h.wantEvents("by the time of the answer", "file_ready-"+f.ID)
		h.wantOwed("after the answer")
		h.do("DELETE", f.URL, nil)
		h.wantEvents("after the deletion", "file_ready-"+f.ID, "file_deleted-"+f.ID)
		if got := h.told[1].File; got.Name != "a.txt" || got.SHA256 != sum("hello") || got.Owner != alice || got.State != Deleting {
			t.Errorf("deleted: %+v", got)
		}
		g := h.keep("b.txt", "hello")
		h.api("/delete", `{"file":"`+g.ID+`"}`, &struct{}{})
		h.wantEvents("after both deletions", "file_ready-"+f.ID, "file_deleted-"+f.ID, "file_ready-"+g.ID, "file_deleted-"+g.ID)
		h.upload("", formOf(field{"f", "x", "x"}, field{"g", "y", "y"}))
		h.upload("?sha256="+sum("y"), formOf(field{"f", "x", "x"}))
		if n := len(h.events()); n != 4 {
			t.Errorf("uploads that failed were told: %q", h.events())
		}
	})
}

// later lets the sweeper take what this process did for what is left over.
func (h *house) later() {
	h.started = now().Add(time.Hour)
	if r, ok := h.ledger.(*RedisLedger); ok { // shared: age counts
		ctx := h.t.Context()
		for _, set := range []string{r.owed(), r.index()} {
			ids, err := r.client.ZRange(ctx, set, 0, -1).Result()
			if err != nil {
				h.t.Fatal(err)
			}
			for _, id := range ids {
				if err := r.client.ZAdd(ctx, set, since(id, now().Add(-24*time.Hour))).Err(); err != nil {
					h.t.Fatal(err)
				}
			}
		}
	}
}

// News that could not be told do not keep the client from its answer, and are
// told by the sweeper, once.
func TestNewsOwed(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		h.setDeaf(errors.New("the queue is full"))
		f := h.keep("a.txt", "hello")
		h.wantEvents("deaf")
		h.wantOwed("deaf", f.ID)
		if a := h.do("GET", f.URL, nil); a.body != "hello" {
			t.Errorf("the file: %v", a)
		}
		if err := h.Sweep(t.Context()); err != nil { // too early: another node may be at it
			t.Fatal(err)
		}
		if h.calls != 1 {
			t.Errorf("tried %d times", h.calls)
		}
		h.later()
		if err := h.Sweep(t.Context()); !errors.Is(err, h.deaf) {
			t.Errorf("the sweep says %v", err)
		}
		h.setDeaf(nil)
		for range 2 {
			if err := h.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			h.wantEvents("after the sweep", "file_ready-"+f.ID)
			h.wantOwed("after the sweep")
		}
		if a := h.do("GET", f.URL, nil); a.body != "hello" {
			t.Errorf("the file after the sweep: %v", a)
		}
	})
}

// settleless is a ledger whose process dies before it notes that it told.
type settleless struct {
	Ledger
	dead bool
}

func (l *settleless) Settle(ctx context.Context, f File) error {
	if l.dead {
		return errLedgerAway
	}
	return l.Ledger.Settle(ctx, f)
}

// Who dies between telling and noting it tells again, under the same delivery.
func TestNewsToldTwice(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		broken := &settleless{l, true}
		h := newHouse(t, newTestFolder(t), broken)
		f := h.keep("a.txt", "hello")
		h.wantEvents("before", "file_ready-"+f.ID)
		broken.dead = false
		h.ledger = l
		h.later()
		if err := h.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.wantEvents("after", "file_ready-"+f.ID, "file_ready-"+f.ID)
		h.wantOwed("after")
		if fmt.Sprint(h.told[0]) != fmt.Sprint(h.told[1]) {
			t.Errorf("told %+v,\nthen %+v", h.told[0], h.told[1])
		}
	})
}

// A deletion that could not be told is told later; until then the file's
// record stays, but nobody can read it, and its bytes are gone.
func TestNewsOfDeletionOwed(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		folder := newTestFolder(t)
		h := newHouse(t, folder, l)
		f := h.keep("a.txt", "hello")
		h.setDeaf(errors.New("the queue is full"))
		if a := h.do("DELETE", f.URL, nil); a.StatusCode != http.StatusNoContent {
			t.Errorf("%v", a)
		}
		if n := len(filesIn(t, folder.dir)); n != 0 {
			t.Errorf("%d files are stored", n)
		}
		h.setDeaf(nil)
		h.later()
		if err := h.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.wantEvents("after the sweep", "file_ready-"+f.ID, "file_deleted-"+f.ID)
		h.wantEmpty()
	})
}

// What a crash left of a deletion does not wait for as long as an upload may
// take, nor is it taken from who may still be at it.
func TestDeletionIsSweptSoon(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		h := newHouse(t, newTestFolder(t), l)
		h.started = now().Add(-time.Hour)
		left, young, upload := retiring(t, l, 3*cleanUp), retiring(t, l, 0), reserved(t, l, 3*cleanUp)
		if err := h.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.wantEvents("after the sweep", "file_deleted-"+left.ID)
		if got := unfinished(t, l, time.Now().Add(time.Hour), 10); !slices.Equal(got, []string{upload.ID, young.ID}) {
			t.Errorf("%q are left, want %q and %q", got, upload.ID, young.ID)
		}
	})
}

// Where nobody wants to know any more, nothing stays owed.
func TestNewsNobodyWants(t *testing.T) {
	h := newTestHouse(t)
	h.setDeaf(errors.New("the queue is full"))
	f := h.keep("a.txt", "hello")
	h.wantOwed("deaf", f.ID)
	h.tell = nil
	h.later()
	if err := h.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.wantOwed("after the sweep")
	g := h.keep("b.txt", "hello")
	h.wantOwed("a new one")
	if a := h.do("DELETE", g.URL, nil); a.StatusCode != http.StatusNoContent {
		t.Errorf("%v", a)
	}
}
