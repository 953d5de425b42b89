//go:build linux

// Command storm kills a minigate that holds very many connections, and watches
// all of them come back to another node: how long until the last one is
// subscribed again, whether each of them has every message that was published
// meanwhile, and how late the messages of a bystander are who was on the other
// node all the time.
//
// Two nodes share a Redis. Clients come back as the SDKs do, after 500 ms to
// 20 s of exponential backoff with full jitter, and then all at once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/minigate/minigate/bench/harness"
)

type options struct {
	n          int
	bystanders int
	missed     int           // publications while connections are away
	every      time.Duration // between those, and between those of bystanders
	quiet      time.Duration
	backoff    string
	patience   time.Duration
	markdown   bool
	minigate   string
}

func main() {
	var o options
	flag.IntVar(&o.n, "n", 19000, "`number` of connections that lose their node")
	flag.IntVar(&o.bystanders, "bystanders", 100, "`number` of connections at the other node")
	flag.IntVar(&o.missed, "missed", 20, "`number` of messages published from the kill on")
	flag.DurationVar(&o.every, "every", 20*time.Millisecond, "`time` between messages")
	flag.DurationVar(&o.quiet, "quiet", 5*time.Second, "`time` bystanders are watched before")
	flag.StringVar(&o.backoff, "backoff", "sdk,none", "how clients come back: sdk, none, or both")
	flag.DurationVar(&o.patience, "patience", 5*time.Minute, "`time` in which all have to be back")
	flag.BoolVar(&o.markdown, "markdown", false, "print the table in Markdown")
	flag.StringVar(&o.minigate, "minigate", "", "`program` to measure; built from the repository if empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	outcomes, err := run(ctx, o)
	if err == nil {
		err = print(os.Stdout, o, outcomes)
	}
	if err == nil {
		_, err = fmt.Fprintf(os.Stdout, "\n%s\n", harness.Describe())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(1)
	}
}

// outcome is what happened with one way to come back.
type outcome struct {
	backoff       string
	storm         harness.Result
	before, while harness.Result // of the bystanders
	refused       int64          // publications that were answered with an error, and sent again
}

// lost counts connections that do not have all that was published.
func (o outcome) lost() int64 {
	f := o.storm.Failover
	return f.Unrecovered + f.Gaps + f.Behind
}

// missing says which these are.
func (o outcome) missing() string {
	if o.lost() == 0 {
		return "0"
	}
	f := o.storm.Failover
	return fmt.Sprintf("%d told of a gap, %d out of order, %d without the end", f.Unrecovered, f.Gaps, f.Behind)
}

func run(ctx context.Context, o options) ([]outcome, error) {
	limit, err := harness.MaxSockets()
	if err != nil {
		return nil, err
	}
	if o.n > limit-o.bystanders {
		return nil, fmt.Errorf("-n %d: one process may hold %d connections here, the bystanders' among them", o.n, limit)
	}
	if o.every <= 0 || o.quiet < o.every {
		return nil, errors.New("-every has to be positive, and -quiet no shorter")
	}
	r, err := harness.New()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := &bench{options: o, run: r}
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	var all []outcome
	for backoff := range strings.SplitSeq(o.backoff, ",") {
		result, err := b.storm(ctx, backoff)
		if err != nil {
			return nil, fmt.Errorf("-backoff %s: %w", backoff, err)
		}
		all = append(all, result)
	}
	return all, nil
}

func print(out io.Writer, o options, outcomes []outcome) error {
	rows := [][]string{{"clients come back"}}
	for _, what := range []string{
		"last one subscribed after", "a connection was away, p50", "p99", "attempts that failed",
		"missed publications recovered", "connections that miss one", "calls of publish that failed", "bystanders' messages before, p99", "meanwhile, p99", "max",
	} {
		rows = append(rows, []string{what})
	}
	for _, one := range outcomes {
		f := one.storm.Failover
		for i, cell := range []string{
			map[string]string{"sdk": "as the SDKs do", "none": "all at once"}[one.backoff],
			fmt.Sprintf("%.2f s", f.LastBack), fmt.Sprintf("%.0f ms", f.AwayP50), fmt.Sprintf("%.0f ms", f.AwayP99), strings.TrimSpace(fmt.Sprint(f.Refused, " ", one.storm.FirstError)),
			fmt.Sprint(f.Recovered), one.missing(), fmt.Sprint(one.refused),
			fmt.Sprintf("%.1f ms", one.before.P99), fmt.Sprintf("%.1f ms", one.while.P99), fmt.Sprintf("%.1f ms", one.while.Max),
		} {
			rows[i] = append(rows[i], cell)
		}
	}
	if o.markdown {
		for i, r := range rows {
			if _, err := fmt.Fprintln(out, "| "+strings.Join(r, " | ")+" |"); err != nil {
				return err
			}
			if i == 0 {
				if _, err := fmt.Fprintln(out, "|---"+strings.Repeat("|---:", len(r)-1)+"|"); err != nil {
					return err
				}
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, r := range rows {
		_, _ = fmt.Fprintln(w, strings.Join(r, "\t")) // Flush tells
	}
	return w.Flush()
}
