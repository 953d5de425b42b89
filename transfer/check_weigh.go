package transfer

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// findings are what checkers said, by their names.
type findings map[string]finding

// labelUndecided is the label of files about which somebody could not say
// anything in time, labelUnsuitable of those about which somebody never can.
const (
	labelUndecided  = "undecided"
	labelUnsuitable = "unsuitable"
)

// weigh enters findings into f and decides what becomes of it. A file that goes
// on waiting is due at next, unless that is zero, and when its time is over; for
// who failed it pauses, longer each time.
func (s *Service) weigh(f *File, found findings, next time.Time) {
	c, fails := &f.Check, false
	if f.State != Checking && f.State != Ready {
		return
	}
	for _, name := range []string{nameClamd, nameWebhook, nameWeChat} {
		v, ok := found[name]
		if !ok {
			continue
		}
		if v.outcome == unsuitable {
			v = finding{objected, labelUnsuitable}
			if s.checks.lenient[name] {
				v.outcome = passed
			}
		}
		switch v.outcome {
		case objected:
			s.block(f, Reason{name, v.label})
			return
		case passed:
			c.Waiting, c.Asked = without(c.Waiting, name), without(c.Asked, name)
		case failed:
			c.Asked, fails = without(c.Asked, name), true
		case later:
			if has(c.Waiting, name) { // else its word was faster than this
				c.Asked, c.AskedAt = with(c.Asked, name), now()
			}
		}
	}
	if f.State != Checking {
		return
	}
	end := c.Began.Add(s.checks.GiveUp)
	switch {
	case c.Waiting == "":
		s.pass(f)
	case !now().Before(end) && s.checks.Undecided == decidePass:
		s.pass(f)
	case !now().Before(end):
		s.block(f, Reason{strings.Fields(c.Waiting)[0], labelUndecided})
	case !next.IsZero():
		pause := min(firstPause<<min(c.Tries, mostDoubled), mostPause)
		if again := now().Add(pause); fails && again.After(next) {
			next = again
		}
		if c.Due = next; end.Before(next) {
			c.Due = end
		}
		c.Tries++
	}
}

func (s *Service) pass(f *File) {
	f.State, f.Owed = Ready, s.tell != nil
	f.Check.Due = time.Time{}
}

// block makes f one that nobody reads. Its record goes when everybody has had
// the time to learn why.
func (s *Service) block(f *File, why Reason) {
	f.State, f.Owed = Blocked, s.tell != nil
	f.Check.Reason, f.Check.Due = why, now()
	f.Expires = now().Add(s.checks.KeepBlocked)
}

// conclude enters findings about a file. Where it is gone, they are of no use.
func (s *Service) conclude(ctx context.Context, id string, found findings, next time.Time) error {
	var was State
	f, err := s.ledger.Amend(ctx, id, func(f *File) error {
		was = f.State
		s.weigh(f, found, next)
		return nil
	})
	if errors.Is(err, errNoFile) || errors.Is(err, errFileState) {
		return nil
	}
	if err == nil && f.State != was {
		s.became(ctx, f)
	}
	return err
}

// wipe removes the bytes of a blocked file.
func (s *Service) wipe(ctx context.Context, f File) error {
	if err := s.removeBytes(ctx, f); err != nil {
		return err
	}
	_, err := s.ledger.Amend(ctx, f.ID, func(f *File) error {
		f.Thumbs, f.Check.Due = "", time.Time{}
		return nil
	})
	if errors.Is(err, errNoFile) || errors.Is(err, errFileState) {
		return nil // it has been deleted
	}
	return err
}

// wipeLater is wipe even if ctx has ended. What fails here is due for whoever
// looks next.
func (s *Service) wipeLater(ctx context.Context, f File) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	if err := s.wipe(ctx, f); err != nil {
		slog.WarnContext(ctx, "the bytes of a blocked file are removed later", "file", f.ID, "error", err)
	}
}

// Lists of names with a space between them.

func has(list, name string) bool { return slices.Contains(strings.Fields(list), name) }

func with(list, name string) string {
	if has(list, name) {
		return list
	}
	return strings.Join(append(strings.Fields(list), name), " ")
}

func without(list, name string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(list), func(n string) bool { return n == name }), " ")
}
