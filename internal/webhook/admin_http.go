package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// The handlers in this file are for operators. They ask for no token: whoever
// mounts them has to know who calls.

const (
	maxAdminBody = 4 << 10 // bytes
	defaultPage  = 50
	maxPage      = 100
	maxSkip      = 1_000_000 // as many as can be dead
)

var (
	errPage  = fault.Newf(fault.Invalid, "page_invalid", "limit is between 1 and %d, skip between 0 and %d.", maxPage, maxSkip)
	errWhich = fault.New(fault.Invalid, "delivery_missing", `Either delivery, an id, or "all": true is required.`)
)

// QueueInfo is the size of the queue as operators see it.
type QueueInfo struct {
	Pending   int       `json:"pending"`
	Oldest    time.Time `json:"oldest,omitzero"` // since when the one that waits longest has waited
	Dead      int       `json:"dead"`
	DeadBytes int64     `json:"dead_bytes"`
}

// DeadInfo is a dead delivery as operators see it. It says nothing about a
// user unless its body was asked for.
type DeadInfo struct {
	ID       string    `json:"id"`
	Hook     string    `json:"hook"`
	Event    string    `json:"event"`
	Queued   time.Time `json:"queued"`
	Died     time.Time `json:"died,omitzero"` // zero where the record is damaged
	Attempts int       `json:"attempts"`
	Status   int       `json:"status"` // of the last answer in HTTP, 0 if none came
	Reason   string    `json:"reason"`

	Key  string          `json:"key,omitempty"`
	Body json.RawMessage `json:"body,omitempty"`
}

func infoOf(i *Item) DeadInfo {
	return DeadInfo{ID: i.ID, Hook: i.Hook, Event: i.Event, Queued: i.Queued, Died: i.Died, Attempts: i.Attempts, Status: i.Status, Reason: i.Failure}
}

// ListAnswer is what ServeDead answers.
type ListAnswer struct {
	Queue      QueueInfo  `json:"queue"`
	Deliveries []DeadInfo `json:"deliveries"` // of the dead, the latest first
}

// ManyAnswer is what ServeReplay and ServeDrop answer.
type ManyAnswer struct {
	Done    int    `json:"done"`
	Failed  int    `json:"failed"`            // and still dead
	Problem string `json:"problem,omitempty"` // of the first that failed: code and sentence
}

// ServeDead is POST {skip?, limit?} → ListAnswer; limit is 50 unless given,
// and 100 at most. Fault: Invalid `page_invalid`.
func (d *Dispatcher) ServeDead(w http.ResponseWriter, r *http.Request) error {
	page := struct{ Skip, Limit int }{Limit: defaultPage}
	if err := rest.Decode(w, r, maxAdminBody, &page); err != nil {
		return err
	}
	if page.Limit < 1 || page.Limit > maxPage || page.Skip < 0 || page.Skip > maxSkip {
		return errPage
	}
	size, err := d.queue.Size(r.Context())
	if err != nil {
		return err
	}
	list, err := d.queue.Dead(r.Context(), page.Skip, page.Limit)
	if err != nil {
		return err
	}
	answer := ListAnswer{QueueInfo(size), make([]DeadInfo, 0, len(list))}
	for _, item := range list {
		answer.Deliveries = append(answer.Deliveries, infoOf(item))
	}
	return rest.JSON(w, http.StatusOK, answer)
}

// target is the body of those that act on one or all.
type target struct {
	Delivery string `json:"delivery"` // id
	All      bool   `json:"all"`
	Body     bool   `json:"body"`
}

// ServeShow is POST {delivery, body?} → DeadInfo; only `"body": true` brings
// key and body, which are about a user: that is logged. Faults: NotFound
// `delivery_unknown`; Conflict `delivery_sealed` for a body that cannot be
// opened.
func (d *Dispatcher) ServeShow(w http.ResponseWriter, r *http.Request) error {
	var t target
	if err := rest.Decode(w, r, maxAdminBody, &t); err != nil {
		return err
	}
	item, err := d.queue.Find(r.Context(), t.Delivery)
	if err != nil && (t.Body || !errors.Is(err, ErrSealed)) {
		return err
	}
	answer := infoOf(item)
	if t.Body {
		slog.InfoContext(r.Context(), "an operator looks at the body of a dead delivery", "hook", item.Hook, "delivery", item.ID)
		answer.Key, answer.Body = item.Key, item.Body
	}
	return rest.JSON(w, http.StatusOK, answer)
}

// ServeReplay is POST {delivery} or {all: true} → ManyAnswer. All are replayed
// in the order in which they died. Faults: NotFound `delivery_unknown`,
// Conflict `delivery_sealed`, Unavailable `webhook_queue_full`.
func (d *Dispatcher) ServeReplay(w http.ResponseWriter, r *http.Request) error {
	return d.serveMany(w, r, "dead deliveries are replayed", d.queue.Replay)
}

// ServeDrop is POST {delivery} or {all: true} → ManyAnswer. Fault: NotFound
// `delivery_unknown`.
func (d *Dispatcher) ServeDrop(w http.ResponseWriter, r *http.Request) error {
	return d.serveMany(w, r, "dead deliveries are dropped", d.queue.Drop)
}

func (d *Dispatcher) serveMany(w http.ResponseWriter, r *http.Request, what string, act func(context.Context, string) error) error {
	var t target
	if err := rest.Decode(w, r, maxAdminBody, &t); err != nil {
		return err
	}
	if t.All == (t.Delivery != "") {
		return errWhich
	}
	answer, err := ManyAnswer{Done: 1}, error(nil)
	if t.All {
		answer, err = d.many(r.Context(), act)
	} else {
		err = act(r.Context(), t.Delivery)
	}
	if err != nil {
		return err
	}
	slog.InfoContext(r.Context(), what, "count", answer.Done, "delivery", t.Delivery, "failed", answer.Failed)
	d.rouse()
	nudge(d.look)
	return rest.JSON(w, http.StatusOK, answer)
}

// many does something to all that are dead now. What concerns one of them
// leaves the others alone; it is an error only if nothing worked at all.
func (d *Dispatcher) many(ctx context.Context, act func(context.Context, string) error) (answer ManyAnswer, err error) {
	ids, err := d.queue.DeadIDs(ctx, maxSkip)
	if err != nil {
		return answer, err
	}
	var first error
	for n, id := range ids {
		err := act(ctx, id)
		switch {
		case err == nil:
			answer.Done++
			continue
		case errors.Is(err, ErrNoDelivery):
			continue // somebody was faster
		case first == nil:
			first = err
		}
		if errors.Is(err, ErrSealed) {
			answer.Failed++
			continue
		}
		answer.Failed += len(ids) - n // the queue is full or away
		break
	}
	if first != nil {
		if answer.Done == 0 {
			return answer, first
		}
		why := fault.Of(first)
		answer.Problem = why.Code + ": " + why.Msg
	}
	return answer, nil
}
