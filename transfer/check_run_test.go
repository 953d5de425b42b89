package transfer

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/internal/fault"
)

// A verdict that comes when the file is read already still ends it.
func TestCheckLateVerdict(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		wx := h.checkedBy(nameWeChat)[0]
		wx.say(later, "", nil)
		h.checks.Undecided, h.thumbs.Enabled = decidePass, true
		f := h.keep("a.jpg", photo(t, 40, 20))
		h.check()
		h.wantState("asked", f.ID, Checking)
		if h.check(); wx.count() != 1 {
			t.Errorf("asked %d times", wx.count())
		}
		h.age(f.ID, h.checks.WeChat.Answer)
		if h.check(); wx.count() != 2 {
			t.Errorf("it did not answer in time, asked %d times", wx.count())
		}
		h.age(f.ID, h.checks.GiveUp) // while no node ran
		if h.check(); wx.count() != 3 {
			t.Errorf("nobody was there to ask again in time, asked %d times", wx.count())
		}
		h.wantState("asked after its time", f.ID, Checking)
		h.age(f.ID, h.checks.WeChat.Answer)
		if h.check(); wx.count() != 3 {
			t.Errorf("it would not be waited for, asked %d times", wx.count())
		}
		h.wantState("given up", f.ID, Ready)
		h.wantThumb(f, "?w=10", "10 x 5")
		found := findings{nameWeChat: {objected, "20002"}}
		for range 2 {
			if err := h.conclude(t.Context(), f.ID, found, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		h.wantState("judged", f.ID, Blocked)
		h.wantEvents("judged", "file_ready-"+f.ID, "file_blocked-"+f.ID)
		key := h.record(f.ID).Key
		if objects, _, err := h.store.List(t.Context(), "", 10); err != nil || slices.ContainsFunc(objects, func(o Object) bool { return strings.HasPrefix(o.Key, key) }) {
			t.Errorf("bytes left, thumbnails perhaps: %+v, %v", objects, err)
		}
		if err := h.conclude(t.Context(), f.ID, findings{nameWeChat: {outcome: passed}}, time.Time{}); err != nil {
			t.Fatal(err)
		}
		h.wantState("judged otherwise", f.ID, Blocked)
	})
}

// Who cannot say anything is asked again, with pauses, and not for ever.
func TestCheckFails(t *testing.T) {
	h := newTestHouse(t)
	list := h.checkedBy(nameClamd, nameWeChat)
	clamd, wx := list[0], list[1]
	wx.say(later, "", nil)
	clamd.say("", "", fault.New(fault.Unavailable, "x", "x"))
	f := h.keep("a.txt", "hello")
	h.check()
	h.wantState("one is away", f.ID, Checking)
	if h.check(); clamd.count() != 1 {
		t.Errorf("asked %d times without a pause", clamd.count())
	}
	for i := range 3 {
		c := h.record(f.ID).Check
		if pause := time.Until(c.Due); pause < firstPause<<i-2*time.Second || pause > firstPause<<i {
			t.Errorf("pause %d is %v", i, pause)
		}
		h.age(f.ID, firstPause<<i+time.Second)
		h.check()
	}
	if clamd.count() != 4 || wx.count() != 1 {
		t.Errorf("asked %d and %d times", clamd.count(), wx.count())
	}
	clamd.say("", "", fault.New(fault.Limited, "x", "x").After(2*mostPause))
	h.age(f.ID, time.Minute)
	h.check()
	if pause := time.Until(h.record(f.ID).Check.Due); pause < 2*mostPause-2*time.Second {
		t.Errorf("it asked for more, and gets %v", pause)
	}
	clamd.say(passed, "", nil)
	h.age(f.ID, 2*mostPause)
	h.check()
	if c := h.record(f.ID).Check; c.Waiting != nameWeChat || c.Asked != nameWeChat {
		t.Errorf("%+v", c)
	}
	h.age(f.ID, h.checks.GiveUp)
	wx.say("", "", errors.New("away"))
	h.check()
	h.wantState("given up", f.ID, Blocked)
	if r := h.record(f.ID).Check.Reason; r != (Reason{nameWeChat, labelUndecided}) {
		t.Errorf("reason %+v", r)
	}
}

