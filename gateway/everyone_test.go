package gateway

import (
	"fmt"
	"testing"
	"testing/synctest"

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
	const room, each = 8 << 10, 1 << 10
	data := func(n int) string { return fmt.Sprintf(`"%0*d"`, each-len(`{"push":{"message":{"data":""}}}`), n) }
	h := startPrepared(t, func(h *Hub) { h.announcements = newAnnouncements(room) }, func(s *Settings) { s.Client.PingInterval = 0 })
	var wires []*wire
	for n := range passPart + 2 { // two parts
		w, _ := h.login("user" + itoa(n))
		wires = append(wires, w)
	}
	stuck := h.clients.list()[passPart]
	stuck.out.mu.Lock()
	for n := range room / each {
		if all := h.pushToAll(data(n)); all != len(wires) {
			t.Errorf("message %d is for %d", n, all)
		}
	}
	if h.announcements.room.TryAcquire(1) {
		t.Error("there is room for more")
	}
	stuck.out.mu.Unlock()
	h.pushToAll(data(room / each)) // waits for room
	for _, w := range wires {
		for n := range room/each + 1 {
			w.want(`{"push":{"message":{"data":` + data(n) + `}}}`)
		}
	}
}

// At the end of the hub nobody waits to say something to everybody.
func TestAnnouncementsEndWithTheHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil)
		h.login("alice")
		if err := h.announcements.room.Acquire(t.Context(), h.announcements.limit); err != nil {
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
		if err := h.announcements.room.Acquire(t.Context(), 1); err != nil { // one is going out
			t.Fatal(err)
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
