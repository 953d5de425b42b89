//go:build linux

package main

import (
	"context"
	"fmt"
)

// alone runs one scenario once for each server, which is started for it.
func (b *bench) alone(ctx context.Context, round int, s scenario) (failed []error) {
	for _, of := range b.servers {
		if ctx.Err() != nil {
			return failed
		}
		r, err := b.start(ctx, s, of)
		if r == nil {
			failed = b.note(failed, s, of, err)
			continue
		}
		failed = b.note(failed, s, of, b.measure(ctx, round, s, r))
		b.run.Stop(r.Process)
	}
	return failed
}

// inTurns starts all servers and gives them short turns, one after the other,
// again and again. The machine goes at another pace every minute or so: what one
// does is compared with what the others did a few seconds before and after. They
// have all been at work by then, which is what the warm-up is for.
func (b *bench) inTurns(ctx context.Context, round int, s scenario) (failed []error) {
	var running []*running
	defer func() {
		for _, r := range running {
			b.run.Stop(r.Process)
		}
	}()
	for _, of := range b.servers {
		r, err := b.start(ctx, s, of)
		if r != nil {
			warmUp := s
			warmUp.length = s.warmUp
			running = append(running, r)
			_, err = b.load(ctx, warmUp, r)
		}
		failed = b.note(failed, s, of, err)
	}
	for turn := range s.turns {
		for _, r := range running {
			if ctx.Err() != nil {
				return failed
			}
			failed = b.note(failed, s, r.of, b.measure(ctx, round*s.turns+turn, s, r))
		}
	}
	return failed
}

// start starts a server for a scenario; nil for one that cannot take part.
func (b *bench) start(ctx context.Context, s scenario, of server) (*running, error) {
	if s.without[of.name] {
		return nil, nil
	}
	r, err := of.start(b, ctx, s)
	if err != nil {
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
