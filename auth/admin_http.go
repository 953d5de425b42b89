package auth

import (
	"net/http"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// The handlers in this file are for operators. They ask for no token: whoever
// mounts them has to know who calls.

const maxAdminBody = 4 << 10 // bytes

// target is the body that all of them take, each the fields it needs.
type target struct {
	User      string    `json:"user"` // openid
	Session   string    `json:"session"`
	All       bool      `json:"all"`
	Reason    string    `json:"reason"`
	Until     time.Time `json:"until"`
	ExpiresIn int64     `json:"expires_in"` // seconds
}

type endedAnswer struct {
	Ended int `json:"ended"` // sessions
}

type sessionsAnswer struct {
	Sessions []SessionInfo `json:"sessions"`
}

var (
	errRevokeWhat = fault.New(fault.Invalid, "session_missing", `Either session, an id, or "all": true is required.`)
	errUntilTwice = fault.New(fault.Invalid, "until_twice", "Either until or expires_in, not both.")
	errExpiresIn  = fault.New(fault.Invalid, "expires_in_invalid", "expires_in is a number of seconds between 1 and 3153600000.")
)

// ServeListSessions is POST {user} → {sessions: [SessionInfo]}, the oldest
// login first.
func (s *Service) ServeListSessions(w http.ResponseWriter, r *http.Request) error {
	t, err := readTarget(w, r)
	if err != nil {
		return err
	}
	list, err := s.Sessions(r.Context(), t.User)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, sessionsAnswer{list})
}

// ServeRevokeSessions is POST {user, session} or {user, all: true} → {ended}.
func (s *Service) ServeRevokeSessions(w http.ResponseWriter, r *http.Request) error {
	t, err := readTarget(w, r)
	if err != nil {
		return err
	}
	ended := 1
	switch {
	case t.All == (t.Session != ""):
		return errRevokeWhat
	case t.All:
		ended, err = s.Revoke(r.Context(), t.User)
	default:
		err = s.RevokeSession(r.Context(), t.User, t.Session)
	}
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, endedAnswer{ended})
}

// ServeBlock is POST {user, reason?, until? or expires_in?} → {ended}. until is
// a time in RFC 3339, expires_in a number of seconds; without either the block
// lasts until it is taken back.
func (s *Service) ServeBlock(w http.ResponseWriter, r *http.Request) error {
	t, err := readTarget(w, r)
	if err != nil {
		return err
	}
	if t.ExpiresIn != 0 {
		switch {
		case !t.Until.IsZero():
			return errUntilTwice
		case t.ExpiresIn < 0 || t.ExpiresIn > 100*365*24*3600:
			return errExpiresIn
		}
		t.Until = time.Now().Add(time.Duration(t.ExpiresIn) * time.Second)
	}
	ended, err := s.Block(r.Context(), t.User, t.Reason, t.Until)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, endedAnswer{ended})
}

// ServeUnblock is POST {user} → {}.
func (s *Service) ServeUnblock(w http.ResponseWriter, r *http.Request) error {
	t, err := readTarget(w, r)
	if err != nil {
		return err
	}
	if err := s.Unblock(r.Context(), t.User); err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, struct{}{})
}

// ServeUser is POST {user} → UserLogins: all that is known.
func (s *Service) ServeUser(w http.ResponseWriter, r *http.Request) error {
	t, err := readTarget(w, r)
	if err != nil {
		return err
	}
	answer, err := s.LoginsOf(r.Context(), t.User)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, answer)
}

// ServeAlerts is GET → {alerts: [Alert]}, of this node.
func (s *Service) ServeAlerts(w http.ResponseWriter, _ *http.Request) error {
	return rest.JSON(w, http.StatusOK, struct {
		Alerts []Alert `json:"alerts"`
	}{s.Alerts()})
}

func readTarget(w http.ResponseWriter, r *http.Request) (t target, err error) {
	err = rest.Decode(w, r, maxAdminBody, &t)
	return t, err
}
