package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/settings"
)

// retryAfter is what clients are told while a backend is away.
const retryAfter = 2 * time.Second

// Upstream is a group of targets, shared by the routes that lead to it.
type Upstream struct {
	Name string // of its settings; that of one URL is its host:port

	settings UpstreamSettings
	targets  []*Target
	dialer   net.Dialer
	metrics  *Metrics
	onChange func(name string, err error)

	transports map[time.Duration]*http.Transport // by how long an answer may take to begin

	mu sync.Mutex // for turns, see Target
}

// groupOfOne are the settings of a route that leads to one URL. Paths in URLs
// are the routes' own, so that all with the same host share what is known of it.
func groupOfOne(to *url.URL) UpstreamSettings {
	var s UpstreamSettings
	settings.Defaults(&s)
	target := TargetSettings{URL: to.Scheme + "://" + to.Host, Weight: 1}
	s.Targets = []TargetSettings{target}
	return s
}

func newUpstream(s UpstreamSettings, m *Metrics, onChange func(string, error)) (*Upstream, error) {
	if onChange == nil {
		onChange = logChange
	}
	u := &Upstream{
		Name: s.Name, settings: s, metrics: m, onChange: onChange, transports: map[time.Duration]*http.Transport{},
		dialer: net.Dialer{Timeout: s.ConnectTimeout, KeepAlive: 30 * time.Second},
	}
	for i, target := range s.Targets {
		to, err := parseUpstream(target.URL)
		if err != nil {
			return nil, err
		}
		t := &Target{address: address(to), weight: int64(target.Weight), index: i, upstream: u}
		t.setBase(to)
		if s.Name == "" {
			u.Name = t.address
			t.Name = t.address
		} else {
			t.Name = s.Name + " " + t.address
		}
		t.gauge = m.up(u.Name, t.address)
		u.targets = append(u.targets, t)
	}
	return u, nil
}

// transport is a connection pool for requests whose answer has to begin within
// timeout. It asks no HTTP_PROXY and leaves encodings alone: bodies pass as
// they are.
func (u *Upstream) transport(timeout time.Duration) *http.Transport {
	u.mu.Lock()
	defer u.mu.Unlock()
	if t := u.transports[timeout]; t != nil {
		return t
	}
	t := &http.Transport{
		DialContext:            u.dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    u.settings.ConnectTimeout,
		ForceAttemptHTTP2:      true, // over https; own dialers switch it off
		DisableCompression:     true,
		MaxIdleConns:           256 * len(u.targets),
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        90 * time.Second,
		ResponseHeaderTimeout:  timeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
	}
	if u.settings.H2C {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	u.transports[timeout] = t
	return t
}

func (u *Upstream) closeIdle() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.transports {
		t.CloseIdleConnections()
	}
}

// order is one request to an upstream, whichever of its targets takes it.
type order struct {
	ctx       context.Context //nolint:containedctx // ends when nobody waits for the answer any more
	request   *http.Request   // all but URL and body; not changed
	path, raw string          // behind that of the target
	query     string
	force     bool // an empty query
	transport *http.Transport
	body      orderBody // nil: there is none

	connected atomic.Bool // the latest try had a connection
	trace     httptrace.ClientTrace
}

func (o *order) gotConn(httptrace.GotConnInfo) { o.connected.Store(true) }

// orderBody is the body of an order, which a try that sent nothing leaves for
// the next one.
type orderBody interface {
	open() io.ReadCloser // for another try
	whole() bool         // nothing was read yet, or all of it can be read again
	failed() bool        // reading it did
}

// idempotent methods may be sent again though the first try may have arrived
// (RFC 9110 section 9.2.2).
func idempotent(method string) bool {
	return method != http.MethodPost && method != http.MethodPatch
}

// send returns the answer's beginning and the target it is from, which counts
// the request as under way until it is released. Where one target fails it
// tries others, as long as no backend can have begun to work on the request,
// or doing so twice does no harm. The error is the transport's last.
func (u *Upstream) send(o *order) (*http.Response, *Target, error) {
	o.trace.GotConn = o.gotConn
	ctx := httptrace.WithClientTrace(o.ctx, &o.trace)
	var tried uint64
	for left := min(u.settings.Tries, len(u.targets)); ; {
		t := u.pick(tried, o.body == nil && idempotent(o.request.Method))
		req := o.request.WithContext(ctx)
		req.URL = t.url(o.path, o.raw, o.query, o.force)
		if o.body != nil {
			req.Body = o.body.open()
		}
		o.connected.Store(false)
		res, err := o.transport.RoundTrip(req)
		if err == nil && res.StatusCode == http.StatusSwitchingProtocols { // nobody asked for it
			_ = res.Body.Close()
			err = errSwitches
		}
		if err == nil {
			t.succeeded()
			return res, t, nil
		}
		if errors.Is(context.Cause(o.ctx), errTakesNothing) {
			err = errTakesNothing
		}
		t.release()
		left--
		tried |= 1 << t.index
		if !u.blame(o, t, err) || left == 0 || o.ctx.Err() != nil || !o.again(err) {
			return nil, nil, err
		}
		u.metrics.retry(u.Name)
	}
}

var errSwitches = errors.New("the backend switched to another protocol unasked")

// blame counts a failure against t, unless it is the caller's: a client that
// left or sent a bad body looks to the transport like a failed request.
func (u *Upstream) blame(o *order, t *Target, err error) bool {
	if o.ctx.Err() == context.Canceled && err != errTakesNothing {
		return false
	}
	if o.body != nil && (o.body.failed() || !o.body.whole() && !isTimeout(err)) {
		return false // it is or may have been the body
	}
	t.failed(err, o.connected.Load())
	u.metrics.failure(u.Name, t.address, reason(err, o.connected.Load()))
	return true
}

// again tells whether the request may be sent once more after err.
func (o *order) again(err error) bool {
	if !o.connected.Load() {
		return o.body == nil || o.body.whole()
	}
	// A backend that is slow may well be at work, and the caller has waited. A
	// body may be on its way still.
	return o.body == nil && idempotent(o.request.Method) && !isTimeout(err)
}

func (t *Target) release() { t.inflight.Add(-1) }

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// reason is the label of a failure.
func reason(err error, connected bool) string {
	switch {
	case !connected:
		return "connect"
	case isTimeout(err):
		return "timeout"
	}
	return "broken"
}

// translate makes a transport's error one of ours.
func translate(err error) error {
	switch {
	case isDial(err):
		return fault.New(fault.Unavailable, "backend_unavailable", "The service behind this path is away; try again shortly.").
			After(retryAfter).Because(err)
	case isTimeout(err):
		return fault.New(fault.UpstreamTimeout, "backend_timeout", "The service behind this path took too long to answer.").Because(err)
	}
	return fault.New(fault.Upstream, "backend_broken", "The service behind this path broke off or gave an answer that is not HTTP.").Because(err)
}
