package transfer

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

// holding is a pending file that counts n bytes.
func holding(who auth.User, n int64) File {
	f := newFile(who)
	f.Hold = n
	return f
}

func wantUsage(t *testing.T, l Ledger, when string, want Usage) {
	t.Helper()
	if got, err := l.Usage(t.Context(), alice); err != nil || got != want {
		t.Errorf("%s: %+v, %v, want %+v", when, got, err, want)
	}
}

// TestLedgerUsage follows files through their lives.
func TestLedgerUsage(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		ctx := t.Context()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		wantUsage(t, l, "at first", Usage{})
		f := holding(alice, 100)
		must(l.Reserve(ctx, f, Quota{}))
		wantUsage(t, l, "reserved", Usage{Stored: 100, Daily: 100})
		bob := alice
		bob.OpenID = "bob"
		must(l.Reserve(ctx, holding(bob, 7), Quota{}))
		f.Size = 60
		must(l.Commit(ctx, f, Quota{}))
		wantUsage(t, l, "committed", Usage{Stored: 60, Daily: 60})
		if err := l.Commit(ctx, f, Quota{}); !errors.Is(err, errFileState) {
			t.Errorf("second Commit: %v", err)
		}
		wantUsage(t, l, "after a commit that failed", Usage{Stored: 60, Daily: 60})
		f.State = Ready
		must(l.Settle(ctx, f))
		_, err := l.Retire(ctx, f.ID, Ready)
		must(err)
		wantUsage(t, l, "retired: the bytes are there", Usage{Stored: 60, Daily: 60})
		for range 2 {
			must(l.Forget(ctx, f.ID))
			wantUsage(t, l, "forgotten: the day remembers", Usage{Daily: 60})
		}
		s := session(t, l, time.Hour)
		wantUsage(t, l, "a session of unknown size", Usage{Daily: 60, Sessions: 1})
		s.Hold = 1000
		must(l.Update(ctx, s, Quota{}))
		wantUsage(t, l, "declared", Usage{Stored: 1000, Daily: 1060, Sessions: 1})
		_, err = l.Retire(ctx, s.ID, Pending)
		must(err)
		if err := l.Update(ctx, s, Quota{}); !errors.Is(err, errFileState) {
			t.Errorf("Update of a retired session: %v", err)
		}
		must(l.Forget(ctx, s.ID))
		wantUsage(t, l, "one that never became a file", Usage{Daily: 60})
		if err := l.Update(ctx, s, Quota{}); !errors.Is(err, errNoFile) {
			t.Errorf("Update of a forgotten session: %v", err)
		}
		wantUsage(t, l, "after an update that failed", Usage{Daily: 60})
		old := holding(alice, 5)
		old.Created = old.Created.Add(-30 * time.Hour)
		must(l.Reserve(ctx, old, Quota{}))
		wantUsage(t, l, "one of yesterday", Usage{Stored: 5, Daily: 60})
	})
}

// What a file counts goes with it to another owner, apart from what was taken
// on a day, and is gone when it is.
func TestLedgerUsageMoves(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		bob := alice
		bob.OpenID = "bob"
		want := func(when string, ofAlice, ofBob Usage) {
			t.Helper()
			wantUsage(t, l, when, ofAlice)
			if got, err := l.Usage(t.Context(), bob); err != nil || got != ofBob {
				t.Errorf("%s: bob %+v, %v, want %+v", when, got, err, ofBob)
			}
		}
		give := func(f File, to auth.User) {
			t.Helper()
			if _, err := l.Amend(t.Context(), f.ID, func(f *File) error { f.Owner = to; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		file := kept(t, l, func(f *File) { f.Size = 60 })
		kept(t, l, func(f *File) { f.Size = 5 })
		want("at first", Usage{Stored: 65, Daily: 65}, Usage{})
		give(file, bob)
		want("given", Usage{Stored: 5, Daily: 65}, Usage{Stored: 60})
		give(file, bob)
		give(file, alice)
		want("given back", Usage{Stored: 65, Daily: 65}, Usage{})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() { give(file, []auth.User{alice, bob}[i%2]) })
		}
		wg.Wait()
		give(file, bob)
		want("given to both at once, and to bob", Usage{Stored: 5, Daily: 65}, Usage{Stored: 60})
		if _, err := l.Retire(t.Context(), file.ID, Ready); err != nil {
			t.Fatal(err)
		}
		if err := l.Forget(t.Context(), file.ID); err != nil {
			t.Fatal(err)
		}
		want("deleted", Usage{Stored: 5, Daily: 65}, Usage{})
	})
}

