package auth

import (
	"net/http"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

const maxLoginBody = 4 << 10 // bytes

type sessionAnswer struct {
	Token     string `json:"token,omitempty"` // at login only
	ExpiresIn int64  `json:"expires_in"`      // seconds, if the session is not used meanwhile
	User      User   `json:"user"`
}

func answer(token string, s *Session) sessionAnswer {
	return sessionAnswer{token, int64(time.Until(s.Expires).Round(time.Second).Seconds()), s.User}
}

// ServeLogin is POST /auth/login: {code, appid?, device?} → {token, expires_in, user}.
func (s *Service) ServeLogin(w http.ResponseWriter, r *http.Request) error {
	if err := s.limits.take(r); err != nil {
		s.metrics.logins.WithLabelValues(fault.Of(err).Code).Inc()
		return err
	}
	var req LoginRequest
	if err := rest.Decode(w, r, maxLoginBody, &req); err != nil {
		return err
	}
	token, ses, err := s.LoginWith(r.Context(), req)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, answer(token, ses))
}

// ServeSession is GET /auth/session: → {expires_in, user}. It keeps the
// session alive as any other use does.
func (s *Service) ServeSession(w http.ResponseWriter, r *http.Request) error {
	ses, err := s.verifyRequest(r)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, answer("", ses))
}

// ServeLogout is POST /auth/logout: → 204, also where the session had ended
// before.
func (s *Service) ServeLogout(w http.ResponseWriter, r *http.Request) error {
	token, err := BearerToken(r)
	if err != nil {
		return err
	}
	if err := s.Logout(r.Context(), token); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Require lets only requests with a good token through to next, which finds
// the session with [SessionFrom].
func (s *Service) Require(next rest.Handler) rest.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		ses, err := s.verifyRequest(r)
		if err != nil {
			return err
		}
		return next(w, r.WithContext(WithSession(r.Context(), ses)))
	}
}

func (s *Service) verifyRequest(r *http.Request) (*Session, error) {
	token, err := BearerToken(r)
	if err != nil {
		return nil, err
	}
	return s.Verify(r.Context(), token)
}
