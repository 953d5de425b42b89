package transfer

import (
	"context"
	"errors"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/transfer/clamd"
)

const nameClamd = "clamd"

var (
	errClamdAway = fault.New(fault.Unavailable, "clamd_unavailable", "The virus scanner cannot be asked right now.")
	errClamdSlow = errors.New("it took longer than files.check.timeout")
)

// clamdChecker has a clamd look for viruses.
type clamdChecker struct {
	CheckSettings
	daemon clamd.Daemon
	store  Store
}

func newClamdChecker(s CheckSettings, store Store) *clamdChecker {
	daemon, _ := clamd.At(s.Clamd.Address) // the settings were checked
	return &clamdChecker{s, daemon, store}
}

func (c *clamdChecker) name() string { return nameClamd }

func (c *clamdChecker) check(ctx context.Context, f File) (finding, error) {
	if f.Size > int64(c.Clamd.MaxStream) {
		return finding{outcome: unsuitable}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, errClamdSlow)
	defer cancel()
	content, err := c.store.Open(ctx, f.Key, 0, -1)
	if err != nil {
		return finding{}, err
	}
	defer func() { _ = content.Close() }() // only read
	virus, err := c.daemon.Scan(ctx, content)
	switch {
	case errors.Is(err, clamd.ErrSize):
		return finding{outcome: unsuitable}, nil
	case err != nil:
		return finding{}, errClamdAway.Because(err)
	case virus != "":
		return finding{objected, cleanLabel(virus)}, nil
	}
	return finding{outcome: passed}, nil
}
