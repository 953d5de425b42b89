package gateway

import (
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// The share is what was spent between two looks over the time between them.
func TestLoad(t *testing.T) {
	var l load
	l.measure(0)
	if cpu, rss := l.now(); cpu != 0 || rss < 1<<20 {
		t.Fatalf("at first %v cores, %d bytes", cpu, rss)
	}
	first := l.spent
	for spent := first; spent < first+0.2; { // keeps a core busy for a while
		for i := range 1 << 20 {
			runtime.KeepAlive(math.Sqrt(float64(i)))
		}
		var err error
		if spent, _, err = process(); err != nil {
			t.Fatal(err)
		}
	}
	l.measure(loadInterval - 1)
	if cpu, _ := l.now(); cpu != 0 {
		t.Errorf("%v cores before the interval is over", cpu)
	}
	l.measure(2 * loadInterval)
	if cpu, _ := l.now(); cpu < 0.019 || cpu > float64(runtime.NumCPU()) || cpu != (l.spent-first)/10 {
		t.Errorf("%v cores for %v seconds in ten", cpu, l.spent-first)
	}
}

// The registry of nodes has it.
func TestLoadOfNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil)
		time.Sleep(time.Second)
		nodes, err := h.Info(t.Context())
		if err != nil || len(nodes) != 1 || nodes[0].RSS < 1<<20 {
			t.Errorf("%+v, %v", nodes, err)
		}
	})
}
