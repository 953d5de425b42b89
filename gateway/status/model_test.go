package status

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

// The model lets some nodes and their users do random things, over a store
// that fails, is away, or forgets, and a queue that fails; and compares what
// the backend is told with what happened.

const modelTick = 500 * time.Millisecond

var errModel = errors.New("so it goes")

// modelNode is a node, and what stands between it and the store.
type modelNode struct {
	Store
	m       *model
	tracker *Tracker
	cut     int // ticks without contact to the store
	age     int // ticks
	sockets map[string]int
}

// fails decides about one step; after says that it happens all the same.
func (n *modelNode) fails() (before, after bool) {
	if n.cut > 0 || n.m.away > 0 {
		return true, false
	}
	if n.m.noisy && n.m.r.IntN(20) == 0 {
		return n.m.r.IntN(2) == 0, true
	}
	return false, false
}

func through[T any](n *modelNode, step func() (T, error)) (T, error) {
	var none T
	before, after := n.fails()
	if before {
		return none, errModel
	}
	v, err := step()
	if after {
		return none, errModel
	}
	return v, err
}

func (n *modelNode) Beat(ctx context.Context, node string) (bool, error) {
	return through(n, func() (bool, error) { return n.Store.Beat(ctx, node) })
}

func (n *modelNode) Arrive(ctx context.Context, node string, u []User, entered bool) (bool, error) {
	return through(n, func() (bool, error) { return n.Store.Arrive(ctx, node, u, entered) })
}

func (n *modelNode) Depart(ctx context.Context, node string, u []User, entered bool) error {
	_, err := through(n, func() (any, error) { return nil, n.Store.Depart(ctx, node, u, entered) })
	return err
}

func (n *modelNode) Leave(ctx context.Context, node string) error {
	_, err := through(n, func() (any, error) { return nil, n.Store.Leave(ctx, node) })
	return err
}

func (n *modelNode) Due(ctx context.Context, part, limit int) (Round, error) {
	return through(n, func() (Round, error) { return n.Store.Due(ctx, part, limit) })
}

func (n *modelNode) Done(ctx context.Context, part int, e []Event) error {
	_, err := through(n, func() (any, error) { return nil, n.Store.Done(ctx, part, e) })
	return err
}

// told is an event that reached the backend.
type told struct {
	Event
	epoch int // how often the store had forgotten everything
}

type span struct{ from, to int64 }

type model struct {
	t     testing.TB
	r     *rand.Rand
	k     *kept
	calm  bool // nothing ever fails but nodes
	noisy bool // everything fails now and then
	away  int  // ticks without store
	full  int  // ticks without queue
	epoch int
	names int

	nodes []*modelNode
	users []string
	told  map[string][]told
	there map[string][]span // when each user was connected; of the last one to is 0 while he is
	log   []string
}

func (m *model) note(format string, a ...any) {
	m.log = append(m.log, fmt.Sprintf("%d ", m.k.now.Load())+fmt.Sprintf(format, a...))
}

func (m *model) start() {
	m.names++
	n := &modelNode{Store: m.k.Store, m: m, sockets: map[string]int{}, age: m.r.IntN(5)}
	n.tracker = New(Options{Store: n, Timing: testTiming, Node: fmt.Sprint("n", m.names), Batch: 3, Tell: m.tell})
	m.nodes = append(m.nodes, n)
	m.note("start %s", n.tracker.o.Node)
}

// tell is the queue, and the backend behind it.
func (m *model) tell(_ context.Context, part int, events []Event) error {
	if m.full > 0 || m.noisy && m.r.IntN(20) == 0 {
		return errModel
	}
	for _, e := range events {
		m.note("told %d %+v", part, e)
		m.hear(e)
	}
	if m.noisy && m.r.IntN(20) == 0 {
		return errModel // and yet it was queued
	}
	return nil
}

