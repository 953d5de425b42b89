package auth

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// LoginRequest is what a phone sends to log in.
type LoginRequest struct {
	Code   string `json:"code"`   // of wx.login
	AppID  string `json:"appid"`  // "" means the first mini-program configured
	Device string `json:"device"` // what the phone calls itself, for lists of sessions; cut after 64 characters
}

// Login is [Service.LoginWith] for a phone that says nothing about itself.
func (s *Service) Login(ctx context.Context, appID, code string) (token string, ses *Session, err error) {
	return s.LoginWith(ctx, LoginRequest{AppID: appID, Code: code})
}

// LoginWith redeems a code of wx.login and makes a session. The token is shown
// only here, and within a minute once more to who sends the same code again:
// a phone that did not hear the answer.
//
// Faults: Invalid `code_missing`, `code_too_long`, `appid_unknown`;
// Unauthenticated `code_invalid`, `code_used`; Forbidden `blocked`,
// `user_blocked`,
// `login_refused`; Limited `login_rate`, `wechat_quota`; Internal
// `wechat_config`; Upstream `wechat_error`; Unavailable `wechat_unavailable`,
// `login_busy`, `login_webhook_unavailable`, `sessions_unavailable`.
func (s *Service) LoginWith(ctx context.Context, req LoginRequest) (token string, ses *Session, err error) {
	result := "ok"
	if token, ses, err = s.login(ctx, req); err != nil {
		result = fault.Of(err).Code
	}
	s.metrics.logins.WithLabelValues(result).Inc()
	return token, ses, err
}

func (s *Service) login(ctx context.Context, req LoginRequest) (string, *Session, error) {
	app, ok := s.apps[cmp.Or(req.AppID, s.defaultApp)]
	switch {
	case !ok:
		return "", nil, errAppIDUnknown
	case req.Code == "":
		return "", nil, errCodeMissing
	case len(req.Code) > maxCode:
		return "", nil, errCodeTooLong
	case !strings.HasPrefix(req.Code, simPrefix):
		return s.redeemOnce(ctx, app, req)
	case !s.allowSim:
		return "", nil, wechat.ErrCodeInvalid
	}
	return s.redeem(ctx, app, req) // as often as wanted
}

// redeem takes a code to WeChat and makes a session for the user it names.
func (s *Service) redeem(ctx context.Context, app *wechat.Client, req LoginRequest) (string, *Session, error) {
	if err := takeFrom(s.appLimits[app.AppID()], errAppRate); err != nil {
		return "", nil, err
	}
	id, err := app.Code2Session(ctx, req.Code)
	if err != nil {
		return "", nil, err
	}
	return s.open(ctx, User{AppID: app.AppID(), OpenID: id.OpenID, UnionID: id.UnionID}, id.SessionKey, req.Device)
}

// open makes a session for a user that WeChat vouched for.
func (s *Service) open(ctx context.Context, user User, sessionKey, device string) (string, *Session, error) {
	token, fp := newToken()
	now := time.Now()
	ses := Session{
		Fingerprint: fp, User: user, Created: now, Expires: s.expiry(now, now), LastSeen: now,
		Device: Printable(device, maxDevice),
	}
	if s.settings.StoreIP {
		ses.IP = rest.ClientIP(ctx)
	}
	if err := s.loginHook.ask(ctx, &ses); err != nil {
		return "", nil, err
	}
	replaced, err := s.store.Open(ctx, &Opening{Session: ses, Key: s.sealSessionKey(user, sessionKey), Limit: s.settings.MaxPerUser})
	for _, end := range replaced {
		s.ended(end)
	}
	if err != nil {
		return "", nil, err
	}
	return token, &ses, nil
}
