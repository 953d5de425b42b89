package status

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	gather      = 200 * time.Millisecond // changes that come together are entered together
	pollEvery   = time.Second            // for what other nodes entered, and for what time brings
	callTimeout = 2 * time.Second        // of one step; what Due gave is told well before its lease is over
	changesMax  = 1000                   // users entered in one go
	maxRetired  = 16                     // names not given up yet; older ones lapse by themselves
	maxGone     = 100_000                // users who left and are remembered
)

// MaxBatch is how many events may be told at a time: with ids of the longest,
// their text has less than 512 KiB.
const MaxBatch = 100

// errLost says that the store has lost what this node entered.
var errLost = errors.New("the store has lost who is on this node")

// Options are what a Tracker needs.
type Options struct {
	Store  Store
	Timing Timing // as the store's
	Node   string // the name of this node: letters, digits, "-", "_" and "."; new at every start
	Batch  int    // events told at a time: 1 to MaxBatch
	// Tell takes events of one part, in whose order they have to be told. What
	// it returned nil for will be; the rest comes again.
	Tell    func(ctx context.Context, part int, events []Event) error
	Metrics *Metrics // nil counts for nobody
}

// Tracker is one node's part in telling who is online: see the package
// comment. Arrived and Left never wait; what they say is remembered until it is
// entered. Its memory grows with the users of the node.
type Tracker struct {
	o    Options
	news chan struct{} // capacity 1: something has changed

	mu      sync.Mutex
	here    map[string]*presence
	gone    map[string]*presence // left not long ago, should the store lose it
	changed map[string]struct{}  // to be entered

	// What follows belongs to the goroutine of Run.
	generation int
	lost       bool     // what was entered under this generation
	retired    []string // names to be given up
	lastBeat   time.Time
	failing    bool
	stuck      error // why something that was due is not told; nil once it is
	pending    [Partitions]int
	oldest     [Partitions]time.Duration
}

// presence is a user of this node.
type presence struct {
	user    User
	sockets int
	tried   bool // the store was told, or is being told, that he arrived
	entered bool // it has confirmed that
	left    time.Time
}

// New makes a Tracker that does nothing until Run.
func New(o Options) *Tracker {
	if o.Metrics == nil {
		o.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	o.Timing = o.Timing.complete()
	return &Tracker{
		o: o, news: make(chan struct{}, 1), generation: 1,
		here: make(map[string]*presence), gone: make(map[string]*presence), changed: make(map[string]struct{}),
	}
}

// Arrived says that a user has one more connection. Nobody ("") and ids that
// are too long are ignored.
func (t *Tracker) Arrived(u User) {
	if u.ID == "" || len(u.ID) > maxUser {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.here[u.ID]
	if p == nil {
		if p = t.gone[u.ID]; p == nil {
			p = new(presence)
		}
		p.user, t.here[u.ID] = u, p
		delete(t.gone, u.ID)
		t.change(u.ID)
	}
	p.sockets++
}

// Left says that a user who arrived has one connection less.
func (t *Tracker) Left(user string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.here[user]
	if p == nil {
		return
	}
	if p.sockets--; p.sockets > 0 {
		return
	}
	delete(t.here, user)
	if !p.tried { // nobody has heard of him: while the store is away there may be many
		delete(t.changed, user)
		return
	}
	p.left, t.gone[user] = time.Now(), p
	t.change(user)
}

// change is called with mu held.
func (t *Tracker) change(user string) {
	t.changed[user] = struct{}{}
	select {
	case t.news <- struct{}{}:
	default: // somebody has
	}
}

// Run works until ctx ends; then it lets the users of this node leave, so that
// those who turn to another node in time are not told of.
func (t *Tracker) Run(ctx context.Context) error {
	beat := time.NewTicker(t.o.Timing.beat())
	defer beat.Stop()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	t.do(ctx, t.beat, t.report)
	for {
		select {
		case <-ctx.Done():
			t.farewell(ctx)
			return nil
		case <-beat.C:
			t.do(ctx, t.beat)
		case <-poll.C:
			t.do(ctx, t.flush, t.report)
		case <-t.news:
			if t.failing { // the poll tries again
				continue
			}
			select {
			case <-ctx.Done():
			case <-time.After(gather):
				t.do(ctx, t.flush, t.report)
			}
		}
	}
}

// do speaks up only when steps begin or cease to fail.
func (t *Tracker) do(ctx context.Context, steps ...func(context.Context) error) {
	var err error
	for i := 0; i < len(steps) && err == nil; i++ {
		err = steps[i](ctx)
	}
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		err = t.stuck // it is tried again when its time comes
	}
	switch {
	case err != nil && !t.failing:
		slog.WarnContext(ctx, "online and offline of users cannot be told now: trying again", "error", err)
		t.o.Metrics.failing.Set(1)
	case err == nil && t.failing:
		slog.InfoContext(ctx, "online and offline of users can be told again")
		t.o.Metrics.failing.Set(0)
	}
	t.failing = err != nil
}

// call bounds the time of one step.
func call(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return step(ctx)
}

// name is what the store calls this node.
func (t *Tracker) name() string { return t.o.Node + "~" + strconv.Itoa(t.generation) }

// beat keeps the lease, or begins anew where what was entered is lost.
func (t *Tracker) beat(ctx context.Context) error {
	if err := t.renew(ctx); err != nil {
		return err
	}
	if t.lost {
		t.begin()
		if err := t.renew(ctx); err != nil {
			return err
		}
	}
	if err := t.flush(ctx); err != nil {
		return err
	}
	for len(t.retired) > 0 {
		if err := call(ctx, func(ctx context.Context) error { return t.o.Store.Leave(ctx, t.retired[0]) }); err != nil {
			return err
		}
		t.retired = t.retired[1:]
	}
	t.prune()
	return nil
}

func (t *Tracker) renew(ctx context.Context) error {
	return call(ctx, func(ctx context.Context) error {
		whole, err := t.o.Store.Beat(ctx, t.name())
		if err == nil {
			t.lost = t.lost || !whole
			t.lastBeat = time.Now()
		}
		return err
	})
}

// renewIfDue keeps the lease during long work.
func (t *Tracker) renewIfDue(ctx context.Context) error {
	if time.Since(t.lastBeat) < t.o.Timing.beat() {
		return nil
	}
	return t.renew(ctx)
}

// begin has everybody entered anew, under another name. The old one is given
// up when that is done.
func (t *Tracker) begin() {
	t.retired = append(t.retired, t.name())
	t.retired = t.retired[max(0, len(t.retired)-maxRetired):]
	t.generation++
	t.lost = false
	t.mu.Lock()
	defer t.mu.Unlock()
	for user := range t.here {
		t.changed[user] = struct{}{}
	}
	for user, p := range t.gone {
		if p.entered {
			t.changed[user] = struct{}{}
		}
	}
}

// prune forgets who left so long ago that it has been told.
func (t *Tracker) prune() {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := time.Now().Add(-t.o.Timing.Grace - 2*t.o.Timing.Lease - time.Minute)
	for user, p := range t.gone {
		if _, due := t.changed[user]; !due && (p.left.Before(old) || len(t.gone) > maxGone) {
			delete(t.gone, user)
		}
	}
}

// farewell gives up the lease.
func (t *Tracker) farewell(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	err := t.flush(ctx)
	for _, name := range append(t.retired, t.name()) {
		err = errors.Join(err, call(ctx, func(ctx context.Context) error { return t.o.Store.Leave(ctx, name) }))
	}
	if err != nil && !t.failing {
		slog.WarnContext(ctx, "users of this node have not left it in the store; its lease will lapse", "error", err)
	}
}
