package wechat

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"regexp"
)

// Identity is who WeChat says a code belongs to.
type Identity struct {
	OpenID     string
	UnionID    string // "" where the mini-program is bound to no Open Platform account
	SessionKey string // base64 of 16 bytes; secret
}

// wellFormedID is what openids and unionids are made of. They end up in
// headers, keys and channel names, so nothing else is let in.
var wellFormedID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Code2Session redeems a code of wx.login, which works once within five
// minutes (API/user-login, api_code2session). Faults: Unauthenticated
// `code_invalid`, `code_used`; Forbidden `blocked`.
func (c *Client) Code2Session(ctx context.Context, code string) (*Identity, error) {
	var a identityAnswer
	err := c.call(ctx, apiCode2Session, url.Values{
		"appid":      {c.o.AppID},
		"secret":     {c.o.Secret.Value()},
		"js_code":    {code},
		"grant_type": {"authorization_code"},
	}, nil, &a)
	if err != nil {
		return nil, err
	}
	return a.identity()
}

type identityAnswer struct {
	OpenID     string `json:"openid"`
	UnionID    string `json:"unionid"`
	SessionKey string `json:"session_key"`
}

func (a *identityAnswer) identity() (*Identity, error) {
	if !wellFormedID.MatchString(a.OpenID) || a.UnionID != "" && !wellFormedID.MatchString(a.UnionID) || !isSessionKey(a.SessionKey) {
		return nil, odd("openid, unionid or session_key")
	}
	return &Identity{a.OpenID, a.UnionID, a.SessionKey}, nil
}

func isSessionKey(s string) bool {
	key, err := base64.StdEncoding.DecodeString(s)
	return err == nil && len(key) == 16
}

// CheckSession asks WeChat whether sessionKey is the user's current one
// (API/user-login, api_checksessionkey). Fault: Conflict `session_key_stale`.
func (c *Client) CheckSession(ctx context.Context, openID, sessionKey string) error {
	return c.call(ctx, apiCheckSession, signed(openID, sessionKey), nil, nil)
}

// ResetSessionKey ends a user's session_key and returns the one that replaces
// it, which inherits the old one's expiry. WeChat allows it 60,000 times a
// minute, and not often for one user (API/user-login, api_resetusersessionkey).
// Fault: Conflict `session_key_stale` where sessionKey is not the current one.
func (c *Client) ResetSessionKey(ctx context.Context, openID, sessionKey string) (newKey string, err error) {
	var a identityAnswer
	if err := c.call(ctx, apiResetSession, signed(openID, sessionKey), nil, &a); err != nil {
		return "", err
	}
	if a.OpenID != openID || !isSessionKey(a.SessionKey) {
		return "", odd("openid or session_key")
	}
	return a.SessionKey, nil
}

func signed(openID, sessionKey string) url.Values {
	return url.Values{"openid": {openID}, "signature": {sign(sessionKey, "")}, "sig_method": {"hmac_sha256"}}
}

// sign is WeChat's HMAC-SHA256. Its key is the base64 text of the session_key,
// not the bytes that text stands for.
func sign(sessionKey, data string) string {
	mac := hmac.New(sha256.New, []byte(sessionKey))
	mac.Write([]byte(data))
	return hex.EncodeToString(mac.Sum(nil))
}

// IsID tells whether text can be an openid or a unionid.
func IsID(text string) bool { return wellFormedID.MatchString(text) }
