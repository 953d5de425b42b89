package gateway

import (
	"errors"
	"testing"
)

func TestSubscribed(t *testing.T) {
	a, b, p := twoNodes(t)
	here, there := a.enter("ann", "feed:a"), b.enter("bob", "feed:a")
	subscribed := func(user, channel string, want bool) {
		t.Helper()
		if got, err := a.Subscribed(t.Context(), "", user, channel); err != nil || got != want {
			t.Errorf("%s in %q: %v, %v", user, channel, got, err)
		}
	}
	subscribed("ann", "feed:a", true)
	subscribed("bob", "feed:a", true)
	subscribed("ann", "other", false)
	subscribed("eve", "feed:a", false)
	subscribed("", "feed:a", false)
	subscribed("ann", "", false)
	if got, err := a.Subscribed(t.Context(), "another-app", "ann", "feed:a"); err != nil || got {
		t.Errorf("of another mini-program: %v, %v", got, err)
	}
	p.silent.Store(true)
	subscribed("ann", "feed:a", true) // nobody else has to be asked

	for _, w := range []*wire{here, there} {
		w.send(`{"id":9,"unsubscribe":{"channel":"feed:a"}}`)
		w.next()
	}
	p.silent.Store(false)
	subscribed("ann", "feed:a", false)
	subscribed("bob", "feed:a", false)
}

// Not to know is not the same as no.
func TestSubscribedUnknown(t *testing.T) {
	a, _, p := twoNodes(t)
	p.failing = ErrSilent
	if got, err := a.Subscribed(t.Context(), "", "bob", "feed:a"); got || !errors.Is(err, ErrSilent) {
		t.Errorf("%v, %v", got, err)
	}
}
