package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

const (
	apiCode2Session = "code2session" // metric label
	maxAnswer       = 64 << 10       // bytes of an answer from WeChat
)

// backOff are the pauses before WeChat is asked again when it says "busy".
var backOff = []time.Duration{100 * time.Millisecond, 400 * time.Millisecond}

// wechatClient calls WeChat's server API for one mini-program.
//
// It uses a RoundTripper, not an http.Client: the AppSecret is in the URL, and
// a Client would quote the URL in its errors and follow redirects with it.
type wechatClient struct {
	app       AppSettings
	base      *url.URL
	timeout   time.Duration
	transport http.RoundTripper
	metrics   *Metrics
}

// identity is who WeChat says a code belongs to.
type identity struct {
	OpenID     string
	UnionID    string // "" where the mini-program is bound to no Open Platform account
	SessionKey string // base64 of 16 bytes; secret
}

// Code2Session redeems a code of wx.login. Faults are those of [errcodeFault],
// and Unavailable `wechat_unavailable`.
func (c *wechatClient) Code2Session(ctx context.Context, code string) (*identity, error) {
	within, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	query := url.Values{
		"appid":      {c.app.AppID},
		"secret":     {c.app.Secret.Value()},
		"js_code":    {code},
		"grant_type": {"authorization_code"},
	}
	id, err := c.ask(within, query)
	for _, pause := range backOff {
		if e, ok := errors.AsType[*errcode](err); !ok || e.code != codeBusy || !sleep(within, pause) {
			break
		}
		id, err = c.ask(within, query)
	}
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err() // the phone hung up; WeChat is not to blame
	}
	return id, err
}

// ask makes one call and counts it.
func (c *wechatClient) ask(ctx context.Context, query url.Values) (*identity, error) {
	start, result := time.Now(), "ok"
	body, err := c.get(ctx, "/sns/jscode2session", query)
	var id *identity
	if err == nil {
		id, err = decodeIdentity(body)
	}
	if err != nil {
		result = fault.Of(err).Code
	}
	c.metrics.wechat.WithLabelValues(apiCode2Session, result).Inc()
	c.metrics.wechatFor.WithLabelValues(apiCode2Session).Observe(time.Since(start).Seconds())
	return id, err
}

func (c *wechatClient) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errWeChatAway.Because(c.redact(err))
	}
	res, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, errWeChatAway.Because(c.redact(err))
	}
	defer func() { _ = res.Body.Close() }() // what matters has been read
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, errWeChatAway.Because(c.redact(err))
	case res.StatusCode >= http.StatusInternalServerError || res.StatusCode == http.StatusTooManyRequests:
		return nil, errWeChatAway.Because(fmt.Errorf("it answered HTTP %d", res.StatusCode))
	case res.StatusCode != http.StatusOK:
		return nil, errWeChatAnswer.Because(fmt.Errorf("it answered HTTP %d", res.StatusCode))
	case len(body) > maxAnswer:
		return nil, errWeChatAnswer.Because(errors.New("its answer is too long"))
	}
	return body, nil
}

// redact is a second line of defence: whatever an error of the network says,
// the AppSecret is not in it.
func (c *wechatClient) redact(err error) error {
	secret := c.app.Secret.Value()
	text := err.Error()
	for _, s := range []string{secret, url.QueryEscape(secret)} {
		text = strings.ReplaceAll(text, s, c.app.Secret.String())
	}
	return errors.New(text)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// wechatID is what openids and unionids are made of. They end up in headers,
// keys and channel names, so nothing else is let in.
var wechatID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// decodeIdentity reads the answer of code2Session. Errors never quote it.
func decodeIdentity(body []byte) (*identity, error) {
	var a struct {
		OpenID     string `json:"openid"`
		UnionID    string `json:"unionid"`
		SessionKey string `json:"session_key"`
		Code       int    `json:"errcode"`
		Msg        string `json:"errmsg"`
	}
	if json.Unmarshal(body, &a) != nil {
		return nil, errWeChatAnswer.Because(errors.New("its answer is not the JSON that is documented"))
	}
	if a.Code != 0 {
		return nil, errcodeFault(&errcode{a.Code, rid(a.Msg)})
	}
	key, err := base64.StdEncoding.DecodeString(a.SessionKey)
	if err != nil || len(key) != 16 || !wechatID.MatchString(a.OpenID) || a.UnionID != "" && !wechatID.MatchString(a.UnionID) {
		return nil, errWeChatAnswer.Because(errors.New("openid, unionid or session_key is not what is documented"))
	}
	return &identity{a.OpenID, a.UnionID, a.SessionKey}, nil
}
