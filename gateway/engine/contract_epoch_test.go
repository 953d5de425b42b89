package engine

import (
	"fmt"
	"testing"
	"time"
)

func contractEpochOfEmptyChannel(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		_, first := n.history("room", HistoryQuery{Limit: -1})
		if len(first.Epoch) != 8 || first.Offset != 0 {
			t.Fatalf("position %+v", first)
		}
		if _, again := n.history("room", HistoryQuery{}); again != first {
			t.Fatalf("position changed from %+v to %+v", first, again)
		}
		if res := n.publish("room", "a", kept(1)); res.Position != (Position{1, first.Epoch}) {
			t.Fatalf("published at %+v", res.Position)
		}
		if _, other := n.history("other", HistoryQuery{}); other.Epoch == first.Epoch {
			t.Fatal("two channels share an epoch")
		}
	})
}

// An epoch that was read from an empty channel lives while it is heard.
func contractEpochWhileHeard(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		for _, q := range []HistoryQuery{{}, {Keep: 2 * time.Second, MetaTTL: 2 * time.Second}} {
			room := fmt.Sprint("room ", q.Keep)
			n.subscribe(room)
			_, first := n.history(room, q)
			n.elapse(t, room, q)
			if res := n.publish(room, "x", kept(5)); res.Position != (Position{1, first.Epoch}) {
				t.Fatalf("%+v: the epoch went from %q to %+v", q, first.Epoch, res.Position)
			}
		}
	})
}

// An epoch that somebody may come back with is kept for as long as the
// position of any stream, whether or not the channel is heard; one that was
// merely read is not.
func contractEpochKept(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		const metaTTL = time.Hour
		read := func(channel string, keep time.Duration) string {
			_, pos := n.history(channel, HistoryQuery{Keep: keep, MetaTTL: metaTTL})
			return pos.Epoch
		}
		n.subscribe("left")
		left := read("left", metaTTL)
		n.subscribe("peeked at")
		peeked := read("peeked at", 0)
		for _, channel := range []string{"left", "peeked at"} {
			if err := n.Unsubscribe(t.Context(), channel); err != nil {
				t.Fatal(err)
			}
		}
		missed := read("missed", metaTTL) // whose node died before it heard it
		tried := read("tried", 0)
		if again := read("missed", 0); again != missed { // which shortens nothing
			t.Fatalf("the epoch went from %q to %q", missed, again)
		}
		for channel, was := range map[string]string{"tried": tried, "peeked at": peeked} {
			n.lapse(t, channel)
			if res := n.publish(channel, "x", kept(5)); res.Position.Epoch == was {
				t.Errorf("%q keeps the epoch %q", channel, was)
			}
		}
		for channel, was := range map[string]string{"left": left, "missed": missed} {
			if res := n.publish(channel, "x", kept(5)); res.Position != (Position{1, was}) {
				t.Errorf("%q: the epoch went from %q to %+v", channel, was, res.Position)
			}
		}
	})
}

// What is kept is not kept for ever.
func contractEpochEnds(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		q := HistoryQuery{Keep: 2 * time.Second, MetaTTL: 2 * time.Second}
		n.subscribe("left")
		_, left := n.history("left", q)
		if err := n.Unsubscribe(t.Context(), "left"); err != nil {
			t.Fatal(err)
		}
		n.lapse(t, "left")
		if res := n.publish("left", "x", kept(5)); res.Position.Epoch == left.Epoch {
			t.Fatalf("the epoch %q lives on", left.Epoch)
		}
	})
}
