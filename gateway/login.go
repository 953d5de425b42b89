package gateway

import (
	"bytes"
	"encoding/json"
	"time"
	"unique"

	"github.com/minigate/minigate/auth"
)

// login is what a connection keeps of its session. There is one for each that
// is idle, and a session takes three times as much. It is only read, but for
// expires.
type login struct {
	fingerprint     auth.Fingerprint
	openID, unionID string
	appID           unique.Handle[string] // there are few
	expires         int64                 // Unix nanoseconds, 0: never; guarded by client.mu
	device          unique.Handle[string] // very many phones call themselves the same
	claims          *json.RawMessage      // nil: none
}

// newLogin keeps the openid in a text that is kept anyway.
func newLogin(s *auth.Session, openID string) *login {
	l := &login{
		fingerprint: s.Fingerprint, openID: openID, unionID: s.User.UnionID, appID: unique.Make(s.User.AppID),
		device: unique.Make(s.Device), expires: nanoseconds(s.Expires),
	}
	if claims := s.Claims; claims != nil { // a pointer into s would keep all of it
		l.claims = &claims
	}
	return l
}

func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func (l *login) user() auth.User {
	return auth.User{OpenID: l.openID, UnionID: l.unionID, AppID: l.appID.Value()}
}

// session is what is left of the session: whose it is, and what was said of him.
func (l *login) session() *auth.Session {
	return &auth.Session{Fingerprint: l.fingerprint, User: l.user(), Device: l.device.Value(), Claims: l.said()}
}

// said are the claims, nil for none.
func (l *login) said() json.RawMessage {
	if l.claims == nil {
		return nil
	}
	return *l.claims
}

// sameUser tells whether a session is of the same user in the same mini-program.
func (l *login) sameUser(s *auth.Session) bool {
	return l.openID == s.User.OpenID && l.appID.Value() == s.User.AppID
}

// renewed is the login after its session was verified once more: l itself, if
// nothing but its end has changed. client.mu is held.
func (l *login) renewed(s *auth.Session) *login {
	if l.user() != s.User || l.device.Value() != s.Device || !bytes.Equal(l.said(), s.Claims) {
		return newLogin(s, l.openID)
	}
	l.expires = nanoseconds(s.Expires)
	return l
}

// deviceOf tells devices of a user apart: by what they call themselves or,
// where they do not, by their login.
func (l *login) deviceOf() string {
	if name := l.device.Value(); name != "" {
		return "device " + name
	}
	return "session " + l.fingerprint.String()
}
