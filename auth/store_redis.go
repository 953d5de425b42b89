package auth

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// What a RedisStore keeps, each behind the store's prefix:
//
//	session:FINGERPRINT  string, the encoded record; its TTL is the session's
//	user:{OPENID}        sorted set of fingerprints by expiry; lasts as long as
//	                     the latest of them, so nothing leaks
//	ended                pub/sub channel of ended sessions
//
// A session and its user's set lie in different slots of a cluster, so the two
// are not changed atomically. Either order of events is harmless: a listed
// fingerprint without a record is skipped and expires, and a record whose
// listing failed belongs to a login that failed.

// enlist adds fingerprint ARGV[1] for ARGV[2] milliseconds to the set, drops
// what expired from it and lets the set live as long as its last member.
var enlist = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return redis.call('PEXPIREAT', KEYS[1], last[2])`)

const (
	quiet          = 10 * time.Second       // see RedisStore.quiet
	resubscribe    = 500 * time.Millisecond // pause after a lost subscription
	maxEndedLength = 1 << 10                // bytes of a message about an ended session
)

// RedisStore keeps sessions in Redis (6 or newer; standalone, Sentinel or
// Cluster), shared by all nodes with the same prefix.
type RedisStore struct {
	client redis.UniversalClient
	prefix string
	node   string // who we are among the nodes

	// A subscription silent for this long is pinged, and after as much again
	// made anew: a dead connection would otherwise go unnoticed.
	quiet time.Duration
}

// NewRedisStore uses keys that begin with prefix and ":". The caller closes
// the client after the store's last use.
func NewRedisStore(client redis.UniversalClient, prefix string) *RedisStore {
	return &RedisStore{client: client, prefix: prefix + ":", node: rand.Text(), quiet: quiet}
}

func (s *RedisStore) sessionKey(fp Fingerprint) string { return s.prefix + "session:" + fp.String() }
func (s *RedisStore) userKey(openID string) string     { return s.prefix + "user:{" + openID + "}" }
func (s *RedisStore) endedChannel() string             { return s.prefix + "ended" }

// Ping implements Store.
func (s *RedisStore) Ping(ctx context.Context) error { return storeError(s.client.Ping(ctx).Err()) }

// Put implements Store.
func (s *RedisStore) Put(ctx context.Context, r *Record) error {
	ttl := time.Until(r.Expires)
	if ttl < time.Millisecond {
		return nil // it would never be found
	}
	data, err := encodeRecord(r)
	if err != nil {
		return err
	}
	if err := s.enlist(ctx, &r.Session, ttl); err != nil {
		return storeError(err)
	}
	return storeError(s.client.Set(ctx, s.sessionKey(r.Fingerprint), data, ttl).Err())
}

func (s *RedisStore) enlist(ctx context.Context, ses *Session, ttl time.Duration) error {
	return enlist.Run(ctx, s.client, []string{s.userKey(ses.User.OpenID)}, ses.Fingerprint.String(), ttl.Milliseconds()).Err()
}

// Get implements Store.
func (s *RedisStore) Get(ctx context.Context, fp Fingerprint) (*Record, error) {
	list, err := s.load(ctx, fp)
	if err != nil {
		return nil, storeError(err)
	}
	if len(list) == 0 {
		return nil, ErrNoSession
	}
	return list[0], nil
}

// load returns those of the sessions that exist, in one round trip. A damaged
// record is no session: its user logs in again.
func (s *RedisStore) load(ctx context.Context, fps ...Fingerprint) ([]*Record, error) {
	values, ttls := make([]*redis.StringCmd, len(fps)), make([]*redis.DurationCmd, len(fps))
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, fp := range fps {
			values[i], ttls[i] = p.Get(ctx, s.sessionKey(fp)), p.PTTL(ctx, s.sessionKey(fp))
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	now, list := time.Now(), make([]*Record, 0, len(fps))
	for i, fp := range fps {
		data, err := values[i].Bytes()
		if errors.Is(err, redis.Nil) || err == nil && ttls[i].Val() <= 0 {
			continue
		}
		if err := errors.Join(err, ttls[i].Err()); err != nil {
			return nil, err
		}
		r, err := decodeRecord(fp, now.Add(ttls[i].Val()), data)
		if err != nil {
			slog.ErrorContext(ctx, "a session record is damaged", "session", fp, "error", err)
			continue
		}
		list = append(list, r)
	}
	return list, nil
}

// Touch implements Store.
func (s *RedisStore) Touch(ctx context.Context, ses *Session, expires time.Time) error {
	ttl := time.Until(expires)
	there, err := s.client.PExpire(ctx, s.sessionKey(ses.Fingerprint), ttl).Result()
	if err != nil || !there || ttl < time.Millisecond {
		return storeError(err)
	}
	return storeError(s.enlist(ctx, ses, ttl))
}

// Delete implements Store.
func (s *RedisStore) Delete(ctx context.Context, end SessionEnd) error {
	return s.delete(ctx, []SessionEnd{end})
}

// ListByUser implements Store.
func (s *RedisStore) ListByUser(ctx context.Context, openID string) ([]*Session, error) {
	members, err := s.client.ZRange(ctx, s.userKey(openID), 0, -1).Result()
	if err != nil || len(members) == 0 {
		return nil, storeError(err)
	}
	fps := make([]Fingerprint, 0, len(members))
	for _, m := range members {
		var fp Fingerprint
		if fp.UnmarshalText([]byte(m)) == nil {
			fps = append(fps, fp)
		}
	}
	records, err := s.load(ctx, fps...)
	if err != nil {
		return nil, storeError(err)
	}
	list := make([]*Session, len(records))
	for i, r := range records {
		list[i] = &r.Session
	}
	return list, nil
}

// DeleteByUser implements Store.
func (s *RedisStore) DeleteByUser(ctx context.Context, openID string, reason EndReason) ([]SessionEnd, error) {
	list, err := s.ListByUser(ctx, openID)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	ends := make([]SessionEnd, len(list))
	for i, ses := range list {
		ends[i] = SessionEnd{ses.Fingerprint, ses.User, reason}
	}
	if err := s.delete(ctx, ends); err != nil {
		return nil, err
	}
	return ends, nil
}

// endedMessage is what nodes tell one another.
type endedMessage struct {
	Node string `json:"node"`
	SessionEnd
}

func (s *RedisStore) delete(ctx context.Context, ends []SessionEnd) error {
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, end := range ends {
			message, err := json.Marshal(endedMessage{s.node, end})
			if err != nil {
				return err
			}
			p.Del(ctx, s.sessionKey(end.Fingerprint))
			p.ZRem(ctx, s.userKey(end.User.OpenID), end.Fingerprint.String())
			p.Publish(ctx, s.endedChannel(), message)
		}
		return nil
	})
	return storeError(err)
}

// Run listens for sessions that other nodes end.
func (s *RedisStore) Run(ctx context.Context, ended func(SessionEnd)) error {
	for away := false; ; away = true {
		heard, err := s.listen(ctx, ended)
		if ctx.Err() != nil {
			return nil
		}
		if heard || !away { // once per outage
			slog.WarnContext(ctx, "not listening for ended sessions: connecting again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(resubscribe):
		}
	}
}

// listen serves one subscription until it breaks or ctx ends, and says whether
// there was one at all.
func (s *RedisStore) listen(ctx context.Context, ended func(SessionEnd)) (heard bool, err error) {
	sub := s.client.Subscribe(ctx, s.endedChannel())
	defer func() { _ = sub.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() }) // a receive does not watch ctx
	defer stop()
	for pinged := false; ; {
		message, err := sub.ReceiveTimeout(ctx, s.quiet)
		if isTimeout(err) && !pinged {
			pinged = true
			err = sub.Ping(ctx)
		} else {
			pinged = false
		}
		if err != nil {
			return heard, err
		}
		switch m := message.(type) {
		case *redis.Subscription:
			heard = true
			slog.InfoContext(ctx, "listening for ended sessions")
		case *redis.Message:
			if end, ok := s.decodeEnded(m.Payload); ok {
				ended(end)
			}
		}
	}
}

// decodeEnded returns what another node says; our own messages come back too.
func (s *RedisStore) decodeEnded(payload string) (SessionEnd, bool) {
	var m endedMessage
	if len(payload) > maxEndedLength || json.Unmarshal([]byte(payload), &m) != nil {
		slog.Warn("a message about an ended session makes no sense", "bytes", len(payload))
		return SessionEnd{}, false
	}
	return m.SessionEnd, m.Node != s.node && m.Fingerprint != Fingerprint{}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}
