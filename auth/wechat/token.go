package wechat

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// Claims are how nodes agree on who does something. The session store of
// package auth is one.
type Claims interface {
	// Claim takes name for at most life: of all callers on all nodes one gets
	// claimed, the others get what Settle stored, or nil until it has.
	Claim(ctx context.Context, name string, life time.Duration) (value []byte, claimed bool, err error)
	// Settle stores a value for those who claim within life.
	Settle(ctx context.Context, name string, value []byte, life time.Duration) error
	// Release gives a claim back, and forgets what Settle stored.
	Release(ctx context.Context, name string) error
}

const (
	renewBefore = 5 * time.Minute // WeChat hands out another token this long before the old one ends
	tokenMargin = 5 * time.Second // for a call to arrive
	leaseLife   = 10 * time.Second
	leasePoll   = 50 * time.Millisecond
	// leaseWait is how long a node without any token waits for the one that
	// fetches it. Asking WeChat as well does no harm: it answers the same token.
	leaseWait = 2 * time.Second
	tokenLook = time.Second // between looks while somebody else renews, or nobody can
)

// accessToken is what the nodes share, as JSON.
type accessToken struct {
	Value   string    `json:"v"`
	Expires time.Time `json:"e"`
}

func (t accessToken) usable(refused string, now time.Time) bool {
	return t.Value != "" && t.Value != refused && now.Add(tokenMargin).Before(t.Expires)
}

// tokens keep one mini-program's access token. Between nodes it is a settled
// claim that ends five minutes before the token does: whoever claims it then
// is the one to renew it.
type tokens struct {
	claims  Claims
	appID   string
	timeout time.Duration
	fetch   func(ctx context.Context) (accessToken, error)

	flight   singleflight.Group
	renewing atomic.Bool

	mu      sync.Mutex
	current accessToken
	look    time.Time // until then current is good enough
}

// get returns an access token other than the refused one, where there is one.
func (s *tokens) get(ctx context.Context, refused string) (string, error) {
	s.mu.Lock()
	t, look := s.current, s.look
	s.mu.Unlock()
	if now := time.Now(); t.usable(refused, now) {
		if now.Before(look) || !s.renewing.CompareAndSwap(false, true) {
			return t.Value, nil
		}
		defer s.renewing.Store(false)
		within, cancel := context.WithTimeout(ctx, s.timeout/2) // and as much for the call itself
		defer cancel()
		if renewed, err := s.renew(within, t, refused); err == nil {
			return renewed.Value, nil
		}
		s.keep(t, time.Now().Add(tokenLook))
		return t.Value, nil // still good
	}
	// All callers of this node wait together; the first one hanging up must
	// not spoil it for the rest.
	v, err, _ := s.flight.Do(refused, func() (any, error) {
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
		defer cancel()
		return s.renew(within, accessToken{}, refused)
	})
	if err != nil {
		return "", err
	}
	return v.(accessToken).Value, nil
}

// renew finds the token that another node fetched, or fetches one. While
// another node is at it the answer is old, where that is usable. A store that
// is away costs a few calls too many and nothing else.
func (s *tokens) renew(ctx context.Context, old accessToken, refused string) (accessToken, error) {
	name := "access_token/" + s.appID
	for end := time.Now().Add(leaseWait); ; {
		value, claimed, err := s.claims.Claim(ctx, name, leaseLife)
		now := time.Now()
		if claimed || err != nil || !now.Before(end) {
			return s.replace(ctx, name, claimed)
		}
		var t accessToken
		if json.Unmarshal(value, &t) == nil && t.usable(refused, now) {
			s.keep(t, later(t.Expires.Add(-renewBefore), now.Add(tokenLook)))
			return t, nil
		}
		if old.usable(refused, now) {
			s.keep(old, now.Add(tokenLook))
			return old, nil
		}
		if t.Value != "" && s.drop(ctx, name, t.Value) {
			continue
		}
		if !sleep(ctx, leasePoll) {
			return accessToken{}, ErrAway.Because(ctx.Err())
		}
	}
}

// drop forgets a token that WeChat refused. One caller on one node does it, so
// that nobody drops the next token with it.
func (s *tokens) drop(ctx context.Context, name, refused string) bool {
	sum := sha256.Sum256([]byte(refused))
	_, first, err := s.claims.Claim(ctx, "access_token_refused/"+hex.EncodeToString(sum[:]), leaseLife)
	return err == nil && first && s.claims.Release(ctx, name) == nil
}

func (s *tokens) replace(ctx context.Context, name string, claimed bool) (accessToken, error) {
	after := context.WithoutCancel(ctx) // what was claimed must not stay so
	t, err := s.fetch(ctx)
	if err != nil {
		if claimed {
			_ = s.claims.Release(after, name) // or the claim expires
		}
		return accessToken{}, err
	}
	now := time.Now()
	look := later(t.Expires.Add(-renewBefore), now.Add(tokenLook))
	if data, err := json.Marshal(t); err == nil {
		_ = s.claims.Settle(after, name, data, look.Sub(now)) // or the others fetch it themselves
	}
	s.keep(t, look)
	return t, nil
}

func (s *tokens) keep(t accessToken, look time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.look = t, look
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// fetchToken is POST /cgi-bin/stable_token in its ordinary mode: the same
// token at each call until its last five minutes.
func (c *Client) fetchToken(ctx context.Context) (accessToken, error) {
	var a struct {
		Token   string `json:"access_token"`
		Seconds number `json:"expires_in"`
	}
	err := c.call(ctx, apiStableToken, url.Values{}, map[string]any{
		"grant_type": "client_credential", "appid": c.o.AppID, "secret": c.o.Secret.Value(), "force_refresh": false,
	}, &a)
	switch {
	case err != nil:
		return accessToken{}, err
	case a.Token == "" || len(a.Token) > 4096 || a.Seconds <= 0 || a.Seconds > 86400:
		return accessToken{}, odd("the access token")
	}
	return accessToken{a.Token, time.Now().Add(time.Duration(a.Seconds) * time.Second)}, nil
}
