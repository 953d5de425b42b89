package transfer

import (
	"context"
	"log/slog"
	"time"
)

// tellTimeout is how long an upload may take to announce its file.
const tellTimeout = 10 * time.Second

// The events of files. Their names are those of the webhook's.
const (
	FileReady   = "file_ready"
	FileBlocked = "file_blocked"
	FileDeleted = "file_deleted"
)

// News are what the backend is told about a file: that it became ready, or that
// it cannot be read any more, since it is blocked or deleted. Who was told of
// an upload that the client saw fail, or only of its deletion, has missed
// nothing. Where a file is deleted while it is still told that it became ready,
// that may be told last: ids are never used again, so what was deleted stays
// so.
type News struct {
	Event    string   `json:"event"`
	Delivery string   `json:"delivery"` // the same each time this is told
	File     FileInfo `json:"file"`
}

func newsOf(event string, f File) News {
	return News{Event: event, Delivery: event + "-" + f.ID, File: infoOf(f)}
}

// became is called where a file has got the state that it is in now, by this
// process: Checking, Ready or Blocked. There is no other place where one does.
func (s *Service) became(ctx context.Context, f File) {
	switch f.State {
	case Checking:
		s.checks.poke()
	case Blocked:
		s.wipeLater(ctx, f)
	}
	s.announce(ctx, f)
}

// announce tells users and the backend that a file is ready, or blocked, and
// notes that the latter was told. What fails there is left to the sweeper: the
// file is kept and says what it owes.
func (s *Service) announce(ctx context.Context, f File) {
	s.tellUsers(f)
	if !f.Owed {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTimeout)
	defer cancel()
	if err := s.settle(ctx, f); err != nil {
		slog.WarnContext(ctx, "the backend is told of a file later", "file", f.ID, "error", err)
	}
}

func (s *Service) settle(ctx context.Context, f File) error {
	if s.tell != nil { // nil: nobody wants to know any more
		event := FileReady
		if f.State == Blocked {
			event = FileBlocked
		}
		if err := s.tell(ctx, newsOf(event, f)); err != nil {
			return err
		}
	}
	return s.ledger.Settle(ctx, f)
}

// sweepOwed tells what was not told. If one cannot be told, the others wait
// for the next sweep with it.
func (s *Service) sweepOwed(ctx context.Context) error {
	before := s.longAgo(2 * tellTimeout)
	for {
		files, err := s.ledger.Owed(ctx, before, sweepBatch)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := s.settle(ctx, f); err != nil {
				return err
			}
		}
		if len(files) < sweepBatch {
			return nil
		}
	}
}
