//go:build linux

package main

import (
	"strings"
	"testing"
	"time"
)

// TestRuns has a few connections lose their node, and wants every one of them
// to have every message, whichever way they come back.
func TestRuns(t *testing.T) {
	o := options{n: 60, bystanders: 5, missed: 10, every: 5 * time.Millisecond, quiet: 50 * time.Millisecond, backoff: "sdk,none", patience: time.Minute, markdown: true}
	outcomes, err := run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(outcomes) != 2 {
		t.Fatalf("%d outcomes", len(outcomes))
	}
	for _, one := range outcomes {
		f := one.storm.Failover
		if one.lost() > 0 || one.refused > 0 || f.LastBack <= 0 || f.Attempts < int64(o.n) || f.Attempts != f.Refused+int64(o.n) {
			t.Errorf("%s: %+v", one.backoff, f)
		}
		// What was published while a connection was away came with its return, the rest by itself.
		if all := int64(o.n * (o.missed + 1)); one.storm.Deliveries+f.Recovered != all {
			t.Errorf("%s: %d publications came and %d were recovered, want %d in all", one.backoff, one.storm.Deliveries, f.Recovered, all)
		}
		if one.storm.Failed+one.before.Failed+one.while.Failed > 0 {
			t.Errorf("%s: connections failed: %+v", one.backoff, one)
		}
		if one.before.Deliveries != int64(o.bystanders)*int64(o.quiet/o.every) || one.while.Deliveries < int64(o.bystanders) {
			t.Errorf("%s: bystanders got %d messages before and %d meanwhile", one.backoff, one.before.Deliveries, one.while.Deliveries)
		}
	}
	var table strings.Builder
	if err := print(&table, o, outcomes); err != nil {
		t.Fatal(err)
	}
	if want := "| clients come back | as the SDKs do | all at once |\n|---|---:|---:|\n"; !strings.HasPrefix(table.String(), want) {
		t.Errorf("got\n%s", table.String())
	}
}

func TestBadArguments(t *testing.T) {
	for what, o := range map[string]options{
		"more connections than a process may hold": {n: 1 << 30, every: 1, quiet: 1},
		"no time between messages":                 {n: 1},
		"no time for a message":                    {n: 1, every: 2, quiet: 1},
	} {
		if _, err := run(t.Context(), o); err == nil {
			t.Errorf("taken: %s", what)
		}
	}
}
