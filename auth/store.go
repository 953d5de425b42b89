package auth

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// Record is a session as stores keep it.
type Record struct {
	Session
	SealedKey []byte // WeChat's session_key, encrypted
}

// ErrNoSession answers for a token that is well-formed but unknown, expired or
// revoked.
var ErrNoSession = fault.New(fault.Unauthenticated, "token_expired", "This login has ended: log in again.")

var errSessionsUnavailable = fault.New(fault.Unavailable, "sessions_unavailable", "Sessions cannot be looked up right now: try again.")

// Store keeps sessions by fingerprint. [FileStore] and [RedisStore] implement it.
//
// What has expired is not found, by any method. Any method may return a fault
// of kind Unavailable, `sessions_unavailable`, while the store is away. Times
// are kept to a few milliseconds. All methods are safe for concurrent use.
type Store interface {
	// Run does the store's background work until ctx ends, by itself getting
	// over everything that goes wrong meanwhile. It calls ended, in no certain
	// order, for sessions that another node deletes; the caller of Delete
	// knows of its own. A message lost with a connection is not repeated.
	Run(ctx context.Context, ended func(SessionEnd)) error
	// Ping tells whether the store works now.
	Ping(ctx context.Context) error

	// Put stores a new session until r.Expires.
	Put(ctx context.Context, r *Record) error
	// Get returns a session, or ErrNoSession.
	Get(ctx context.Context, fp Fingerprint) (*Record, error)
	// Touch moves a session's expiry. It does not bring back one that ended.
	Touch(ctx context.Context, s *Session, expires time.Time) error
	// Delete ends a session and tells the other nodes, also where it was
	// already gone.
	Delete(ctx context.Context, end SessionEnd) error

	// ListByUser returns a user's sessions in no certain order.
	ListByUser(ctx context.Context, openID string) ([]*Session, error)
	// DeleteByUser ends all of a user's sessions, tells the other nodes and
	// returns what it ended.
	DeleteByUser(ctx context.Context, openID string, reason EndReason) ([]SessionEnd, error)
}

// storeError is what a store answers when what it stands on failed with err.
// Somebody who hung up meanwhile is not the store's trouble.
func storeError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return errSessionsUnavailable.Because(err)
}

// stored is the encoded part of a record; fingerprint and expiry are kept
// beside it, where stores can use them.
type stored struct {
	AppID   string `json:"a"`
	OpenID  string `json:"o"`
	UnionID string `json:"u,omitempty"`
	Created int64  `json:"c"` // Unix milliseconds
	Key     []byte `json:"k"`
}

func encodeRecord(r *Record) ([]byte, error) {
	return json.Marshal(stored{r.User.AppID, r.User.OpenID, r.User.UnionID, r.Created.UnixMilli(), r.SealedKey})
}

func decodeRecord(fp Fingerprint, expires time.Time, data []byte) (*Record, error) {
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	if s.OpenID == "" {
		return nil, errors.New("a stored session has no openid")
	}
	return &Record{
		Session: Session{
			Fingerprint: fp,
			User:        User{AppID: s.AppID, OpenID: s.OpenID, UnionID: s.UnionID},
			Created:     time.UnixMilli(s.Created),
			Expires:     expires,
		},
		SealedKey: s.Key,
	}, nil
}
