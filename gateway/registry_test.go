package gateway

import (
	"math/rand/v2"
	"testing"
)

// A set behaves like a map, however many clients come and go.
func TestClientSet(t *testing.T) {
	var clients [24]client
	var set clientSet
	want := map[*client]bool{}
	for range 10_000 {
		c := &clients[rand.N(len(clients))]
		if rand.N(2) == 0 {
			set = set.with(c)
			want[c] = true
		} else {
			set = set.without(c)
			delete(want, c)
		}
		list := set.list()
		if len(list) != len(want) || set.len() != len(want) {
			t.Fatalf("%d clients, a length of %d, want %d", len(list), set.len(), len(want))
		}
		for _, c := range list {
			if !want[c] {
				t.Fatal("somebody is in the set who left, or twice")
			}
			delete(want, c)
		}
		for _, c := range list {
			want[c] = true
		}
	}
}
