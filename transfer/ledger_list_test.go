package transfer

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.etcd.io/bbolt"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

// made is a Ready file of a user, made at a time.
func made(t *testing.T, l Ledger, user string, at time.Time, change ...func(*File)) File {
	t.Helper()
	f := newFile(auth.User{AppID: "wx1", OpenID: user})
	f.Created = at.UTC().Truncate(time.Millisecond)
	if err := l.Reserve(t.Context(), f, Quota{}); err != nil {
		t.Fatal(err)
	}
	f.Name, f.SHA256 = "a.txt", sum("a")
	for _, c := range change {
		c(&f)
	}
	if err := l.Commit(t.Context(), f, Quota{}); err != nil {
		t.Fatal(err)
	}
	return f
}

// listed walks over all pages and checks that none is too long.
func listed(t *testing.T, l Ledger, user string, limit int) (ids []string) {
	t.Helper()
	var after Place
	for range 100 {
		files, next, err := l.List(t.Context(), user, after, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) > limit {
			t.Fatalf("%d files on a page of %d", len(files), limit)
		}
		for _, f := range files {
			if !f.kept() {
				t.Errorf("listed a file that is %s", f.State)
			}
			ids = append(ids, f.ID)
		}
		if next == "" {
			return ids
		}
		if p, ok := parsePlace(string(next)); !ok || p != next {
			t.Fatalf("%q is no place", next)
		}
		after = next
	}
	t.Fatal("the list has no end")
	return nil
}

func TestLedgerList(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		if got := listed(t, l, "", 10); got != nil {
			t.Errorf("nothing is there, listed %v", got)
		}
		start := time.Now().Add(-time.Hour)
		var all, ofAnn []string
		for i := range 23 {
			user := []string{"ann", "an", "annn", "bob"}[i%4]
			f := made(t, l, user, start.Add(time.Duration(i/3)*time.Second)) // three of the same moment
			all = append(all, string(placeOf(f)))
			if user == "ann" {
				ofAnn = append(ofAnn, string(placeOf(f)))
			}
		}
		reserved(t, l, 0) // is not listed
		newestFirst := func(places []string) (ids []string) {
			slices.Sort(places)
			slices.Reverse(places)
			for _, p := range places {
				ids = append(ids, Place(p).id())
			}
			return ids
		}
		wantAll, wantAnn := newestFirst(all), newestFirst(ofAnn)
		for _, limit := range []int{1, 2, 5, 6, 22, 23, 24, 500} {
			if got := listed(t, l, "", limit); !slices.Equal(got, wantAll) {
				t.Errorf("all by %d: %v\nwant %v", limit, got, wantAll)
			}
			if got := listed(t, l, "ann", limit); !slices.Equal(got, wantAnn) {
				t.Errorf("ann's by %d: %v\nwant %v", limit, got, wantAnn)
			}
		}
		for _, user := range []string{"nobody", "a", "bo"} {
			if got := listed(t, l, user, 10); got != nil {
				t.Errorf("%s has %v", user, got)
			}
		}
	})
}

// What is deleted is not listed, and what was deleted between two pages does
// not hide the rest.
func TestLedgerListChanges(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		start := time.Now().Add(-time.Hour)
		var ids []string // newest first
		for i := range 6 {
			ids = append([]string{made(t, l, "ann", start.Add(time.Duration(i)*time.Second)).ID}, ids...)
		}
		files, next, err := l.List(t.Context(), "ann", "", 2)
		if err != nil || len(files) != 2 || next == "" {
			t.Fatal(files, next, err)
		}
		newer := made(t, l, "ann", time.Now()).ID
		for _, id := range []string{ids[1], ids[2]} { // the cursor's own file, and the one behind it
			if _, err := l.Retire(t.Context(), id, Ready); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Forget(t.Context(), ids[1]); err != nil {
			t.Fatal(err)
		}
		var rest []string
		for next != "" {
			if files, next, err = l.List(t.Context(), "ann", next, 2); err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				rest = append(rest, f.ID)
			}
		}
		if !slices.Equal(rest, ids[3:]) {
			t.Errorf("the other pages: %v, want %v", rest, ids[3:])
		}
		want := append([]string{newer, ids[0]}, ids[3:]...)
		for _, user := range []string{"", "ann"} {
			if got := listed(t, l, user, 3); !slices.Equal(got, want) {
				t.Errorf("%q: %v, want %v", user, got, want)
			}
		}
	})
}

func owes(f *File) { f.Owed = true }

