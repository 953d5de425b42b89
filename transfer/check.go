package transfer

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// What is in files may have to be looked at before others than their owner read
// them. A file that has arrived then is Checking, and its record says for whose
// word it waits and when somebody has to see to it, so that any node goes on
// where another one stopped: see checkUntil. Each word is entered by weigh, as
// often and as late as it may come: what lets pass takes a name off the list,
// what objects makes the file Blocked, also one that is Ready.

var (
	errChecking = fault.New(fault.Conflict, "file_checking", "The file is still being checked: try again shortly.").After(5 * time.Second)
	errBlocked  = fault.New(fault.Gone, "file_blocked", "The file was blocked, since it did not pass the checks of its content.")
)

// blockedFault is errBlocked with the reason, for the owner and the backend.
func (f File) blockedFault() error {
	e := *errBlocked
	if r := f.Check.Reason; r.Label != "" {
		e.Msg = "The file was blocked, since it did not pass the checks of its content (" + r.Checker + ": " + r.Label + ")."
	}
	return &e
}

// checker is somebody who looks at what is in files. Three ship, with one
// contract test over all: wechatChecker, webhookChecker and clamdChecker.
type checker interface {
	// name is one word, under which a file waits for its finding.
	name() string
	// check looks at a file whose bytes are in the storage. After an error it is
	// asked again; what it has to wait for itself is later.
	check(ctx context.Context, f File) (finding, error)
}

// finding is what a checker says of a file.
type finding struct {
	outcome
	label string // of what is in the way, in the checker's own words
}

type outcome string

const (
	passed     outcome = "pass"
	objected   outcome = "block"
	unsuitable outcome = "unsuitable" // it cannot tell anything about files like this
	later      outcome = "later"      // it answers by itself
	failed     outcome = "failed"     // and has to be asked again
)

// checks are those who look at files, in the order in which they are asked:
// those first who answer soon.
type checks struct {
	CheckSettings
	checkers []checker
	lenient  map[string]bool // who lets pass what it is unsuitable for
	most     time.Duration   // that all of them may take for one file
	tick     time.Duration   // between looks for what is due
	wake     chan struct{}
	workers  chan struct{}
}

func newChecks(s *Service, o Options) (*checks, error) {
	c := &checks{
		CheckSettings: o.Settings.Inspect, lenient: map[string]bool{},
		tick: checkTick, wake: make(chan struct{}, 1), workers: make(chan struct{}, max(1, o.Settings.Inspect.Workers)),
	}
	if c.Clamd.Address != "" {
		c.checkers = append(c.checkers, newClamdChecker(c.CheckSettings, o.Store, clamdRest))
		c.most += c.Timeout
		c.lenient[nameClamd] = c.Clamd.Unsuitable == decidePass
	}
	if o.CheckWebhook.Endpoint != "" {
		w, err := newWebhookChecker(o.CheckWebhook, o.Webhooks, s.checkLink)
		if err != nil {
			return nil, err
		}
		c.checkers = append(c.checkers, w)
		c.most += o.CheckWebhook.Timeout
	}
	if c.WeChat.Enabled {
		c.checkers = append(c.checkers, &wechatChecker{c.CheckSettings, o.WeChat, o.Ledger, s.checkLink})
		c.most += c.Timeout
		c.lenient[nameWeChat] = c.WeChat.Unsuitable == decidePass
	}
	return c, nil
}

// on tells whether anybody looks at files.
func (c *checks) on() bool { return len(c.checkers) > 0 }

// checkedLife is the longest that an address of a file may work, or a copy of it
// may be used, that cannot be taken back.
const checkedLife = time.Minute

// shorten returns how long something lives that could outlive its file.
func (c *checks) shorten(d time.Duration) time.Duration {
	if c.on() {
		return min(d, checkedLife)
	}
	return d
}

// poke has checkUntil look at once.
func (c *checks) poke() {
	select {
	case c.wake <- struct{}{}:
	default: // it is about to
	}
}

// named returns a checker, nil where it is not asked any more.
func (c *checks) named(name string) checker {
	for _, k := range c.checkers {
		if k.name() == name {
			return k
		}
	}
	return nil
}

// arrived gives a file of which all is there the state that it begins with.
func (s *Service) arrived(f *File) {
	f.State, f.Changed = Ready, now()
	if s.checks.on() {
		names := make([]string, len(s.checks.checkers))
		for i, c := range s.checks.checkers {
			names[i] = c.name()
		}
		f.State = Checking
		f.Check = Check{Began: f.Changed, Due: f.Changed, Waiting: strings.Join(names, " ")}
	}
	f.Owed = s.tell != nil && f.State == Ready
}

// ask has one checker look at f.
func (s *Service) ask(ctx context.Context, c checker, f File) (finding, time.Duration) {
	found, err := c.check(ctx, f)
	if err != nil {
		found = finding{outcome: failed}
		level := slog.LevelWarn
		if fault.Of(err).Kind == fault.Limited {
			level = slog.LevelDebug // that is how it goes when there are many
		}
		slog.Log(ctx, level, "a file is checked later", "file", f.ID, "checker", c.name(), "error", err)
	}
	s.metrics.checked.WithLabelValues(c.name(), string(found.outcome)).Inc()
	if err != nil {
		return found, fault.Of(err).RetryAfter
	}
	return found, 0
}
