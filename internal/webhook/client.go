package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/fault"
)

const (
	maxAnswer     = 64 << 10 // bytes
	dialTimeout   = 5 * time.Second
	maxRetryAfter = 10 * time.Minute
)

var (
	errAway   = fault.New(fault.Unavailable, "webhook_unavailable", "The service behind this server is away: try again.")
	errPaused = fault.New(fault.Unavailable, "webhook_paused", "The service behind this server keeps failing: try again shortly.")
	errBusy   = fault.New(fault.Unavailable, "webhook_busy", "The service behind this server has too much to do: try again.")
	errSlow   = fault.New(fault.UpstreamTimeout, "webhook_timeout", "The service behind this server took too long to answer.")
	errAnswer = fault.New(fault.Upstream, "webhook_error", "The service behind this server gave an answer that makes no sense here.")
)

// Options are what a Client is made of.
type Options struct {
	Settings  Settings
	Metrics   *Metrics          // nil counts for nobody
	Transport http.RoundTripper // nil makes one
}

// Client holds what all endpoints share. It is safe for concurrent use.
type Client struct {
	settings  Settings
	transport http.RoundTripper
	metrics   *Metrics

	mu        sync.Mutex
	endpoints []*Endpoint
	slots     map[string]chan struct{} // by address: one that several hooks share is one backend
}

// NewClient makes a Client out of settings that passed their Check.
func NewClient(o Options) *Client {
	c := &Client{settings: o.Settings, transport: o.Transport, metrics: o.Metrics, slots: map[string]chan struct{}{}}
	if c.metrics == nil {
		c.metrics = NewMetrics(prometheus.NewRegistry())
	}
	if c.transport == nil {
		c.transport = newTransport(o.Settings.MaxConcurrent)
	}
	return c
}

// newTransport asks no HTTP_PROXY: signed calls go where the configuration
// says and nowhere else.
func newTransport(maxConcurrent int) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxConcurrent,
		IdleConnTimeout:        50 * time.Second,
		MaxResponseHeaderBytes: 32 << 10,
	}
}

// Close ends idle connections; calls under way are not disturbed.
func (c *Client) Close() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Endpoint is one URL of the business backend. It is safe for concurrent use.
type Endpoint struct {
	hook    string
	url     *url.URL
	timeout time.Duration
	client  *Client
	slots   chan struct{}
	breaker breaker
}

// Endpoint makes the endpoint of a hook ("login", or "rpc:orders" where there
// are several of one kind: 1 to 64 letters, digits and - _ . only, before and
// after the colon) that is called at address, each call within timeout. It
// fails where that is no address or there is no key to sign with.
func (c *Client) Endpoint(hook, address string, timeout time.Duration) (*Endpoint, error) {
	if kind, name, named := strings.Cut(hook, ":"); !nameFormat.MatchString(kind) || named && !nameFormat.MatchString(name) {
		return nil, fmt.Errorf("webhook %q: the name is not well-formed", hook)
	}
	if problem := CheckEndpoint(address); problem != "" {
		return nil, fmt.Errorf("webhook %s: the endpoint %s", hook, problem)
	}
	if len(c.settings.Keys) == 0 {
		return nil, fmt.Errorf("webhook %s needs a key in webhooks.keys to sign with", hook)
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, err // CheckEndpoint has parsed it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots[address] == nil {
		c.slots[address] = make(chan struct{}, c.settings.MaxConcurrent)
	}
	e := &Endpoint{hook: hook, url: u, timeout: timeout, client: c, slots: c.slots[address]}
	e.breaker.open = c.metrics.open.WithLabelValues(hook)
	c.endpoints = append(c.endpoints, e)
	return e, nil
}

// Endpoints lists what was made, by hook.
func (c *Client) Endpoints() []*Endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(slices.Values(c.endpoints), func(a, b *Endpoint) int { return strings.Compare(a.hook, b.hook) })
}

// EndpointInfo is how an endpoint does, as this node met it.
type EndpointInfo struct {
	Hook   string    `json:"hook"`
	Host   string    `json:"host"`
	Open   bool      `json:"open"`             // the breaker is: calls fail at once, but for a probe now and then
	Worked time.Time `json:"worked,omitzero"`  // last
	Failed time.Time `json:"failed,omitzero"`  // last
	Reason string    `json:"reason,omitempty"` // code and sentence of the last failure, without secrets
}

// Info tells how the endpoint does.
func (e *Endpoint) Info() EndpointInfo {
	b := &e.breaker
	b.mu.Lock()
	defer b.mu.Unlock()
	return EndpointInfo{Hook: e.hook, Host: e.url.Host, Open: b.failures >= breakAfter, Worked: b.worked, Failed: b.failed, Reason: b.reason}
}

// Check returns an error while the breaker is open. It calls nobody.
func (e *Endpoint) Check(context.Context) error {
	if info := e.Info(); info.Open {
		return errPaused.Because(errors.New(info.Reason))
	}
	return nil
}

// Call is one call to an endpoint.
type Call struct {
	ID     string // of the delivery, the same for every attempt; see NewID
	Event  string
	Body   []byte      // JSON
	Header http.Header // sent along, but for what a call says itself; values have to be well-formed

	MaxAnswer int // bytes; 0 takes 64 KiB
}

// Answer is what came back, whatever its status.
type Answer struct {
	Status  int
	Body    []byte
	TooLong bool // the body is cut

	retryAfter time.Duration
}

