package gateway

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
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

// isQueued tells whether there are subscribers who have not been told of news.
func (ch *channel) isQueued() bool {
	ch.mu.RLock()
	defer ch.mu.RUnlock()
	return ch.queued
}

// goOut waits until all that was published has gone out.
func (th *testHub) goOut(ch *channel, list []attendee) {
	th.t.Helper()
	for begun := time.Now(); ch.isQueued(); runtime.Gosched() {
		if time.Since(begun) > 10*time.Second {
			th.t.Fatal("a pass has no end")
		}
	}
	for _, a := range list {
		a.out.writer.Wait()
	}
}

// Everybody in a channel of many gets everything in order, whoever serves a part
// of them: what comes alone, which several serve, and what comes at once.
func TestManySubscribers(t *testing.T) {
	h := startHub(t, quietStorm)
	list := h.audience(3*passPart + 1)
	ch := h.channels.get("live:a")
	var want []string
	for n := range 60 {
		want = append(want, itoa(n))
		h.publish("live:a", itoa(n))
		if n < 30 {
			h.goOut(ch, list)
		}
	}
	h.goOut(ch, list)
	for i, a := range list {
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
// is more news already. The pass is in the queue once at most, and ends when all of
// its parts were served; if there is more news by then another one begins.
func TestPartsAreShared(t *testing.T) {
	for name, tt := range map[string]struct {
		before, meanwhile bool // there is more news: before the first part, while it is served
		inside            bool // the second part is served while the first one is
		parts             int
	}{
		"one after the other":                     {parts: 2},
		"at the same time":                        {inside: true, parts: 2},
		"more has come before":                    {before: true, parts: 4},
		"more has come meanwhile":                 {meanwhile: true, parts: 4},
		"at the same time, more has come by then": {inside: true, meanwhile: true, parts: 4},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, quietStorm)
			list := h.audience(passPart + 1)
			ch := h.channels.get("live:a")
			setNews := func(again bool) {
				ch.mu.Lock()
				defer ch.mu.Unlock()
				ch.again, ch.queued = again, true // h is not to serve them
			}
			setNews(false)
			h.publish("live:a", "1")
			setNews(tt.before)

			by, parts := &Hub{news: newQueue[pass]()}, 0
			waiting := func() int { in, out := by.news.progress(); return int(in - out) }
			serve := func(p pass) {
				parts++
				by.serveNext(p, make([]*subscription, 0, passPart))
			}
			begun := pass{ch: ch, walk: &walk{left: slices.Clone(ch.subs)}}
			first := begun.walk.left[0].client
			first.sock = &watched{first.sock.(*recorder), func() {
				n := waiting()
				if n == 1 == tt.before {
					t.Errorf("while the first part is served %d passes wait", n)
				}
				if tt.meanwhile {
					setNews(true)
				}
				if tt.inside && n > 0 {
					next, _ := by.news.pop()
					serve(next)
					if waiting() != 0 || !ch.isQueued() {
						t.Error("the pass has ended before its first part")
					}
				}
			}}
			for serve(begun); waiting() > 0 && parts < 10; {
				if n := waiting(); n != 1 {
					t.Fatalf("%d passes wait", n)
				}
				next, _ := by.news.pop()
				serve(next)
			}
			if parts != tt.parts || ch.isQueued() {
				t.Errorf("%d parts, want %d; a pass is under way: %v", parts, tt.parts, ch.isQueued())
			}
			for i, a := range list {
				if got := a.got(); !slices.Equal(got, []string{"1"}) {
					t.Errorf("client %d got %v", i, got)
				}
				a.goAway()
			}
			h.settle()
		})
	}
}
