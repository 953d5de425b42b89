package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// heapFloor is the size up to which the heap may grow before it is collected.
// Go starts at 4 MiB, which a node under load fills dozens of times a second.
const heapFloor = 32 << 20 // bytes

// collectRarely keeps the garbage collector at rest while the heap is below
// heapFloor; above it works as always. Whoever sets GOGC decides himself, and
// GOMEMLIMIT holds all the same: Go collects before that whatever the percentage.
func collectRarely() {
	if os.Getenv("GOGC") != "" {
		return
	}
	set := gcPercent(0, 0)
	debug.SetGCPercent(set)
	afterEachCollection(func() {
		found := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
		metrics.Read(found)
		percent := gcPercent(found[0].Value.Uint64(), found[1].Value.Uint64()+found[2].Value.Uint64())
		if percent != set { // setting it stops the program for a moment
			set = percent
			debug.SetGCPercent(percent)
		}
	})
}

// gcPercent is how much a heap with so many bytes alive may grow until the
// next collection, in percent of itself and of what else is scanned. Before
// the first collection Go takes it for 4 MiB.
func gcPercent(live, scanned uint64) int {
	live = max(live, 4<<20)
	if live >= heapFloor {
		return 100
	}
	return max(100, int((heapFloor-live)*100/(live+scanned)))
}

// afterEachCollection calls f whenever garbage was collected, from a goroutine
// of the runtime.
func afterEachCollection(f func()) {
	type dropped struct{ _ *int } // has a pointer: tiny ones may share a block
	var drop func()
	drop = func() {
		runtime.SetFinalizer(new(dropped), func(*dropped) {
			f()
			drop()
		})
	}
	drop()
}