func (m *model) hear(e Event) {
	m.t.Helper()
	list := m.told[e.User]
	for _, old := range list {
		if old.Seq != e.Seq {
			continue
		}
		if old.Event != e {
			m.t.Errorf("%+v and %+v", old.Event, e)
		}
		return
	}
	if n := len(list); n > 0 {
		last := list[n-1]
		if e.Seq <= last.Seq || last.epoch == m.epoch && e.Status == last.Status {
			m.t.Errorf("%+v was told after %+v", e, last)
		}
	} else if e.Status == Offline && m.epoch == 0 {
		m.t.Errorf("%+v is the first of this user", e)
	}
	m.told[e.User] = append(list, told{e, m.epoch})
	if m.calm {
		m.justified(e)
	}
}

// justified wants an absence of the whole grace before an offline. What
// happened in the last second may not have been entered yet, and what lasted no
// longer may never have been, if the node was killed.
func (m *model) justified(e Event) {
	const second = 1000
	for _, s := range m.there[e.User] {
		from, to := e.Seq-testTiming.Grace.Milliseconds(), e.Seq-second
		if s.to != 0 && s.to-s.from < second {
			continue
		}
		if e.Status == Offline && s.from < to && (s.to == 0 || s.to > from) {
			m.t.Errorf("%+v, but he was there from %d to %d", e, s.from, s.to)
		}
	}
}

func (m *model) online(user string) bool {
	return slices.ContainsFunc(m.nodes, func(n *modelNode) bool { return n.sockets[user] > 0 })
}

// moved notes when a user came or went.
func (m *model) moved(user string) {
	list, now := m.there[user], m.k.now.Load()
	switch open := len(list) > 0 && list[len(list)-1].to == 0; {
	case m.online(user) && !open:
		m.there[user] = append(list, span{from: now})
	case !m.online(user) && open:
		list[len(list)-1].to = now
	}
}

func (m *model) connect(n *modelNode, user string) {
	m.note("%s comes to %s", user, n.tracker.o.Node)
	n.sockets[user]++
	n.tracker.Arrived(User{ID: user, AppID: "wx", UnionID: "u" + user})
	m.moved(user)
}

func (m *model) disconnect(n *modelNode, user string) {
	if n.sockets[user] == 0 {
		return
	}
	m.note("%s leaves %s", user, n.tracker.o.Node)
	n.sockets[user]--
	n.tracker.Left(user)
	m.moved(user)
}

// end takes a node away: killed, or, if it may say goodbye, stopped.
func (m *model) end(i int, goodbye bool) {
	n := m.nodes[i]
	m.note("end %s, goodbye: %v", n.tracker.o.Node, goodbye)
	m.nodes = slices.Delete(slices.Clone(m.nodes), i, i+1)
	for user := range n.sockets {
		for n.sockets[user] > 0 && goodbye {
			m.disconnect(n, user)
		}
		m.moved(user)
	}
	if goodbye {
		n.tracker.farewell(context.Background())
	}
}

// forget lets the store lose everything. Users whom no node had entered that
// still runs are lost with it, if the backend does not know yet.
func (m *model) forget() {
	m.note("forget")
	for _, user := range m.users {
		last := len(m.told[user]) - 1
		if last >= 0 && m.told[user][last].Status == Online && !m.entered(user) {
			m.told[user] = nil // the backend is left with what it believes
		}
	}
	m.k.forget()
	m.epoch++
	noisy := m.noisy
	m.noisy, m.away = false, 0
	for _, n := range m.nodes {
		n.cut = 0
		n.tracker.do(context.Background(), n.tracker.beat)
	}
	m.noisy = noisy
}

func (m *model) entered(user string) bool {
	return slices.ContainsFunc(m.nodes, func(n *modelNode) bool {
		here, gone := n.tracker.here[user], n.tracker.gone[user]
		return here != nil && here.entered || gone != nil && gone.entered
	})
}

func (m *model) tick() {
	m.k.pass(modelTick)
	m.away, m.full = max(0, m.away-1), max(0, m.full-1)
	for _, n := range m.nodes {
		n.cut = max(0, n.cut-1)
		n.age++
		if n.age%5 == 0 {
			n.tracker.do(context.Background(), n.tracker.beat)
		}
		if n.age%2 == 0 {
			n.tracker.do(context.Background(), n.tracker.flush, n.tracker.report)
		}
	}
}

