package auth

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// Opening is what a login writes, in one step.
type Opening struct {
	Session Session
	Key     SealedKey
	Limit   int // sessions the user may have from now on, this one included; 0 sets none
}

// ErrNoSession answers for a token that is well-formed but unknown, expired or
// revoked.
var ErrNoSession = fault.New(fault.Unauthenticated, "token_expired", "This login has ended: log in again.")

var errSessionsUnavailable = fault.New(fault.Unavailable, "sessions_unavailable", "Sessions cannot be looked up right now: try again.")

// Store keeps sessions by fingerprint, and what belongs to their users.
// [FileStore] and [RedisStore] implement it.
//
// What has expired is not found, by any method; for a session its own Expires
// decides, by the clock of the node that asks, in all methods at the same
// millisecond. Any method may return a fault of kind Unavailable,
// `sessions_unavailable`, while the store is away. Times are kept in
// milliseconds. All methods are safe for concurrent use.
type Store interface {
	// Run does the store's background work until ctx ends, by itself getting
	// over everything that goes wrong meanwhile. It calls hear, in no certain
	// order, with what other nodes did; the caller of a method knows what it did
	// itself. A message lost with a connection is not repeated, but hear.Resumed
	// called.
	Run(ctx context.Context, hear Hear) error
	// Ping tells whether the store works now.
	Ping(ctx context.Context) error

	// Open stores a new session until its expiry and puts the key into its
	// user's keyring. It ends the user's oldest sessions beyond the limit, as
	// EndReplaced, tells the other nodes and returns them; the limit holds
	// exactly, whoever else logs in at the same moment. For a blocked user it
	// does nothing and returns Forbidden `user_blocked`.
	Open(ctx context.Context, o *Opening) (replaced []SessionEnd, err error)
	// Get returns a session, or ErrNoSession.
	Get(ctx context.Context, fp Fingerprint) (*Session, error)
	// Touch writes sessions anew, with their later expiries. It does not bring
	// back one that ended. After an error some may have been written.
	Touch(ctx context.Context, list []*Session) error
	// Delete ends a session and tells the other nodes, also where it was
	// already gone.
	Delete(ctx context.Context, end SessionEnd) error

	// ListByUser returns a user's sessions, oldest login first.
	ListByUser(ctx context.Context, openID string) ([]*Session, error)
	// DeleteByUser ends all of a user's sessions, tells the other nodes and
	// returns what it ended.
	DeleteByUser(ctx context.Context, openID string, reason EndReason) ([]SessionEnd, error)
	// Keys returns a user's keyring, newest first.
	Keys(ctx context.Context, openID string) ([]SealedKey, error)
	// ReplaceKeys makes k the only key in a user's keyring, in one step. Open
	// does not put those back that it removed, for endedKeyLife: a login that
	// was under way may bring one.
	ReplaceKeys(ctx context.Context, openID string, k SealedKey) error

	// Block refuses a user's logins until b.Until, ends the user's sessions as
	// EndBlocked and returns what it ended. It tells the other nodes of the block
	// itself, also where the user has no session, and of each that it ended.
	Block(ctx context.Context, openID string, b Block) ([]SessionEnd, error)
	// Unblock ends a block and tells the other nodes; that there is none is no
	// mistake.
	Unblock(ctx context.Context, openID string) error
	// Blocked returns a user's block, or nil.
	Blocked(ctx context.Context, openID string) (*Block, error)

	// Claim takes something that only one of all callers on all nodes may do,
	// for at most life. Of those at the same moment one gets claimed. The
	// others get what Settle stored, or nil as long as nothing is.
	Claim(ctx context.Context, name string, life time.Duration) (value []byte, claimed bool, err error)
	// Settle stores the outcome, not empty, for those who claim within life.
	Settle(ctx context.Context, name string, value []byte, life time.Duration) error
	// Release gives a claim back, and forgets what Settle stored.
	Release(ctx context.Context, name string) error

	// UseTicket marks a ticket as used until it expires and says whether this
	// was the first time.
	UseTicket(ctx context.Context, id TicketID, expires time.Time) (first bool, err error)
}

// Hear is told what other nodes did.
type Hear struct {
	Ended   func(SessionEnd)  // a session ended
	Blocked func(BlockChange) // a user was blocked or unblocked
	// Resumed says that hearing begins, for the first time or again: what other
	// nodes did before may have gone unheard. It may be nil.
	Resumed func()
}

// storeError is what a store answers when what it stands on failed with err.
// Somebody who hung up meanwhile is not the store's trouble.
func storeError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return errSessionsUnavailable.Because(err)
}

// stored is a session as it is encoded; its fingerprint is kept beside it.
type stored struct {
	AppID    string `json:"a"`
	OpenID   string `json:"o"`
	UnionID  string `json:"u,omitempty"`
	Created  int64  `json:"c"` // Unix milliseconds, like all times here
	Expires  int64  `json:"e"`
	LastSeen int64  `json:"s"`
	Device   string `json:"d,omitempty"`
	IP       string `json:"i,omitempty"`

	Claims   json.RawMessage `json:"j,omitempty"`
	Channels []string        `json:"n,omitempty"`
}

func encodeSession(s *Session) ([]byte, error) {
	return json.Marshal(stored{
		AppID: s.User.AppID, OpenID: s.User.OpenID, UnionID: s.User.UnionID,
		Created: s.Created.UnixMilli(), Expires: s.Expires.UnixMilli(), LastSeen: s.LastSeen.UnixMilli(),
		Device: s.Device, IP: s.IP, Claims: s.Claims, Channels: s.Channels,
	})
}

func decodeSession(fp Fingerprint, data []byte) (*Session, error) {
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	if s.OpenID == "" {
		return nil, errors.New("a stored session has no openid")
	}
	return &Session{
		Fingerprint: fp,
		User:        User{AppID: s.AppID, OpenID: s.OpenID, UnionID: s.UnionID},
		Created:     time.UnixMilli(s.Created),
		Expires:     time.UnixMilli(s.Expires),
		LastSeen:    time.UnixMilli(s.LastSeen),
		Device:      s.Device,
		IP:          s.IP,
		Claims:      s.Claims,
		Channels:    s.Channels,
	}, nil
}
