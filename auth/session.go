package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
)

// User is who a session belongs to. OpenID is the user's name everywhere in
// minigate; UnionID is the same person across the mini-programs of one owner,
// "" where WeChat gave none.
type User struct {
	AppID   string `json:"appid"`
	OpenID  string `json:"openid"`
	UnionID string `json:"unionid,omitempty"`
}

// Fingerprint is the SHA-256 of a login token: the only form in which a token
// is stored, compared or sent between nodes.
type Fingerprint [sha256.Size]byte

// String is the fingerprint as 43 characters of unpadded URL-safe base64.
func (f Fingerprint) String() string { return base64.RawURLEncoding.EncodeToString(f[:]) }

// MarshalText is String, for JSON.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	raw, err := base64.RawURLEncoding.DecodeString(string(text))
	if err != nil || len(raw) != len(f) {
		return errors.New("not a session fingerprint")
	}
	copy(f[:], raw)
	return nil
}

// Session is one login of one user. Values handed out are shared: read only.
type Session struct {
	Fingerprint Fingerprint
	User        User
	Created     time.Time
	Expires     time.Time // slides while the session is used
	LastSeen    time.Time // to about ten minutes
	Device      string    // what the phone called itself at login; not to be trusted
	IP          string    // the address it was last seen at, "" where that is not kept

	// What the business backend said at login, see [LoginWebhookSettings].
	Claims json.RawMessage // an object in the form of [CompactClaims]; nil for none
	// Channels the user belongs to: at most 100, their names at most 8 KiB. A
	// connection is subscribed to those of its login when it connects. A newer
	// login has claims and channels of its own; a connection that is refreshed
	// with its token goes on under that session, with the new claims at once
	// and its subscriptions as they are: they follow at the next connect.
	Channels []string
}

// EndReason says why a session ended before it expired.
type EndReason string

// The reasons.
const (
	EndLogout   EndReason = "logout"   // the user asked for it
	EndReplaced EndReason = "replaced" // the user has too many sessions and this was the oldest
	EndRevoked  EndReason = "revoked"  // the operator or the backend asked for it
	EndBlocked  EndReason = "blocked"  // the operator or the backend blocked the user
)

// SessionEnd tells that a session ended before it expired.
type SessionEnd struct {
	Fingerprint Fingerprint `json:"session"`
	User        User        `json:"user"`
	Reason      EndReason   `json:"reason"`
}

type sessionKey struct{}

// WithSession puts the verified session into a request's context.
func WithSession(ctx context.Context, s *Session) context.Context {
	return context.WithValue(ctx, sessionKey{}, s)
}

// SessionFrom returns the verified session of a request, nil where the
// handler was reached without authentication.
func SessionFrom(ctx context.Context) *Session {
	s, _ := ctx.Value(sessionKey{}).(*Session)
	return s
}
