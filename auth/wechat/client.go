package wechat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/settings"
)

const maxAnswer = 64 << 10 // bytes of an answer from WeChat

// backOff are the pauses before WeChat is asked again when it says "busy".
var backOff = []time.Duration{100 * time.Millisecond, 400 * time.Millisecond}

// Options are what a Client is made of.
type Options struct {
	AppID   string
	Secret  settings.Secret // the AppSecret
	BaseURL *url.URL        // https://api.weixin.qq.com
	// Timeout bounds one call with everything it takes: its turn within the
	// quota, an access token, retries.
	Timeout time.Duration
	// Transport carries the requests. It must not log them.
	Transport http.RoundTripper
	// Claims keep the access token for all nodes. What they keep is secret.
	Claims Claims
	// Metrics may be nil, which counts for nobody.
	Metrics *Metrics
	// Observe, where set, hears how every request ended, retries too: nil, or
	// an error that holds an [Error] where WeChat refused. It must not block.
	Observe func(api string, err error)
}

// Client calls WeChat's server API for one mini-program. It is safe for
// concurrent use. All methods may answer the faults Limited `wechat_quota`,
// Internal `wechat_config`, Upstream `wechat_error` and Unavailable
// `wechat_unavailable`, besides those they name.
type Client struct {
	o      Options
	limits limits
	tokens *tokens
}

// NewClient makes a Client.
func NewClient(o Options) *Client {
	if o.Metrics == nil {
		o.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	if o.Observe == nil {
		o.Observe = func(string, error) {}
	}
	c := &Client{o: o, limits: newLimits()}
	c.tokens = &tokens{claims: o.Claims, appID: o.AppID, timeout: o.Timeout, fetch: c.fetchToken}
	return c
}

// AppID is the mini-program's.
func (c *Client) AppID() string { return c.o.AppID }

// Timeout bounds every call.
func (c *Client) Timeout() time.Duration { return c.o.Timeout }

// CloseIdleConnections gives back what the transport keeps open.
func (c *Client) CloseIdleConnections() {
	if t, ok := c.o.Transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// call makes one call, which is a POST where there is a body, and decodes
// WeChat's answer into answer.
func (c *Client) call(ctx context.Context, a *api, query url.Values, body, answer any) error {
	within, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	err := c.limits.take(within, a)
	if err == nil {
		err = c.persist(within, a, query, body, answer)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err() // the caller hung up; WeChat is not to blame
	case within.Err() != nil && !errors.Is(err, ErrAway):
		return ErrAway.Because(err)
	}
	return err
}

// persist repeats a call that WeChat was too busy for.
func (c *Client) persist(ctx context.Context, a *api, query url.Values, body, answer any) error {
	err := c.authorize(ctx, a, query, body, answer)
	for _, pause := range backOff {
		if !a.retry || !hasCode(err, -1) || !sleep(ctx, pause) {
			break
		}
		err = c.authorize(ctx, a, query, body, answer)
	}
	return err
}

// authorize adds the access token, and asks once more with another one where
// WeChat refuses it.
func (c *Client) authorize(ctx context.Context, a *api, query url.Values, body, answer any) (err error) {
	if !a.token {
		return c.ask(ctx, a, query, body, answer)
	}
	with, refused := url.Values{}, ""
	maps.Copy(with, query)
	for range 2 {
		token, e := c.tokens.get(ctx, refused)
		if e != nil {
			return e
		}
		with.Set("access_token", token)
		if err = c.ask(ctx, a, with, body, answer); !hasCode(err, 40001, 40014, 42001) {
			return err
		}
		refused = token
	}
	return err
}

func hasCode(err error, codes ...int) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && slices.Contains(codes, e.Code)
}

// ask sends one request and counts it.
func (c *Client) ask(ctx context.Context, a *api, query url.Values, body, answer any) error {
	start, result := time.Now(), "ok"
	data, err := c.send(ctx, a, query, body)
	if err == nil {
		err = a.decode(data, answer)
	}
	if err != nil {
		result = fault.Of(err).Code
	}
	c.o.Metrics.requests.WithLabelValues(a.name, result).Inc()
	c.o.Metrics.duration.WithLabelValues(a.name).Observe(time.Since(start).Seconds())
	c.o.Observe(a.name, err)
	return err
}

func (c *Client) send(ctx context.Context, a *api, query url.Values, body any) ([]byte, error) {
	req, err := c.request(ctx, a, query, body)
	if err != nil {
		return nil, ErrAway.Because(c.redact(err, query))
	}
	res, err := c.o.Transport.RoundTrip(req)
	if err != nil {
		return nil, ErrAway.Because(c.redact(err, query))
	}
	defer func() { _ = res.Body.Close() }() // what matters has been read
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, ErrAway.Because(c.redact(err, query))
	case res.StatusCode >= http.StatusInternalServerError || res.StatusCode == http.StatusTooManyRequests:
		return nil, ErrAway.Because(fmt.Errorf("it answered HTTP %d", res.StatusCode))
	case res.StatusCode != http.StatusOK:
		return nil, ErrAnswer.Because(fmt.Errorf("it answered HTTP %d", res.StatusCode))
	case len(data) > maxAnswer:
		return nil, ErrAnswer.Because(errors.New("its answer is too long"))
	}
	return data, nil
}

func (c *Client) request(ctx context.Context, a *api, query url.Values, body any) (*http.Request, error) {
	u := c.o.BaseURL.JoinPath(a.path)
	u.RawQuery = query.Encode()
	if body == nil {
		return http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	}
	// As plain UTF-8: WeChat's content check lets text pass unread that is
	// written in \u escapes.
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), &text)
	if err == nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	return req, err
}

// redact is a second line of defence: whatever an error of the network says,
// neither the AppSecret nor the access token is in it.
func (c *Client) redact(err error, query url.Values) error {
	text := err.Error()
	for _, secret := range []string{c.o.Secret.Value(), query.Get("access_token"), query.Get("signature")} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, settings.Secret(secret).String())
			text = strings.ReplaceAll(text, url.QueryEscape(secret), settings.Secret(secret).String())
		}
	}
	return errors.New(text)
}

// decode reads an answer. Errors never quote it.
func (a *api) decode(data []byte, answer any) error {
	var head struct {
		Code int    `json:"errcode"`
		Msg  string `json:"errmsg"`
	}
	if json.Unmarshal(data, &head) != nil {
		return ErrAnswer.Because(errors.New("its answer is not the JSON that is documented"))
	}
	if head.Code != 0 {
		return a.errorOf(head.Code, head.Msg)
	}
	if answer != nil && json.Unmarshal(data, answer) != nil {
		return ErrAnswer.Because(errors.New("its answer is not the JSON that is documented"))
	}
	return nil
}

// odd is an answer that is well-formed but cannot be true.
func odd(what string) error {
	return ErrAnswer.Because(errors.New(what + " is not what is documented"))
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Format prints the appid and nothing that is secret, whatever the verb.
func (c *Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "wechat client of "+c.o.AppID) }
