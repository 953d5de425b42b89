package proxy

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count proxied requests. Labels are bounded: routes are the
// configured prefixes and "rpc", codes the registered HTTP statuses, 499 for a client
// that left before an answer began, and "other"; upstreams and targets are
// configured, too.
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	upstream *prometheus.GaugeVec
	failures *prometheus.CounterVec
	retries  *prometheus.CounterVec
	limited  *prometheus.CounterVec
}

// NewMetrics registers the proxy's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_proxy_requests_total",
			Help: "Requests to proxied prefixes by route and HTTP status answered.",
		}, []string{"route", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "minigate_proxy_request_duration_seconds",
			Help:    "Time from a proxied request's header to the end of its answer.",
			Buckets: []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route"}),
		upstream: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "minigate_upstream_up",
			Help: "Whether a target of an upstream gets requests (1) or is left out (0).",
		}, []string{"upstream", "target"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_upstream_failures_total",
			Help: "Requests to a target that failed before an answer began: connect, timeout, broken.",
		}, []string{"upstream", "target", "reason"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_upstream_retries_total",
			Help: "Requests that were sent to another target after one had failed.",
		}, []string{"upstream"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_proxy_limited_total",
			Help: "Requests that were refused since their user or their ip sent too many.",
		}, []string{"route", "by"}),
	}
	reg.MustRegister(m.requests, m.duration, m.upstream, m.failures, m.retries, m.limited)
	return m
}

func (m *Metrics) up(upstream, target string) prometheus.Gauge {
	g := m.upstream.WithLabelValues(upstream, target)
	g.Set(1)
	return g
}

func (m *Metrics) failure(upstream, target, reason string) {
	m.failures.WithLabelValues(upstream, target, reason).Inc()
}

func (m *Metrics) retry(upstream string) { m.retries.WithLabelValues(upstream).Inc() }

// counts are the metrics of one route, looked up once.
type counts struct {
	route    string
	metrics  *Metrics
	duration prometheus.Observer
	codes    [600]atomic.Pointer[prometheus.Counter]
}

func (m *Metrics) of(route string) *counts {
	return &counts{route: route, metrics: m, duration: m.duration.WithLabelValues(route)}
}

func (c *counts) add(status int, start time.Time) {
	c.duration.Observe(time.Since(start).Seconds())
	if status < 0 || status >= len(c.codes) {
		status = 0 // "other"
	}
	counter := c.codes[status].Load()
	if counter == nil {
		found := c.metrics.requests.WithLabelValues(c.route, codeLabel(status))
		counter = &found
		c.codes[status].Store(counter)
	}
	(*counter).Inc()
}

func (c *counts) limit(by string) { c.metrics.limited.WithLabelValues(c.route, by).Inc() }

func codeLabel(status int) string {
	if status != statusClientGone && http.StatusText(status) == "" {
		return "other"
	}
	return strconv.Itoa(status)
}
