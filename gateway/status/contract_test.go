package status

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStoreContract(t *testing.T) {
	overStores(t, func(t *testing.T, open func(t *testing.T) *kept) {
		for _, test := range []struct {
			name string
			f    func(*testing.T, *kept)
		}{
			{"comes and goes", contractComesAndGoes},
			{"short absence", contractShortAbsence},
			{"two nodes", contractTwoNodes},
			{"repeated until done", contractRepeatedUntilDone},
			{"one decision at a time", contractOneDecision},
			{"dead node", contractDeadNode},
			{"many of a dead node", contractManyOfADeadNode},
			{"moved from a dead node", contractMoved},
			{"node that leaves", contractLeave},
			{"many leave", contractManyLeave},
			{"cut off node", contractCutOff},
			{"nobody beats", contractHush},
			{"hush is over", contractHushEnds},
			{"lost data", contractLostData},
			{"never entered", contractNeverEntered},
			{"seq grows", contractSeqGrows},
			{"forgets", contractForgets},
			{"odd ids", contractOddIDs},
			{"away", contractAway},
		} {
			t.Run(test.name, func(t *testing.T) { test.f(t, open(t)) })
		}
	})
}

func contractComesAndGoes(t *testing.T, k *kept) {
	k.beat(t, "a", true)
	k.want(t)
	k.arrive(t, "a", "ann", "bob")
	came := k.told(t, "ann online", "bob online")
	if e := came[0]; e.AppID != "wxann" || e.UnionID != "uann" || e.At != k.now.Load() || e.Seq < e.At {
		t.Errorf("told %+v at %d", e, k.now.Load())
	}
	k.want(t)
	k.pass(time.Second)
	left := k.now.Load()
	k.depart(t, "a", "ann")
	for range 3 {
		k.pass(2 * time.Second)
		k.beat(t, "a", true)
		k.want(t)
	}
	k.pass(4 * time.Second) // the hush of the beginning is over, too
	k.beat(t, "a", true)
	went := k.told(t, "ann offline")
	if len(went) != 1 {
		t.FailNow()
	}
	if e := went[0]; e.At != left || e.Seq <= came[0].Seq || e.AppID != "wxann" || e.UnionID != "uann" {
		t.Errorf("told %+v, left at %d, seq was %d", e, left, came[0].Seq)
	}
	k.want(t)
	k.arrive(t, "a", "ann")
	if e := k.told(t, "ann online"); e[0].Seq <= went[0].Seq {
		t.Errorf("seq %d after %d", e[0].Seq, went[0].Seq)
	}
}

// live is a node that has been there for longer than any hush.
func (k *kept) live(t testing.TB, nodes ...string) {
	t.Helper()
	for range 6 {
		k.pass(2 * time.Second)
		for _, n := range nodes {
			k.beat(t, n, true)
		}
	}
}

func contractShortAbsence(t *testing.T, k *kept) {
	k.live(t, "a")
	k.arrive(t, "a", "ann")
	k.told(t, "ann online")
	for range 5 {
		k.depart(t, "a", "ann")
		k.pass(testTiming.Grace - time.Millisecond)
		k.beat(t, "a", true)
		k.want(t)
		k.arrive(t, "a", "ann")
		k.want(t)
		k.pass(time.Second)
	}
	k.live(t, "a")
	k.want(t)
	k.arrive(t, "a", "eve") // and away before anybody looked
	k.depart(t, "a", "eve")
	k.want(t)
	k.live(t, "a")
	k.want(t)
}

func contractTwoNodes(t *testing.T, k *kept) {
	k.live(t, "a", "b")
	k.arrive(t, "a", "ann", "bob", "eve")
	k.told(t, "ann online", "bob online", "eve online")
	k.arrive(t, "b", "ann")
	k.depart(t, "a", "ann", "bob") // one moves, the other one leaves first
	k.arrive(t, "b", "bob")
	k.arrive(t, "b", "eve") // is on both
	k.want(t)
	k.live(t, "a", "b")
	k.want(t)
	k.depart(t, "a", "eve")
	k.live(t, "a", "b")
	k.want(t)
	k.depart(t, "b", "ann", "bob", "eve")
	k.live(t, "a", "b")
	k.told(t, "ann offline", "bob offline", "eve offline")
}

