package transfer

import (
	"context"
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/transfer/clamd"
)

const (
	nameClamd  = "clamd"
	clamdFails = 3                // files in a row that it says nothing about, after which it is spared
	clamdRest  = 15 * time.Second // between the files it is tried with then, one at a time
)

var (
	errClamdAway   = fault.New(fault.Unavailable, "clamd_unavailable", "The virus scanner cannot be asked right now.")
	errClamdSpared = fault.New(fault.Limited, "clamd_paused", "The virus scanner has not answered for a while and is not asked.").After(clamdRest)
	errClamdSlow   = errors.New("it took longer than files.check.timeout")
)

// clamdChecker has a clamd look for viruses. One that hangs takes the time of
// one worker, not of all: other checkers need them.
type clamdChecker struct {
	CheckSettings
	daemon clamd.Daemon
	store  Store
	spare  *gobreaker.CircuitBreaker[string]
}

func newClamdChecker(s CheckSettings, store Store, rest time.Duration) *clamdChecker {
	daemon, _ := clamd.At(s.Clamd.Address) // the settings were checked
	spare := gobreaker.NewCircuitBreaker[string](gobreaker.Settings{
		Timeout:      rest,
		ReadyToTrip:  func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= clamdFails },
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, clamd.ErrSize) },
		IsExcluded:   func(err error) bool { return isUnread(err) || errors.Is(err, context.Canceled) },
	})
	return &clamdChecker{s, daemon, store, spare}
}

// unreadError is that of a file that the storage did not give.
type unreadError struct{ error }

func (e unreadError) Unwrap() error { return e.error }

func isUnread(err error) bool {
	_, ok := errors.AsType[unreadError](err)
	return ok
}

func (c *clamdChecker) name() string { return nameClamd }

func (c *clamdChecker) check(ctx context.Context, f File) (finding, error) {
	if f.Size > int64(c.Clamd.MaxStream) {
		return finding{outcome: unsuitable}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, errClamdSlow)
	defer cancel()
	virus, err := c.spare.Execute(func() (string, error) { return c.scan(ctx, f) })
	switch {
	case errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests):
		return finding{}, errClamdSpared
	case isUnread(err):
		return finding{}, err
	case errors.Is(err, clamd.ErrSize):
		return finding{outcome: unsuitable}, nil
	case err != nil:
		return finding{}, errClamdAway.Because(err)
	case virus != "":
		return finding{objected, cleanLabel(virus)}, nil
	}
	return finding{outcome: passed}, nil
}

func (c *clamdChecker) scan(ctx context.Context, f File) (virus string, err error) {
	content, err := c.store.Open(ctx, f.Key, 0, -1)
	if err != nil {
		return "", unreadError{err}
	}
	defer func() { _ = content.Close() }() // only read
	return c.daemon.Scan(ctx, content)
}
