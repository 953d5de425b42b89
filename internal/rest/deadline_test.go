package rest

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at time.Time
		calls := 0
		d := Deadline{stall: 8 * time.Second, set: func(when time.Time) error { at, calls = when, calls+1; return nil }}
		d.Lift()
		if calls != 0 {
			t.Error("lifted before it was set: the server's own one is gone")
		}
		for range 100 { // 10 seconds of progress
			d.Extend()
			if left := time.Until(at); left < 7*time.Second || left > 8*time.Second {
				t.Fatalf("%v are left", left)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if calls > 10 {
			t.Errorf("set %d times", calls)
		}
		d.Lift()
		if !at.IsZero() {
			t.Errorf("after the end: %v", at)
		}
		d.Extend()
		if time.Until(at) != 8*time.Second {
			t.Errorf("set again: %v are left", time.Until(at))
		}
	})
}
