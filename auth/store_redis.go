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
//	session:FINGERPRINT   string, the encoded session
//	user:{OPENID}:logins  sorted set of fingerprints by number of the login
//	user:{OPENID}:expiry  the same fingerprints by expiry, Unix milliseconds
//	user:{OPENID}:keys    list, the keyring, newest first
//	user:{OPENID}:ended   list, tags of keys that were replaced just now
//	user:{OPENID}:block   string, the block; its TTL is the block's
//	claim:NAME            string, see Store.Claim
//	ended                 pub/sub channel of ended sessions and of blocks
//
// All keys of a user lie in one slot of a cluster, and scripts change them in
// one step. A session is found by its token alone, which is opaque and says
// nothing about a slot, so its record stands elsewhere, by itself. The order of
// steps makes up for it: a record is written before it is listed (or removed
// again where listing it fails) and nobody gets the token before; when it ends,
// it is deleted before it is taken from the list. So a list may name what is
// gone, but a session that somebody has the token of is always listed, and
// ends with its user.
//
// Whether a session has expired is decided by the expiry it was given, which
// its record and the list both hold, and the clock of the node that asks. The
// TTLs of Redis only clean up, expiryGrace after that: its clock may differ.

const (
	expiryGrace = time.Minute
	discardTime = time.Second // to remove the record of a login that failed

	quiet          = 10 * time.Second       // see RedisStore.quiet
	resubscribe    = 500 * time.Millisecond // pause after a lost subscription
	maxEndedLength = 1 << 10                // bytes of a message about an ended session
)

// RedisStore keeps sessions in Redis (6 or newer; standalone, Sentinel or
// Cluster), shared by all nodes with the same prefix.
type RedisStore struct {
	client redis.UniversalClient
	trips  trips // of what every connection and request may ask
	prefix string
	node   string // who we are among the nodes

	// A subscription silent for this long is pinged, and after as much again
	// made anew: a dead connection would otherwise go unnoticed.
	quiet time.Duration
}

// NewRedisStore uses keys that begin with prefix and ":". The caller closes
// the client after the store's last use.
func NewRedisStore(client redis.UniversalClient, prefix string) *RedisStore {
	return &RedisStore{client: client, trips: trips{client: client}, prefix: prefix + ":", node: rand.Text(), quiet: quiet}
}

func (s *RedisStore) sessionKey(fp Fingerprint) string { return s.prefix + "session:" + fp.String() }
func (s *RedisStore) endedChannel() string             { return s.prefix + "ended" }

// Ping implements Store.
func (s *RedisStore) Ping(ctx context.Context) error { return storeError(s.client.Ping(ctx).Err()) }

// Get implements Store.
func (s *RedisStore) Get(ctx context.Context, fp Fingerprint) (*Session, error) {
	list, err := s.load(ctx, fp.String())
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
func (s *RedisStore) load(ctx context.Context, fps ...string) ([]*Session, error) {
	cmds, values := make([]redis.Cmder, len(fps)), make([]*redis.StringCmd, len(fps))
	for i, fp := range fps {
		values[i] = redis.NewStringCmd(ctx, "get", s.prefix+"session:"+fp)
		cmds[i] = values[i]
	}
	if err := s.trips.do(ctx, cmds...); err != nil {
		return nil, err
	}
	now, list := time.Now(), make([]*Session, 0, len(fps))
	for i, text := range fps {
		data, err := values[i].Bytes()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var fp Fingerprint
		ses, err := (*Session)(nil), fp.UnmarshalText([]byte(text))
		if err == nil {
			ses, err = decodeSession(fp, data)
		}
		if err != nil {
			slog.ErrorContext(ctx, "a session record is damaged", "session", text, "error", err)
			continue
		}
		if now.Before(ses.Expires) {
			list = append(list, ses)
		}
	}
	return list, nil
}

// Delete implements Store.
func (s *RedisStore) Delete(ctx context.Context, end SessionEnd) error {
	return s.delete(ctx, []SessionEnd{end})
}

// endedMessage and blockMessage are what nodes tell one another; each leaves
// out what makes the other.
type endedMessage struct {
	Node string `json:"node"`
	SessionEnd
}

type blockMessage struct {
	Node  string       `json:"node"`
	Block *BlockChange `json:"block"`
}

// delete ends sessions, and only then takes them from their user's lists and
// tells the other nodes: who looks because of the message finds nothing.
func (s *RedisStore) delete(ctx context.Context, ends []SessionEnd) error {
	if len(ends) == 0 {
		return nil
	}
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, end := range ends {
			p.Del(ctx, s.sessionKey(end.Fingerprint))
		}
		return nil
	})
	if err != nil {
		return storeError(err)
	}
	_, err = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, end := range ends {
			message, err := json.Marshal(endedMessage{s.node, end})
			if err != nil {
				return err
			}
			u := s.userKeys(end.User.OpenID)
			p.ZRem(ctx, u.logins, end.Fingerprint.String())
			p.ZRem(ctx, u.expiry, end.Fingerprint.String())
			p.Publish(ctx, s.endedChannel(), message)
		}
		return nil
	})
	return storeError(err)
}

// Run listens for what other nodes tell.
func (s *RedisStore) Run(ctx context.Context, hear Hear) error {
	for away := false; ; away = true {
		heard, err := s.listen(ctx, hear)
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
func (s *RedisStore) listen(ctx context.Context, hear Hear) (heard bool, err error) {
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
			if hear.Resumed != nil {
				hear.Resumed()
			}
		case *redis.Message:
			s.tell(m.Payload, hear)
		}
	}
}

// tell passes on what another node says; our own messages come back too.
func (s *RedisStore) tell(payload string, hear Hear) {
	var m struct {
		endedMessage
		Block *BlockChange `json:"block"`
	}
	if len(payload) > maxEndedLength || json.Unmarshal([]byte(payload), &m) != nil {
		slog.Warn("a message about an ended session makes no sense", "bytes", len(payload))
		return
	}
	switch {
	case m.Node == s.node:
	case m.Block != nil && m.Block.OpenID != "":
		hear.Blocked(*m.Block)
	case m.Fingerprint != Fingerprint{}:
		hear.Ended(m.SessionEnd)
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}
