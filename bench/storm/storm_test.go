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
		if one.storm.Failed+one.before.Failed+one.while.Failed > 0 {
			t.Errorf("%s: connections failed: %+v", one.backoff, one)
		}
		if one.before.Deliveries != int64(o.bystanders)*int64(o.quiet/o.every) || one.while.Deliveries < int64(o.bystanders) {
			t.Errorf("%s: bystanders got %d messages before and %d meanwhile", one.backoff, one.before.Deliveries, one.while.Deliveries)
		}
	}
	// Those with delays were away while everything was published.
	if f := outcomes[0].storm.Failover; f.Recovered != int64(o.n*o.missed) {
		t.Errorf("%d publications were recovered, want %d", f.Recovered, o.n*o.missed)
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
	if _, err := run(t.Context(), options{n: 1 << 30}); err == nil {
		t.Error("more connections than a process may hold are taken")
	}
}
