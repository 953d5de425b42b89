package wxsim

import (
	"net/http"
	"time"
)

const (
	tokenLife    = 2 * time.Hour
	tokenOverlap = 5 * time.Minute // old and new token are both good this long
	forceEvery   = 30 * time.Second
	forcePerDay  = 20
)

// credential is what one mini-program holds: the two APIs keep a token each.
type credential struct {
	plain         string
	stable        string
	stableExpires time.Time

	forced      time.Time // when the stable token was last thrown away
	forcedCount int       // on that day
}

type tokenAnswer struct {
	AccessToken string `json:"access_token"`
	ExpiresIn   int    `json:"expires_in"` // seconds
}

// token is GET /cgi-bin/token: a new token at each call; the one before stays
// good for five minutes.
func (s *Server) token(r *http.Request) (any, error) {
	q := r.URL.Query()
	appID := q.Get("appid")
	if err := s.checkGrant(q.Get("grant_type"), appID, q.Get("secret")); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, now := s.credential[appID], s.now()
	if old := s.tokens.get(c.plain, now); old != nil && old.expires.After(now.Add(tokenOverlap)) {
		old.expires = now.Add(tokenOverlap)
	}
	c.plain = s.newToken(appID, now)
	return tokenAnswer{c.plain, int(tokenLife.Seconds())}, nil
}

// stableToken is POST /cgi-bin/stable_token: the same token at each call until
// its last five minutes. force_refresh kills the old one at once; within 30 s
// of the last time it does nothing.
func (s *Server) stableToken(r *http.Request) (any, error) {
	var req struct {
		GrantType string `json:"grant_type"`
		AppID     string `json:"appid"`
		Secret    string `json:"secret"`
		Force     bool   `json:"force_refresh"`
	}
	if err := readJSON(r, &req); err != nil {
		return nil, err
	}
	if err := s.checkGrant(req.GrantType, req.AppID, req.Secret); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, now := s.credential[req.AppID], s.now()
	force := req.Force && now.Sub(c.forced) >= forceEvery
	if force {
		if err := c.countForce(now); err != nil {
			return nil, err
		}
		s.tokens.remove(c.stable)
	}
	if force || c.stableExpires.Sub(now) <= tokenOverlap {
		c.stable, c.stableExpires = s.newToken(req.AppID, now), now.Add(tokenLife)
	}
	return tokenAnswer{c.stable, int(c.stableExpires.Sub(now).Seconds())}, nil
}

func (c *credential) countForce(now time.Time) error {
	if now.YearDay() != c.forced.YearDay() || now.Year() != c.forced.Year() {
		c.forcedCount = 0
	}
	if c.forcedCount == forcePerDay {
		return &apiError{45009, "reach max api daily quota limit"}
	}
	c.forced = now
	c.forcedCount++
	return nil
}

func (s *Server) checkGrant(grantType, appID, secret string) error {
	if err := s.checkApp(appID, secret); err != nil {
		return err
	}
	if grantType != "client_credential" {
		return &apiError{40002, "invalid grant_type"}
	}
	return nil
}

// newToken makes an access token. s.mu is held.
func (s *Server) newToken(appID string, now time.Time) string {
	t := randomText(136) // as long as real ones are today
	s.tokens.put(t, appID, now, now.Add(tokenLife))
	return t
}

// accessToken says which mini-program a token belongs to. s.mu is held.
func (s *Server) accessToken(t string) (appID string, err error) {
	if t == "" {
		return "", &apiError{41001, "access_token missing"}
	}
	e := s.tokens.get(t, s.now())
	if e == nil {
		return "", &apiError{40001, "invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r"}
	}
	return e.value, nil
}
