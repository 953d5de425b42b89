// Command proxy compares minigate's request proxy with what else one would put
// there: nginx, which asks a small authentication server about every request
// (auth_request) and then passes it on. Both do the same work for the same
// upstream in one run: they verify a login token, tell the upstream who is
// calling, and stream the answer back.
//
// It prints requests per second, how long they took, and the CPU time that one
// request costs in all the processes it takes: nginx's and the authentication
// server's, against minigate's. The upstream and the load generator are on
// nobody's bill.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/minigate/minigate/bench/harness"
)

type options struct {
	duration    time.Duration // of a round
	rounds      int
	connections int
	size        int // of an answer's body, in bytes
	minigate    string
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "serve" { // a server of the benchmark, in a process of its own
		if err := serve(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "`time` of each round")
	flag.IntVar(&o.rounds, "rounds", 3, "`number` of rounds of each side, in turns")
	flag.IntVar(&o.connections, "connections", 64, "`number` of clients, each of which asks anew once it is answered")
	flag.IntVar(&o.size, "size", 512, "`bytes` of an answer's body")
	flag.StringVar(&o.minigate, "minigate", "", "`program` to measure; built from the repository if empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

// side is one of the two that are compared.
type side struct {
	name   string
	url    string
	token  string
	pids   func() ([]int, error) // of the processes that are on its bill
	result result
}

// cpuTime is what all its processes have used so far.
func (s *side) cpuTime() (time.Duration, error) {
	pids, err := s.pids()
	if err != nil {
		return 0, err
	}
	return harness.CPUTime(pids...)
}

// run measures both sides in turns, so that what else happens on the machine
// meets both.
func run(ctx context.Context, o options, out io.Writer) error {
	b := &bench{options: o}
	defer b.close()
	sides, err := b.start(ctx)
	if err != nil {
		return err
	}
	for _, s := range sides {
		if _, err := load(ctx, s, o.connections, o.duration/5); err != nil { // warms up
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for range o.rounds {
		for _, s := range sides {
			before, err := s.cpuTime()
			if err != nil {
				return err
			}
			r, err := load(ctx, s, o.connections, o.duration)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			after, err := s.cpuTime()
			if err != nil {
				return err
			}
			r.cpu = after - before
			s.result.add(r)
		}
	}
	return print(out, sides)
}

func print(out io.Writer, sides []*side) error {
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "\trequests/s\tp50\tp99\tCPU-µs per request\tfailed\t")
	for _, s := range sides {
		r := s.result
		_, _ = fmt.Fprintf(t, "%s\t%.0f\t%v\t%v\t%.1f\t%d\t\n", s.name, r.rate(), r.quantile(.5), r.quantile(.99), r.cpuPerRequest(), r.failed)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	ratio := sides[0].result.cpuPerRequest() / sides[1].result.cpuPerRequest()
	_, err := fmt.Fprintf(out, "\nthroughput per CPU-second, %s to %s: %.2f\n", sides[1].name, sides[0].name, ratio)
	return err
}
