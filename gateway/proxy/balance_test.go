package proxy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/settings"
)

// group has the defaults of the settings.
func group(name string, urls ...string) UpstreamSettings {
	var s UpstreamSettings
	settings.Defaults(&s)
	s.Name = name
	for _, u := range urls {
		s.Targets = append(s.Targets, TargetSettings{u, 1})
	}
	return s
}

// testUpstream has a target for each weight, at addresses where nobody is.
func testUpstream(t *testing.T, heard *changes, weights ...int) *Upstream {
	t.Helper()
	s := group("g")
	for i, w := range weights {
		s.Targets = append(s.Targets, TargetSettings{fmt.Sprintf("http://127.0.0.1:%d", i+1), w})
	}
	u, err := newUpstream(s, NewMetrics(prometheus.NewRegistry()), heard.add)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// picks is the order in which targets get n requests that end at once.
func picks(u *Upstream, n int) string {
	var b strings.Builder
	for range n {
		t := u.pick(0, false)
		t.release()
		b.WriteByte(byte('a' + t.index))
	}
	return b.String()
}

func TestEqualsTakeTurnsByWeight(t *testing.T) {
	if got := picks(testUpstream(t, &changes{}, 1, 1, 1), 6); got != "abcabc" {
		t.Errorf("equals: %s", got)
	}
	u := testUpstream(t, &changes{}, 5, 1, 1)
	got := picks(u, 7)
	if strings.Count(got, "a") != 5 || strings.Count(got, "b") != 1 || strings.Count(got, "c") != 1 {
		t.Errorf("5, 1, 1: %s", got)
	}
	if strings.Contains(got, "aaaa") {
		t.Errorf("not smooth: %s", got)
	}
}

func TestFewestRequestsForItsWeight(t *testing.T) {
	u := testUpstream(t, &changes{}, 3, 1)
	for range 8 { // none of which ends
		u.pick(0, false)
	}
	if a, b := u.targets[0].inflight.Load(), u.targets[1].inflight.Load(); a != 6 || b != 2 {
		t.Errorf("%d and %d under way, want 6 and 2", a, b)
	}
	for range 2 {
		u.targets[1].release()
	}
	if got := picks(u, 2); got != "bb" {
		t.Errorf("the idle target is passed over: %s", got)
	}
}

func TestLeftOutAfterFailures(t *testing.T) {
	captureLogs(t)
	synctest.Test(t, func(t *testing.T) {
		heard := &changes{}
		u := testUpstream(t, heard, 1, 1)
		a := u.targets[0]
		broken := errors.New("broken")
		for range 2 {
			a.failed(broken, true)
		}
		a.succeeded() // not in a row
		for range 2 {
			a.failed(broken, true)
		}
		heard.want(t)
		if got := picks(u, 4); strings.Count(got, "a") != 2 {
			t.Errorf("left out too early: %s", got)
		}
		a.failed(broken, true)
		heard.want(t, true)
		if got := picks(u, 4); got != "bbbb" {
			t.Errorf("asked while it is left out: %s", got)
		}

		time.Sleep(u.settings.FailPause)
		if got := picks(u, 2); got != "bb" {
			t.Errorf("a request that may do harm was a trial: %s", got)
		}
		if got := u.pick(0, true); got != a {
			t.Error("nobody tries whether it is back")
		}
		if got := u.pick(0, true); got == a {
			t.Error("a second trial in the same pause")
		}
		a.failed(broken, true) // of the trial
		time.Sleep(u.settings.FailPause - time.Millisecond)
		if got := u.pick(0, true); got == a {
			t.Error("a trial before the pause is over")
		}
		time.Sleep(time.Millisecond)
		if got := u.pick(0, true); got != a {
			t.Error("no trial after the second pause")
		}
		heard.want(t, true)
		a.succeeded()
		heard.want(t, true, false)
	})
}

func TestWhereAllAreLeftOutAllAreTried(t *testing.T) {
	captureLogs(t)
	u := testUpstream(t, &changes{}, 1, 1)
	for _, target := range u.targets {
		target.failed(errors.New("refused"), false)
	}
	first := u.pick(0, false)
	if second := u.pick(1<<first.index, false); second == first {
		t.Error("the same target twice")
	}
}

// What reaches a target again brings it back only where not reaching it was
// the trouble.
func TestReachableAgain(t *testing.T) {
	captureLogs(t)
	synctest.Test(t, func(t *testing.T) {
		heard := &changes{}
		u := testUpstream(t, heard, 1, 1)
		a := u.targets[0]
		a.failed(errors.New("refused"), false)
		a.reachable()
		heard.want(t, true, false)
		for range 3 {
			a.failed(errors.New("broken"), true)
		}
		a.reachable()
		heard.want(t, true, false, true)
		time.Sleep(u.settings.FailPause)
		a.reachable()
		heard.want(t, true, false, true, false)
	})
}

func TestHealthThresholds(t *testing.T) {
	captureLogs(t)
	heard := &changes{}
	u := testUpstream(t, heard, 1, 1)
	a := u.targets[0]
	sick := errors.New("500")
	for i, step := range []struct {
		err  error
		down bool
	}{
		{nil, false},
		{sick, false},
		{sick, false},
		{nil, false},
		{sick, false},
		{sick, false},
		{sick, true},
		{nil, true},
		{sick, true},
		{nil, true},
		{nil, false},
	} {
		a.heard(step.err)
		if a.down.Load() != step.down || (a.state() != nil) != step.down {
			t.Errorf("step %d: down is %v", i, a.down.Load())
		}
	}
	heard.want(t, true, false)
	for range 3 {
		a.heard(sick)
	}
	if got := picks(u, 3); got != "bbb" {
		t.Errorf("asked while it is unwell: %s", got)
	}
	a.succeeded() // a request says nothing about what the check sees
	if !a.down.Load() {
		t.Error("a request overruled the health check")
	}
}
