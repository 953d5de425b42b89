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
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/minigate/minigate/bench/harness"
)

// Channels of those who lose their node, and of those who do not.
const (
	stormChannel     = "feed:storm"
	bystanderChannel = "feed:bystander"
)

// bench is one run.
type bench struct {
	options
	run            *harness.Run
	program, load  string
	shared         []string // settings of both nodes
	refuge         *harness.Minigate
	tokens, others string       // files: of those who lose their node, of bystanders
	nodes          int          // started so far
	refused        atomic.Int64 // publications that were answered with an error
}

// prepare starts Redis and the node that stays, and logs everybody in.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.load, b.program, err = b.run.Programs(ctx, b.minigate); err != nil {
		return err
	}
	redis, err := b.run.StartRedis(ctx)
	if err != nil {
		return err
	}
	b.shared = redis.Shared()
	if b.refuge, err = b.node(ctx); err != nil {
		return err
	}
	logins, err := harness.LogIn(ctx, b.refuge.Public, "storm", b.n+b.bystanders, 128)
	if err != nil {
		return err
	}
	b.tokens, b.others = filepath.Join(b.run.Dir, "tokens"), filepath.Join(b.run.Dir, "others")
	if err := harness.WriteLogins(b.tokens, logins[:b.n]); err != nil {
		return err
	}
	return harness.WriteLogins(b.others, logins[b.n:])
}

func (b *bench) node(ctx context.Context) (*harness.Minigate, error) {
	b.nodes++
	return b.run.StartMinigate(ctx, b.program, "node"+strconv.Itoa(b.nodes), b.shared...)
}

// storm is one: connect, kill, come back.
func (b *bench) storm(ctx context.Context, backoff string) (o outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.patience)
	defer cancel()
	o.backoff = backoff
	b.refused.Store(0)
	victim, err := b.node(ctx)
	if err != nil {
		return o, err
	}
	crowd, err := b.run.Hold(b.load, "-mode", "failover", "-n", strconv.Itoa(b.n), "-url", victim.Socket(), "-then", b.refuge.Socket(),
		"-tokens", b.tokens, "-channel", stormChannel, "-backoff", backoff, "-count", strconv.Itoa(b.missed+1))
	if err != nil {
		return o, err
	}
	defer b.run.Kill(crowd.Process)
	if err := crowd.Await(ctx, "ready"); err != nil {
		return o, err
	}
	quiet := int(b.quiet / b.every)
	if o.before, err = b.watch(ctx, quiet, func() error { return b.publish(ctx, bystanderChannel, quiet) }); err != nil {
		return o, err
	}
	o.while, err = b.watch(ctx, 1, func() error {
		b.run.Kill(victim.Process)
		return b.untilBack(ctx, crowd)
	})
	if err != nil {
		return o, err
	}
	if o.storm, err = crowd.End(ctx); err != nil {
		return o, err
	}
	o.refused = b.refused.Load()
	if said := b.refuge.Said(); said != "" {
		_, _ = fmt.Fprintln(os.Stderr, said) // what the node warned of, for those who look
	}
	if o.storm.Failover == nil {
		return o, fmt.Errorf("load said nothing of coming back: %+v", o.storm)
	}
	return o, nil
}

// untilBack publishes what connections miss while they are away, publishes to
// the bystanders until all are back, and then once more to all of them.
func (b *bench) untilBack(ctx context.Context, crowd *harness.Holding) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	missed, back := make(chan error, 1), make(chan error, 1)
	group.Go(func() { missed <- b.publish(ctx, stormChannel, b.missed) })
	group.Go(func() { back <- crowd.Await(ctx, "back") })
	published := b.publishSteadily(ctx, bystanderChannel)
	err := <-back
	if err == nil {
		err = <-missed
	}
	if err = errors.Join(err, published()); err != nil {
		return err
	}
	return b.publishOnce(ctx, stormChannel, time.Now())
}

// atOnce is how many calls of publish are under way at most, as from a backend
// with that many connections: one that is slow does not make others late.
const atOnce = 32

// publishSteadily publishes until the function that it returns is called, which
// waits for the last.
func (b *bench) publishSteadily(ctx context.Context, channel string) (end func() error) {
	over := make(chan struct{})
	var calls errgroup.Group
	calls.SetLimit(atOnce + 1)
	calls.Go(func() error {
		began := time.Now()
		for i := 0; ; i++ {
			due := began.Add(time.Duration(i) * b.every) // whatever the ones before took
			select {
			case <-over:
				return nil
			case <-time.After(time.Until(due)):
			}
			calls.Go(func() error { return b.publishOnce(ctx, channel, due) })
		}
	})
	return func() error { close(over); return calls.Wait() }
}

// watch has bystanders see what is published to them during work, and ends when
// they have got at least so many messages each. What is under way then is not
// counted.
func (b *bench) watch(ctx context.Context, least int, work func() error) (result harness.Result, err error) {
	h, err := b.run.Hold(b.load, "-mode", "hold", "-n", strconv.Itoa(b.bystanders), "-count", strconv.Itoa(least), "-url", b.refuge.Socket(),
		"-tokens", b.others, "-channel", bystanderChannel)
	if err != nil {
		return result, err
	}
	defer b.run.Kill(h.Process)
	if err := h.Await(ctx, "ready"); err != nil {
		return result, err
	}
	if err := work(); err != nil {
		return result, err
	}
	if err := h.Await(ctx, "delivered"); err != nil {
		return result, err
	}
	return h.End(ctx)
}

// publish publishes count messages at a fixed rate. They are late from the
// moment they were due.
func (b *bench) publish(ctx context.Context, channel string, count int) error {
	began := time.Now()
	for i := range count {
		due := began.Add(time.Duration(i) * b.every)
		time.Sleep(time.Until(due))
		if err := b.publishOnce(ctx, channel, due); err != nil {
			return err
		}
	}
	time.Sleep(time.Until(began.Add(time.Duration(count) * b.every)))
	return nil
}

// publishOnce publishes as a backend does: where that fails it counts it, and
// tries again until it works or ctx ends.
func (b *bench) publishOnce(ctx context.Context, channel string, due time.Time) error {
	for {
		err := b.refuge.Call(ctx, "publish", map[string]any{"channel": channel, "data": harness.Timed(due)})
		if err == nil || ctx.Err() != nil {
			return err
		}
		b.refused.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(b.every):
		}
	}
}
