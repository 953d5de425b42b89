package wxsim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
)

type sessionAnswer struct {
	OpenID     string `json:"openid"`
	SessionKey string `json:"session_key"`
	UnionID    string `json:"unionid,omitempty"`
}

// NewCode hands out a login code as wx.login would: good for five minutes,
// once, in the mini-program appID.
func (s *Server) NewCode(appID, user string) string {
	return s.newCode(&s.logins, appID, user)
}

// NewPhoneCode hands out a code as the getPhoneNumber button would.
func (s *Server) NewPhoneCode(appID, user string) string {
	return s.newCode(&s.phones, appID, user)
}

func (s *Server) newCode(t *table[code], appID, user string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, now := "0"+randomText(31), s.now()
	t.put(c, code{appID: appID, user: user}, now, now.Add(codeLife))
	return c
}

// code2Session is GET /sns/jscode2session.
func (s *Server) code2Session(r *http.Request) (any, error) {
	q := r.URL.Query()
	appID := q.Get("appid")
	if err := s.checkApp(appID, q.Get("secret")); err != nil {
		return nil, err
	}
	if q.Get("grant_type") != "authorization_code" {
		return nil, &apiError{40002, "invalid grant_type"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	user, err := s.redeem(&s.logins, appID, q.Get("js_code"))
	if err != nil {
		return nil, err
	}
	openID, now := OpenID(appID, user), s.now()
	key := newSessionKey()
	s.keys.put(userKey(appID, openID), key, now, now.Add(keyLife))
	return sessionAnswer{openID, key, UnionID(user)}, nil
}

// redeem uses up a code and returns whose it is. s.mu is held.
func (s *Server) redeem(t *table[code], appID, text string) (user string, err error) {
	if text == "" {
		return "", &apiError{41008, "missing code"}
	}
	if name, ok := strings.CutPrefix(text, codePrefix); ok && t == &s.logins {
		if !validName(name) {
			return "", &apiError{40029, "invalid code"}
		}
		return name, nil
	}
	e := t.get(text, s.now())
	switch {
	case e == nil || e.value.appID != appID:
		return "", &apiError{40029, "invalid code"}
	case e.value.used:
		return "", &apiError{40163, "code been used"}
	}
	e.value.used = true
	return e.value.user, nil
}

// checkSession is GET /wxa/checksession.
func (s *Server) checkSession(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, _, err := s.signedUser(r); err != nil {
		return nil, err
	}
	return success, nil
}

// resetSessionKey is GET /wxa/resetusersessionkey: the new key inherits the
// old one's expiry.
func (s *Server) resetSessionKey(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	openID, key, err := s.signedUser(r)
	if err != nil {
		return nil, err
	}
	key.value = newSessionKey()
	return struct {
		failure
		sessionAnswer
	}{success, sessionAnswer{OpenID: openID, SessionKey: key.value}}, nil
}

// signedUser checks access_token, openid and the signature made with the
// user's session_key over nothing. A user without a key cannot have signed
// either, hence the same error. s.mu is held.
func (s *Server) signedUser(r *http.Request) (openID string, key *entry[string], err error) {
	q := r.URL.Query()
	appID, err := s.accessToken(q.Get("access_token"))
	if err != nil {
		return "", nil, err
	}
	if q.Get("sig_method") != "hmac_sha256" {
		return "", nil, &apiError{87008, "invalid sig_method"}
	}
	openID = q.Get("openid")
	key = s.keys.get(userKey(appID, openID), s.now())
	if key == nil || !hmac.Equal([]byte(q.Get("signature")), []byte(sign(key.value, ""))) {
		return "", nil, &apiError{87009, "invalid signature"}
	}
	return openID, key, nil
}

// sign is WeChat's HMAC: its key is the base64 text of the session_key, not
// the bytes that text stands for.
func sign(sessionKey, data string) string {
	mac := hmac.New(sha256.New, []byte(sessionKey))
	mac.Write([]byte(data))
	return hex.EncodeToString(mac.Sum(nil))
}

func newSessionKey() string { return base64.StdEncoding.EncodeToString(random(16)) }
