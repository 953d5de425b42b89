package status

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"
)

// bench is a single node, one process after the other, within a bubble.
type bench struct {
	t     *testing.T
	store *FileStore
	reg   *prometheus.Registry
	*Tracker
	end     func() // of the process
	process *process

	mu      sync.Mutex
	told    []Event
	largest int  // of the calls
	full    bool // the queue
}

func onBench(t *testing.T, test func(b *bench)) {
	path := filepath.Join(t.TempDir(), "status.db")
	synctest.Test(t, func(t *testing.T) {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
		must(t, err)
		defer func() { must(t, db.Close()) }()
		store, err := NewFileStore(db, testTiming)
		must(t, err)
		b := &bench{t: t, store: store}
		b.start()
		test(b)
		b.end()
	})
}

// start begins a process on what the last one left.
func (b *bench) start() {
	b.process = &process{FileStore: b.store}
	b.reg = prometheus.NewRegistry()
	b.Tracker = New(Options{Store: b.process, Timing: testTiming, Node: fmt.Sprint("node", time.Now().UnixNano()), Batch: 20, Tell: b.tell, Metrics: NewMetrics(b.reg)})
	ctx, cancel := context.WithCancel(b.t.Context())
	done, run := make(chan error), b.Run
	go func() { done <- run(ctx) }()
	b.end = func() { cancel(); must(b.t, <-done) }
	synctest.Wait()
}

func (b *bench) kill() {
	b.process.dead.Store(true)
	b.end()
}

func (b *bench) tell(_ context.Context, part int, events []Event) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full {
		return errModel
	}
	for _, e := range events {
		if partition(e.User) != part {
			b.t.Errorf("%s is told in part %d", e.User, part)
		}
	}
	b.largest = max(b.largest, len(events))
	b.told = append(b.told, events...)
	return nil
}

// want compares what was told since it was asked last, sorted by user.
func (b *bench) want(want ...string) []Event {
	b.t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.told
	b.told = nil
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.User, b.User) })
	var got []string
	for _, e := range events {
		got = append(got, e.User+" "+e.Status)
	}
	if !slices.Equal(got, want) {
		b.t.Errorf("told %q, want %q", got, want)
	}
	return events
}

func (b *bench) metric(name string, want float64) {
	b.t.Helper()
	families, err := b.reg.Gather()
	must(b.t, err)
	for _, f := range families {
		if f.GetName() == name && f.GetMetric()[0].GetGauge().GetValue() != want {
			b.t.Errorf("%v, want %v", f, want)
		}
	}
}

// process is the store as a process sees it, which says no goodbye once it is
// dead.
type process struct {
	*FileStore
	dead atomic.Bool
	away atomic.Bool // no lease can be renewed
}

func (p *process) Beat(ctx context.Context, node string) (whole bool, err error) {
	if p.away.Load() {
		return false, errModel
	}
	return p.FileStore.Beat(ctx, node)
}

func (p *process) Depart(ctx context.Context, node string, users []User, entered bool) error {
	if p.dead.Load() {
		return errModel
	}
	return p.FileStore.Depart(ctx, node, users, entered)
}

func (p *process) Leave(ctx context.Context, node string) error {
	if p.dead.Load() {
		return errModel
	}
	return p.FileStore.Leave(ctx, node)
}

// leases lists the names under which nodes are there.
func (b *bench) leases() (names []string) {
	must(b.t, b.store.db.View(func(tx *bbolt.Tx) error {
		return openPart(tx, 0, testTiming, 0).nodes.ForEach(func(node, _ []byte) error {
			names = append(names, string(node))
			return nil
		})
	}))
	return names
}

func TestTracker(t *testing.T) {
	onBench(t, func(b *bench) {
		ann := User{ID: "ann", AppID: "wx1", UnionID: "union"}
		b.Arrived(ann)
		b.Arrived(ann)
		b.Arrived(User{})
		b.Arrived(User{ID: strings.Repeat("x", maxUser+1)})
		time.Sleep(gather)
		came := b.want("ann online")
		if e := came[0]; e.AppID != "wx1" || e.UnionID != "union" || e.At != time.Now().UnixMilli() {
			t.Errorf("told %+v at %d", e, time.Now().UnixMilli())
		}
		b.Left("ann")
		b.Left("nobody")
		time.Sleep(time.Hour)
		b.want()
		for range 10 { // never away for the grace
			b.Left("ann")
			time.Sleep(testTiming.Grace - time.Second)
			b.Arrived(ann)
			time.Sleep(time.Second)
		}
		b.Left("ann")
		left := time.Now().UnixMilli()
		b.want()
		time.Sleep(testTiming.Grace + gather + pollEvery)
		if e := b.want("ann offline")[0]; e.At-left > gather.Milliseconds() || e.Seq <= came[0].Seq {
			t.Errorf("told %+v, left at %d", e, left)
		}
		b.Arrived(User{ID: "eve"})
		b.Left("eve")
		time.Sleep(time.Hour)
		b.want()
		b.mu.Lock()
		defer b.mu.Unlock()
		if n := len(b.here) + len(b.Tracker.gone) + len(b.changed); n != 0 {
			t.Errorf("%d users are remembered", n)
		}
	})
}