func contractRepeatedUntilDone(t *testing.T, k *kept) {
	k.live(t, "a")
	k.arrive(t, "a", "ann")
	first := k.want(t, "ann online")
	began := k.now.Load()
	for range 3 { // whoever asked never came back
		k.want(t)
		k.live(t, "a")
		if again := k.want(t, "ann online"); again[0] != first[0] {
			t.Errorf("told %+v, then %+v", first[0], again[0])
		}
	}
	if _, r := k.look(t); r.Pending != 1 || r.Oldest != time.Duration(k.now.Load()-began)*time.Millisecond {
		t.Errorf("%d pending since %v", r.Pending, r.Oldest)
	}
	other := first[0]
	other.Seq--
	k.done(t, []Event{other}) // confirms nothing
	k.live(t, "a")
	k.done(t, k.want(t, "ann online"))
	k.done(t, first) // late, and once more
	k.live(t, "a")
	if events, r := k.look(t); len(events) != 0 || r.Pending != 0 || r.Oldest != 0 {
		t.Errorf("after the end: %+v, %d pending since %v", events, r.Pending, r.Oldest)
	}
}

// Nothing new is decided before the last decision is told.
func contractOneDecision(t *testing.T, k *kept) {
	k.live(t, "a")
	k.arrive(t, "a", "ann")
	first := k.want(t, "ann online")
	k.depart(t, "a", "ann")
	for range 3 { // it is still with whoever asked
		k.pass(3 * time.Second)
		k.beat(t, "a", true)
		k.want(t)
	}
	k.live(t, "a")
	if again := k.told(t, "ann online"); again[0] != first[0] {
		t.Errorf("told %+v, then %+v", first[0], again[0])
	}
	k.want(t, "ann offline") // in vain
	k.arrive(t, "a", "ann")
	k.live(t, "a")
	k.told(t, "ann offline")
	k.told(t, "ann online")
	k.want(t)
}

func contractDeadNode(t *testing.T, k *kept) {
	k.live(t, "a", "b")
	k.arrive(t, "a", "ann", "bob", "eve")
	k.arrive(t, "b", "eve", "joe")
	k.told(t, "ann online", "bob online", "eve online", "joe online")
	last := k.now.Load()
	for range 4 {
		k.pass(2500 * time.Millisecond)
		k.beat(t, "b", true)
		k.want(t)
	}
	k.pass(time.Millisecond)
	events, _ := k.look(t)
	if k.buried != Partitions {
		t.Errorf("buried %d times", k.buried)
	}
	if len(events) != 2 || events[0].User != "ann" || events[1].User != "bob" || events[0].At != last || events[0].AppID != "wxann" {
		t.Errorf("told %+v; the last beat was at %d", events, last)
	}
	k.done(t, events)
	k.live(t, "b")
	k.want(t)
}

func contractManyOfADeadNode(t *testing.T, k *kept) {
	const n = 300
	var all, online, offline []string
	for i := range n {
		id := fmt.Sprintf("user%03d", i)
		all, online, offline = append(all, id), append(online, id+" online"), append(offline, id+" offline")
	}
	k.live(t, "a", "a~2", "ab") // names may begin as another one
	k.arrive(t, "a", all...)
	k.arrive(t, "a~2", "joe")
	k.arrive(t, "ab", "kim")
	k.told(t, append([]string{"joe online", "kim online"}, online...)...)
	k.live(t, "a~2", "ab")
	k.told(t, offline...)
	if k.buried != Partitions {
		t.Errorf("buried %d times", k.buried)
	}
	k.live(t, "a~2", "ab")
	k.want(t)
}

func contractManyLeave(t *testing.T, k *kept) {
	var all []string
	for i := range 700 * Partitions { // more than one step
		all = append(all, fmt.Sprintf("user%04d", i))
	}
	k.live(t, "a", "b")
	k.arrive(t, "a", all...)
	k.arrive(t, "b", "joe")
	events, _ := k.look(t)
	k.done(t, events)
	must(t, k.Leave(t.Context(), "a"))
	k.pass(testTiming.Lease / 4)
	k.beat(t, "b", true)
	k.pass(testTiming.Lease / 4)
	k.beat(t, "b", true)
	k.pass(testTiming.Lease / 4)
	k.beat(t, "b", true)
	k.pass(testTiming.Grace - 3*testTiming.Lease/4)
	if events, _ = k.look(t); len(events) != len(all) || events[0].User == "joe" {
		t.Errorf("%d users went offline after the grace, want %d", len(events), len(all))
	}
}

