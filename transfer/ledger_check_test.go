package transfer

import (
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

// checking enters a file of alice's that is being checked and due in a while.
func checking(t *testing.T, l Ledger, due time.Duration) File {
	t.Helper()
	return kept(t, l, func(f *File) {
		f.State = Checking
		f.Check = Check{Began: now(), Waiting: "clamd wechat", Due: now().Add(due)}
	})
}

// due returns the ids of what is due by a time, and how many are in all.
func due(t *testing.T, l Ledger, before time.Time, limit int) (ids []string, all int) {
	t.Helper()
	files, err := l.Due(t.Context(), before, limit)
	if err != nil {
		t.Fatal(err)
	}
	if all, err = l.CountDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		ids = append(ids, f.ID)
	}
	return ids, all
}

func amended(t *testing.T, l Ledger, id string, change func(f *File)) File {
	t.Helper()
	f, err := l.Amend(t.Context(), id, func(f *File) error { change(f); return nil })
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Get(t.Context(), id)
	f.Before = got.Before // the ledger's own
	if err != nil || got != f {
		t.Errorf("kept %+v, %v\nwant %+v", got, err, f)
	}
	return got
}

func TestLedgerDue(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		second, first := checking(t, l, time.Minute), checking(t, l, time.Second)
		kept(t, l, nil)
		soon := now().Add(time.Hour)
		if first.State != Checking || !first.Whole {
			t.Errorf("committed: %+v", first)
		}
		if ids, all := due(t, l, soon, 10); !slices.Equal(ids, []string{first.ID, second.ID}) || all != 2 {
			t.Errorf("due: %v of %d", ids, all)
		}
		if ids, all := due(t, l, soon, 1); !slices.Equal(ids, []string{first.ID}) || all != 2 {
			t.Errorf("one of them: %v of %d", ids, all)
		}
		if ids, _ := due(t, l, now().Add(30*time.Second), 10); !slices.Equal(ids, []string{first.ID}) {
			t.Errorf("in a while: %v", ids)
		}
		amended(t, l, first.ID, func(f *File) { f.Check.Due = now().Add(2 * time.Minute) })
		if ids, _ := due(t, l, soon, 10); !slices.Equal(ids, []string{second.ID, first.ID}) {
			t.Errorf("moved on: %v", ids)
		}
		before := second.Changed
		awaitClock(before)
		f := amended(t, l, second.ID, func(f *File) { f.State, f.Owed, f.Check.Due = Ready, true, time.Time{} })
		if !f.Owed || !f.Changed.After(before) {
			t.Errorf("ready: %+v", f)
		}
		if ids, all := due(t, l, soon, 10); !slices.Equal(ids, []string{first.ID}) || all != 1 {
			t.Errorf("one is ready: %v of %d", ids, all)
		}
		if ids := listed(t, l, "alice", 10); len(ids) != 3 {
			t.Errorf("listed: %v", ids)
		}
		if _, err := l.Retire(t.Context(), first.ID, Checking); err != nil {
			t.Fatal(err)
		}
		if ids, all := due(t, l, soon, 10); len(ids) != 0 || all != 0 {
			t.Errorf("one is ready, one deleted: %v of %d", ids, all)
		}
	})
}

