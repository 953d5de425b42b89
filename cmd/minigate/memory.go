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

// leanPercent is how much a larger heap may grow until it is collected. Most of
// it are connections that stay, among which each collection finds the garbage of
// handshakes: the sooner it comes, the less room lies idle between them. Go's 100
// while garbage comes fast saves 5 % of a publish by HTTP, and costs each socket
// 100 bytes for good, and so does a greater floor while their number stays.
const leanPercent = 50

// collectRarely keeps the garbage collector at rest while the heap is below
// heapFloor; above it works with leanPercent. Whoever sets GOGC decides himself,
// and GOMEMLIMIT holds all the same: Go collects before that whatever the
// percentage.
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
		return leanPercent
	}
	return max(leanPercent, int((heapFloor-live)*100/(live+scanned)))
}

// giveBack returns to the system what a burst of connections took. Each handshake
// leaves some 20 KB of requests, buffers and stacks behind, which is more than an
// idle connection holds for all its life, and which Go by itself gives back over
// minutes. Two collections, since pools keep over one what they have. That is
// tens of milliseconds of a processor for each 100,000 connections; others go on
// meanwhile, but for those who need memory while pages are being returned.
func giveBack() {
	runtime.GC()
	debug.FreeOSMemory()
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
