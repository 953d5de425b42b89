//go:build linux

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/bench/harness"
)

// TestRuns runs all scenarios with a few of everything and measures nothing
// worth reading: that all servers deliver everything is all it wants to know.
// minigate is there twice, as for a comparison of two builds.
// nchan is left out: only make bench has it installed. Centrifugo, which takes
// minutes to build, is among them in the long form.
func TestRuns(t *testing.T) {
	var out strings.Builder
	peers := []string{"centrifuge", "tuned", "gws", "raw"}
	if os.Getenv("LONG_TESTS") != "" {
		peers = append([]string{"centrifugo"}, peers...)
	}
	other, err := harness.New()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	programs, err := other.Build(t.Context(), "./cmd/minigate")
	if err != nil {
		t.Fatal(err)
	}
	o := options{rounds: 1, quick: true, markdown: true, peers: strings.Join(peers, ","), other: programs[0]}
	if err := run(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	table := out.String()
	if want := "| scenario | measured | minigate | other | " + strings.Join(peers, " | ") + " |\n"; !strings.HasPrefix(table, want) {
		t.Errorf("no %q in\n%s", want, table)
	}
	table, machine, _ := strings.Cut(table, "\n\n")
	for _, want := range []string{"centrifuge v0.", "gws v1.", "Rounds: 1; figures are medians, ratios too."} {
		if !strings.Contains(machine, want) {
			t.Errorf("no %q in %s", want, machine)
		}
	}
	lines := strings.Split(strings.TrimSpace(table), "\n")[2:]
	want := 0
	for _, s := range scenarios(true, 1000) {
		want += len(s.metrics)
	}
	if len(lines) != want {
		t.Errorf("%d rows, want %d", len(lines), want)
	}
	for _, line := range lines {
		if cells := strings.Count(line, "|"); cells != len(peers)+5 {
			t.Errorf("%d columns in %s", cells, line)
		}
	}
}

// fakeLoad says what it was called with in a file, and fails for servers that are
// called so: lame, which cannot even warm up, and dying, which then measures nothing.
const fakeLoad = `#!/bin/sh
while [ $# -gt 0 ]; do
	case $1 in
	-url) url=$2 ;;
	-for) length=$2 ;;
	esac
	shift
done
echo "$url $length" >>"$(dirname "$0")/calls"
case "$url $length" in
"lame "* | "dying 1s") exit 1 ;;
esac
echo '{"mode":"unicast","cpu_us_each":1}'
`

// All servers warm up, then they take turns, in one order and the other, without
// those that failed.
func TestTurns(t *testing.T) {
	run, err := harness.New()
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	load := filepath.Join(run.Dir, "load")
	if err := os.WriteFile(load, []byte(fakeLoad), 0o700); err != nil {
		t.Fatal(err)
	}
	b := &bench{run: run, programs: map[string]string{"load": load}, results: make(map[string][]trial)}
	var started []*harness.Process
	for _, name := range []string{"one", "lame", "dying", "two"} {
		b.servers = append(b.servers, server{name: name, start: func(b *bench, _ context.Context, _ scenario) (*running, error) {
			p, err := b.run.Start(exec.Command("sleep", "60"))
			started = append(started, p)
			return &running{Process: p, socket: name}, err
		}})
	}
	const round = 1
	failed := b.inTurns(t.Context(), round, scenario{name: "x", mode: "unicast", turns: 3, warmUp: 2 * time.Second, length: time.Second})
	if len(failed) != 2 || !strings.HasPrefix(failed[0].Error(), "lame: x: ") || !strings.HasPrefix(failed[1].Error(), "dying: x: ") {
		t.Errorf("failed: %v", failed)
	}
	calls, err := os.ReadFile(filepath.Join(run.Dir, "calls"))
	want := "one 2s,lame 2s,dying 2s,two 2s,one 1s,dying 1s,two 1s,two 1s,one 1s,one 1s,two 1s,"
	if got := strings.ReplaceAll(string(calls), "\n", ","); err != nil || got != want {
		t.Errorf("load was called for %s (%v), want %s", got, err, want)
	}
	for _, name := range []string{"one", "two"} {
		var numbers []int
		for _, trial := range b.results["x "+name] {
			numbers = append(numbers, trial.number)
		}
		if !slices.Equal(numbers, []int{3, 4, 5}) {
			t.Errorf("trials of %s have the numbers %v", name, numbers)
		}
	}
	for _, p := range started {
		if p.Cmd.ProcessState == nil {
			t.Error("a server was left running")
		}
	}
}

// A table holds medians, and how many times better minigate is in the median of
// the rounds.
func TestTable(t *testing.T) {
	cost := metric{what: "CPU", value: func(t trial) float64 { return t.CPU }, show: micros}
	speed := metric{what: "deliveries/s", value: func(t trial) float64 { return t.PerSecond }, show: number, more: true}
	s := scenario{name: "x", mode: "fanout", n: 12345, count: 3, size: 1024, metrics: []metric{cost, speed}}
	of := func(round int, r harness.Result) trial { return trial{r, round} }
	deflated := scenario{name: "z", mode: "fanout", n: 1, count: 1, size: 1024, deflate: true, metrics: []metric{cost}}
	b := &bench{
		options: options{markdown: true}, scenarios: []scenario{s, deflated}, servers: []server{{name: "minigate"}, {name: "centrifuge"}},
		results: map[string][]trial{
			"x minigate":   {of(0, harness.Result{CPU: 5, PerSecond: 2e6}), of(1, harness.Result{CPU: 1, PerSecond: 1e6}), of(2, harness.Result{CPU: 2, PerSecond: 90e6})},
			"x centrifuge": {of(0, harness.Result{CPU: 10, PerSecond: 100e3}), of(2, harness.Result{CPU: 6, PerSecond: 100e3, Wanted: 2, Deliveries: 1})}, // the second failed
			"z minigate":   {of(0, harness.Result{CPU: 1, Deflated: true, Bytes: 2000})},
			"z centrifuge": {of(0, harness.Result{CPU: 1, Bytes: 500})},
		},
	}
	var out strings.Builder
	if err := b.print(&out); err != nil {
		t.Fatal(err)
	}
	want := `| scenario | measured | minigate | centrifuge |
|---|---|---:|---:|
| 3 × 1,024 B to 12,345 | CPU | 2 µs | 8 µs (2.5×) † |
|  | deliveries/s | 2.00M | 100k (460×) † |
| 1 × 1,024 B to 1, deflated | CPU | – | – |

† Connections were lost, or not every message arrived.
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// What was not delivered, or not measured at all, is an error of quick runs.
func TestLossesAreTold(t *testing.T) {
	told := func(of trial, deflate bool) error {
		s := scenario{name: "x", size: 1024, deflate: deflate}
		fine := trial{Result: harness.Result{Mode: "fanout", Wanted: 1, Deliveries: 1, Deflated: true}}
		b := &bench{scenarios: []scenario{s}, servers: servers[:1], results: map[string][]trial{"x minigate": {fine, of}}}
		return b.complete()
	}
	for name, bad := range map[string]trial{
		"lost":    {Result: harness.Result{Mode: "fanout", Wanted: 10, Deliveries: 9}},
		"twice":   {Result: harness.Result{Mode: "fanout", Wanted: 10, Deliveries: 11}},
		"nothing": {Result: harness.Result{Mode: "command"}},
		"failed":  {Result: harness.Result{Mode: "handshake", Failed: 1}},
		"no ping": {Result: harness.Result{Mode: "idle"}},
	} {
		if told(bad, false) == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, fine := range []trial{{Result: harness.Result{Mode: "idle", Pings: 1}}, {Result: harness.Result{Mode: "handshake"}}, {Result: harness.Result{Mode: "command", Deliveries: 5}}} {
		if err := told(fine, false); err != nil {
			t.Error(err)
		}
	}
	if told(trial{Result: harness.Result{Wanted: 1, Deliveries: 1, Bytes: 500}}, true) == nil || told(trial{Result: harness.Result{Wanted: 1, Deliveries: 1, Deflated: true, Bytes: 1100}}, true) == nil {
		t.Error("what was not compressed is no error")
	}
	if err := told(trial{Result: harness.Result{Wanted: 1, Deliveries: 1, Deflated: true, Bytes: 500}}, true); err != nil {
		t.Error(err)
	}
}

func TestPeersAreKnown(t *testing.T) {
	if _, err := choose("centrifuge,nobody", ""); err == nil {
		t.Error("a peer that does not exist is taken")
	}
	got, err := choose("", "")
	if err != nil || len(got) != 1 || got[0].name != "minigate" {
		t.Errorf("got %v, %v", got, err)
	}
	if err := run(t.Context(), options{only: "nothing like it"}, nil); err == nil {
		t.Error("a run without scenarios is taken")
	}
}
