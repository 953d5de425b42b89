package gateway

import (
	"runtime"
	"slices"
	"strings"
	"testing"
)

// audience is n clients in the channel live:a.
func (th *testHub) audience(n int) (list []attendee) {
	for i := range n {
		a := th.attend("user" + itoa(i))
		a.receive([]byte(`{"id":2,"subscribe":{"channel":"live:a"}}`))
		list = append(list, a)
	}
	return list
}

// got is the data of all publications a client was sent, in order.
func (a attendee) got() (list []string) {
	for _, line := range a.sock.lines() {
		if _, data, ok := strings.Cut(line, `"pub":{"data":`); ok {
			data, _, _ = strings.Cut(data, "}")
			list = append(list, data)
		}
	}
	return list
}

// Everybody in a channel of many gets everything in order, whoever serves a part
// of them.
func TestManySubscribers(t *testing.T) {
	h := startHub(t, quietStorm)
	list := h.audience(3*passPart + 1)
	var want []string
	for n := range 50 {
		want = append(want, itoa(n))
		h.publish("live:a", itoa(n))
	}
	ch := h.channels.get("live:a")
	for queued := true; queued; runtime.Gosched() {
		ch.mu.Lock()
		queued = ch.queued
		ch.mu.Unlock()
	}
	for i, a := range list {
		a.out.writer.Wait()
		if got := a.got(); !slices.Equal(got, want) {
			t.Errorf("client %d got %v", i, got)
		}
		a.goAway()
	}
	h.settle()
}

// watched is a socket that looks around when it is written to.
type watched struct {
	*recorder
	look func()
}

func (w *watched) write(frames []byte, shared bool) (int, error) {
	w.look()
	return w.recorder.write(frames, shared)
}

// While a part of a pass is served somebody else may take the next one, unless there
// is more news already. What is left is in the queue once in any case, and the last
// part ends the pass.
func TestPartsAreShared(t *testing.T) {
	for name, hasNews := range map[string]bool{"all that is new": false, "more has come": true} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, quietStorm)
			list := h.audience(passPart + 1)
			ch := h.channels.get("live:a")
			ch.mu.Lock()
			ch.queued = true // h is not to serve them
			ch.mu.Unlock()
			h.publish("live:a", "1")
			ch.mu.Lock()
			ch.again = hasNews
			p := pass{ch: ch, walk: &walk{left: slices.Clone(ch.subs)}}
			ch.mu.Unlock()

			by := &Hub{news: newQueue[pass]()}
			waiting := func() uint64 { in, out := by.news.progress(); return in - out }
			var meanwhile uint64
			first := p.walk.left[0].client
			first.sock = &watched{first.sock.(*recorder), func() { meanwhile = waiting() }}
			by.serveNext(p, nil)
			if shared := meanwhile == 1; shared == hasNews {
				t.Errorf("the next part was for somebody else: %v", shared)
			}
			parts := 1
			for ; waiting() > 0; parts++ {
				if n := waiting(); n != 1 {
					t.Fatalf("%d passes wait", n)
				}
				next, _ := by.news.pop()
				by.serveNext(next, make([]*subscription, 0, passPart))
			}
			if want := map[bool]int{false: 2, true: 4}[hasNews]; parts != want {
				t.Errorf("%d parts, want %d", parts, want)
			}
			if ch.queued {
				t.Error("the pass has no end")
			}
			for i, a := range list {
				if got := a.got(); !slices.Equal(got, []string{"1"}) {
					t.Errorf("client %d got %v", i, got)
				}
			}
			h.settle()
			for _, a := range list {
				a.goAway()
			}
		})
	}
}
