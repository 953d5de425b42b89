package main

import (
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// heapFloor is the size up to which the heap may grow before it is collected.
// Go starts at 4 MiB, which a node under load fills dozens of times a second.
const heapFloor = 32 << 20 // bytes

// leanPercent is how much a larger heap may grow until it is collected. Most of
// it are connections that stay, among which each collection finds the garbage of
// handshakes: the sooner it comes, the less room lies idle between them.
const leanPercent = 50

// busyPercent is how much it may grow while much memory is taken, and most of it
// by messages and requests: finding their garbage is half the work then. It is
// what Go takes by itself.
const busyPercent = 100

const (
	busyRate      = 8 << 20     // bytes a second that are much
	busyHandshake = 80 << 10    // bytes for each connection that came: a handshake takes 20 KiB, and with TLS some more
	busyLook      = time.Second // less says too little: memory is given back by two collections in a row
)

// upgraded counts the connections of all servers of the process that became
// sockets: the garbage collector is the process's as well.
var upgraded atomic.Uint64

// countUpgrades is for http.Server.ConnState.
func countUpgrades(_ net.Conn, state http.ConnState) {
	if state == http.StateHijacked {
		upgraded.Add(1)
	}
}

// collectRarely keeps the garbage collector at rest while the heap is below
// heapFloor; above it works with leanPercent or busyPercent. Whoever sets GOGC
// decides himself, and GOMEMLIMIT holds all the same: Go collects before that
// whatever the percentage.
func collectRarely() {
	if os.Getenv("GOGC") != "" {
		return
	}
	set := gcPercent(0, 0, leanPercent)
	debug.SetGCPercent(set)
	pace, began := pace{least: leanPercent}, time.Now()
	afterEachCollection(func() {
		found := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
		metrics.Read(found)
		now := cycle{at: time.Since(began), allocated: found[3].Value.Uint64(), upgraded: upgraded.Load()}
		percent := gcPercent(found[0].Value.Uint64(), found[1].Value.Uint64()+found[2].Value.Uint64(), pace.look(now))
		if percent != set { // setting it stops the program for a moment
			set = percent
			debug.SetGCPercent(percent)
		}
	})
}

// cycle is what there had been in all when garbage was collected.
type cycle struct {
	at                  time.Duration
	allocated, upgraded uint64
}

// pace is how much a heap beyond the floor may grow, and when that was decided.
type pace struct {
	least int // percent
	last  cycle
}

// look decides anew, where there has been enough to decide by.
func (p *pace) look(now cycle) int {
	if now.at-p.last.at >= busyLook {
		p.least, p.last = now.percent(p.last), now
	}
	return p.least
}

// percent is how much a heap beyond the floor may grow, by what has come since
// last.
func (c cycle) percent(last cycle) int {
	allocated, came := c.allocated-last.allocated, c.upgraded-last.upgraded
	if float64(allocated) >= busyRate*(c.at-last.at).Seconds() && allocated > came*busyHandshake {
		return busyPercent
	}
	return leanPercent
}

// gcPercent is how much a heap with so many bytes alive may grow until the
// next collection, in percent of itself and of what else is scanned: by least, or
// up to the floor. Before the first collection Go takes it for 4 MiB.
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
