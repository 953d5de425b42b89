package transfer

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/minigate/minigate/auth"
)

const (
	checkTick  = 5 * time.Second // between looks for what is due
	checkBatch = 50              // files that one look finds
	checkLeft  = 10_000          // those that one finds at the start

	// Pauses before a checker is asked again that could not say anything.
	firstPause  = 5 * time.Second
	mostPause   = 5 * time.Minute
	mostDoubled = 6 // times, from the first to the last
)

// errNotDue is for a file that somebody else sees to.
var errNotDue = errors.New("nothing is due for this file")

// checkUntil sees to files that are being checked, whichever node took them,
// until ctx ends.
func (s *Service) checkUntil(ctx context.Context) {
	if !s.checks.on() {
		return // what is left of earlier checks is the sweeper's
	}
	var working sync.WaitGroup
	defer working.Wait()
	tick := time.NewTicker(s.checks.tick)
	defer tick.Stop()
	look := s.startChecks
	if !s.ledger.Shared() {
		look = s.startLeft
	}
	for ; ; look = s.startChecks {
		err := s.countChecks(ctx)
		if err == nil {
			err = look(ctx, &working)
		}
		if err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "files are checked later", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.checks.wake:
		}
	}
}

// countChecks measures how many files wait.
func (s *Service) countChecks(ctx context.Context) error {
	n, err := s.ledger.CountDue(ctx)
	if err == nil {
		s.metrics.checking.Set(float64(n))
	}
	return err
}

// sweepChecks does what is due and waits for its end.
func (s *Service) sweepChecks(ctx context.Context) error {
	var working sync.WaitGroup
	defer working.Wait()
	if err := s.countChecks(ctx); err != nil {
		return err
	}
	return s.startChecks(ctx, &working)
}

// startChecks has workers see to all files that are due. It waits for workers
// but not for their end.
func (s *Service) startChecks(ctx context.Context, working *sync.WaitGroup) error {
	for {
		n, err := s.startDue(ctx, working, now(), checkBatch)
		if n < checkBatch || err != nil {
			return err
		}
	}
}

// startLeft has workers see to what this process was at when it ended, too, in a
// ledger of our own.
func (s *Service) startLeft(ctx context.Context, working *sync.WaitGroup) error {
	_, err := s.startDue(ctx, working, now().Add(s.checks.lease()), checkLeft)
	return err
}

// startDue has workers see to up to limit files that are due by a time.
func (s *Service) startDue(ctx context.Context, working *sync.WaitGroup, by time.Time, limit int) (int, error) {
	files, err := s.ledger.Due(ctx, by.Add(time.Millisecond), limit) // and at that time
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		if err := s.startCheck(ctx, f.ID, by, working); err != nil {
			return 0, err
		}
	}
	return len(files), nil
}

// startCheck has a worker see to a file, unless somebody else does.
func (s *Service) startCheck(ctx context.Context, id string, by time.Time, working *sync.WaitGroup) error {
	select {
	case s.checks.workers <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	f, err := s.ledger.Amend(ctx, id, func(f *File) error {
		if f.Check.Due.IsZero() || f.Check.Due.After(by) {
			return errNotDue
		}
		f.Check.Due = now().Add(s.checks.lease())
		return nil
	})
	if err != nil {
		<-s.checks.workers
		if errors.Is(err, errNotDue) || errors.Is(err, errNoFile) || errors.Is(err, errFileState) {
			return nil
		}
		return err
	}
	working.Go(func() {
		defer func() { <-s.checks.workers }()
		if err := s.see(ctx, f); err != nil {
			slog.WarnContext(ctx, "a file is checked later", "file", f.ID, "error", err)
		}
	})
	return nil
}

// lease is how long a file is somebody's who sees to it: by then that has ended.
func (c *checks) lease() time.Duration { return c.most + cleanUp }

// see does what is due for a file: asks those who have not said anything, or
// removes its bytes.
func (s *Service) see(ctx context.Context, f File) error {
	if f.State == Blocked {
		ctx, cancel := context.WithTimeout(ctx, cleanUp)
		defer cancel()
		return s.wipe(ctx, f)
	}
	found, next := findings{}, now()
	for _, name := range strings.Fields(f.Check.Waiting) {
		c := s.checks.named(name)
		if c == nil { // it is not asked any more
			found[name] = finding{outcome: passed}
			continue
		}
		if has(f.Check.Asked, name) && !s.checks.asksAgain(f.Check) {
			continue
		}
		v, wait := s.ask(ctx, c, f)
		if ctx.Err() != nil {
			break // this process ends: others go on
		}
		found[name] = v
		if again := now().Add(wait); again.After(next) {
			next = again
		}
		if v.outcome == objected {
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	return s.conclude(ctx, f.ID, found, next)
}

// answered is by when who was asked for c should have said something.
func (c *checks) answered(of Check) time.Time { return of.AskedAt.Add(c.WeChat.Answer) }

// asksAgain tells whether who was asked, and said nothing in time, is asked once
// more: not where it would not be waited for. Its time may have been over long
// before that of the file, while nobody was there to ask: then it is.
func (c *checks) asksAgain(of Check) bool {
	by := c.answered(of)
	return !now().Before(by) && by.Before(of.Began.Add(c.GiveUp))
}

// checkLink is the address at which a checker, and nobody else, reads a file
// that has not passed.
func (s *Service) checkLink(f File, life time.Duration) string {
	return s.linkTo(f, auth.Link{File: f.ID, Expires: now().Add(life), Unchecked: true})
}
