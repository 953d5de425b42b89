package transfer

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// kept enters a file of alice's that is ready.
func kept(t *testing.T, l Ledger, change func(f *File)) File {
	t.Helper()
	f := reserved(t, l, 0)
	f.Name, f.Size, f.Type, f.SHA256 = "a.txt", 5, "text/plain", "abc"
	if change != nil {
		change(&f)
	}
	if err := l.Commit(t.Context(), f, Quota{}); err != nil {
		t.Fatal(err)
	}
	f, err := l.Get(t.Context(), f.ID)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func idsOf(files []File) string {
	ids := make([]string, len(files))
	for i, f := range files {
		ids[i] = f.ID
	}
	return strings.Join(ids, " ")
}

func TestLedgerAmend(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		ctx := t.Context()
		f := kept(t, l, func(f *File) { f.Owed = true })
		want := f
		want.Owner.OpenID, want.Access, want.Thumbs = "bob", Access{Channel: "room:1"}, "a b"
		want.Expires = now().Add(time.Hour)
		got, err := l.Amend(ctx, f.ID, func(f *File) error {
			f.Owner, f.Access, f.Thumbs, f.Expires = want.Owner, want.Access, want.Thumbs, want.Expires
			return nil
		})
		want.Before = got.Before // the ledger's own
		if err != nil || got != want {
			t.Errorf("Amend = %+v, %v\nwant %+v", got, err, want)
		}
		if got, err = l.Get(ctx, f.ID); err != nil || got != want {
			t.Errorf("Get = %+v, %v\nwant %+v", got, err, want)
		}
		for user, n := range map[string]int{"alice": 0, "bob": 1, "": 1} {
			if files, _, err := l.List(ctx, user, "", 10); err != nil || len(files) != n {
				t.Errorf("%d files of %q, %v; want %d", len(files), user, err, n)
			}
		}
		if owed, err := l.Owed(ctx, time.Now().Add(time.Hour), 10); err != nil || idsOf(owed) != f.ID {
			t.Errorf("owed: %v, %v", owed, err)
		}
		cause := errors.New("no")
		if _, err := l.Amend(ctx, f.ID, func(f *File) error { f.Name = "other"; return cause }); !errors.Is(err, cause) {
			t.Errorf("a change that fails: %v", err)
		}
		if got, _ = l.Get(ctx, f.ID); got != want {
			t.Errorf("after a change that fails: %+v", got)
		}
		nothing := func(*File) error { return nil }
		if _, err := l.Amend(ctx, newFile(alice).ID, nothing); !errors.Is(err, errNoFile) {
			t.Errorf("an unknown file: %v", err)
		}
		if _, err := l.Amend(ctx, reserved(t, l, 0).ID, nothing); !errors.Is(err, errFileState) {
			t.Errorf("a pending file: %v", err)
		}
		if _, err := l.Retire(ctx, f.ID, Ready); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Amend(ctx, f.ID, nothing); !errors.Is(err, errFileState) {
			t.Errorf("a file that is being deleted: %v", err)
		}
		if err := l.Forget(ctx, f.ID); err != nil {
			t.Fatal(err)
		}
		if gone, err := l.Expired(ctx, time.Now().Add(2*time.Hour), 10); err != nil || len(gone) != 0 {
			t.Errorf("a forgotten file expires: %v, %v", gone, err)
		}
	})
}

// Changes at the same time are all made.
func TestLedgerAmendTogether(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		f := kept(t, l, nil)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				_, err := l.Amend(t.Context(), f.ID, func(f *File) error { f.Thumbs += fmt.Sprint(i, " "); return nil })
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got, err := l.Get(t.Context(), f.ID)
		if n := len(strings.Fields(got.Thumbs)); err != nil || n != 8 {
			t.Errorf("%q, %v: %d changes of 8", got.Thumbs, err, n)
		}
	})
}