func owed(t *testing.T, l Ledger, before time.Time, limit int) (ids []string) {
	t.Helper()
	files, err := l.Owed(t.Context(), before, limit)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !f.Owed || f.State != Ready {
			t.Errorf("owes nothing: %+v", f)
		}
		ids = append(ids, f.ID)
	}
	return ids
}

func TestLedgerOwed(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		soon := time.Now().Add(time.Hour)
		first := made(t, l, "ann", time.Now(), owes)
		made(t, l, "ann", time.Now())
		second, third := made(t, l, "bob", time.Now(), owes), made(t, l, "bob", time.Now(), owes)
		if got, err := l.Get(t.Context(), first.ID); err != nil || !got.Owed {
			t.Errorf("%+v, %v", got, err)
		}
		sorted := func(ids ...string) []string { slices.Sort(ids); return ids }
		if got := owed(t, l, soon, 10); !slices.Equal(sorted(got...), sorted(first.ID, second.ID, third.ID)) {
			t.Errorf("owed: %v", got)
		}
		if got := owed(t, l, soon, 2); len(got) != 2 {
			t.Errorf("two of them: %v", got)
		}
		if got := owed(t, l, time.Now().Add(-time.Hour), 10); got != nil {
			t.Errorf("an hour ago: %v", got)
		}
		first.State = Ready
		for range 2 {
			if err := l.Settle(t.Context(), first); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := l.Get(t.Context(), first.ID); err != nil || got.Owed || got.State != Ready || got.Name != first.Name {
			t.Errorf("settled: %+v, %v", got, err)
		}
		if _, err := l.Retire(t.Context(), second.ID, Ready); err != nil {
			t.Fatal(err)
		}
		if got := owed(t, l, soon, 10); !slices.Equal(got, []string{third.ID}) {
			t.Errorf("one settled, one deleted: %v, want %s", got, third.ID)
		}
		if got := listed(t, l, "", 10); !slices.Contains(got, first.ID) || !slices.Contains(got, third.ID) || len(got) != 3 {
			t.Errorf("listed %v", got)
		}
		if err := l.Settle(t.Context(), newFile(alice)); err != nil {
			t.Errorf("Settle of an unknown file: %v", err)
		}
	})
}

func TestLedgerKeepsAttributes(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		const attributes = `{"album":"旅行","n":1.50,"tag":"<b>"}`
		f := made(t, l, "ann", time.Now(), owes, func(f *File) { f.Attributes = attributes })
		f.State = Ready
		if err := l.Settle(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		files, _, err := l.List(t.Context(), "", "", 1)
		if err != nil || len(files) != 1 || files[0].Attributes != attributes {
			t.Errorf("listed %+v, %v", files, err)
		}
		if f, err = l.Retire(t.Context(), f.ID, Ready); err != nil || f.Attributes != attributes {
			t.Errorf("retired %+v, %v", f, err)
		}
	})
}

// A database that is older than lists gets them when it is opened.
func TestFileLedgerEnlistsOldFiles(t *testing.T) {
	db := openBolt(t, filepath.Join(t.TempDir(), "test.db"))
	l, err := NewFileLedger(db)
	if err != nil {
		t.Fatal(err)
	}
	older, newer := made(t, l, "ann", time.Now().Add(-time.Minute)), made(t, l, "bob", time.Now())
	half := reserved(t, l, 0)
	err = db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(tx.DeleteBucket(placesBucket), tx.DeleteBucket(ownersBucket), tx.DeleteBucket(owedBucket))
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if l, err = NewFileLedger(db); err != nil {
			t.Fatal(err)
		}
		if got := listed(t, l, "", 10); !slices.Equal(got, []string{newer.ID, older.ID}) {
			t.Errorf("listed %v", got)
		}
		if got := listed(t, l, "ann", 10); !slices.Equal(got, []string{older.ID}) {
			t.Errorf("ann has %v", got)
		}
	}
	if err := l.Commit(t.Context(), half, Quota{}); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, l, "alice", 10); !slices.Equal(got, []string{half.ID}) {
		t.Errorf("alice has %v", got)
	}
}

