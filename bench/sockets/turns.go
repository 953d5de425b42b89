//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
)

// alone runs one scenario once for each server, which is started for it.
func (b *bench) alone(ctx context.Context, round int, s scenario) (failed []error) {
	for _, of := range b.servers {
		r, err := b.start(ctx, s, of)
		if r != nil {
			err = b.measure(ctx, round, s, r)
			b.run.Stop(r.Process)
		}
		failed = b.note(failed, s, of, err)
	}
	return failed
}

// inTurns starts all servers and gives them short turns, one after the other,
// again and again, and every other time the last one first. The machine goes at
// another pace every minute or so: what one server does is compared with what the
// others did some seconds before or after. By then all have been at work for a
// while, which is what the warm-up is for.
func (b *bench) inTurns(ctx context.Context, round int, s scenario) (failed []error) {
	var up []*running
	defer func() {
		for _, r := range up {
			b.run.Stop(r.Process)
		}
	}()
	for _, of := range b.servers {
		r, err := b.start(ctx, s, of)
		if r != nil {
			warmUp := s
			warmUp.length = s.warmUp
			up = append(up, r)
			_, err = b.load(ctx, warmUp, r)
			r.failed = err != nil
		}
		failed = b.note(failed, s, of, err)
	}
	for turn := range s.turns {
		for _, r := range up {
			if !r.failed {
				err := b.measure(ctx, round*s.turns+turn, s, r)
				failed, r.failed = b.note(failed, s, r.of, err), err != nil
			}
		}
		slices.Reverse(up)
	}
	return failed
}

// start starts a server for a scenario; nil for one that cannot take part, and for
// all once the run was interrupted.
func (b *bench) start(ctx context.Context, s scenario, of server) (*running, error) {
	if s.without[of.name] || ctx.Err() != nil {
		return nil, nil
	}
	r, err := of.start(b, ctx, s)
	if err != nil {
		if r != nil {
			b.run.Stop(r.Process)
		}
		return nil, err
	}
	r.of = of
	return r, nil
}

// note tells of an error and adds it to those before.
func (b *bench) note(failed []error, s scenario, of server, err error) []error {
	if err == nil {
		return failed
	}
	err = fmt.Errorf("%s: %s: %w", of.name, s.name, err)
	b.progress("%v", err)
	return append(failed, err)
}
