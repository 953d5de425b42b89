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
// on waiting is due at next at the earliest, unless that is zero: then somebody
// else sees to it.
func (s *Service) weigh(f *File, found findings, next time.Time) {
	if f.State != Checking && f.State != Ready {
		return
	}
	c := &f.Check
	why, fails := s.enter(c, found)
	if why.Checker != "" {
		s.block(f, why)
		return
	}
	if f.State != Checking {
		return
	}
	end := c.Began.Add(s.checks.GiveUp)
	over := !now().Before(end) && (c.Asked == "" || !now().Before(s.checks.answered(*c)))
	switch {
	case c.Waiting == "":
		s.pass(f)
	case over && s.checks.Undecided == decidePass:
		s.pass(f)
	case over:
		s.block(f, Reason{strings.Fields(c.Waiting)[0], labelUndecided})
	case !next.IsZero():
		c.Due = s.checks.dueOf(*c, next, fails)
		c.Tries++
	}
}

// enter enters findings into c. why is of the first that is in the way; fails
// tells whether somebody could not say anything.
func (s *Service) enter(c *Check, found findings) (why Reason, fails bool) {
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
			return Reason{name, v.label}, fails
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
	return Reason{}, fails
}

// dueOf is when somebody has to see to a file again: when who was asked should
// have said something, and for others at next; where somebody could not say
// anything not before a pause is over, longer each time; and when the time of the
// file is.
func (c *checks) dueOf(of Check, next time.Time, fails bool) time.Time {
	due := next
	switch again := now().Add(min(firstPause<<min(of.Tries, mostDoubled), mostPause)); {
	case !slices.ContainsFunc(strings.Fields(of.Waiting), func(name string) bool { return !has(of.Asked, name) }):
		due = c.answered(of)
	case fails && again.After(next):
		due = again
	}
	if end := of.Began.Add(c.GiveUp); now().Before(end) && end.Before(due) {
		due = end
	}
	return due
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
