package transfer

import (
	"context"
	"errors"
)

// sweepExpired deletes files whose time is over. From that time on nobody could
// read them. If one cannot be deleted, the others wait for the next sweep.
func (s *Service) sweepExpired(ctx context.Context) error {
	for {
		files, err := s.ledger.Expired(ctx, now(), sweepBatch)
		if err != nil {
			return err
		}
		for _, f := range files {
			err := s.delete(ctx, f.ID)
			if errors.Is(err, errFileState) || errors.Is(err, errNoFile) {
				continue // by another node
			}
			if err != nil {
				return err
			}
			s.metrics.expired.Inc()
		}
		if len(files) < sweepBatch {
			return nil
		}
	}
}
