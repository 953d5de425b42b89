package engine

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/redis/go-redis/v9"
)

// Publish implements Engine.
func (e *Redis) Publish(ctx context.Context, channel string, pub *protocol.Publication, o PublishOptions) (PublishResult, error) {
	if _, err := e.wait(ctx); err != nil {
		return PublishResult{}, err
	}
	pub.Offset = 0 // the stream and the envelope say it
	payload, err := pub.MarshalCF()
	if err != nil {
		return PublishResult{}, err
	}
	asker := ":"
	var q *inquiry
	if o.Count {
		q = e.inquiries.start()
		defer e.inquiries.end(q)
		asker = e.presence.uid + ":" + strconv.FormatUint(q.id, 10)
	}
	res, heard, err := e.publish(ctx, channel, payload, asker, o)
	pub.Offset = res.Position.Offset
	if err != nil || q == nil || res.Repeated || res.Suppressed {
		return res, err
	}
	if e.countsByAsking() {
		heard = e.askWhoHears(ctx, q, channel)
	}
	if heard > 0 {
		_, res.Sockets = q.await(ctx, heard, countLimit)
	}
	return res, nil
}

// publish sends a publication and tells how many nodes hear it.
func (e *Redis) publish(ctx context.Context, channel string, payload []byte, asker string, o PublishOptions) (res PublishResult, heard int, err error) {
	live := e.keys.live(channel)
	history := o.HistorySize > 0 && o.HistoryTTL > 0
	if !history && o.IdempotencyKey == "" {
		message := make([]byte, 0, len("1p0::\n")+len(asker)+len(payload))
		message = append(append(append(append(message, "1p0::"...), asker...), '\n'), payload...)
		cmd := redis.NewIntCmd(ctx, e.publishName(), live, message)
		if err := e.lanes.of(live).do(ctx, plain(live, cmd)); err != nil {
			return res, 0, err
		}
		return res, int(cmd.Val()), nil
	}
	size, ttl, meta, wait := 0, time.Duration(0), time.Duration(0), 0
	lanes := e.lanes
	if history {
		size, ttl, meta = o.HistorySize, o.HistoryTTL, max(orDefault(o.MetaTTL, DefaultMetaTTL), o.HistoryTTL)
		if e.durable.waits() {
			lanes, wait = e.durable, 1
		}
	}
	// A key too many is one too many that has to be there while a slot moves.
	metaKey := e.keys.meta(channel)
	result, keep := metaKey, time.Duration(0)
	if o.IdempotencyKey != "" {
		result, keep = e.keys.result(channel, o.IdempotencyKey), orDefault(o.IdempotencyTTL, DefaultIdempotencyTTL)
	}
	c, cmd := publishScript.eval([]string{metaKey, e.keys.stream(channel), result},
		newEpoch(), payload, size, millis(ttl), millis(meta), live, asker, millis(keep),
		strconv.FormatUint(o.Version, 10), o.VersionEpoch, wait)
	err = lanes.of(live).do(ctx, c)
	if err != nil && !errors.Is(err, errNotReplicated) {
		return res, 0, err
	}
	res, heard, bad := publishReply(cmd)
	if bad != nil {
		return res, 0, bad
	}
	return res, heard, err
}

func (e *Redis) publishName() string {
	if e.shards != nil {
		return "spublish"
	}
	return "publish"
}

func publishReply(cmd *redis.Cmd) (res PublishResult, heard int, err error) {
	reply, _ := cmd.Val().([]any)
	if len(reply) != 4 {
		return res, 0, errReply
	}
	if res.Position, err = readPosition(reply[1], reply[0]); err != nil {
		return res, 0, errReply
	}
	n, _ := reply[2].(int64)
	how, _ := reply[3].(int64)
	res.Repeated, res.Suppressed = how == 1, how == 2
	return res, int(n), nil
}

var errReply = errors.New("engine: unexpected reply of a script")

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// millis rounds up: a ttl of less than a millisecond is not none.
func millis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

func (e *Redis) countsByAsking() bool { return e.servers.cluster != nil && e.shards == nil }

// askWhoHears returns how many nodes will answer for a publication with the
// number of their sockets. In a cluster PUBLISH only counts the subscribers at
// one of its masters, so we ask all nodes, and those that do not hear the
// channel answer at once.
func (e *Redis) askWhoHears(ctx context.Context, q *inquiry, channel string) int {
	uids, err := e.uids(ctx)
	if err != nil {
		return 0
	}
	want := 0
	if e.hearing().wants(e.keys.live(channel)) {
		want++
	}
	question := "1h" + strconv.FormatUint(q.id, 10) + ":" + e.presence.uid + "\n" + channel
	for uid := range uids {
		if uid != e.presence.uid {
			e.tell(uid, question)
			want++
		}
	}
	return want
}

// PublishJoin implements Engine.
func (e *Redis) PublishJoin(ctx context.Context, channel string, info *protocol.ClientInfo) error {
	return e.publishInfo(ctx, channel, kindJoin, info)
}

// PublishLeave implements Engine.
func (e *Redis) PublishLeave(ctx context.Context, channel string, info *protocol.ClientInfo) error {
	return e.publishInfo(ctx, channel, kindLeave, info)
}

func (e *Redis) publishInfo(ctx context.Context, channel string, kind byte, info *protocol.ClientInfo) error {
	if _, err := e.wait(ctx); err != nil {
		return err
	}
	body, err := info.MarshalCF()
	if err != nil {
		return err
	}
	live := e.keys.live(channel)
	message := "1" + string(kind) + "0:::\n" + string(body)
	return e.lanes.of(live).do(ctx, plain(live, redis.NewIntCmd(ctx, e.publishName(), live, message)))
}
