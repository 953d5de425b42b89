package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/fault"
)

var (
	errFails     = fault.New(fault.Unavailable, "backend_failing", "It accepts connections and then fails request after request.")
	errUnhealthy = fault.New(fault.Unavailable, "backend_unhealthy", "Its health check fails.")
)

// Target is one backend of an upstream, and what is known of its state.
type Target struct {
	Name string // host:port, behind the upstream's name and a space where it has one

	base     *url.URL // scheme, host and what stands before every path
	address  string   // host:port
	weight   int64
	index    int // in its upstream
	upstream *Upstream

	inflight atomic.Int64
	fails    atomic.Int32 // in a row
	out      atomic.Int64 // until when it is left out, in Unix nanoseconds; 0: it is not
	unwell   atomic.Bool  // by the health check
	down     atomic.Bool  // left out or unwell, as was told last

	// For the turns of equals, guarded by upstream.mu.
	current int64
	tied    bool

	mu      sync.Mutex // guards what follows, and changes of out and down
	refused bool       // it is left out since it could not be reached
	why     error      // why it is left out
	sick    error      // of the health check
	asked   bool       // by the health check, at least once
	good    int        // checks in a row
	bad     int
	gauge   prometheus.Gauge
}

func address(target *url.URL) string {
	port := target.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[target.Scheme]
	}
	return net.JoinHostPort(target.Hostname(), port)
}

// url is where path leads at this target; raw is path as it was escaped.
func (t *Target) url(path, raw, query string, force bool) *url.URL {
	return &url.URL{
		Scheme: t.base.Scheme, Host: t.base.Host, Path: t.base.Path + path, RawPath: t.base.RawPath + raw,
		RawQuery: query, ForceQuery: force,
	}
}

// setBase keeps to as what is put before every path, without the last slash.
func (t *Target) setBase(to *url.URL) {
	t.base = &url.URL{Scheme: to.Scheme, Host: to.Host, Path: strings.TrimSuffix(to.Path, "/"), RawPath: strings.TrimSuffix(to.EscapedPath(), "/")}
}

// succeeded notes that the target began an answer. It is all that happens to
// targets that are well, so it costs next to nothing.
func (t *Target) succeeded() {
	if t.fails.Load() != 0 {
		t.fails.Store(0)
	}
	if t.out.Load() != 0 {
		t.back()
	}
}

func (t *Target) back() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fails.Store(0)
	t.out.Store(0)
	t.refused = false
	t.tell(nil)
}

// failed notes a request that came to nothing. A target that could not be
// reached is left out at once: trying it again costs another request time.
func (t *Target) failed(err error, reached bool) {
	fails := t.fails.Add(1)
	if reached && int(fails) < t.upstream.settings.MaxFails {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.out.Store(time.Now().Add(t.upstream.settings.FailPause).UnixNano())
	t.refused = !reached
	if t.why = err; reached {
		t.why = errFails.Because(err)
	}
	t.tell(t.why)
}

// tell speaks up only when the state changes, however many requests find it
// out; err says why. It wants t.mu.
func (t *Target) tell(err error) {
	away := t.out.Load() != 0 || t.sick != nil
	if t.down.Load() == away {
		return
	}
	t.down.Store(away)
	t.gauge.Set(map[bool]float64{true: 0, false: 1}[away])
	if !away {
		err = nil
	}
	t.upstream.onChange(t.Name, err)
}

func logChange(name string, err error) {
	if err != nil {
		slog.Warn("backend cannot be used", "backend", name, "error", err)
		return
	}
	slog.Info("backend is back", "backend", name)
}

// Check tells whether the target can be used now. Where it has a health check
// that is the latest one's result, and else whether it accepts connections.
func (t *Target) Check(ctx context.Context) error {
	if t.upstream.settings.HealthCheck.Path != "" {
		t.mu.Lock()
		asked := t.asked
		t.mu.Unlock()
		if !asked {
			t.ask(ctx)
		}
		return t.state()
	}
	err := t.reach(ctx)
	if err == nil {
		err = t.state()
	}
	return err
}

// reach connects, without a request.
func (t *Target) reach(ctx context.Context) error {
	conn, err := t.upstream.dialer.DialContext(ctx, "tcp", t.address)
	if err == nil {
		_ = conn.Close() // nothing was written to it
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err() // says nothing about the target
	}
	if err != nil {
		t.failed(err, false)
		return err
	}
	t.reachable()
	return nil
}

// reachable lets a target in again that was left out because it could not be
// reached, and any other whose pause is over.
func (t *Target) reachable() {
	t.mu.Lock()
	until := t.out.Load()
	in := until != 0 && (t.refused || time.Now().UnixNano() >= until)
	t.mu.Unlock()
	if in {
		t.back()
	}
}

func (t *Target) state() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.sick != nil:
		return t.sick
	case t.out.Load() != 0:
		return t.why
	}
	return nil
}