func TestCheckUnsuitable(t *testing.T) {
	h := newTestHouse(t)
	c := h.checkedBy(nameClamd)[0]
	c.say(unsuitable, "", nil)
	for lenient, want := range map[bool]State{false: Blocked, true: Ready} {
		h.checks.lenient = map[string]bool{nameClamd: lenient}
		f := h.keep("a.txt", "hello")
		h.check()
		h.wantState("unsuitable", f.ID, want)
	}
}

// Sweeps have other things to do than to wait for checkers that may hang.
func TestSweepAsksNobody(t *testing.T) {
	h := newTestHouse(t)
	c := h.checkedBy(nameClamd)[0]
	f := h.keep("a.txt", "hello")
	if err := h.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	h.wantState("swept", f.ID, Checking)
	if c.count() != 0 {
		t.Errorf("asked %d times", c.count())
	}
}

// What is on its way when somebody is not asked any more passes.
func TestCheckSwitchedOff(t *testing.T) {
	h := newTestHouse(t)
	h.checkedBy(nameClamd)[0].say(later, "", nil)
	f := h.keep("a.txt", "hello")
	h.check()
	h.age(f.ID, h.checks.WeChat.Answer)
	h.checkedBy()
	for _, waiting := range []float64{1, 0} {
		if err := h.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		if n := testutil.ToFloat64(h.metrics.checking); n != waiting {
			t.Errorf("%v files wait for checks, say the metrics, want %v", n, waiting)
		}
	}
	h.wantState("nobody is asked", f.ID, Ready)
	if g := h.keep("b.txt", "hello"); g.State != "" {
		t.Errorf("uploaded since: %+v", g)
	}
}

// Nodes share the work, and each file is one's.
func TestCheckOnSeveralNodes(t *testing.T) {
	store, ledger := newTestFolder(t), newTestRedisLedger(t)
	one, two := newHouse(t, store, ledger), newHouse(t, store, ledger)
	a, b := one.checkedBy(nameClamd)[0], two.checkedBy(nameClamd)[0]
	for range 20 {
		one.keep("a.txt", "hello")
	}
	var wg sync.WaitGroup
	wg.Go(one.check)
	wg.Go(two.check)
	wg.Wait()
	if n := a.count() + b.count(); n != 20 {
		t.Errorf("asked %d times about 20 files", n)
	}
	if n := len(one.events()) + len(two.events()); n != 20 {
		t.Errorf("told %d times", n)
	}
}

// What a node was at when it died is another's, when its time is over.
func TestCheckAfterCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db, store := openBolt(t, path), newTestFolder(t)
	ledger, err := NewFileLedger(db)
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, store, ledger)
	c := h.checkedBy(nameClamd)[0]
	f := h.keep("a.txt", "hello")
	var working sync.WaitGroup
	dying, die := context.WithCancel(t.Context())
	h.checks.checkers = []checker{&dies{stub: c, die: die}}
	if err := h.startChecks(dying, &working); err != nil {
		t.Fatal(err)
	}
	working.Wait()
	if h.record(f.ID).Check.Due.After(now()) {
		t.Error("a process that ends keeps what it cannot see to")
	}
	h.age(f.ID, -h.checks.lease()) // one that is killed does
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if ledger, err = NewFileLedger(openBolt(t, path)); err != nil {
		t.Fatal(err)
	}
	h = newHouse(t, store, ledger)
	c = h.checkedBy(nameClamd)[0]
	h.wantState("after the crash", f.ID, Checking)
	h.wantRead(f, "hello", map[string]string{"alice": "", "bob": "file_not_found"})
	if h.check(); c.count() != 0 {
		t.Error("it is not due yet, where others may be at it")
	}
	if err := h.startLeft(t.Context(), &working); err != nil {
		t.Fatal(err)
	}
	working.Wait()
	h.wantState("gone on with", f.ID, Ready)
	if c.count() != 1 {
		t.Errorf("asked %d times", c.count())
	}
}

// dies is asked when its process ends.
type dies struct {
	*stub
	die func()
}

func (c *dies) check(ctx context.Context, f File) (finding, error) {
	c.die()
	return finding{}, ctx.Err()
}

