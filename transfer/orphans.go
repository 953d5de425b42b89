package transfer

import (
	"context"
	"log/slog"
	"time"
)

const (
	orphanPage = 500
	maxOrphans = 10_000 // that one comparison deletes
)

// orphans is what a comparison found.
type orphans struct {
	known int          // objects of files
	lost  []Difference // bytes of files that have no record, or need them no more, at most maxOrphans
	count int          // of them
	bytes int64
}

// compareIfDue compares once in verify_interval, on one node.
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
		return nil
	}
	return s.Compare(ctx)
}

// Compare goes through everything that is stored, counts what belongs to no
// file and, where orphan_ttl says so, deletes what has done so for that long.
// Where that would be most of what there is, or where no file is known at all,
// it is the ledger that was lost and not the bytes: then nothing is deleted.
func (s *Service) Compare(ctx context.Context) error {
	var o orphans
	for after := ""; ; {
		page, err := s.verifyStorage(ctx, after, orphanPage)
		if err != nil {
			return err
		}
		o.add(page)
		if after = page.Cursor; after == "" {
			break
		}
	}
	s.metrics.orphans.Set(float64(o.count))
	s.metrics.orphanBytes.Set(float64(o.bytes))
	if o.count == 0 || s.settings.OrphanTTL == 0 {
		return nil
	}
	if o.count > o.known {
		slog.ErrorContext(ctx, "nothing stored is deleted: more of it belongs to no file than to one, as if the list of files was lost",
			"without", o.count, "with", o.known)
		return nil
	}
	return s.deleteOrphans(ctx, o.lost)
}

func (o *orphans) add(page VerifyAnswer) {
	o.known += page.Checked
	for _, d := range page.Differences {
		o.known--
		if d.Problem != RecordMissing && d.Problem != PartsLeft {
			continue
		}
		o.count++
		o.bytes += d.Stored
		if len(o.lost) < maxOrphans {
			o.lost = append(o.lost, d)
		}
	}
}

func (s *Service) deleteOrphans(ctx context.Context, lost []Difference) error {
	before := time.Now().Add(-s.settings.OrphanTTL)
	for _, d := range lost {
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