// Redis the same, when they are first asked for, also in a cluster.
func TestRedisLedgerEnlistsOldFiles(t *testing.T) {
	for name, addresses := range map[string]func() []string{
		"one server": func() []string { return []string{testdeps.Redis(t)} },
		"cluster":    func() []string { return testdeps.StartRedisCluster(t).Addrs },
	} {
		t.Run(name, func(t *testing.T) {
			client := redisclient.Open(redisclient.Settings{Addresses: addresses()})
			t.Cleanup(func() { _ = client.Close() })
			l := NewRedisLedger(client, "m[1]*:")
			other := NewRedisLedger(client, "m1xx:")
			made(t, other, "ann", time.Now())
			var want []string
			for i := range 30 { // in several slots
				want = append([]string{made(t, l, "ann", time.Now().Add(time.Duration(i)*time.Second)).ID}, want...)
			}
			reserved(t, l, 0)
			for _, set := range []string{l.list(""), l.list("ann"), l.prefix + "listed", l.prefix + "charged"} {
				if n, err := client.Del(t.Context(), set).Result(); n != 1 || err != nil {
					t.Fatal(n, err)
				}
			}
			l = NewRedisLedger(client, l.prefix) // another process
			for _, user := range []string{"ann", ""} {
				if got := listed(t, l, user, 7); !slices.Equal(got, want) {
					t.Errorf("%q: %v\nwant %v", user, got, want)
				}
			}
			if n, err := client.Exists(t.Context(), l.prefix+"listed").Result(); n != 1 || err != nil {
				t.Errorf("it will be done again: %d, %v", n, err)
			}
		})
	}
}

// Crashes leave wrong entries in the sets: those without a record are dropped,
// those of a commit under way stay.
func TestRedisLedgerDropsWrongEntries(t *testing.T) {
	l := newTestRedisLedger(t)
	lost, half := newFile(alice), reserved(t, l, time.Hour)
	lost.Owed, half.Owed = true, true
	settled := made(t, l, "alice", time.Now())
	settled.Owed = true
	for _, f := range []File{lost, half, settled} {
		if err := l.enlist(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	if got := owed(t, l, time.Now().Add(time.Hour), 10); got != nil {
		t.Errorf("owed: %v", got)
	}
	for _, user := range []string{"", "alice"} {
		if got := listed(t, l, user, 10); !slices.Equal(got, []string{settled.ID}) {
			t.Errorf("%q: %v", user, got)
		}
	}
	for set, want := range map[string][]string{
		l.owed():        {half.ID},
		l.list(""):      {string(placeOf(half)), string(placeOf(settled))},
		l.list("alice"): {string(placeOf(half)), string(placeOf(settled))},
	} {
		got, err := l.client.ZRange(t.Context(), set, 0, -1).Result()
		if err != nil || !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("%s has %v, want %v; %v", set, got, want, err)
		}
	}
	if err := l.Commit(t.Context(), half, Quota{}); err != nil {
		t.Fatal(err)
	}
	if got := owed(t, l, time.Now().Add(time.Hour), 10); !slices.Equal(got, []string{half.ID}) {
		t.Errorf("owed after the commit: %v", got)
	}
}

// wantNothingInRedis checks that nothing is left of files but what the day
// remembers.
func wantNothingInRedis(t *testing.T, l *RedisLedger) {
	t.Helper()
	keys, err := l.client.Keys(t.Context(), "*").Result()
	keys = slices.DeleteFunc(keys, func(key string) bool {
		return key == l.prefix+"listed" || key == l.prefix+"charged" || strings.HasPrefix(key, l.prefix+"day:")
	})
	if len(keys) != 0 || err != nil {
		t.Errorf("left in Redis: %v, %v", keys, err)
	}
}

// Nothing is left of a file that is forgotten.
func TestRedisLedgerForgetsAll(t *testing.T) {
	l := newTestRedisLedger(t)
	f := made(t, l, "ann", time.Now(), owes)
	if _, err := l.Retire(t.Context(), f.ID, Ready); err != nil {
		t.Fatal(err)
	}
	if err := l.Forget(t.Context(), f.ID); err != nil {
		t.Fatal(err)
	}
	wantNothingInRedis(t, l)
}

func TestRedisLedgerListAway(t *testing.T) {
	srv := testdeps.StartRedis(t)
	client := redis.NewClient(&redis.Options{Addr: srv.Addr, MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	l := NewRedisLedger(client, "mg:")
	srv.Stop()
	_, _, listErr := l.List(t.Context(), "", "", 1)
	_, owedErr := l.Owed(t.Context(), time.Now(), 1)
	for name, err := range map[string]error{"List": listErr, "Owed": owedErr, "Settle": l.Settle(t.Context(), File{ID: "x"})} {
		if !errors.Is(err, errLedgerAway) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzPlace(f *testing.F) {
	valid := string(placeOf(newFile(alice)))
	for _, seed := range []string{"", valid, valid[1:], strings.ToUpper(valid), valid + "A", fmt.Sprintf("%12x", 1)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, ok := parsePlace(text)
		if !ok {
			return
		}
		if string(p) != text || text != "" && (len(text) != 38 || !isID(p.id())) {
			t.Errorf("%q was taken as %q", text, p)
		}
	})
}