// Bytes that could not be removed, and news that could not be told, are made
// good later. Until then nobody reads the one, and the other are not lost.
func TestCheckBlockedLater(t *testing.T) {
	store := &brokenStore{Store: newTestFolder(t)}
	h := newHouse(t, store, newTestFileLedger(t))
	h.checkedBy(nameClamd)[0].say(objected, "Eicar", nil)
	f := h.keep("a.txt", "hello")
	store.down = true
	h.setDeaf(errors.New("the queue is full"))
	h.check()
	h.wantRead(f, "", map[string]string{"alice": "file_blocked"})
	h.wantOwed("nobody listened", f.ID)
	store.down = false
	h.check()
	if _, err := store.Stat(t.Context(), h.record(f.ID).Key); !errors.Is(err, errNoObject) {
		t.Errorf("its bytes: %v", err)
	}
	h.setDeaf(nil)
	h.later()
	if err := h.sweepOwed(t.Context()); err != nil {
		t.Error(err)
	}
	h.wantEvents("swept", "file_blocked-"+f.ID)

	h.setDeaf(errors.New("the queue is full"))
	g := h.keep("b.txt", "hello")
	h.check()
	if a := h.do("DELETE", g.URL, nil); a.StatusCode != http.StatusNoContent {
		t.Errorf("%v", a)
	}
	h.setDeaf(nil)
	h.later()
	if err := h.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	h.wantEvents("deleted before it was told", "file_blocked-"+f.ID, "file_blocked-"+g.ID)
}

func TestCheckRuns(t *testing.T) {
	h := newTestHouse(t)
	h.checkedBy(nameClamd)
	ctx, stop := context.WithCancel(t.Context())
	told := make(chan News, 1)
	h.tell = func(_ context.Context, n News) error { told <- n; return nil }
	var running sync.WaitGroup
	h.checks.tick = time.Hour
	h.keep("a.txt", "hello") // for the first look
	running.Go(func() { h.checkUntil(ctx) })
	for i := range 3 {
		if n := <-told; n.Event != FileReady {
			t.Errorf("told %+v", n)
		}
		if n := testutil.ToFloat64(h.metrics.checking); i == 0 && n != 1 {
			t.Errorf("%v files wait for checks, say the metrics, want the one", n)
		}
		if i < 2 {
			h.keep("b.txt", "hello") // wakes it
		}
	}
	stop()
	running.Wait()
}

// Who was asked is asked again when its own time is over, whatever others took.
func TestWeighTimes(t *testing.T) {
	h := newTestHouse(t)
	asked := now().Add(time.Minute - h.checks.WeChat.Answer)
	f := File{State: Checking, Check: Check{Began: asked, Waiting: "clamd wechat", Asked: nameWeChat, AskedAt: asked}}
	h.weigh(&f, findings{nameClamd: {outcome: passed}}, now())
	if c := f.Check; c.Waiting != nameWeChat || !c.Due.Equal(asked.Add(h.checks.WeChat.Answer)) {
		t.Errorf("%+v", c)
	}
}

// Words may come in any order, and while somebody is still being asked.
func TestWeighOrders(t *testing.T) {
	h := newTestHouse(t)
	f := File{State: Checking, Check: Check{Began: now(), Waiting: "clamd wechat", Due: now()}}
	h.weigh(&f, findings{nameWeChat: {outcome: passed}}, time.Time{}) // by push
	due := now().Add(time.Minute)
	h.weigh(&f, findings{nameWeChat: {outcome: later}, nameClamd: {outcome: failed}}, due)
	if c := f.Check; c.Waiting != nameClamd || c.Asked != "" || !c.Due.Equal(due) || f.State != Checking {
		t.Errorf("its word was faster than its asking: %+v", c)
	}
	f.Check.Began = now().Add(time.Minute - h.checks.GiveUp)
	h.weigh(&f, findings{nameClamd: {outcome: failed}}, now().Add(time.Hour))
	if left := time.Until(f.Check.Due); left > time.Minute {
		t.Errorf("due in %v, a minute before it is given up", left)
	}
	h.weigh(&f, findings{nameClamd: {outcome: passed}}, due)
	if f.State != Ready || !f.Owed || !f.Check.Due.IsZero() {
		t.Errorf("passed by all: %+v", f)
	}
	h.weigh(&f, findings{nameWeChat: {objected, "1"}, nameClamd: {outcome: passed}}, due)
	if f.State != Blocked || f.Check.Reason != (Reason{nameWeChat, "1"}) || f.Expires.IsZero() {
		t.Errorf("one objects: %+v", f)
	}
}
