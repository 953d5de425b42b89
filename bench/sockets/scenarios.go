//go:build linux

package main

import (
	"fmt"
	"strconv"
	"time"
)

// scenario is one way to load a server.
type scenario struct {
	name, mode string
	n          int           // connections
	count      int           // publications
	size       int           // of their data, in bytes
	rate       float64       // publications per second
	length     time.Duration // of what lasts
	turns      int           // how often servers that stay up do it in a round; 0: each does it once, just started
	warmUp     time.Duration // what comes before the first turn, and is not measured
	stalled    int
	deflate    bool
	ping       time.Duration
	pause      time.Duration
	without    map[string]bool // servers that cannot
	metrics    []metric
}

// metric is one row of the table.
type metric struct {
	what  string
	value func(trial) float64
	show  func(float64) string
	more  bool // is better
}

// args are what the load generator has to know of a scenario.
func (s scenario) args() []string {
	args := []string{
		"-mode", s.mode, "-n", strconv.Itoa(s.n), "-count", strconv.Itoa(s.count), "-size", strconv.Itoa(s.size),
		"-rate", strconv.FormatFloat(s.rate, 'f', -1, 64), "-for", s.length.String(), "-hold", s.length.String(),
		"-stalled", strconv.Itoa(s.stalled), "-pause", s.pause.String(),
	}
	if s.deflate {
		args = append(args, "-deflate")
	}
	return args
}

// scenarios are all there are. limit bounds how many connections a process can
// hold. The quick ones have a few of everything.
func scenarios(quick bool, limit int) []scenario {
	cpu := func(what string) metric {
		return metric{what: what, value: func(t trial) float64 { return t.CPU }, show: micros}
	}
	perSecond := func(what string) metric {
		return metric{what: what, value: func(t trial) float64 { return t.PerSecond }, show: number, more: true}
	}
	p99 := metric{what: "p99", value: func(t trial) float64 { return t.P99 }, show: millis}
	p50 := metric{what: "p50", value: func(t trial) float64 { return t.P50 }, show: millis}
	list := []scenario{
		{name: "idle", mode: "idle", n: 19000, length: 50 * time.Second, metrics: []metric{
			{what: "memory of a socket, 2 s after the last came", value: func(t trial) float64 { return float64(t.Memory) }, show: bytes},
			{what: "memory of a socket after 50 s", value: func(t trial) float64 { return float64(t.MemoryLater) }, show: bytes},
			{what: "CPU of a ping and its pong", value: func(t trial) float64 { return t.PingCPU }, show: micros},
		}},
		{name: "handshake", mode: "handshake", n: 5000, metrics: []metric{
			{what: "CPU of a handshake, new server", value: func(t trial) float64 { return t.ConnectCPU }, show: micros},
			{what: "CPU of a handshake, known tokens", value: func(t trial) float64 { return t.AgainCPU }, show: micros},
		}},
		{name: "fanout", mode: "fanout", n: 10000, count: 40, size: 128, metrics: []metric{cpu("CPU of a delivery"), perSecond("deliveries/s"), p99}},
		{name: "100k/s", mode: "rate", n: 10000, rate: 10, length: 5 * time.Second, size: 128, metrics: []metric{p50, p99, cpu("CPU of a delivery")}},
		{name: "2M/s", mode: "rate", n: 10000, rate: 200, length: 3 * time.Second, size: 128, metrics: []metric{perSecond("deliveries/s"), cpu("CPU of a delivery"), p99}},
		{name: "deflate", mode: "fanout", n: 10000, count: 40, size: 1024, deflate: true, metrics: []metric{
			cpu("CPU of a delivery"), perSecond("deliveries/s"),
			{what: "size of a delivery", value: func(t trial) float64 { return t.Bytes }, show: bytes},
		}},
		{name: "16KB", mode: "fanout", n: 5000, count: 40, size: 16 << 10, metrics: []metric{cpu("CPU of a delivery"), perSecond("deliveries/s"), p99}},
		{name: "command", mode: "command", n: 5000, length: 5 * time.Second, size: 128, without: map[string]bool{"nchan": true}, metrics: []metric{
			cpu("CPU of a command and its reply"), perSecond("commands/s"),
		}},
		{name: "unicast", mode: "unicast", n: 1000, length: 3 * time.Second, turns: 8, warmUp: 10 * time.Second, size: 128, metrics: []metric{cpu("CPU of a publish by HTTP"), perSecond("publishes/s"), p99}},
		{name: "stall", mode: "stall", n: 5000, count: 300, size: 1024, stalled: 1000, without: map[string]bool{"raw": true}, metrics: []metric{
			{what: "kernel memory for 1,000 who stopped reading", value: func(t trial) float64 { return float64(t.Kernel) }, show: bytes},
			{what: "the server's own memory for them", value: func(t trial) float64 { return float64(max(t.MemoryGrown, 0)) }, show: bytes},
		}},
	}
	for i := range list {
		s := &list[i]
		s.ping, s.pause = 25*time.Second, 2*time.Second
		s.n = min(s.n, limit-900)
		if quick {
			s.n, s.count, s.rate, s.pause = 40, 3, min(s.rate, 20), 10*time.Millisecond
			s.stalled = min(s.stalled, 10)
			s.length, s.warmUp = min(s.length, 300*time.Millisecond), min(s.warmUp, 100*time.Millisecond)
			s.turns = min(s.turns, 2)
			if s.mode == "idle" {
				s.ping, s.length = time.Second, 1500*time.Millisecond
			}
		}
	}
	return list
}

func micros(v float64) string { return fmt.Sprintf("%.3g µs", v) }

func millis(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.1f s", v/1000)
	}
	return fmt.Sprintf("%.3g ms", v)
}

func number(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.0fk", v/1e3)
	}
	return fmt.Sprintf("%.0f", v)
}

func bytes(v float64) string {
	switch {
	case v >= 10e6:
		return fmt.Sprintf("%.0f MB", v/1e6)
	case v >= 1e6:
		return fmt.Sprintf("%.1f MB", v/1e6)
	}
	return fmt.Sprintf("%.0f B", v)
}