// A blocked file counts no bytes, is told of, and goes when it expires.
func TestLedgerBlocked(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		ctx := t.Context()
		for _, from := range []State{Checking, Ready} {
			f := checking(t, l, 0)
			if from == Ready {
				f = amended(t, l, f.ID, func(f *File) { f.State, f.Owed = Ready, true })
			}
			ready := f
			if u, err := l.Usage(ctx, alice); err != nil || u.Stored != 5 {
				t.Errorf("%s: %+v, %v", from, u, err)
			}
			awaitClock(f.Changed)
			f = amended(t, l, f.ID, func(f *File) {
				f.State, f.Owed, f.Expires = Blocked, true, now().Add(time.Minute)
				f.Check.Reason, f.Check.Due = Reason{"clamd", "virus"}, now()
			})
			if u, err := l.Usage(ctx, alice); err != nil || u.Stored != 0 || u.Daily == 0 {
				t.Errorf("from %s: %+v, %v", from, u, err)
			}
			if err := l.Settle(ctx, ready); err != nil { // told by who has not seen this
				t.Fatal(err)
			}
			owed, err := l.Owed(ctx, now().Add(time.Hour), 10)
			if err != nil || idsOf(owed) != f.ID {
				t.Errorf("owed: %v, %v", idsOf(owed), err)
			}
			if ids, _ := due(t, l, now().Add(time.Second), 10); !slices.Equal(ids, []string{f.ID}) {
				t.Errorf("bytes to be removed: %v", ids)
			}
			if err := l.Settle(ctx, f); err != nil {
				t.Fatal(err)
			}
			if owed, err = l.Owed(ctx, now().Add(time.Hour), 10); err != nil || len(owed) != 0 {
				t.Errorf("settled: %v, %v", idsOf(owed), err)
			}
			if gone, err := l.Expired(ctx, now().Add(time.Hour), 10); err != nil || idsOf(gone) != f.ID {
				t.Errorf("expired: %v, %v", idsOf(gone), err)
			}
			if _, err := l.Retire(ctx, f.ID, Blocked); err != nil {
				t.Fatal(err)
			}
			if u, err := l.Usage(ctx, alice); err != nil || u.Stored != 0 {
				t.Errorf("retired: %+v, %v", u, err)
			}
			if err := l.Forget(ctx, f.ID); err != nil {
				t.Fatal(err)
			}
			if ids, all := due(t, l, now().Add(time.Hour), 10); len(ids) != 0 || all != 0 {
				t.Errorf("forgotten: %v of %d", ids, all)
			}
		}
	})
}

// A hint is written before the record that it is for, and whoever is through
// with a file takes away only the hint that was its own.
func TestRedisDueHints(t *testing.T) {
	l := newTestRedisLedger(t)
	hint := func(f File, at time.Time) {
		t.Helper()
		if err := l.client.ZAdd(t.Context(), l.due(), since(f.ID, at)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	pass := func(f *File) { f.State, f.Check.Due = Ready, time.Time{} }
	soon := now().Add(time.Hour)

	f := checking(t, l, time.Minute)
	amended(t, l, f.ID, pass)
	if _, all := due(t, l, soon, 10); all != 0 {
		t.Error("the hint at a file that passed stays")
	}

	f = checking(t, l, time.Minute)
	blocked := now()
	hint(f, blocked) // by who is about to block it
	amended(t, l, f.ID, pass)
	if ids, all := due(t, l, soon, 10); len(ids) != 0 || all != 1 {
		t.Errorf("due %v of %d, want the hint to stay", ids, all)
	}
	amended(t, l, f.ID, func(f *File) { f.State, f.Check.Due = Blocked, blocked })
	if ids, _ := due(t, l, soon, 10); !slices.Equal(ids, []string{f.ID}) {
		t.Errorf("due %v, want the bytes of the one that is blocked", ids)
	}
	amended(t, l, f.ID, func(f *File) { f.Check.Due = time.Time{} })

	hint(f, now().Add(-2*hintLead)) // by who never came to it
	if ids, all := due(t, l, soon, 10); len(ids) != 0 || all != 0 {
		t.Errorf("due %v of %d, want old hints to be dropped", ids, all)
	}
}

func TestFileLedgerChecksReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db := openBolt(t, path)
	l, err := NewFileLedger(db)
	if err != nil {
		t.Fatal(err)
	}
	f := checking(t, l, 0)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = NewFileLedger(openBolt(t, path)); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Get(t.Context(), f.ID); err != nil || got != f {
		t.Errorf("%+v, %v\nwant %+v", got, err, f)
	}
	if ids, _ := due(t, l, now().Add(time.Second), 10); !slices.Equal(ids, []string{f.ID}) {
		t.Errorf("due: %v", ids)
	}
}

// awaitClock returns when what is changed has been changed later than at t.
func awaitClock(t time.Time) {
	for !now().After(t) {
		runtime.Gosched()
	}
}