func contractMoved(t *testing.T, k *kept) {
	k.live(t, "a", "b")
	k.arrive(t, "a", "ann", "bob")
	k.told(t, "ann online", "bob online")
	for range 4 { // a is dead, and nobody knows
		k.pass(2 * time.Second)
		k.beat(t, "b", true)
	}
	k.arrive(t, "b", "bob")
	k.want(t)
	k.live(t, "b")
	k.told(t, "ann offline")
	k.depart(t, "b", "bob")
	k.live(t, "b")
	k.told(t, "bob offline")
}

func contractLeave(t *testing.T, k *kept) {
	k.live(t, "a", "b")
	k.arrive(t, "a", "ann", "bob")
	k.told(t, "ann online", "bob online")
	k.pass(2 * time.Second)
	k.beat(t, "b", true)
	must(t, k.Leave(t.Context(), "a"))
	must(t, k.Leave(t.Context(), "a"))
	left := k.now.Load()
	k.want(t)
	k.arrive(t, "b", "bob")
	k.pass(testTiming.Grace - 4*time.Second)
	k.beat(t, "b", true)
	k.want(t)
	k.pass(4 * time.Second)
	k.beat(t, "b", true)
	if e := k.told(t, "ann offline"); e[0].At != left {
		t.Errorf("told %+v, left at %d", e[0], left)
	}
}

// A node that was taken for dead is told so, and comes back under another name.
func contractCutOff(t *testing.T, k *kept) {
	k.live(t, "a", "b")
	k.arrive(t, "a", "ann", "bob")
	k.told(t, "ann online", "bob online")
	k.live(t, "b")
	k.told(t, "ann offline", "bob offline")
	if whole, err := k.Arrive(t.Context(), "a", users("eve"), false); whole || err != nil {
		t.Errorf("eve arrived at a node without a lease: %v, %v", whole, err)
	}
	k.depart(t, "a", "bob")
	k.beat(t, "a", false)
	k.beat(t, "a", false)
	if whole, err := k.Arrive(t.Context(), "a", users("ann"), false); whole || err != nil {
		t.Errorf("ann arrived at a node that has lost her: %v, %v", whole, err)
	}
	k.beat(t, "a.2", true)
	k.arrive(t, "a.2", "ann", "eve")
	must(t, k.Leave(t.Context(), "a"))
	k.told(t, "ann online", "eve online")
	k.live(t, "a.2", "b")
	k.want(t)
}

// After the store was away, everybody has the time of a lease to come back.
func contractHush(t *testing.T, k *kept) {
	k.live(t, "a", "b")
	k.arrive(t, "a", "ann", "bob")
	k.arrive(t, "b", "eve")
	k.told(t, "ann online", "bob online", "eve online")
	k.depart(t, "a", "bob")
	k.pass(time.Minute)
	k.want(t) // before anybody could beat
	k.beat(t, "b", true)
	k.want(t)
	k.pass(4 * time.Second)
	k.beat(t, "b", true)
	k.want(t)
	k.beat(t, "a", true)
	k.arrive(t, "b", "bob") // where he went meanwhile
	k.live(t, "a", "b")
	k.want(t)
}

func contractHushEnds(t *testing.T, k *kept) {
	k.live(t, "a", "b")
	k.arrive(t, "a", "ann", "bob")
	k.arrive(t, "b", "eve")
	k.told(t, "ann online", "bob online", "eve online")
	k.depart(t, "a", "bob")
	k.pass(time.Minute)
	for range 4 { // a is not among those who come back
		k.beat(t, "b", true)
		k.want(t)
		k.pass(2500 * time.Millisecond)
	}
	k.beat(t, "b", true)
	k.told(t, "ann offline", "bob offline")
}

