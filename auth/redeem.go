package auth

import (
	"context"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"time"

	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/internal/fault"
)

const (
	answerLife = time.Minute           // how long a code sent again is answered with the same token
	claimPoll  = 50 * time.Millisecond // between looks for what another node redeems
)

var errLoginBusy = fault.New(fault.Unavailable, "login_busy", "This login code is being redeemed already: try again.")

// redeemOnce redeems a code at WeChat once, however often and to whichever
// nodes it is sent at the same moment: phones repeat requests whose answer got
// lost, and WeChat takes a code only once.
func (s *Service) redeemOnce(ctx context.Context, app *wechat.Client, req LoginRequest) (string, *Session, error) {
	r, err := newRedemption(app.AppID(), req.Code)
	if err != nil {
		return "", nil, err
	}
	v, err, _ := s.redemptions.Do(r.name, func() (any, error) {
		// A phone that hangs up does not stop this: it will send the code again.
		life := app.Timeout() + s.loginHook.budget() + 2*storeTimeout
		shared, cancel := context.WithTimeout(context.WithoutCancel(ctx), life)
		defer cancel()
		return s.redeemClaimed(shared, app, req, r, life)
	})
	if err != nil {
		return "", nil, err
	}
	in := v.(loggedIn)
	return in.token, in.session, nil
}

type loggedIn struct {
	token   string
	session *Session
}

// redeemClaimed waits until no other node redeems the code, and then answers
// as that one did, or redeems it itself. A claim ends by itself after life.
func (s *Service) redeemClaimed(ctx context.Context, app *wechat.Client, req LoginRequest, r *redemption, life time.Duration) (in loggedIn, err error) {
	for {
		answer, claimed, err := s.store.Claim(ctx, r.name, life)
		switch {
		case err != nil:
			return in, err
		case answer != nil:
			return s.repeat(ctx, r, answer)
		case claimed:
			return s.redeemAndSettle(ctx, app, req, r)
		case !sleep(ctx, claimPoll):
			return in, errLoginBusy
		}
	}
}

func (s *Service) redeemAndSettle(ctx context.Context, app *wechat.Client, req LoginRequest, r *redemption) (in loggedIn, err error) {
	in.token, in.session, err = s.redeem(ctx, app, req)
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err != nil {
		_ = s.store.Release(after, r.name) // or the claim expires
		return in, err
	}
	if err := s.store.Settle(after, r.name, r.seal(in.token), answerLife); err != nil {
		slog.WarnContext(ctx, "a phone that sends its code again will have to log in anew", "openid", in.session.User.OpenID, "error", err)
	}
	return in, nil
}

// repeat answers a code that was redeemed before with its token, as long as
// the session lives.
func (s *Service) repeat(ctx context.Context, r *redemption, answer []byte) (in loggedIn, err error) {
	token, err := r.open(answer)
	if err != nil {
		return in, wechat.ErrCodeUsed.Because(err)
	}
	fp, _ := parseToken(token) // one that is not a token names no session
	ses, err := s.store.Get(ctx, fp)
	if errors.Is(err, ErrNoSession) {
		return in, wechat.ErrCodeUsed
	}
	return loggedIn{token, ses}, err
}

// redemption is how the answer to a code is stored: under a hash of the code,
// encrypted with a key derived from it (HKDF-SHA256, RFC 5869). Who reads the
// store learns neither code nor token.
type redemption struct {
	name string
	aead cipher.AEAD
}

func newRedemption(appID, code string) (*redemption, error) {
	input := []byte(appID + "\x00" + code)
	sum := sha256.Sum256(append([]byte("minigate login code\x00"), input...))
	key, err := hkdf.Key(sha256.New, input, nil, "minigate login answer", 32)
	if err != nil {
		return nil, err
	}
	aead, err := newAEAD(key)
	return &redemption{"code:" + base64.RawURLEncoding.EncodeToString(sum[:]), aead}, err
}

func (r *redemption) seal(token string) []byte {
	return r.aead.Seal(nil, nil, []byte(token), []byte(r.name))
}

func (r *redemption) open(answer []byte) (token string, err error) {
	plain, err := r.aead.Open(nil, nil, answer, []byte(r.name))
	return string(plain), err
}
