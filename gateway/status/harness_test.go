package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // much fails here on purpose
	// A pool of go-redis that could not dial looks only once a second whether
	// it has been closed.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var testTiming = Timing{Grace: 8 * time.Second, Lease: 10 * time.Second}

// kept is a store under a clock of its own, and what it stands on.
type kept struct {
	Store
	now     atomic.Int64
	forget  func() // loses everything
	breakIt func()
	known   func() int // how many users are remembered
	buried  int        // by look
}

func (k *kept) pass(d time.Duration) { k.now.Add(d.Milliseconds()) }

func newKept() *kept {
	k := new(kept)
	k.now.Store(1_700_000_000_000)
	return k
}

func openFile(t testing.TB) *kept {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "status.db"), 0o600, &bbolt.Options{NoSync: true})
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	s, err := NewFileStore(db, testTiming)
	must(t, err)
	k := newKept()
	k.Store, s.clock = s, k.now.Load
	k.breakIt = func() { _ = db.Close() }
	k.known = func() (n int) {
		must(t, db.View(func(tx *bbolt.Tx) error {
			for part := range Partitions {
				n += openPart(tx, part, s.timing, 0).users.Stats().KeyN
			}
			return nil
		}))
		return n
	}
	k.forget = func() { must(t, db.Update(loseAll)) }
	return k
}

func loseAll(tx *bbolt.Tx) error {
	return errors.Join(tx.DeleteBucket(bucketStatus), createParts(tx))
}

func newClient(t testing.TB, addrs ...string) redisclient.Client {
	client := redisclient.Open(redisclient.Settings{Addresses: addrs})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

var prefixes atomic.Int64

func openRedis(t testing.TB, client redisclient.Client, kill func()) (*kept, *RedisStore) {
	t.Helper()
	s := NewRedisStore(client, fmt.Sprint("test", prefixes.Add(1)), testTiming)
	k := newKept()
	k.Store, s.clock = s, k.now.Load
	k.breakIt = kill
	k.known = func() (n int) {
		for _, keys := range s.keys {
			n += int(client.HLen(context.Background(), keys[2]).Val())
		}
		return n
	}
	k.forget = func() {
		for _, keys := range s.keys {
			must(t, client.Del(context.Background(), keys...).Err())
		}
	}
	return k, s
}

// overStores runs a test over both stores, Redis alone and as a cluster.
func overStores(t *testing.T, test func(t *testing.T, open func(t *testing.T) *kept)) {
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		test(t, func(t *testing.T) *kept { return openFile(t) })
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		server := testdeps.StartRedis(t)
		client := newClient(t, server.Addr)
		test(t, func(t *testing.T) *kept { k, _ := openRedis(t, client, server.Kill); return k })
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		addrs, kill := testdeps.RedisCluster(t)
		client := newClient(t, addrs...)
		test(t, func(t *testing.T) *kept { k, _ := openRedis(t, client, kill); return k })
	})
}

func users(ids ...string) (list []User) {
	for _, id := range ids {
		list = append(list, User{ID: id, AppID: "wx" + id, UnionID: "u" + id})
	}
	return list
}

func (k *kept) beat(t testing.TB, node string, whole bool) {
	t.Helper()
	got, err := k.Beat(t.Context(), node)
	must(t, err)
	if got != whole {
		t.Errorf("the beat of %s says whole: %v, want %v", node, got, whole)
	}
}

func (k *kept) arrive(t testing.TB, node string, ids ...string) {
	t.Helper()
	whole, err := k.Arrive(t.Context(), node, users(ids...), false)
	must(t, err)
	if !whole {
		t.Errorf("%q did not arrive at %s", ids, node)
	}
}

func (k *kept) depart(t testing.TB, node string, ids ...string) {
	t.Helper()
	must(t, k.Depart(t.Context(), node, users(ids...), true))
}

// look asks all parts until nothing more is due, and sorts the events by user.
func (k *kept) look(t testing.TB) (events []Event, last Round) {
	t.Helper()
	for part := range Partitions {
		for more := true; more; {
			r, err := k.Due(t.Context(), part, 7)
			must(t, err)
			if len(r.Events) > 7 {
				t.Fatalf("%d events, asked for 7", len(r.Events))
			}
			for _, e := range r.Events {
				if partition(e.User) != part {
					t.Errorf("%s is in part %d", e.User, part)
				}
			}
			events = append(events, r.Events...)
			if r.Buried {
				k.buried++
			}
			if more = r.More; !more {
				last.Pending += r.Pending
				last.Oldest = max(last.Oldest, r.Oldest)
			}
		}
	}
	slices.SortFunc(events, func(a, b Event) int { return cmp.Compare(a.User, b.User) })
	return events, last
}

// want looks, and compares what is found with "user status".
func (k *kept) want(t testing.TB, want ...string) []Event {
	t.Helper()
	events, _ := k.look(t)
	var got []string
	for _, e := range events {
		got = append(got, e.User+" "+e.Status)
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	return events
}

func (k *kept) done(t testing.TB, events []Event) {
	t.Helper()
	for _, e := range events {
		must(t, k.Done(t.Context(), partition(e.User), []Event{e}))
	}
}

// told is want and done.
func (k *kept) told(t testing.TB, want ...string) []Event {
	t.Helper()
	events := k.want(t, want...)
	k.done(t, events)
	return events
}
