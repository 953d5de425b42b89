package engine

import (
	"context"
	"math"
	"strconv"
	"strings"

	"github.com/centrifugal/protocol"
	"github.com/redis/go-redis/v9"
)

// History implements Engine.
func (e *Redis) History(ctx context.Context, channel string, q HistoryQuery) ([]*protocol.Publication, Position, error) {
	if _, err := e.wait(ctx); err != nil {
		return nil, Position{}, err
	}
	read, from, to := historyRange(q)
	meta := e.keys.meta(channel)
	ttl := orDefault(q.MetaTTL, DefaultMetaTTL)
	empty := min(ttl, max(q.Keep, e.timing.empty)) // of the epoch where nothing was published yet
	c, cmd := historyScript.eval([]string{meta, e.keys.stream(channel)},
		newEpoch(), millis(ttl), millis(empty), read, from, to, max(q.Limit, -1))
	if err := e.lanes.of(meta).do(ctx, c); err != nil {
		return nil, Position{}, err
	}
	pubs, top, before, err := historyReply(cmd)
	if err != nil {
		return nil, Position{}, err
	}
	if q.Since != nil {
		*q.Since = q.Since.Under(top, before)
	}
	if q.Before != nil {
		*q.Before = before
	}
	if top.Offset == 0 && ttl > e.timing.empty {
		e.empty.add(channel, empty)
	}
	return pubs, top, nil
}

// historyRange says how to read q: XRANGE ("-"), XREVRANGE ("+") or not at all.
func historyRange(q HistoryQuery) (read, from, to string) {
	if q.Limit == 0 {
		return "", "", ""
	}
	if q.Reverse {
		from = "+"
		switch {
		case q.Since == nil:
		case q.Since.Offset == 0: // nothing is older than the first
			return "", "", ""
		default:
			from = "(" + strconv.FormatUint(q.Since.Offset, 10) + "-0"
		}
		return "+", from, "-"
	}
	from = "-"
	if q.Since != nil {
		if q.Since.Offset == math.MaxUint64 {
			return "", "", ""
		}
		from = strconv.FormatUint(q.Since.Offset+1, 10)
	}
	return "-", from, "+"
}

// historyReply also returns the end of the epoch before, if there was one.
func historyReply(cmd *redis.Cmd) (pubs []*protocol.Publication, top, before Position, err error) {
	reply, err := cmd.Slice()
	if err != nil || len(reply) != 5 {
		return nil, top, before, errReply
	}
	if top, err = readPosition(reply[0], reply[1]); err != nil || top.Epoch == "" {
		return nil, top, before, errReply
	}
	if before, err = readPosition(reply[3], reply[4]); err != nil {
		return nil, top, before, errReply
	}
	entries, _ := reply[2].([]any)
	pubs = make([]*protocol.Publication, 0, len(entries))
	for _, entry := range entries {
		pub, err := decodeEntry(entry)
		if err != nil {
			return nil, top, before, err
		}
		pubs = append(pubs, pub)
	}
	return pubs, top, before, nil
}

func readPosition(epoch, offset any) (Position, error) {
	e, _ := epoch.(string)
	o, _ := offset.(string)
	n, err := strconv.ParseUint(o, 10, 64)
	return Position{Offset: n, Epoch: e}, err
}

// decodeEntry reads a stream entry: [id, [field, payload]].
func decodeEntry(entry any) (*protocol.Publication, error) {
	parts, _ := entry.([]any)
	if len(parts) != 2 {
		return nil, errReply
	}
	id, _ := parts[0].(string)
	fields, _ := parts[1].([]any)
	if len(fields) != 2 {
		return nil, errReply
	}
	payload, _ := fields[1].(string)
	number, _, _ := strings.Cut(id, "-")
	offset, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return nil, errReply
	}
	pub := new(protocol.Publication)
	if err := pub.UnmarshalCF([]byte(payload)); err != nil {
		return nil, err
	}
	pub.Offset = offset
	return pub, nil
}

// RemoveHistory implements Engine.
func (e *Redis) RemoveHistory(ctx context.Context, channel string) (top Position, err error) {
	if _, err := e.wait(ctx); err != nil {
		return top, err
	}
	meta := e.keys.meta(channel)
	c, cmd := removeScript.eval([]string{meta, e.keys.stream(channel)})
	if err := e.lanes.of(meta).do(ctx, c); err != nil {
		return top, err
	}
	reply, err := cmd.Slice()
	if err != nil || len(reply) != 2 {
		return top, errReply
	}
	if top, err = readPosition(reply[0], reply[1]); err != nil {
		return Position{}, errReply
	}
	return top, nil
}