// A process that ends, or is killed, and comes back in time is not told of.
func TestTrackerComesBack(t *testing.T) {
	onBench(t, func(b *bench) {
		for left, end := range []func(){func() { b.end() }, b.kill} {
			for _, user := range []string{"ann", "bob", "eve"} {
				b.Arrived(User{ID: user})
			}
			time.Sleep(time.Minute)
			b.want("ann online", "bob online", "eve online")
			end()
			if names := b.leases(); len(names) != left {
				t.Errorf("left as %q", names)
			}
			time.Sleep(2 * time.Second)
			b.start()
			b.Arrived(User{ID: "ann"})
			time.Sleep(4 * time.Second)
			b.want()
			b.Arrived(User{ID: "bob"})
			time.Sleep(testTiming.Lease + testTiming.Grace)
			b.want("eve offline")
			b.Left("ann")
			b.Left("bob")
			time.Sleep(time.Minute)
			b.want("ann offline", "bob offline")
		}
		b.Arrived(User{ID: "ann"})
		time.Sleep(time.Minute)
		b.want("ann online")
		b.kill()
		time.Sleep(time.Hour) // much later, everybody has the time of a lease
		b.start()
		time.Sleep(testTiming.Lease - 2*time.Second)
		b.want()
		time.Sleep(2*pollEvery + time.Second)
		b.want("ann offline")
	})
}

// Where the store has lost everything, everybody is entered again, under
// another name.
func TestTrackerStartsAnew(t *testing.T) {
	onBench(t, func(b *bench) {
		for _, user := range []string{"ann", "bob", "eve"} {
			b.Arrived(User{ID: user})
		}
		time.Sleep(time.Minute)
		b.want("ann online", "bob online", "eve online")
		b.Left("bob")
		time.Sleep(time.Second)
		must(t, b.store.db.Update(loseAll))
		b.Left("eve")
		time.Sleep(testTiming.beat() + pollEvery)
		b.want("ann online")
		if names := b.leases(); len(names) != 1 || !strings.HasSuffix(names[0], "~2") {
			t.Errorf("is there as %q", names)
		}
		time.Sleep(testTiming.Lease + pollEvery)
		b.want("bob offline", "eve offline")
		time.Sleep(time.Hour)
		b.want()
	})
}

// What cannot be queued is told later, and in between it can be seen.
func TestTrackerWaitsForTheQueue(t *testing.T) {
	onBench(t, func(b *bench) {
		b.full = true
		b.Arrived(User{ID: "ann"})
		b.Arrived(User{ID: "bob"})
		time.Sleep(10 * time.Minute)
		b.want()
		synctest.Wait()
		b.metric("minigate_user_status_pending", 2)
		b.metric("minigate_user_status_failing", 1)
		b.metric("minigate_user_status_oldest_seconds", 599.8)
		b.Left("bob")
		time.Sleep(time.Minute)
		b.mu.Lock()
		b.full = false
		b.mu.Unlock()
		time.Sleep(testTiming.Lease + pollEvery)
		events := b.want("ann online", "bob online", "bob offline")
		if at := time.Now().Add(-11 * time.Minute).UnixMilli(); events[0].At > at || events[1].At > at {
			t.Errorf("%+v", events)
		}
		b.metric("minigate_user_status_pending", 0)
		b.metric("minigate_user_status_failing", 0)
		b.metric("minigate_user_status_oldest_seconds", 0)
	})
}

// Many come at once, and go at once.
func TestTrackerInBatches(t *testing.T) {
	onBench(t, func(b *bench) {
		var online, offline []string
		for i := range 3000 {
			id := fmt.Sprintf("user%04d", i)
			online, offline = append(online, id+" online"), append(offline, id+" offline")
			b.Arrived(User{ID: id})
		}
		time.Sleep(time.Minute)
		b.want(online...)
		b.kill()
		b.start()
		time.Sleep(time.Minute)
		b.want(offline...)
		if b.largest != b.o.Batch {
			t.Errorf("up to %d events in one call, want %d", b.largest, b.o.Batch)
		}
	})
}

// However long the store is away, who came and went meanwhile takes no memory;
// those whom it knows, and those who are still there, are not forgotten.
func TestTrackerWhileTheStoreIsAway(t *testing.T) {
	onBench(t, func(b *bench) {
		b.Arrived(User{ID: "ann"})
		time.Sleep(time.Minute)
		b.want("ann online")
		b.process.away.Store(true)
		time.Sleep(testTiming.Lease) // whatever was renewed before is over
		b.Left("ann")
		b.Arrived(User{ID: "bob"})
		for i := range 10 * changesMax {
			user := fmt.Sprint("user", i)
			b.Arrived(User{ID: user})
			time.Sleep(100 * time.Millisecond)
			b.Left(user)
		}
		b.mu.Lock()
		if n := len(b.here) + len(b.Tracker.gone); n != 2 || len(b.changed) != 2 {
			t.Errorf("%d users are remembered, %d of them to be entered", n, len(b.changed))
		}
		b.mu.Unlock()
		b.process.away.Store(false)
		time.Sleep(time.Minute)
		b.want("ann offline", "bob online")
	})
}
