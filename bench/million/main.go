//go:build linux

// Command million holds very many authenticated sockets on one machine, on as
// many minigate processes as that takes, and then pushes a message to all of
// them. It prints what that costs in memory, on both ends and in the kernel, and
// when the last one had it.
//
// A process holds no more connections than it may open files. By default each
// node is alone, keeps the sessions of its own users in a file, and the message
// is pushed to each node; with -redis all nodes share one, and the message is
// pushed to one of them. Everybody logs in, connects with the token of the login,
// has a personal channel, and is pinged and answers.
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
	n, per   int
	redis    bool
	sysctl   bool
	channel  string
	within   time.Duration
	hold     time.Duration
	ping     time.Duration
	patience time.Duration
	markdown bool
	minigate string
}

func main() {
	var o options
	flag.IntVar(&o.n, "n", 1_000_000, "`number` of sockets")
	flag.IntVar(&o.per, "per", 0, "`number` of sockets of a process; 0 takes as many as it may open files")
	flag.BoolVar(&o.redis, "redis", false, "all nodes share a Redis; otherwise each one is alone")
	flag.BoolVar(&o.sysctl, "sysctl", false, "as root: raise the limits of the kernel that stand in the way, and put them back at the end")
	flag.StringVar(&o.channel, "channel", "", "`name` of a channel that all subscribe to, such as feed:all, and that the message is published to; without one it is pushed to everybody")
	flag.DurationVar(&o.within, "within", 0, "`time` in which to connect: past it no node is added, and the rest is measured with the sockets there are; 0 is without end")
	flag.DurationVar(&o.hold, "hold", 30*time.Second, "`time` between the last connection and the message")
	flag.DurationVar(&o.ping, "ping", 25*time.Second, "`time` between two pings to a socket")
	flag.DurationVar(&o.patience, "patience", 5*time.Minute, "`time` in which a message has to reach all")
	flag.BoolVar(&o.markdown, "markdown", false, "print the table in Markdown")
	flag.StringVar(&o.minigate, "minigate", "", "`program` to measure; built from the repository if empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := run(ctx, o)
	if err == nil {
		err = r.print(os.Stdout, o)
	}
	if err == nil {
		_, err = fmt.Fprintf(os.Stdout, "\n%s\n", harness.Describe())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "million:", err)
		os.Exit(1)
	}
}

// sysctls are what a million sockets with both ends on one machine need.
var sysctls = map[string]string{
	"net/core/somaxconn":           "65535",
	"net/ipv4/tcp_max_syn_backlog": "65535",
	"net/ipv4/ip_local_port_range": "10000 65535",
	"fs/file-max":                  "4194304",
	"net/ipv4/tcp_mem":             "1000000 2000000 4000000", // pages
}

func run(ctx context.Context, o options) (r *report, err error) {
	most, err := harness.MaxSockets()
	if err != nil {
		return nil, err
	}
	if o.per == 0 {
		o.per = most
	}
	if o.n < 1 || o.per < 1 || o.per > most {
		return nil, fmt.Errorf("-n and -per have to be at least 1, and -per at most %d here", most)
	}
	if o.ping < time.Second {
		return nil, errors.New("-ping has to be at least 1s")
	}
	if o.sysctl {
		restore, err := harness.Sysctls(sysctls)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, restore()) }()
	}
	of, err := harness.New()
	if err != nil {
		return nil, err
	}
	defer of.Close()
	b := &bench{options: o, run: of}
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	return b.work(ctx)
}

// report is what came out.
type report struct {
	sockets, nodes int
	login, connect time.Duration // all logins, all connects, one node after the other
	failed         int64
	firstError     string

	servers, clients int64 // bytes of all processes
	redis            int64
	before, idle     harness.Machine // without any process, with all sockets idle

	pings         int64
	wanted        int64
	deliveries    int64
	p50, p99, max float64 // ms
	call          time.Duration
	pingCPU       float64 // cores of all servers while only pings go
}

func (r *report) print(out io.Writer, o options) error {
	per := func(bytes int64) string {
		return fmt.Sprintf("%.2f GB, %d B each", float64(bytes)/1e9, bytes/int64(r.sockets))
	}
	how := "each alone"
	if o.redis {
		how = "sharing one Redis"
	}
	kernel := r.idle.Slab - r.before.Slab + r.idle.TCP - r.before.TCP
	rows := [][]string{
		{"sockets, logged in", fmt.Sprintf("%d on %d nodes, %s", r.sockets, r.nodes, how)},
		{"logins took", fmt.Sprintf("%.0f s, %.0f a second", r.login.Seconds(), float64(r.sockets)/r.login.Seconds())},
		{"connects took", fmt.Sprintf("%.0f s, %.0f a second", r.connect.Seconds(), float64(r.sockets)/r.connect.Seconds())},
		{"connections failed", strings.TrimSpace(fmt.Sprint(r.failed, " ", r.firstError))},
		{"memory of all nodes", per(r.servers)},
		{"memory of the load generators", per(r.clients)},
		{"the kernel's, for both ends", per(kernel)},
		{"the whole machine's, more than before", per(r.idle.Used - r.before.Used)},
		{"pings every " + o.ping.String() + ": answered; CPU of all nodes", fmt.Sprintf("%d; %.2f cores", r.pings, r.pingCPU)},
		{"a message of 128 B to all: the call took", fmt.Sprintf("%.0f ms", float64(r.call.Microseconds())/1000)},
		{"it reached", fmt.Sprintf("%d of %d", r.deliveries, r.wanted)},
		{"of those half of a node's, 99 %, the last one of all after", fmt.Sprintf("%.2f s, %.2f s, %.2f s", r.p50/1000, r.p99/1000, r.max/1000)},
	}
	if o.redis {
		rows = append(rows, []string{"memory of Redis", per(r.redis)})
	}
	if o.markdown {
		for i, row := range rows {
			if _, err := fmt.Fprintln(out, "| "+strings.Join(row, " | ")+" |"); err != nil {
				return err
			}
			if i == 0 {
				if _, err := fmt.Fprintln(out, "|---|---:|"); err != nil {
					return err
				}
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t")) // Flush tells
	}
	return w.Flush()
}
