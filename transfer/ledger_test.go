package transfer

import (
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.etcd.io/bbolt"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/testdeps"
)

func openBolt(t testing.TB, path string) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoSync: true}) // no test cuts the power
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func newTestFileLedger(t testing.TB) *FileLedger {
	t.Helper()
	l, err := NewFileLedger(openBolt(t, filepath.Join(t.TempDir(), "test.db")))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newTestRedisLedger(t testing.TB) *RedisLedger {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: testdeps.Redis(t), MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	return NewRedisLedger(client, "mg:")
}

// eachLedger runs test on every Ledger that ships.
func eachLedger(t *testing.T, test func(t *testing.T, l Ledger)) {
	t.Run("file", func(t *testing.T) { test(t, newTestFileLedger(t)) })
	t.Run("redis", func(t *testing.T) { test(t, newTestRedisLedger(t)) })
}

var alice = auth.User{AppID: "wx1", OpenID: "alice", UnionID: "u-alice"}

func reserved(t *testing.T, l Ledger, age time.Duration) File {
	t.Helper()
	f := newFile(alice)
	f.Changed = f.Changed.Add(-age)
	if err := l.Reserve(t.Context(), f, Quota{}); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLedgerLife(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		if err := l.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		f := reserved(t, l, 0)
		if got, err := l.Get(t.Context(), f.ID); err != nil || got != f {
			t.Fatalf("reserved: %+v, %v\nwant %+v", got, err, f)
		}
		f.Name, f.Size, f.Type, f.SHA256 = "文件.jpg", 1<<40, "image/jpeg", "abc"
		if err := l.Commit(t.Context(), f, Quota{}); err != nil {
			t.Fatal(err)
		}
		f.State, f.Whole = Ready, true
		got, err := l.Get(t.Context(), f.ID)
		f.Changed = got.Changed
		if err != nil || got != f {
			t.Fatalf("committed: %+v, %v\nwant %+v", got, err, f)
		}
		if got, err = l.Retire(t.Context(), f.ID, Ready); err != nil || got.State != Deleting || got.Key != f.Key {
			t.Fatalf("Retire: %+v, %v", got, err)
		}
		if got, err = l.Get(t.Context(), f.ID); err != nil || got.State != Deleting {
			t.Fatalf("retired: %+v, %v", got, err)
		}
		for range 2 {
			if err := l.Forget(t.Context(), f.ID); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Get(t.Context(), f.ID); !errors.Is(err, errNoFile) {
				t.Errorf("forgotten: %v", err)
			}
		}
	})
}

func TestLedgerStates(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		ctx, unknown := t.Context(), newFile(alice)
		if err := l.Commit(ctx, unknown, Quota{}); !errors.Is(err, errNoFile) {
			t.Errorf("Commit of an unknown file: %v", err)
		}
		if _, err := l.Retire(ctx, unknown.ID, Ready, Pending); !errors.Is(err, errNoFile) {
			t.Errorf("Retire of an unknown file: %v", err)
		}
		f := reserved(t, l, 0)
		if _, err := l.Retire(ctx, f.ID, Ready); !errors.Is(err, errFileState) {
			t.Errorf("Retire of a pending file as ready: %v", err)
		}
		if err := l.Commit(ctx, f, Quota{}); err != nil {
			t.Fatal(err)
		}
		if err := l.Commit(ctx, f, Quota{}); !errors.Is(err, errFileState) {
			t.Errorf("second Commit: %v", err)
		}
		if _, err := l.Retire(ctx, f.ID, Pending); !errors.Is(err, errFileState) {
			t.Errorf("Retire of a ready file as pending: %v", err)
		}
		for range 2 {
			if got, err := l.Retire(ctx, f.ID, Ready); err != nil || got.State != Deleting {
				t.Errorf("Retire: %v, %v", got.State, err)
			}
		}
		if err := l.Commit(ctx, f, Quota{}); !errors.Is(err, errFileState) {
			t.Errorf("Commit of a retired file: %v", err)
		}
	})
}

func unfinished(t *testing.T, l Ledger, before time.Time, limit int) (ids []string) {
	t.Helper()
	files, err := l.Unfinished(t.Context(), before, limit, Pending, Deleting)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		ids = append(ids, f.ID)
	}
	return ids
}

func TestLedgerUnfinished(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		oldest, old, young := reserved(t, l, 3*time.Hour), reserved(t, l, 2*time.Hour), reserved(t, l, time.Second)
		done := reserved(t, l, 4*time.Hour)
		if err := l.Commit(t.Context(), done, Quota{}); err != nil {
			t.Fatal(err)
		}
		hourAgo, soon := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		if got := unfinished(t, l, hourAgo, 10); !slices.Equal(got, []string{oldest.ID, old.ID}) {
			t.Errorf("an hour ago: %v", got)
		}
		if got := unfinished(t, l, hourAgo, 1); !slices.Equal(got, []string{oldest.ID}) {
			t.Errorf("the first: %v", got)
		}
		if _, err := l.Retire(t.Context(), done.ID, Ready); err != nil {
			t.Fatal(err)
		}
		if got := unfinished(t, l, hourAgo, 10); len(got) != 2 {
			t.Errorf("retired just now, but found as of an hour ago: %v", got)
		}
		if got := unfinished(t, l, soon, 10); !slices.Equal(got, []string{oldest.ID, old.ID, young.ID, done.ID}) {
			t.Errorf("all: %v", got)
		}
		for _, id := range []string{oldest.ID, old.ID, young.ID, done.ID} {
			if err := l.Forget(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		if got := unfinished(t, l, soon, 10); len(got) != 0 {
			t.Errorf("none: %v", got)
		}
	})
}

