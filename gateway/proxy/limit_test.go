package proxy

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter[string](10, 3)
		take := func(k string, want ...time.Duration) {
			t.Helper()
			for i, w := range want {
				if got := l.take(k); got != w {
					t.Errorf("%s, request %d: wait %v, want %v", k, i, got, w)
				}
			}
		}
		ms := time.Millisecond
		take("a", 0, 0, 0, 100*ms, 100*ms)
		take("b", 0)
		time.Sleep(99 * ms)
		take("a", 1*ms)
		time.Sleep(1 * ms)
		take("a", 0, 100*ms)
		time.Sleep(time.Hour) // fills up to the burst and no further
		take("a", 0, 0, 0, 100*ms)
	})
	if newLimiter[string](0, 1) != nil {
		t.Error("a limiter without a limit")
	}
}

func TestIdleBucketsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter[int](1, 10)
		for k := range 1000 {
			l.take(k)
		}
		time.Sleep(2 * sweepPause)
		l.take(-1)
		if len(l.full) != 1 {
			t.Errorf("%d buckets after all have filled up", len(l.full))
		}
	})
}

func TestBucketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter[int](0.001, 1)
		l.limit = 64
		for k := range 10 * l.limit {
			l.take(k)
			if len(l.full) > l.limit {
				t.Fatalf("%d buckets", len(l.full))
			}
		}
		if len(l.full) < l.limit/2 {
			t.Errorf("only %d buckets are kept", len(l.full))
		}
		if l.take(10*l.limit-1) == 0 {
			t.Error("the newest was forgotten")
		}
	})
}
