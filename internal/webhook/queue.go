package webhook

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/seal"
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

	// Size measures what waits and what is dead.
	Size(ctx context.Context) (Size, error)
	// Trim removes what is dead for too long or too much; Bury does so, too.
	Trim(ctx context.Context) error
	// Dead lists at most limit dead items, the latest first, after skipping
	// some. Their keys and bodies stay sealed.
	Dead(ctx context.Context, skip, limit int) ([]*Item, error)
	// DeadIDs lists at most limit ids of dead items, the oldest first.
	DeadIDs(ctx context.Context, limit int) ([]string, error)
	// Find returns one dead item, or answers ErrNoDelivery, or ErrSealed
	// together with what is not sealed.
	Find(ctx context.Context, id string) (*Item, error)
	// Replay puts a dead item at the end of its lane, as if it were new, or
	// answers ErrNoDelivery, ErrSealed or `webhook_queue_full`.
	Replay(ctx context.Context, id string) error
	// Drop forgets a dead item, or answers ErrNoDelivery.
	Drop(ctx context.Context, id string) error
}

// Size is how much is in a queue.
type Size struct {
	Pending   int
	Oldest    time.Time // when the pending item that waits longest was put or replayed; zero if none does
	Dead      int
	DeadBytes int64 // as stored
}

// QueueOptions are what a queue is made of.
type QueueOptions struct {
	Settings QueueSettings
	Sealer   *seal.Sealer // of keys and bodies
	Metrics  *Metrics     // nil counts for nobody
}

func (o QueueOptions) complete() QueueOptions {
	if o.Metrics == nil {
		o.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	return o
}

// trimAtOnce bounds what one step removes, so that it stays short also where
// a limit was lowered by much.
const trimAtOnce = 1000

// trimmed is how many dead items went for which reason.
type trimmed struct{ age, count, bytes int }

func (t trimmed) total() int { return t.age + t.count + t.bytes }

// lost counts what was trimmed.
func (m *Metrics) lost(t trimmed) {
	m.trimmed.WithLabelValues("age").Add(float64(t.age))
	m.trimmed.WithLabelValues("count").Add(float64(t.count))
	m.trimmed.WithLabelValues("bytes").Add(float64(t.bytes))
}

// Claim is an item that was taken.
type Claim struct {
	Item *Item

	lane  string
	place string // of the item in its lane, as its queue names it
	token string // of the lease
}

// decodeClaim completes c with the stored item. One that can never be
// delivered must not hold up its lane, and nil is returned: what cannot be
// opened is buried, what is no record at all is removed.
func decodeClaim(ctx context.Context, q Queue, o QueueOptions, c *Claim, id string, data []byte) (*Claim, error) {
	item, err := decodeHeader(data)
	if err != nil || item.ID != id {
		slog.ErrorContext(ctx, "a queued delivery is damaged and dropped", "delivery", id, "error", err)
		c.Item = &Item{ID: id}
		return nil, unlessLost(q.Done(ctx, c))
	}
	c.Item = item
	if err := item.open(o.Sealer); err != nil {
		slog.ErrorContext(ctx, "a queued delivery cannot be opened and is given up", "hook", item.Hook, "event", item.Event, "delivery", id, "error", err)
		o.Metrics.deliveries.WithLabelValues(item.Hook, resultDead).Inc()
		return nil, unlessLost(q.Bury(ctx, c))
	}
	return c, nil
}

// unlessLost is for who does not mind that somebody else was faster.
func unlessLost(err error) error {
	if errors.Is(err, ErrLeaseLost) {
		return nil
	}
	return err
}

// deadItem shows a damaged item for what it is.
func deadItem(id string, data []byte) *Item {
	item, err := decodeHeader(data)
	if err != nil {
		return &Item{ID: id, Failure: failureBroken}
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