// retiring makes the record of a ready file that somebody began to delete so
// long ago.
func retiring(t *testing.T, l Ledger, age time.Duration) File {
	t.Helper()
	f := newFile(alice)
	f.SHA256, f.State, f.Changed = sum("hello"), Deleting, f.Changed.Add(-age)
	var err error
	switch l := l.(type) {
	case *FileLedger:
		err = l.db.Update(func(tx *bbolt.Tx) error { return putFile(tx, f) })
	case *RedisLedger:
		err = errors.Join(l.note(t.Context(), f.ID, f.Changed), l.set(t.Context(), f.ID, Deleting, f.Changed, &f, ""))
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Those of one state are found behind any number of the other.
func TestLedgerUnfinishedByState(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		var pending, deleting []string
		for i := range 5 {
			age := time.Hour - time.Duration(i)*time.Minute
			pending = append(pending, reserved(t, l, 2*age).ID)
			deleting = append(deleting, retiring(t, l, age).ID)
		}
		for limit := 1; limit <= 6; limit++ {
			for state, all := range map[State][]string{Pending: pending, Deleting: deleting} {
				files, err := l.Unfinished(t.Context(), time.Now(), limit, state)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, f := range files {
					got = append(got, f.ID)
				}
				if want := all[:min(limit, len(all))]; !slices.Equal(got, want) {
					t.Errorf("%d that are %s: %q, want %q", limit, state, got, want)
				}
			}
		}
	})
}

// Of many who commit and sweep the same file at once, one wins.
func TestLedgerOneWins(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		for range 20 {
			f := reserved(t, l, 0)
			var committed, retired atomic.Int32
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if l.Commit(t.Context(), f, Quota{}) == nil {
						committed.Add(1)
					}
				})
				wg.Go(func() {
					if _, err := l.Retire(t.Context(), f.ID, Pending); err == nil {
						retired.Add(1)
					}
				})
			}
			wg.Wait()
			if c, r := committed.Load(), retired.Load(); c > 1 || (c == 1) == (r > 0) {
				t.Fatalf("%d commits, %d retired it", c, r)
			}
		}
	})
}

func TestFileLedgerReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db := openBolt(t, path)
	l, err := NewFileLedger(db)
	if err != nil {
		t.Fatal(err)
	}
	done, half := reserved(t, l, 0), reserved(t, l, 0)
	if err := l.Commit(t.Context(), done, Quota{}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Ping(t.Context()); !isKind(err, fault.Unavailable) {
		t.Errorf("Ping of a closed ledger: %v", err)
	}
	if l, err = NewFileLedger(openBolt(t, path)); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Get(t.Context(), done.ID); err != nil || got.State != Ready {
		t.Errorf("ready before, now %v, %v", got.State, err)
	}
	if got := unfinished(t, l, time.Now().Add(time.Hour), 10); !slices.Equal(got, []string{half.ID}) {
		t.Errorf("unfinished: %v", got)
	}
}

// The set of unfinished files is only a hint: a crash may leave wrong entries.
func TestRedisLedgerDropsWrongHints(t *testing.T) {
	l := newTestRedisLedger(t)
	done, never := reserved(t, l, time.Hour), newFile(alice)
	if err := l.Commit(t.Context(), done, Quota{}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{done.ID, never.ID} {
		if err := l.note(t.Context(), id, done.Changed); err != nil {
			t.Fatal(err)
		}
	}
	if got := unfinished(t, l, time.Now(), 10); len(got) != 0 {
		t.Errorf("found %v", got)
	}
	if n, err := l.client.ZCard(t.Context(), l.index()).Result(); n != 0 || err != nil {
		t.Errorf("%d hints left, %v", n, err)
	}
}

func TestRedisLedgerAwayAndBack(t *testing.T) {
	srv := testdeps.StartRedis(t)
	client := redis.NewClient(&redis.Options{Addr: srv.Addr, MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	l := NewRedisLedger(client, "mg:")
	f := newFile(alice)
	srv.Stop()
	_, getErr := l.Get(t.Context(), f.ID)
	_, listErr := l.Unfinished(t.Context(), time.Now(), 1, Pending)
	_, retireErr := l.Retire(t.Context(), f.ID, Ready)
	for name, err := range map[string]error{
		"Ping": l.Ping(t.Context()), "Reserve": l.Reserve(t.Context(), f, Quota{}), "Commit": l.Commit(t.Context(), f, Quota{}),
		"Get": getErr, "Unfinished": listErr, "Retire": retireErr, "Forget": l.Forget(t.Context(), f.ID),
	} {
		if !errors.Is(err, errLedgerAway) {
			t.Errorf("%s: %v", name, err)
		}
	}
	srv.Restart()
	if err := l.Reserve(t.Context(), f, Quota{}); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}