// A node that died after it had given a file away, and before it had moved what
// the file counts: whoever changes or deletes the file next does that.
func TestRedisLedgerUsageMoveCutShort(t *testing.T) {
	for name, finish := range map[string]func(l *RedisLedger, id string) error{
		"changed": func(l *RedisLedger, id string) error {
			_, err := l.Amend(t.Context(), id, func(*File) error { return nil })
			return err
		},
		"deleted": func(l *RedisLedger, id string) error { return l.Forget(t.Context(), id) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestRedisLedger(t)
			f := kept(t, l, func(f *File) { f.Size = 60 })
			given := f
			given.Owner.OpenID, given.Before = "bob", accountOf(f.Owner)
			if err := l.set(t.Context(), f.ID, Ready, f.Changed, &given, Ready); err != nil {
				t.Fatal(err)
			}
			if err := finish(l, f.ID); err != nil {
				t.Fatal(err)
			}
			wantUsage(t, l, "the owner before", Usage{Daily: 60})
			want := Usage{Stored: 60}
			if name == "deleted" {
				want = Usage{}
			}
			if got, err := l.Usage(t.Context(), given.Owner); err != nil || got != want {
				t.Errorf("the owner: %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

func TestLedgerQuota(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		ctx := t.Context()
		if err := l.Reserve(ctx, holding(alice, 101), Quota{Stored: 100}); !errors.Is(err, errQuota) {
			t.Errorf("one too many: %v", err)
		}
		var e *fault.Error
		if err := l.Reserve(ctx, holding(alice, 101), Quota{Daily: 100}); !errors.Is(err, errDaily) || !errors.As(err, &e) || e.RetryAfter <= 0 || e.RetryAfter > 24*time.Hour {
			t.Errorf("one too many for a day: %v, %+v", err, e)
		}
		if ids := unfinished(t, l, time.Now().Add(time.Hour), 10); len(ids) != 0 {
			t.Errorf("refused, and entered: %v", ids)
		}
		wantUsage(t, l, "refused", Usage{})
		f := holding(alice, 100)
		if err := l.Reserve(ctx, f, Quota{Stored: 100, Daily: 100}); err != nil {
			t.Fatal(err)
		}
		f.Size = 101
		if err := l.Commit(ctx, f, Quota{Stored: 100}); !errors.Is(err, errQuota) {
			t.Errorf("a file that grew: %v", err)
		}
		if got, err := l.Get(ctx, f.ID); err != nil || got.State != Pending {
			t.Errorf("refused: %+v, %v", got, err)
		}
		wantUsage(t, l, "refused at the commit", Usage{Stored: 100, Daily: 100})
		f.Size = 90
		if err := l.Commit(ctx, f, Quota{Stored: 50, Daily: 50}); err != nil {
			t.Errorf("less than was reserved, under limits that have shrunk: %v", err)
		}
		if err := l.Reserve(ctx, holding(alice, 0), Quota{Stored: 50}); err != nil {
			t.Errorf("nothing: %v", err)
		}
	})
}

func TestLedgerQuotaOfSessions(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		q := Quota{Sessions: 2}
		begin := func() (File, error) {
			f := newFile(alice)
			f.Session.Expires = now().Add(time.Hour)
			return f, l.Reserve(t.Context(), f, q)
		}
		first, err := begin()
		if err != nil {
			t.Fatal(err)
		}
		second, err := begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := begin(); !errors.Is(err, errSessions) {
			t.Errorf("a third one: %v", err)
		}
		if err := l.Update(t.Context(), second, q); err != nil {
			t.Errorf("one that is there: %v", err)
		}
		if err := l.Reserve(t.Context(), newFile(alice), q); err != nil {
			t.Errorf("an upload in one piece: %v", err)
		}
		if err := l.Commit(t.Context(), first, q); err != nil {
			t.Fatal(err)
		}
		if _, err := begin(); err != nil {
			t.Errorf("after one was committed: %v", err)
		}
		wantUsage(t, l, "in the end", Usage{Sessions: 2})
	})
}

// What is allowed is given out once, however many ask.
func TestLedgerQuotaAtOnce(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		var wg sync.WaitGroup
		var got atomic.Int64
		for range 30 {
			wg.Go(func() {
				switch err := l.Reserve(t.Context(), holding(alice, 10), Quota{Stored: 105}); {
				case err == nil:
					got.Add(1)
				case !errors.Is(err, errQuota):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got.Load() != 10 {
			t.Errorf("%d got 10 bytes each of 105", got.Load())
		}
		wantUsage(t, l, "in the end", Usage{Stored: 100, Daily: 100})
	})
}

// A ledger that is older than quotas counts what it has.
func TestLedgerUsageOfOlder(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		f := holding(alice, 100)
		if err := l.Reserve(t.Context(), f, Quota{}); err != nil {
			t.Fatal(err)
		}
		f.Size = 50
		if err := l.Commit(t.Context(), f, Quota{}); err != nil {
			t.Fatal(err)
		}
		var older Ledger
		switch l := l.(type) {
		case *FileLedger:
			err := l.db.Update(func(tx *bbolt.Tx) error {
				return errors.Join(tx.DeleteBucket(usageBucket), tx.DeleteBucket(daysBucket))
			})
			if err != nil {
				t.Fatal(err)
			}
			if older, err = NewFileLedger(l.db); err != nil {
				t.Fatal(err)
			}
		case *RedisLedger:
			account := accountOf(alice)
			if n, err := l.client.Del(t.Context(), l.usage(account), l.prefix+"charged").Result(); n != 2 || err != nil {
				t.Fatal(n, err)
			}
			if n, err := l.client.Del(t.Context(), l.day(account, f.day())).Result(); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			older = NewRedisLedger(l.client, l.prefix)
		}
		wantUsage(t, older, "entered", Usage{Stored: 50, Daily: 50})
	})
}

// Days that are over are forgotten.
func TestLedgerForgetsDays(t *testing.T) {
	l := newTestFileLedger(t)
	for i := range 5 {
		f := holding(alice, 1)
		f.Created = f.Created.Add(-time.Duration(i) * 24 * time.Hour)
		if err := l.Reserve(t.Context(), f, Quota{}); err != nil {
			t.Fatal(err)
		}
	}
	var days int
	if err := l.db.View(func(tx *bbolt.Tx) error { days = tx.Bucket(daysBucket).Stats().KeyN; return nil }); err != nil || days > 3 {
		t.Errorf("%d days, %v", days, err)
	}
	r := newTestRedisLedger(t)
	if err := r.Reserve(t.Context(), holding(alice, 1), Quota{}); err != nil {
		t.Fatal(err)
	}
	if ttl, err := r.client.TTL(t.Context(), r.day(accountOf(alice), dayOf(now()))).Result(); err != nil || ttl <= 24*time.Hour || ttl > dayKept {
		t.Errorf("a day lives for %v, %v", ttl, err)
	}
}

// TestQuota is what users see of quotas.
func TestQuota(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.UserQuota, s.DailyQuota, s.MaxSessions = 3000, 5000, 2 })
	kib := strings.Repeat("x", 1024)
	usage := func(stored, daily, sessions int) {
		t.Helper()
		want := fmt.Sprintf(`{"stored":%d,"daily":%d,"sessions":%d,"limits":{"stored":3000,"daily":5000,"sessions":2,"size":209715200}}`, stored, daily, sessions)
		if a := h.do("GET", "/files/usage", nil); a.body != want {
			t.Errorf("usage: %v\nwant %s", a, want)
		}
	}
	first := h.keep("a.txt", kib)
	u := h.begin(`{"size":1500,` + oneKiB + `}`)
	usage(2524, 2524, 1)
	for name, a := range map[string]answer{
		"a file":                  h.upload("", formOf(field{"f", "b.txt", kib})),
		"a file, size announced":  h.upload("?size=1024", formOf(field{"f", "b.txt", kib})),
		"an upload":               h.do("POST", "/files/uploads", strings.NewReader(`{"size":1024}`)),
		"a file of unknown sizes": h.do("POST", "/files", struct{ *strings.Reader }{strings.NewReader(formOf(field{"f", "b.txt", kib}))}, "Content-Type", formType),
	} {
		if a.StatusCode != http.StatusForbidden || a.code() != "quota_exceeded" {
			t.Errorf("%s: %v", name, a)
		}
	}
	if a := h.upload("", formOf(field{"f", "b.txt", kib}), "User", "bob"); a.StatusCode != http.StatusCreated {
		t.Errorf("of another user: %v", a)
	}
	usage(2524, 2524, 1)
	unknown := h.begin(`{` + oneKiB + `}`)
	unknown.mustPart(1, kib)
	if a := h.do("POST", "/files/uploads", strings.NewReader(`{"size":1}`)); a.code() != "too_many_sessions" {
		t.Errorf("a third upload: %v", a)
	}
	if a := unknown.complete(); a.code() != "quota_exceeded" {
		t.Errorf("an upload of unknown size: %v", a)
	}
	if a := unknown.complete(); a.code() != "upload_not_found" {
		t.Errorf("once more: %v", a)
	}
	u.mustPart(1, kib)
	u.mustPart(2, kib[:476])
	u.complete()
	usage(2524, 2524, 0)
	h.do("DELETE", first.URL, nil)
	h.do("DELETE", "/files/"+u.ID, nil)
	usage(0, 2524, 0)
	if a := h.do("POST", "/files/uploads", strings.NewReader(`{"size":2600}`)); a.StatusCode != http.StatusTooManyRequests || a.code() != "daily_quota_exceeded" || a.Header.Get("Retry-After") == "" {
		t.Errorf("more than a day: %v", a)
	}
}
