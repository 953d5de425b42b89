package gateway

import (
	"maps"
	"math/rand/v2"
	"strconv"
	"testing"
)

// The list, of few and of many, does what a map does.
func TestSubscriptions(t *testing.T) {
	for _, names := range []int{3, 2 * fewSubscriptions, 10 * fewSubscriptions} {
		var l subscriptions
		want := map[string]*subscription{}
		for range 50 * names {
			name := strconv.Itoa(rand.IntN(names))
			s := want[name]
			if s == nil {
				s = &subscription{name: name}
				want[name] = s
				l.add(s)
			} else {
				l.remove(&subscription{name: name}) // another one: not there
				l.remove(s)
				delete(want, name)
			}
			got := map[string]*subscription{}
			for s := range l.all() {
				got[s.name] = s
			}
			if !maps.Equal(got, want) || l.len() != len(want) || l.get(name) != want[name] {
				t.Fatalf("%d of %d names: %v, want %v", l.len(), names, got, want)
			}
		}
	}
}