// Fault is what an answer that is no success amounts to: Unavailable
// `webhook_unavailable` for 5xx and 429, else Upstream `webhook_error`.
func (a *Answer) Fault() error {
	if a.Status >= http.StatusInternalServerError || a.Status == http.StatusTooManyRequests {
		return errAway.After(a.retryAfter).Because(statusError(a.Status))
	}
	return errAnswer.Because(statusError(a.Status))
}

// success returns an error for what is none.
func (a *Answer) success() error {
	switch {
	case a.Status < 200 || a.Status > 299:
		return a.Fault()
	case a.TooLong:
		return errAnswer.Because(errors.New("its answer is too long"))
	}
	return nil
}

// NewID returns a delivery id: 26 letters and digits, random.
func NewID() string { return rand.Text() }

// Ask posts question and decodes what the backend answers into answer, which
// stays as it is where the backend has nothing to say (204). Faults: those of
// Post, and Upstream `webhook_error` where the answer does not fit.
func (e *Endpoint) Ask(ctx context.Context, id, event string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	return e.Exchange(ctx, Call{ID: id, Event: event, Body: body}, func(a *Answer) error {
		if err := a.success(); err != nil || a.Status == http.StatusNoContent {
			return err
		}
		if json.Unmarshal(a.Body, answer) != nil {
			return errAnswer.Because(errors.New("its answer is not the JSON that is documented"))
		}
		return nil
	})
}

// Post makes one call; any 2xx is success. Faults: Unavailable
// `webhook_unavailable`, `webhook_paused` (the breaker is open), `webhook_busy`
// (no turn in time); UpstreamTimeout `webhook_timeout`; Upstream
// `webhook_error` for any other status, a redirect included, and for an answer
// longer than 64 KiB. Errors never contain the URL.
func (e *Endpoint) Post(ctx context.Context, call Call) error {
	return e.Exchange(ctx, call, (*Answer).success)
}

// Exchange makes one call and has read judge what comes back; its error is the
// result, and counted by the fault's code. Upstream is the kind for what makes
// no sense although the backend is there: the breaker passes over it. Other
// faults are those of Post where no answer came.
func (e *Endpoint) Exchange(ctx context.Context, call Call, read func(*Answer) error) error {
	start, result := time.Now(), "ok"
	err := e.inTurn(ctx, func(ctx context.Context) error {
		answer, err := e.exchange(ctx, call)
		if err != nil {
			return err
		}
		return read(answer)
	})
	if err != nil {
		result = fault.Of(err).Code
	}
	e.client.metrics.requests.WithLabelValues(e.hook, result).Inc()
	e.client.metrics.duration.WithLabelValues(e.hook).Observe(time.Since(start).Seconds())
	return err
}

// inTurn runs exchange within the limits of the endpoint.
func (e *Endpoint) inTurn(ctx context.Context, exchange func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-within.Done():
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errBusy
	}
	probe, wait := e.breaker.enter(time.Now())
	if wait > 0 {
		return errPaused.After(wait)
	}
	err := exchange(within)
	o := answered
	switch {
	case err == nil:
	case ctx.Err() != nil:
		err, o = ctx.Err(), unknown // the caller left; the backend is not to blame
	case fault.Of(err).Kind != fault.Upstream:
		o = failed
	}
	e.breaker.leave(probe, o, time.Now(), err)
	return err
}

// exchange uses the RoundTripper, not an http.Client, whose errors quote the
// URL and which follows redirects.
func (e *Endpoint) exchange(ctx context.Context, call Call) (*Answer, error) {
	req, err := e.request(ctx, call)
	if err != nil {
		return nil, err
	}
	res, err := e.client.transport.RoundTrip(req)
	if err != nil {
		return nil, networkFault(ctx, err)
	}
	defer func() { _ = res.Body.Close() }() // what matters has been read
	limit := cmp.Or(call.MaxAnswer, maxAnswer)
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(limit)+1))
	if err != nil {
		return nil, networkFault(ctx, err)
	}
	return &Answer{res.StatusCode, body[:min(len(body), limit)], len(body) > limit, retryAfter(res)}, nil
}

const headerPrefix = "X-Minigate-" // of all headers that are ours

func (e *Endpoint) request(ctx context.Context, call Call) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "", bytes.NewReader(call.Body))
	if err != nil {
		return nil, err
	}
	req.URL, req.Host = e.url, e.url.Host
	req.Header.Set("User-Agent", "minigate")
	for name, values := range call.Header {
		if name = http.CanonicalHeaderKey(name); !strings.HasPrefix(name, headerPrefix) {
			req.Header[name] = values
		}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set(HeaderEvent, call.Event)
	req.Header.Set(HeaderDelivery, call.ID)
	Sign(req.Header, call.Body, e.client.settings.Keys[0], time.Now())
	return req, nil
}

// statusError is an HTTP status that is no success.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("it answered HTTP %d", int(s)) }

// networkFault keeps only errors that are known to name hosts and reasons but
// nothing that was sent: others may quote what a backend echoes.
func networkFault(ctx context.Context, err error) error {
	if timeout, ok := errors.AsType[net.Error](err); ctx.Err() != nil || ok && timeout.Timeout() {
		return errSlow
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return errAway.Because(op)
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return errAway.Because(cert)
	}
	return errAway.Because(errors.New("it broke off or gave an answer that is not HTTP"))
}

// retryAfter is what the backend asks for in seconds, 0 if nothing.
func retryAfter(res *http.Response) time.Duration {
	seconds, err := strconv.ParseUint(res.Header.Get("Retry-After"), 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}
