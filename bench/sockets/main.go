//go:build linux

// Command sockets compares minigate's sockets with other servers in one run:
// what a connection, a handshake, a ping and a delivery cost, how fast messages
// go out and how late they are. The others are
//
//	centrifugo   the server whose protocol minigate speaks
//	centrifuge   the library that Centrifugo is made of, doing the same work
//	tuned        the same with what it offers to those with many connections
//	nchan        nginx with its pub/sub module, without logins
//	gws          a bare WebSocket library: no logins, no channels, no history
//	raw          what the kernel allows: frames built once, written one by one
//
// All scenarios run for all servers one after the other, each with a server that
// was just started, for a number of rounds; what differs by a few percent is
// measured in short turns of servers that all stay up. The table shows medians,
// and in brackets how many times better minigate is: below 1 it is worse.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/minigate/minigate/bench/harness"
)

type options struct {
	rounds   int
	peers    string
	only     string
	quick    bool
	markdown bool
	minigate string
	other    string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "`number` of rounds")
	flag.StringVar(&o.peers, "peers", "centrifugo,centrifuge,tuned,nchan,gws,raw", "`names` of the servers beside minigate")
	flag.StringVar(&o.only, "only", "", "regular `expression` for the scenarios to run; their names are "+names())
	flag.BoolVar(&o.quick, "quick", false, "a few connections and messages, to see that everything works; it fails where a message is lost")
	flag.BoolVar(&o.markdown, "markdown", false, "print the table in Markdown")
	flag.StringVar(&o.minigate, "minigate", "", "`program` to measure; built from the repository if empty")
	flag.StringVar(&o.other, "other", "", "`program` of another build of minigate, to compare with in a column of its own")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sockets:", err)
		os.Exit(1)
	}
}

func names() string {
	var list []string
	for _, s := range scenarios(false, 0) {
		list = append(list, s.name)
	}
	return strings.Join(list, ", ")
}

// run measures all servers one after the other, again and again, so that what else
// happens on the machine meets all of them.
func run(ctx context.Context, o options, out io.Writer) error {
	limit, err := openFiles()
	if err != nil {
		return err
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	b := &bench{options: o, limit: limit, results: make(map[string][]trial)}
	for _, s := range scenarios(o.quick, limit) {
		if only.MatchString(s.name) {
			b.scenarios = append(b.scenarios, s)
		}
	}
	if len(b.scenarios) == 0 {
		return fmt.Errorf("-only %s: the scenarios are %s", o.only, names())
	}
	if b.servers, err = choose(o.peers, o.other); err != nil {
		return err
	}
	defer b.close()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	failed := b.rounds(ctx)
	if err := context.Cause(ctx); len(b.results) == 0 {
		return errors.Join(append(failed, err)...)
	}
	if err := b.print(out); err != nil { // also what was measured before an interrupt
		return err
	}
	if _, err := fmt.Fprintf(out, "\n%s Rounds: %d; figures are medians, ratios too.\n", harness.Describe(b.versions()...), b.begun); err != nil {
		return err
	}
	failed = append(failed, context.Cause(ctx))
	if o.quick {
		failed = append(failed, b.complete())
	}
	return errors.Join(failed...)
}

// rounds runs everything. A server that fails once is left out of one round and
// told of; an hour's measurements are not lost by it.
func (b *bench) rounds(ctx context.Context) (failed []error) {
	for round := range b.options.rounds {
		if ctx.Err() != nil {
			return failed
		}
		b.begun++
		for _, s := range b.scenarios {
			measure := b.alone
			if s.turns > 0 {
				measure = b.inTurns
			}
			failed = append(failed, measure(ctx, round, s)...)
		}
	}
	return failed
}
