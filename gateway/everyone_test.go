package gateway

import (
	"slices"
	"strings"
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
	h := startHub(t, quietStorm)
	list := make([]attendee, passPart+2) // two parts
	for n := range list {
		list[n] = h.attend("user" + itoa(n))
		defer list[n].goAway()
	}
	var want []string
	say := func() {
		want = append(want, `{"push":{"message":{"data":`+itoa(len(want))+`}}}`)
		if n := h.pushToAll(itoa(len(want) - 1)); n != len(list) {
			t.Errorf("message %d is for %d", len(want)-1, n)
		}
	}
	stuck := list[passPart]
	stuck.out.mu.Lock()
	for range maxAnnouncements {
		say()
	}
	if h.announcements.room.TryAcquire(1) {
		t.Error("there is room for more")
	}
	stuck.out.mu.Unlock()
	say() // waits for room, where it is late
	if err := h.announcements.room.Acquire(t.Context(), maxAnnouncements); err != nil {
		t.Fatal(err)
	}
	h.announcements.room.Release(maxAnnouncements)
	for n, a := range list {
		a.out.writer.Wait()
		if got := a.sock.lines()[1:]; !slices.Equal(got, want) { // the first is the reply to connect
			t.Fatalf("client %d got %q", n, got)
		}
	}
}

// lines are the messages in all frames.
func (r *recorder) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Split(strings.Join(r.frames, "\n"), "\n")
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