func TestLedgerExpired(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		ctx := t.Context()
		at := now()
		in := func(d time.Duration) File { return kept(t, l, func(f *File) { f.Expires = at.Add(d) }) }
		second, first, later := in(-time.Minute), in(-time.Hour), in(time.Hour)
		kept(t, l, nil)
		expired := func(want ...File) {
			t.Helper()
			if files, err := l.Expired(ctx, at, 10); err != nil || idsOf(files) != idsOf(want) {
				t.Errorf("%v, %v; want %v", idsOf(files), err, idsOf(want))
			}
		}
		expired(first, second)
		if files, err := l.Expired(ctx, at, 1); err != nil || idsOf(files) != first.ID {
			t.Errorf("one: %v, %v", idsOf(files), err)
		}
		expire := func(f File, end time.Time) {
			t.Helper()
			if _, err := l.Amend(ctx, f.ID, func(f *File) error { f.Expires = end; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		expire(first, time.Time{})
		expire(second, at.Add(time.Hour))
		expired()
		expire(later, at.Add(-time.Second))
		expired(later)
		if _, err := l.Retire(ctx, later.ID, Ready); err != nil {
			t.Fatal(err)
		}
		expired()
	})
}

func TestLedgerSpend(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		began := now()
		until := began.Add(time.Hour)
		spend := func(link string, first, look bool, after time.Duration, want bool) {
			t.Helper()
			ok, err := l.Spend(t.Context(), Spending{Link: link, Most: 2, First: first, Look: look, At: began.Add(after), Until: until})
			if err != nil || ok != want {
				t.Errorf("%s, first %v, look %v, after %v: %v, %v", link, first, look, after, ok, err)
			}
		}
		const first, part, look, late = true, false, true, time.Millisecond
		spend("a", part, false, 0, false) // nothing was begun that could go on
		for range 3 {
			spend("a", first, look, 0, true)
		}
		spend("a", part, look, 0, false)
		spend("a", first, false, 0, true)
		spend("a", part, false, resumeTime, true)
		spend("a", part, look, 2*resumeTime, true)
		spend("a", part, false, 2*resumeTime+late, false) // to look let nothing through
		spend("a", part, false, 2*resumeTime, true)
		spend("a", part, false, 3*resumeTime+late, false)
		spend("a", part, false, 3*resumeTime+late, false) // what is refused does not help either
		spend("a", first, false, 4*resumeTime, true)
		spend("a", first, look, 4*resumeTime, false)
		spend("a", first, false, 4*resumeTime, false)
		spend("a", part, false, 5*resumeTime, true)
		spend("b", first, false, 0, true)
		var wg sync.WaitGroup
		var let atomic.Int32
		for range 20 {
			wg.Go(func() {
				ok, err := l.Spend(t.Context(), Spending{Link: "c", Most: 5, First: true, At: began, Until: until})
				if err != nil {
					t.Error(err)
				}
				if ok {
					let.Add(1)
				}
			})
		}
		wg.Wait()
		if let.Load() != 5 {
			t.Errorf("%d downloads of 5", let.Load())
		}
	})
}

// The counts of links that have ended do not stay.
func TestFileLedgerForgetsSpent(t *testing.T) {
	l := newTestFileLedger(t)
	for i := range 30 {
		if _, err := l.Spend(t.Context(), Spending{Link: fmt.Sprint(i), Most: 1, First: true, At: now(), Until: now().Add(-time.Minute)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Spend(t.Context(), Spending{Link: "last", Most: 1, First: true, At: now(), Until: now().Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	tx, err := l.db.Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // only read
	if n := tx.Bucket(spentBucket).Stats().KeyN; n != 1 {
		t.Errorf("%d counts are left, want 1", n)
	}
}

func TestRedisLedgerClaim(t *testing.T) {
	l := newTestRedisLedger(t)
	for i, want := range []bool{true, false} {
		if ok, err := l.Claim(t.Context(), "verify", time.Minute); err != nil || ok != want {
			t.Errorf("claim %d: %v, %v", i, ok, err)
		}
	}
	if ok, err := l.Claim(t.Context(), "other", time.Minute); err != nil || !ok {
		t.Errorf("another task: %v, %v", ok, err)
	}
	if err := l.client.Del(t.Context(), "mg:claim:verify").Err(); err != nil { // what its end does
		t.Fatal(err)
	}
	if ok, err := l.Claim(t.Context(), "verify", time.Minute); err != nil || !ok {
		t.Errorf("after its end: %v, %v", ok, err)
	}
	if ok, err := newTestFileLedger(t).Claim(t.Context(), "verify", time.Minute); err != nil || !ok {
		t.Errorf("alone: %v, %v", ok, err)
	}
}
