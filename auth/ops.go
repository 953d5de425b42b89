package auth

import (
	"context"
	"encoding/hex"
	"slices"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// SessionInfo is a session as operators see it.
type SessionInfo struct {
	ID       string    `json:"id"` // 16 hex digits of the fingerprint, which are of no use for logging in
	AppID    string    `json:"appid"`
	OpenID   string    `json:"openid"`
	UnionID  string    `json:"unionid,omitempty"`
	Device   string    `json:"device,omitempty"`
	IP       string    `json:"ip,omitempty"`
	Created  time.Time `json:"created"`
	LastSeen time.Time `json:"last_seen"` // to about ten minutes
	Expires  time.Time `json:"expires"`
}

// UserLogins is what operators see of a user.
type UserLogins struct {
	User     string        `json:"user"`
	Block    *Block        `json:"block"` // null where there is none
	Sessions []SessionInfo `json:"sessions"`
}

// LoginsOf tells whether a user may log in and which logins there are. Faults:
// Invalid `openid_invalid`; Unavailable `sessions_unavailable`.
func (s *Service) LoginsOf(ctx context.Context, openID string) (UserLogins, error) {
	block, err := s.blockNow(ctx, openID)
	if err != nil {
		return UserLogins{}, err
	}
	list, err := s.Sessions(ctx, openID)
	return UserLogins{openID, block, list}, err
}

// ID names a session to operators: 16 hex digits of its fingerprint.
func (f Fingerprint) ID() string { return hex.EncodeToString(f[:8]) }

var errSessionUnknown = fault.New(fault.NotFound, "session_unknown", "This user has no session with that id.")

// Sessions lists a user's sessions, the oldest login first. Faults: Invalid
// `openid_invalid`; Unavailable `sessions_unavailable`.
func (s *Service) Sessions(ctx context.Context, openID string) ([]SessionInfo, error) {
	if err := CheckOpenID(openID); err != nil {
		return nil, err
	}
	list, err := s.store.ListByUser(ctx, openID)
	if err != nil {
		return nil, err
	}
	infos := make([]SessionInfo, len(list))
	for i, ses := range list {
		infos[i] = SessionInfo{
			ID: ses.Fingerprint.ID(), AppID: ses.User.AppID, OpenID: ses.User.OpenID, UnionID: ses.User.UnionID,
			Device: ses.Device, Created: ses.Created, LastSeen: ses.LastSeen, Expires: ses.Expires,
		}
		if s.settings.StoreIP {
			infos[i].IP = ses.IP
		}
	}
	return infos, nil
}

// NewestLogin returns the newest session of a user with a mini-program, nil
// where there is none. Faults: Unavailable `sessions_unavailable`.
func (s *Service) NewestLogin(ctx context.Context, user User) (*Session, error) {
	list, err := s.store.ListByUser(ctx, user.OpenID)
	for _, ses := range slices.Backward(list) {
		if ses.User.AppID == user.AppID {
			return ses, nil
		}
	}
	return nil, err
}

// Revoke ends all sessions of a user, on all nodes, and returns how many.
// Faults: Invalid `openid_invalid`; Unavailable `sessions_unavailable`.
func (s *Service) Revoke(ctx context.Context, openID string) (int, error) {
	if err := CheckOpenID(openID); err != nil {
		return 0, err
	}
	ends, err := s.store.DeleteByUser(ctx, openID, EndRevoked)
	for _, end := range ends {
		s.ended(end)
	}
	return len(ends), err
}

// RevokeSession ends one session of a user, on all nodes; id is that of
// SessionInfo. Faults: NotFound `session_unknown`; Invalid `openid_invalid`;
// Unavailable `sessions_unavailable`.
func (s *Service) RevokeSession(ctx context.Context, openID, id string) error {
	if err := CheckOpenID(openID); err != nil {
		return err
	}
	list, err := s.store.ListByUser(ctx, openID)
	if err != nil {
		return err
	}
	for _, ses := range list {
		if ses.Fingerprint.ID() == id {
			return s.end(ctx, SessionEnd{ses.Fingerprint, ses.User, EndRevoked})
		}
	}
	return errSessionUnknown
}
