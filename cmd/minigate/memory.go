package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// heapFloor is the size up to which the heap may grow before it is collected.
// Go starts at 4 MiB, which a node under load fills dozens of times a second.
const heapFloor = 32 << 20 // bytes

// leanPercent is how much a larger heap may grow until it is collected. Most of
// it are connections that stay, among which each collection finds the garbage of
// handshakes: the sooner it comes, the less room lies idle between them.
const leanPercent = 50

// busyPercent takes its place while garbage comes fast, as in Go itself: then
// collecting twice as often takes time that is needed, and the room is used. A
// large heap has room enough, and may be all that its container holds.
const (
	busyPercent = 100
	busyRate    = 8 << 20   // bytes a second that are fast
	busyLeast   = 8 << 20   // bytes that tell
	busyHeap    = 256 << 20 // bytes alive that are too many for it
)

// pace tells the garbage collector when to work.
type pace struct {
	mu        sync.Mutex // guards what follows
	set       int        // percent; 0: whoever set GOGC decides
	collected time.Time  // when garbage was collected last
	allocated uint64     // bytes, by then
}

// collecting is the pace of this process.
var collecting pace

// collectRarely keeps the garbage collector at rest while the heap is below
// heapFloor; above it works with leanPercent or busyPercent. Whoever sets GOGC
// decides himself, and GOMEMLIMIT holds all the same: Go collects before that
// whatever the percentage.
func collectRarely() {
	if os.Getenv("GOGC") != "" {
		return
	}
	collecting.follow(time.Now())
	afterEachCollection(func() { collecting.follow(time.Now()) })
}

// follow is called after each collection.
func (p *pace) follow(now time.Time) {
	found := heapSamples("/gc/heap/live:bytes", "/gc/scan/stack:bytes", "/gc/scan/globals:bytes", "/gc/heap/allocs:bytes")
	p.mu.Lock()
	defer p.mu.Unlock()
	came := found[3] - p.allocated
	least := leanPercent
	if found[0] < busyHeap && came >= busyLeast && float64(came) >= busyRate*now.Sub(p.collected).Seconds() {
		least = busyPercent
	}
	p.collected, p.allocated = now, found[3]
	p.use(gcPercent(found[0], found[1]+found[2], least))
}

// use sets what is not set; mu is held.
func (p *pace) use(percent int) {
	if percent != p.set { // setting it stops the program for a moment
		p.set = percent
		debug.SetGCPercent(percent)
	}
}

// rest ends what was fast. A follow that was due and comes late finds nothing.
func (p *pace) rest(now time.Time) {
	p.mu.Lock()
	on := p.set > 0
	p.collected, p.allocated = now, heapSamples("/gc/heap/allocs:bytes")[0]
	p.mu.Unlock()
	if on {
		p.follow(now)
	}
}

// heapSamples reads counters of runtime/metrics.
func heapSamples(names ...string) []uint64 {
	samples := make([]metrics.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	metrics.Read(samples)
	values := make([]uint64, len(names))
	for i := range samples {
		values[i] = samples[i].Value.Uint64()
	}
	return values
}

// gcPercent is how much a heap with so many bytes alive may grow until the
// next collection, in percent of itself and of what else is scanned, at least
// least. Before the first collection Go takes it for 4 MiB.
func gcPercent(live, scanned uint64, least int) int {
	live = max(live, 4<<20)
	if live >= heapFloor {
		return least
	}
	return max(least, int((heapFloor-live)*100/(live+scanned)))
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
	collecting.rest(time.Now())
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
