package transfer

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// session enters a session that expires in so long.
func session(t *testing.T, l Ledger, in time.Duration) File {
	t.Helper()
	f := newFile(alice)
	f.Session = Session{Way: "test", Upload: "u1", PartSize: 5 << 20, Size: 7 << 20, Type: "image/png", SHA256: sum(""), Expires: now().Add(in), Note: `{"a":1}`}
	if err := l.Reserve(t.Context(), f, Quota{}); err != nil {
		t.Fatal(err)
	}
	return f
}

func expired(t *testing.T, l Ledger, before time.Time, limit int) (ids []string) {
	t.Helper()
	files, err := l.ExpiredSessions(t.Context(), before, limit)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		ids = append(ids, f.ID)
	}
	return ids
}

func TestLedgerSessions(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		f := session(t, l, time.Hour)
		if got, err := l.Get(t.Context(), f.ID); err != nil || got != f {
			t.Fatalf("reserved: %+v, %v\nwant %+v", got, err, f)
		}
		f.Session.Size, f.Session.Note, f.Session.Expires, f.Type = 9<<20, "b", f.Session.Expires.Add(time.Hour), "image/png"
		if err := l.Update(t.Context(), f, Quota{}); err != nil {
			t.Fatal(err)
		}
		stale := f
		stale.Session.Note = "of somebody slower"
		if err := l.Update(t.Context(), stale, Quota{}); !errors.Is(err, errChanged) {
			t.Errorf("Update of what was updated meanwhile: %v", err)
		}
		got, err := l.Get(t.Context(), f.ID)
		f.Changed, f.Session.Rev = got.Changed, 1
		if err != nil || got != f {
			t.Fatalf("updated: %+v, %v\nwant %+v", got, err, f)
		}
		for range 2 {
			if err := l.Update(t.Context(), f, Quota{}); err != nil {
				t.Fatal(err)
			}
			f.Session.Rev++
		}
		far := time.Now().Add(24 * time.Hour)
		if ids := unfinished(t, l, far, 10); len(ids) != 0 {
			t.Errorf("a session counts as unfinished: %v", ids)
		}
		if err := l.Commit(t.Context(), f, Quota{}); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Get(t.Context(), f.ID); err != nil || got.State != Ready || !got.Whole || got.Session != f.Session {
			t.Errorf("committed: %+v, %v", got, err)
		}
		if err := l.Update(t.Context(), f, Quota{}); !errors.Is(err, errFileState) {
			t.Errorf("Update of a ready file: %v", err)
		}
		if err := l.Update(t.Context(), newFile(alice), Quota{}); !errors.Is(err, errNoFile) {
			t.Errorf("Update of an unknown file: %v", err)
		}
		if ids := expired(t, l, far, 10); len(ids) != 0 {
			t.Errorf("a ready file expires: %v", ids)
		}
	})
}

func TestLedgerExpiredSessions(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		late, later, alive := session(t, l, -2*time.Hour), session(t, l, -time.Hour), session(t, l, time.Hour)
		renewed := session(t, l, -3*time.Hour)
		renewed.Session.Expires = alive.Session.Expires
		if err := l.Update(t.Context(), renewed, Quota{}); err != nil {
			t.Fatal(err)
		}
		reserved(t, l, 5*time.Hour) // no session
		if ids := expired(t, l, time.Now(), 10); !slices.Equal(ids, []string{late.ID, later.ID}) {
			t.Errorf("expired: %v", ids)
		}
		if ids := expired(t, l, time.Now(), 1); !slices.Equal(ids, []string{late.ID}) {
			t.Errorf("the first: %v", ids)
		}
		if _, err := l.Retire(t.Context(), late.ID, Pending); err != nil {
			t.Fatal(err)
		}
		if err := l.Forget(t.Context(), later.ID); err != nil {
			t.Fatal(err)
		}
		if ids := expired(t, l, time.Now(), 10); len(ids) != 0 {
			t.Errorf("one retired, one forgotten: %v", ids)
		}
		files, err := l.Unfinished(t.Context(), time.Now().Add(time.Hour), 10, Deleting)
		if err != nil || len(files) != 1 || files[0].ID != late.ID || files[0].Session != late.Session {
			t.Errorf("unfinished: %+v, %v", files, err)
		}
	})
}

// Sessions outlive the process, and another node goes on with them.
func TestLedgerSessionsElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db := openBolt(t, path)
	file, err := NewFileLedger(db)
	if err != nil {
		t.Fatal(err)
	}
	redis := newTestRedisLedger(t)
	for name, l := range map[string]Ledger{"file": file, "redis": redis} {
		t.Run(name, func(t *testing.T) {
			f := session(t, l, time.Hour)
			var other Ledger = NewRedisLedger(redis.client, redis.prefix)
			if name == "file" {
				_ = db.Close()
				if other, err = NewFileLedger(openBolt(t, path)); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := other.Get(t.Context(), f.ID); err != nil || got != f {
				t.Errorf("%+v, %v\nwant %+v", got, err, f)
			}
			if err := other.Commit(t.Context(), f, Quota{}); err != nil {
				t.Error(err)
			}
		})
	}
}
