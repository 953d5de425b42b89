package auth

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/minigate/minigate/auth/wechat"
)

// newClient makes the client of one mini-program.
func (s *Service) newClient(app AppSettings, base *url.URL, timeout time.Duration, transport http.RoundTripper) *wechat.Client {
	return wechat.NewClient(wechat.Options{
		AppID: app.AppID, Secret: app.Secret, BaseURL: base, Timeout: timeout, Transport: transport,
		Claims: sealedClaims{s.store, s.sealer}, Metrics: s.metrics.wechat,
		Observe: func(api string, err error) { s.alerts.observe(app.AppID, api, err) },
	})
}

// WeChat returns the client of a mini-program, for calls that nothing here
// makes by itself, or nil where there is no such mini-program.
func (s *Service) WeChat(appID string) *wechat.Client { return s.apps[appID] }

// sealedClaims seal what is settled: access tokens are worth stealing.
type sealedClaims struct {
	Store
	sealer sealer
}

func (c sealedClaims) Claim(ctx context.Context, name string, life time.Duration) ([]byte, bool, error) {
	sealed, claimed, err := c.Store.Claim(ctx, name, life)
	if err != nil || len(sealed) == 0 {
		return nil, claimed, err
	}
	value, err := c.sealer.open(name, sealed)
	if err != nil {
		return nil, claimed, err
	}
	return []byte(value), claimed, nil
}

func (c sealedClaims) Settle(ctx context.Context, name string, value []byte, life time.Duration) error {
	return c.Store.Settle(ctx, name, c.sealer.seal(name, string(value)), life)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
