package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

const (
	dialTimeout = 5 * time.Second
	retryAfter  = 2 * time.Second // what clients are told while a backend is away
)

// Upstream is one backend address, shared by the routes that lead to it.
type Upstream struct {
	Name string // host:port

	dialer   net.Dialer
	down     atomic.Bool
	onChange func(name string, err error)
}

func newUpstream(target *url.URL, onChange func(string, error)) *Upstream {
	if onChange == nil {
		onChange = logChange
	}
	return &Upstream{
		Name:     address(target),
		dialer:   net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second},
		onChange: onChange,
	}
}

func address(target *url.URL) string {
	port := target.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[target.Scheme]
	}
	return net.JoinHostPort(target.Hostname(), port)
}

// Check tells whether the backend accepts TCP connections now.
func (u *Upstream) Check(ctx context.Context) error {
	conn, err := u.dialer.DialContext(ctx, "tcp", u.Name)
	if err == nil {
		_ = conn.Close() // nothing was written to it
	}
	if ctx.Err() == nil {
		u.observe(err)
	}
	return err
}

// observe keeps whether the backend can be reached and speaks up only when
// that changes, however many requests find it out.
func (u *Upstream) observe(err error) {
	if away := err != nil; u.down.Load() != away && u.down.CompareAndSwap(!away, away) {
		u.onChange(u.Name, err)
	}
}

func logChange(name string, err error) {
	if err != nil {
		slog.Warn("backend cannot be reached", "backend", name, "error", err)
		return
	}
	slog.Info("backend is back", "backend", name)
}

// newTransport is a connection pool for one route. It asks no HTTP_PROXY and
// leaves encodings alone: bodies pass as they are.
func (u *Upstream) newTransport(timeout time.Duration) *http.Transport {
	return &http.Transport{
		DialContext:            u.dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true, // over https; own dialers switch it off
		DisableCompression:     true,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        90 * time.Second,
		ResponseHeaderTimeout:  timeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
	}
}

// translate makes a transport's error one of ours and keeps u's state.
func (u *Upstream) translate(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		u.observe(err)
		return fault.New(fault.Unavailable, "backend_unavailable", "The service behind this path is away; try again shortly.").
			After(retryAfter).Because(err)
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return fault.New(fault.UpstreamTimeout, "backend_timeout", "The service behind this path took too long to answer.").Because(err)
	}
	return fault.New(fault.Upstream, "backend_broken", "The service behind this path broke off or gave an answer that is not HTTP.").Because(err)
}
