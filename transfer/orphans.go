package transfer

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"
)

const (
	orphanPage  = 500
	maxOrphans  = 10_000 // that one comparison deletes
	compareRate = 250    // files and objects a second that one comparison looks at, so that others hardly notice
)

// comparison is what one has found.
type comparison struct {
	found   map[string]int   // differences, by problem
	bytes   map[string]int64 // that the store has of them, by problem
	known   int              // objects of files
	orphans []Difference     // bytes of files that have no record, or need them no more, at most maxOrphans
}

// compareUntil compares whenever that is due, until ctx ends. Where there is a
// lot, one comparison takes hours.
func (s *Service) compareUntil(ctx context.Context) {
	tick := time.NewTicker(s.settings.SweepInterval)
	defer tick.Stop()
	for {
		if err := s.compareIfDue(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "storage and list of files are compared later", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// compareIfDue compares once in verify_interval, on one node. The others show
// nothing: what they found before is no longer so.
func (s *Service) compareIfDue(ctx context.Context) error {
	every := s.settings.VerifyInterval
	if every == 0 || time.Since(s.compared) < every {
		return nil
	}
	mine, err := s.ledger.Claim(ctx, "verify", every)
	if err != nil {
		return err
	}
	s.compared = time.Now()
	if !mine {
		s.metrics.comparedElsewhere()
		return nil
	}
	return s.Compare(ctx)
}

// Compare goes through all files and everything that is stored, and counts what
// is on one side only. Records stay, whatever their bytes are: what becomes of
// such a file is for somebody to decide. Where orphan_ttl says so, what is
// stored and has belonged to no file for that long is deleted. Where that would
// be most of what there is, or where no file is known at all, it is the ledger
// that was lost and not the bytes: then nothing is deleted.
func (s *Service) Compare(ctx context.Context) error {
	c := comparison{found: map[string]int{}, bytes: map[string]int64{}}
	files := func(ctx context.Context, after string, limit int) (VerifyAnswer, error) {
		return s.verifyFiles(ctx, Place(after), limit)
	}
	if err := eachPage(ctx, files, c.add); err != nil {
		return err
	}
	if err := eachPage(ctx, s.verifyStorage, c.addObjects); err != nil {
		return err
	}
	s.metrics.compared(c)
	if missing, differ := c.found[BytesMissing], c.found[SizeDiffers]; missing+differ > 0 {
		slog.ErrorContext(ctx, "files are not stored as they are listed: 'minigate files verify' names them",
			BytesMissing, missing, SizeDiffers, differ)
	}
	orphans := c.found[RecordMissing] + c.found[PartsLeft]
	if orphans == 0 || s.settings.OrphanTTL == 0 {
		return nil
	}
	if orphans > c.known {
		slog.ErrorContext(ctx, "nothing stored is deleted: more of it belongs to no file than to one, as if the list of files was lost",
			"without", orphans, "with", c.known)
		return nil
	}
	return s.deleteOrphans(ctx, c.orphans)
}

// eachPage goes through one side, at compareRate.
func eachPage(ctx context.Context, page func(ctx context.Context, after string, limit int) (VerifyAnswer, error), add func(VerifyAnswer)) error {
	pace := rate.NewLimiter(compareRate, orphanPage)
	for after := ""; ; {
		a, err := page(ctx, after, orphanPage)
		if err != nil {
			return err
		}
		add(a)
		if after = a.Cursor; after == "" {
			return nil
		}
		if err := pace.WaitN(ctx, min(a.Checked, orphanPage)); err != nil {
			return err
		}
	}
}

func (c *comparison) add(page VerifyAnswer) {
	for _, d := range page.Differences {
		c.found[d.Problem]++
		c.bytes[d.Problem] += d.Stored
	}
}

// addObjects is add for pages of the storage.
func (c *comparison) addObjects(page VerifyAnswer) {
	c.add(page)
	c.known += page.Checked - len(page.Differences)
	for _, d := range page.Differences {
		if (d.Problem == RecordMissing || d.Problem == PartsLeft) && len(c.orphans) < maxOrphans {
			c.orphans = append(c.orphans, d)
		}
	}
}

func (s *Service) deleteOrphans(ctx context.Context, orphans []Difference) error {
	before := time.Now().Add(-s.settings.OrphanTTL)
	for _, d := range orphans {
		if d.Modified.After(before) {
			continue
		}
		if err := s.deleteOrphan(ctx, d); err != nil {
			return err
		}
		slog.InfoContext(ctx, "deleted what is stored and belongs to no file", "key", d.Key, "bytes", d.Stored)
		s.metrics.orphansSwept.Inc()
	}
	return nil
}

func (s *Service) deleteOrphan(ctx context.Context, d Difference) error {
	if d.Upload != "" {
		return s.store.Abort(ctx, d.Key, d.Upload)
	}
	return s.store.Delete(ctx, d.Key)
}
