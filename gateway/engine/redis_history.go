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
	cmd := redis.NewCmd(ctx, "evalsha", historyScript, 2, e.keys.meta(channel), e.keys.stream(channel),
		newEpoch(), millis(orDefault(q.MetaTTL, DefaultMetaTTL)), read, from, to, max(q.Limit, -1))
	if err := e.lanes.of(channel).do(ctx, cmd); err != nil {
		return nil, Position{}, err
	}
	return historyReply(cmd)
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

func historyReply(cmd *redis.Cmd) ([]*protocol.Publication, Position, error) {
	reply, err := cmd.Slice()
	if err != nil || len(reply) != 3 {
		return nil, Position{}, errReply
	}
	epoch, _ := reply[0].(string)
	top, _ := reply[1].(string)
	offset, err := strconv.ParseUint(top, 10, 64)
	if err != nil || epoch == "" {
		return nil, Position{}, errReply
	}
	entries, _ := reply[2].([]any)
	pubs := make([]*protocol.Publication, 0, len(entries))
	for _, entry := range entries {
		pub, err := decodeEntry(entry)
		if err != nil {
			return nil, Position{}, err
		}
		pubs = append(pubs, pub)
	}
	return pubs, Position{Offset: offset, Epoch: epoch}, nil
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
func (e *Redis) RemoveHistory(ctx context.Context, channel string) error {
	if _, err := e.wait(ctx); err != nil {
		return err
	}
	return e.lanes.of(channel).do(ctx, redis.NewIntCmd(ctx, "del", e.keys.stream(channel)))
}
