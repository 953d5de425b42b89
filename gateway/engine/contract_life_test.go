package engine

import (
	"context"
	"errors"
	"testing"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/internal/fault"
)

// calls is every method, by name.
func calls(ctx context.Context, e Engine) map[string]error {
	_, errPublish := e.Publish(ctx, "c", &protocol.Publication{}, kept(1))
	_, _, errHistory := e.History(ctx, "c", HistoryQuery{})
	_, errRemove := e.RemoveHistory(ctx, "c")
	_, errPresence := e.Presence(ctx, "c")
	_, _, errStats := e.PresenceStats(ctx, "c")
	_, errSurvey := e.Survey(ctx, "op", nil)
	_, errUser := e.SurveyUser(ctx, "u", "op", nil)
	_, errNodes := e.Nodes(ctx)
	return map[string]error{
		"Ping":          e.Ping(ctx),
		"Publish":       errPublish,
		"PublishJoin":   e.PublishJoin(ctx, "c", &protocol.ClientInfo{}),
		"PublishLeave":  e.PublishLeave(ctx, "c", &protocol.ClientInfo{}),
		"Subscribe":     e.Subscribe(ctx, "c"),
		"History":       errHistory,
		"RemoveHistory": errRemove,
		"AddPresence":   e.AddPresence(ctx, "c", "x", &protocol.ClientInfo{}),
		"Presence":      errPresence,
		"PresenceStats": errStats,
		"Survey":        errSurvey,
		"SurveyUser":    errUser,
		"Nodes":         errNodes,
	}
}

func contractEndedContext(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		n.subscribe("room")
		n.enter("room", "a")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for name, err := range calls(ctx, n.Engine) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// These clean up after somebody who has gone.
		_ = n.Unsubscribe(ctx, "room") // may say that ctx has ended
		_ = n.RemovePresence(ctx, "room", "a")
		n.publish("room", "unheard", PublishOptions{})
		n.quiet("room")
		if p := n.present("room"); len(p) != 0 {
			t.Errorf("presence %v", p)
		}
	})
}

func contractAfterRun(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		n.subscribe("c")
		n.halt()
		for name, err := range calls(t.Context(), n.Engine) {
			if f := fault.Of(err); f.Kind != fault.Unavailable || f.Code != "engine_stopped" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := n.Run(t.Context(), n); err == nil {
			t.Error("a second Run is accepted")
		}
	})
}

// Methods called before Run wait for it.
func TestBeforeRun(t *testing.T) {
	e := NewMemory()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- e.Subscribe(ctx, "room") }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	go func() { done <- e.Subscribe(t.Context(), "room") }()
	n := start(t, e, "one")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	n.publish("room", "a", PublishOptions{})
	n.want(event{"pub", "room", "a", 0, ""})
}