func contractLostData(t *testing.T, k *kept) {
	k.live(t, "a")
	k.arrive(t, "a", "ann", "bob", "eve")
	k.told(t, "ann online", "bob online", "eve online")
	k.depart(t, "a", "bob")
	k.forget()
	if whole, err := k.Arrive(t.Context(), "a", users("joe"), false); whole || err != nil {
		t.Errorf("joe arrived: %v, %v", whole, err)
	}
	k.depart(t, "a", "eve")
	k.beat(t, "a", false)
	k.beat(t, "a.2", true)
	k.arrive(t, "a.2", "ann", "joe")
	k.depart(t, "a.2", "bob", "eve", "kim")
	must(t, k.Leave(t.Context(), "a"))
	k.arrive(t, "a.2", "kim") // whose coming may have been lost before it was told
	k.told(t, "ann online", "joe online", "kim online")
	k.live(t, "a.2")
	k.told(t, "bob offline", "eve offline")
}

func contractNeverEntered(t *testing.T, k *kept) {
	k.live(t, "a")
	must(t, k.Depart(t.Context(), "a", users("ann"), false))
	k.arrive(t, "a", "bob")
	k.told(t, "bob online")
	must(t, k.Depart(t.Context(), "a", users("bob"), false))
	k.live(t, "a")
	k.told(t, "bob offline")
}

func contractSeqGrows(t *testing.T, k *kept) {
	k.live(t, "a")
	last := int64(0)
	round := func() {
		t.Helper()
		k.arrive(t, "a", "ann")
		e := k.told(t, "ann online")
		k.depart(t, "a", "ann")
		k.live(t, "a")
		e = append(e, k.told(t, "ann offline")...)
		if len(e) != 2 || e[0].Seq <= last || e[1].Seq <= e[0].Seq {
			t.Fatalf("%+v after %d", e, last)
		}
		last = e[1].Seq
	}
	round()
	k.pass(-10 * time.Minute) // the clock of another server
	round()
	k.arrive(t, "a", "ann") // and away before anybody looked
	k.depart(t, "a", "ann")
	k.want(t)
	k.pass(-10 * time.Minute)
	round()
	for range 3 {
		k.pass(keepFor)
		k.beat(t, "a", true)
		k.want(t)
		k.live(t, "a")
		k.want(t)
		round()
	}
}

func contractForgets(t *testing.T, k *kept) {
	k.live(t, "a")
	k.arrive(t, "a", "ann", "bob")
	k.told(t, "ann online", "bob online")
	k.depart(t, "a", "ann")
	k.arrive(t, "a", "eve") // and away before anybody looked
	k.depart(t, "a", "eve")
	k.live(t, "a")
	k.told(t, "ann offline")
	if n := k.known(); n != 3 {
		t.Errorf("%d users are known, want 3", n)
	}
	k.pass(keepFor)
	k.beat(t, "a", true)
	k.want(t)
	if n := k.known(); n != 1 {
		t.Errorf("%d users are known, want 1", n)
	}
}

func contractOddIDs(t *testing.T, k *kept) {
	ids := []string{"a:b", "你好", " ", "1 2 3\n4", "{}", `"`, "%d", "x\x00y", strings.Repeat("z", maxUser)}
	slices.Sort(ids)
	var online, offline []string
	for _, id := range ids {
		online, offline = append(online, id+" online"), append(offline, id+" offline")
	}
	k.live(t, "a", "b")
	k.arrive(t, "a", ids...)
	k.told(t, online...)
	for i, e := range k.want(t) {
		if e.AppID != "wx"+ids[i] {
			t.Errorf("%q has the appid %q", ids[i], e.AppID)
		}
	}
	k.depart(t, "a", ids[0])
	k.live(t, "b")
	k.told(t, offline...)
}

func contractAway(t *testing.T, k *kept) {
	k.live(t, "a")
	k.breakIt()
	ctx := t.Context()
	_, beat := k.Beat(ctx, "a")
	_, arrive := k.Arrive(ctx, "a", users("ann"), false)
	_, due := k.Due(ctx, 0, 1)
	for what, err := range map[string]error{
		"Beat": beat, "Arrive": arrive, "Due": due, "Depart": k.Depart(ctx, "a", users("ann"), true),
		"Leave": k.Leave(ctx, "a"), "Done": k.Done(ctx, 0, []Event{{User: "ann"}}),
	} {
		if err == nil {
			t.Errorf("%s says nothing while the store is away", what)
		}
	}
}
