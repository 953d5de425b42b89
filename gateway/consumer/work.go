package consumer

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/minigate/minigate/internal/fault"
)

const (
	ackMany    = 500
	ackTimeout = 3 * time.Second
	maxReason  = 512 // bytes
)

// work carries out entries until the lanes are closed, and begins none after
// stopping.
func (ses *session) work(stopping context.Context) {
	for {
		ln := ses.lanes.next()
		if ln == nil || stopping.Err() != nil {
			return
		}
		it := ses.lanes.head(ln)
		result, err := ses.attempt(ln, it)
		if err != nil && ses.ctx.Err() != nil {
			return // the lease is over: it stays pending for who comes next
		}
		if err != nil {
			ses.metrics.failures.WithLabelValues(ses.consumer).Inc()
			ses.lanes.failed(ln, time.Now())
			continue
		}
		ses.metrics.entries.WithLabelValues(ses.consumer, result).Inc()
		ses.acks.add(it.id)
		ses.lanes.done(ln)
	}
}

// attempt carries out an entry or sets it aside. The error says that it is to
// be tried again.
func (ses *session) attempt(ln *lane, it item) (result string, err error) {
	e, reason := it.entry, it.reason
	if e == nil && reason == nil {
		if e, reason, err = ses.fetch(it.id); err != nil {
			return "", err
		}
	}
	switch {
	case reason != nil:
		return resultPoison, ses.setAside(it.id, e, reason)
	case e == nil:
		ses.trouble.log.Warn("an entry was deleted before its turn", "entry", it.id)
		return resultGone, nil
	}
	err = ses.call(ses.ctx, e.method, e.payload, ses.name+" "+it.id)
	switch {
	case err == nil:
		return resultDone, nil
	case ses.ctx.Err() != nil:
		return "", err
	case !forNow(err):
		return resultPoison, ses.setAside(it.id, e, err)
	case ln.failing() && time.Since(ln.since) >= ses.GiveUpAfter: // its holder may look
		return resultGivenUp, ses.setAside(it.id, e, fmt.Errorf("it failed for %s: %w", ses.GiveUpAfter, err))
	}
	if !ln.failing() {
		ses.trouble.log.Warn("an entry fails for now and holds up its key", "entry", it.id, "method", e.method, "error", err)
	}
	return "", err
}

// forNow tells whether a repeat may do what failed.
func forNow(err error) bool {
	switch fault.Of(err).Kind {
	case fault.Internal, fault.Timeout, fault.Limited, fault.Upstream, fault.Unavailable, fault.UpstreamTimeout:
		return true
	}
	return false
}

// fetch reads an entry again, of which only the id was kept.
func (ses *session) fetch(id string) (e *entry, reason, err error) {
	answer, err := fetchScript.Run(ses.ctx, ses.client, []string{ses.name}, id, int64(ses.MaxEntry)).Result()
	if err != nil {
		return nil, nil, err
	}
	list, err := parseShown(answer)
	if err != nil || len(list) != 1 {
		return nil, nil, errAnswer
	}
	e, reason = list[0].open()
	return e, reason, nil
}

// setAside keeps an entry for somebody to look at.
func (ses *session) setAside(id string, e *entry, reason error) error {
	ses.trouble.log.Warn("an entry is set aside", "entry", id, "method", clip(e.method, maxMethod), "error", reason)
	if ses.DeadMaxLen == 0 {
		return nil
	}
	values := []any{"reason", clip(reason.Error(), maxReason), "stream", ses.name, "entry", id}
	for _, f := range e.fields {
		values = append(values, f)
	}
	return ses.client.XAdd(ses.ctx, &redis.XAddArgs{
		Stream: ses.name + ".dead", MaxLen: int64(ses.DeadMaxLen), Approx: true, Values: values,
	}).Err()
}

func clip(s string, limit int) string {
	return strings.ToValidUTF8(s[:min(len(s), limit)], "")
}

// acks are entries that are finished and not yet acknowledged.
type acks struct {
	mu   sync.Mutex
	ids  []string
	some chan struct{} // capacity 1
}

func (a *acks) init() { a.some = make(chan struct{}, 1) }

func (a *acks) add(id string) {
	a.mu.Lock()
	a.ids = append(a.ids, id)
	a.mu.Unlock()
	select {
	case a.some <- struct{}{}:
	default: // somebody has
	}
}

// acknowledge tells Redis what is finished until ctx ends, and then what is
// left. What could not be acknowledged is first in the next try, so that of
// one key nothing later is acknowledged before it.
func (ses *session) acknowledge(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			_ = ses.flush(context.WithoutCancel(ctx)) // else they will be repeated
			return
		case <-ses.acks.some:
		}
		for ses.flush(ctx) != nil && ctx.Err() == nil {
			sleep(ctx, again)
		}
	}
}

func (ses *session) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	a := &ses.acks
	for {
		a.mu.Lock()
		ids := a.ids[:min(len(a.ids), ackMany)]
		a.mu.Unlock()
		if len(ids) == 0 {
			return nil
		}
		if err := ses.client.XAck(ctx, ses.name, ses.ConsumerGroup, ids...).Err(); err != nil {
			return err
		}
		a.mu.Lock()
		a.ids = a.ids[len(ids):]
		a.mu.Unlock()
	}
}

// age is how old an entry is by its id, in seconds; ids that are no times have
// none.
func age(id string, now int64) float64 {
	ms, _, _ := strings.Cut(id, "-")
	t, err := strconv.ParseInt(ms, 10, 64)
	if err != nil || t > now {
		return 0
	}
	return float64(now-t) / 1000
}