func (m *model) act() {
	i := m.r.IntN(len(m.nodes))
	n, user := m.nodes[i], m.users[m.r.IntN(len(m.users))]
	switch dice := m.r.IntN(100); {
	case dice < 30:
		m.connect(n, user)
	case dice < 65:
		m.disconnect(n, user)
	case dice < 75: // moves, in either order
		other := m.nodes[m.r.IntN(len(m.nodes))]
		if m.r.IntN(2) == 0 {
			m.connect(other, user)
			m.disconnect(n, user)
		} else if n.sockets[user] > 0 {
			m.disconnect(n, user)
			m.connect(other, user)
		}
	case dice < 78 && len(m.nodes) > 1:
		m.end(i, dice == 77)
	case dice < 81 && len(m.nodes) < 3:
		m.start()
	case dice < 83 && m.noisy:
		n.cut = m.r.IntN(40)
		m.note("cut %s for %d", n.tracker.o.Node, n.cut)
	case dice < 85 && m.noisy:
		m.away = m.r.IntN(80)
		m.note("away for %d", m.away)
	case dice < 86 && m.noisy:
		m.forget()
	case dice < 87 && m.noisy:
		m.full = m.r.IntN(80)
	}
}

// settle lets everything calm down, and compares.
func (m *model) settle() {
	m.t.Helper()
	m.noisy, m.away, m.full = false, 0, 0
	for _, n := range m.nodes {
		n.cut = 0
	}
	m.note("settle")
	for range int(2 * (testTiming.Grace + 2*testTiming.Lease) / modelTick) {
		m.tick()
	}
	for _, user := range m.users {
		status := Offline
		if m.online(user) {
			status = Online
		}
		last := len(m.told[user]) - 1
		if last < 0 && status == Offline {
			continue
		}
		if last < 0 || m.told[user][last].Status != status {
			m.t.Errorf("%s is %s, told was %+v", user, status, m.told[user])
		}
	}
	if m.epoch == 0 { // nothing was made up, and nothing is left
		for part := range Partitions {
			if r, err := m.k.Due(context.Background(), part, 10); err != nil || len(r.Events) > 0 || r.Pending != 0 {
				m.t.Errorf("left over: %+v, %v", r, err)
			}
		}
	}
}

func runModel(t *testing.T, k *kept, seed uint64, steps int) {
	t.Helper()
	m := &model{
		t: t, r: rand.New(rand.NewPCG(seed, 0)), k: k, calm: seed%3 == 0, noisy: seed%3 != 0,
		told: map[string][]told{}, there: map[string][]span{},
		users: []string{"ann", "bob", "eve", "joe", "kim", "lee", "max"},
	}
	defer func() {
		if t.Failed() {
			t.Logf("seed %d:", seed)
			for _, line := range m.log[max(0, len(m.log)-150):] {
				t.Log(line)
			}
		}
	}()
	m.start()
	m.start()
	for range steps {
		for range m.r.IntN(6) {
			m.tick()
		}
		for range m.r.IntN(3) {
			m.act()
		}
		if m.r.IntN(steps/2) == 0 {
			noisy := m.noisy
			m.settle()
			m.noisy = noisy
		}
	}
	m.settle()
	if len(m.told) < len(m.users)/2 {
		t.Errorf("only %d users were told of", len(m.told))
	}
}

// TestModel runs random lives of some nodes and users.
func TestModel(t *testing.T) {
	runs, steps := 60, 200
	if testdeps.Long() {
		runs, steps = 400, 500
	}
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		for seed := range uint64(runs) {
			if runModel(t, openFile(t), seed, steps); t.Failed() {
				return
			}
		}
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		client := newClient(t, testdeps.Redis(t))
		for seed := range uint64(runs / 4) {
			k, _ := openRedis(t, client, nil)
			if runModel(t, k, seed, steps); t.Failed() {
				return
			}
		}
	})
}
