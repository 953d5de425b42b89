package webhook

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

var (
	errQueueFull = fault.New(fault.Unavailable, "webhook_queue_full", "Too much waits for the service behind this server: try again later.")
	errQueueAway = fault.New(fault.Unavailable, "webhook_queue_unavailable", "The queue for the service behind this server is away: try again.")

	// ErrNoDelivery answers for an id that is not among the dead.
	ErrNoDelivery = fault.New(fault.NotFound, "delivery_unknown", "There is no undeliverable item with this id.")

	// ErrLeaseLost answers whoever settles an item after its lease was over
	// and somebody else took it.
	ErrLeaseLost = fault.New(fault.Conflict, "lease_lost", "Somebody else has taken this delivery.")
)

// Queue keeps items until they are settled. [FileQueue] and [RedisQueue]
// implement it.
//
// Only the oldest item of a lane can be taken, so what waits for a retry holds
// up its lane and nothing else. Any method may return a fault of kind
// Unavailable, `webhook_queue_unavailable`, while what the queue stands on is
// away. All methods are safe for concurrent use.
type Queue interface {
	// Put adds an item, which is there when Put returns; one whose id is in
	// the queue already, dead or alive, is not added again. Faults: Invalid
	// `webhook_item`, TooLarge `webhook_item_too_large`, Unavailable
	// `webhook_queue_full`.
	Put(ctx context.Context, item *Item) error
	// Take returns an item that is due, nil if there is none. It is the
	// caller's for the time of the lease and then anybody's again.
	Take(ctx context.Context, lease time.Duration) (*Claim, error)

	// Done, Retry and Bury settle an item that was taken: remove it, leave it
	// with what the claim's Item says now to be due again in a while, or
	// move it to the dead. They answer ErrLeaseLost, and change nothing,
	// where somebody else has taken it meanwhile.
	Done(ctx context.Context, c *Claim) error
	Retry(ctx context.Context, c *Claim, in time.Duration) error
	Bury(ctx context.Context, c *Claim) error

	// Size counts what waits and what is dead.
	Size(ctx context.Context) (pending, dead int, err error)
	// Dead lists at most limit dead items, the latest first, after skipping
	// some.
	Dead(ctx context.Context, skip, limit int) ([]*Item, error)
	// Replay puts a dead item at the end of its lane, as if it were new, or
	// answers ErrNoDelivery or `webhook_queue_full`.
	Replay(ctx context.Context, id string) error
	// Drop forgets a dead item, or answers ErrNoDelivery.
	Drop(ctx context.Context, id string) error
}

// Claim is an item that was taken.
type Claim struct {
	Item *Item

	lane  string
	place string // of the item in its lane, as its queue names it
	token string // of the lease
}

// decodeClaim completes c with the stored item. A damaged one can never be
// delivered: it is logged and removed so that it does not hold up its lane,
// and nil is returned.
func decodeClaim(ctx context.Context, q Queue, c *Claim, id string, data []byte) (*Claim, error) {
	item, err := decodeItem(data)
	if err == nil && item.ID == id {
		c.Item = item
		return c, nil
	}
	slog.ErrorContext(ctx, "a queued delivery is damaged and dropped", "delivery", id, "error", err)
	c.Item = &Item{ID: id}
	return nil, q.Done(ctx, c)
}

// deadItem shows a damaged item for what it is.
func deadItem(id string, data []byte) *Item {
	item, err := decodeItem(data)
	if err != nil {
		return &Item{ID: id, Failure: "the record is damaged"}
	}
	return item
}

// queueError is what a queue answers when what it stands on failed with err.
func queueError(err error) error {
	if _, ours := errors.AsType[*fault.Error](err); ours || err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return errQueueAway.Because(err)
}
