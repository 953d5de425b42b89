//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/minigate/minigate/bench/harness"
)

// node is one minigate and the load generator that holds its sockets.
type node struct {
	minigate *harness.Minigate
	load     *harness.Holding
	n        int // sockets
}

// bench is one run.
type bench struct {
	options
	run           *harness.Run
	program, load string
	shared        []string // settings of nodes that share a Redis
	redis         *harness.Redis
	nodes         []*node
	report        report
}

func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.load, b.program, err = b.run.Programs(ctx, b.minigate); err != nil {
		return err
	}
	if b.report.before, err = harness.MachineMemory(); err != nil || !b.options.redis {
		return err
	}
	if b.redis, err = b.run.StartRedis(ctx); err == nil {
		b.shared = b.redis.Shared()
	}
	return err
}

func (b *bench) progress(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) // only for those who wait
}

func (b *bench) work(ctx context.Context) (*report, error) {
	began := time.Now()
	for left := b.n; left > 0 && (b.within == 0 || left == b.n || time.Since(began) < b.within); left -= b.per {
		if err := b.add(ctx, min(left, b.per)); err != nil {
			return nil, fmt.Errorf("node %d: %w", len(b.nodes)+1, err)
		}
	}
	if err := b.idle(ctx); err != nil {
		return nil, err
	}
	if err := b.publish(ctx); err != nil {
		return nil, err
	}
	return &b.report, b.results(ctx)
}

// add starts a node, logs n users in and connects them.
func (b *bench) add(ctx context.Context, n int) error {
	name := "node" + strconv.Itoa(len(b.nodes)+1)
	pings := []string{"MINIGATE_CLIENT_PING_INTERVAL=" + b.ping.String(), "MINIGATE_CLIENT_PONG_TIMEOUT=" + (b.ping / 3).String()}
	m, err := b.run.StartMinigate(ctx, b.program, name, append(pings, b.shared...)...)
	if err != nil {
		return err
	}
	began := time.Now()
	logins, err := harness.LogIn(ctx, m.Public, name+"-", n, 128)
	if err != nil {
		return err
	}
	b.report.login += time.Since(began)
	tokens := filepath.Join(b.run.Dir, name+".tokens")
	if err := harness.WriteLogins(tokens, logins); err != nil {
		return err
	}
	began = time.Now()
	load, err := b.run.Hold(b.load, "-mode", "hold", "-n", strconv.Itoa(n), "-count", "1", "-url", m.Socket(), "-tokens", tokens, "-channel", b.channel)
	if err != nil {
		return err
	}
	if err := load.Await(ctx, "ready"); err != nil {
		return err
	}
	b.report.connect += time.Since(began)
	b.nodes = append(b.nodes, &node{m, load, n})
	b.report.sockets += n
	machine, err := harness.MachineMemory()
	b.progress("%d sockets on %d nodes, %.1f GB used", b.report.sockets, len(b.nodes), float64(machine.Used)/1e9)
	return err
}

// idle waits, and looks at memory and at what pings cost.
func (b *bench) idle(ctx context.Context) (err error) {
	r := &b.report
	r.nodes = len(b.nodes)
	var servers, clients []int
	for _, n := range b.nodes {
		servers = append(servers, n.minigate.Cmd.Process.Pid)
		clients = append(clients, n.load.Cmd.Process.Pid)
	}
	before, err := harness.CPUTime(servers...)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(b.hold):
	}
	after, err := harness.CPUTime(servers...)
	if err != nil {
		return err
	}
	r.pingCPU = (after - before).Seconds() / b.hold.Seconds()
	if r.servers, err = harness.Memory(servers...); err != nil {
		return err
	}
	if r.clients, err = harness.Memory(clients...); err != nil {
		return err
	}
	if b.redis != nil {
		if r.redis, err = harness.Memory(b.redis.Cmd.Process.Pid); err != nil {
			return err
		}
	}
	r.idle, err = harness.MachineMemory()
	return err
}

// publish sends one message to everybody and waits until all have it, or for
// as long as patience allows: the table says how many it reached.
func (b *bench) publish(whole context.Context) error {
	ctx, cancel := context.WithTimeout(whole, b.patience)
	defer cancel()
	to := b.nodes
	if b.redis != nil {
		to = to[:1]
	}
	due := time.Now()
	errs := make([]error, len(to))
	var group sync.WaitGroup
	for i, n := range to {
		group.Go(func() { errs[i] = b.publishTo(ctx, n, due) })
	}
	group.Wait()
	b.report.call = time.Since(due)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, n := range b.nodes {
		if err := n.load.Await(ctx, "delivered"); err != nil {
			if ctx.Err() == nil || whole.Err() != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) publishTo(ctx context.Context, n *node, due time.Time) error {
	if b.channel != "" {
		return n.minigate.Call(ctx, "publish", map[string]any{"channel": b.channel, "data": harness.Timed(due)})
	}
	return n.minigate.Call(ctx, "push", map[string]any{"all": true, "data": harness.Timed(due)})
}

// results ends the load generators and sums up.
func (b *bench) results(ctx context.Context) error {
	r := &b.report
	for _, n := range b.nodes {
		got, err := n.load.End(ctx)
		if err != nil {
			return err
		}
		r.failed += got.Failed
		if r.firstError == "" {
			r.firstError = got.FirstError
		}
		r.pings += got.Pings
		r.wanted += got.Wanted
		r.deliveries += got.Deliveries
		r.p50, r.p99, r.max = max(r.p50, got.P50), max(r.p99, got.P99), max(r.max, got.Max)
	}
	return nil
}
