package gateway

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func (th *testHub) pushToAll(data string) (sockets int) {
	th.t.Helper()
	res, err := th.Push(th.t.Context(), PushRequest{All: true, Data: []byte(data)})
	if err != nil || len(res.Errors) > 0 {
		th.t.Errorf("%+v: %v", res, err)
	}
	return res.All
}

// Messages to everybody are deliveries.
func TestMessagesCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil)
		for _, user := range []string{"a", "b", "c"} {
			h.login(user)
		}
		synctest.Wait()
		before := testutil.ToFloat64(h.metrics.deliveries)
		if n := h.pushToAll("1"); n != 3 {
			t.Errorf("for %d", n)
		}
		synctest.Wait()
		if n := testutil.ToFloat64(h.metrics.deliveries) - before; n != 3 {
			t.Errorf("%v deliveries", n)
		}
	})
}

// Whoever says something to everybody does not wait until it has gone out, as
// long as not too much of it waits, and everybody gets it all in order.
func TestAnnouncementsGoOutLater(t *testing.T) {
	h := startHub(t, func(s *Settings) { s.Client.PingInterval = 0 })
	var wires []*wire
	for n := range passPart + 2 { // two parts
		w, _ := h.login("user" + itoa(n))
		wires = append(wires, w)
	}
	stuck := h.clients.list()[passPart]
	stuck.out.mu.Lock()
	for n := range maxAnnouncements {
		if all := h.pushToAll(itoa(n)); all != len(wires) {
			t.Errorf("message %d is for %d", n, all)
		}
	}
	if h.announcements.room.TryAcquire(1) {
		t.Error("there is room for more")
	}
	stuck.out.mu.Unlock()
	h.pushToAll(itoa(maxAnnouncements)) // waits for room, where it is late
	for _, w := range wires {
		for n := range maxAnnouncements + 1 {
			w.want(`{"push":{"message":{"data":` + itoa(n) + `}}}`)
		}
	}
}

// At the end of the hub nobody waits to say something to everybody.
func TestAnnouncementsEndWithTheHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil)
		h.login("alice")
		if err := h.announcements.room.Acquire(t.Context(), maxAnnouncements); err != nil {
			t.Fatal(err)
		}
		told := make(chan int)
		go func() { told <- h.pushToAll("1") }()
		synctest.Wait()
		h.end()
		if n := <-told; n != 0 {
			t.Errorf("told %d", n)
		}
	})
}

// What everybody was told goes out before the node says goodbye.
func TestAnnouncementsBeforeGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil)
		w, _ := h.login("alice")
		if !h.announcements.room.TryAcquire(1) { // one is going out
			t.Fatal("no room")
		}
		gone := make(chan error)
		go func() { gone <- h.Shutdown(t.Context()) }()
		synctest.Wait()
		if n := len(w.lines); n != 0 {
			t.Errorf("%d lines before it is out", n)
		}
		h.announcements.room.Release(1)
		if err := <-gone; err != nil {
			t.Error(err)
		}
		w.want(`{"push":{"disconnect":{"code":3001,*`)
	})
}

// A node that goes away waits for them only a little while, and not at all
// where they cannot go out any more.
func TestGoodbyeDoesNotWaitLong(t *testing.T) {
	for name, tc := range map[string]struct {
		end  func(*testHub)
		want time.Duration
	}{
		"late": {func(*testHub) {}, flushTime},
		"cut":  {func(h *testHub) { h.end() }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startHub(t, nil)
				if !h.announcements.room.TryAcquire(1) {
					t.Fatal("no room")
				}
				defer h.announcements.room.Release(1)
				tc.end(h)
				begin := time.Now()
				if err := h.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took != tc.want {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}
