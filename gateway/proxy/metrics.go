package proxy

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count proxied requests. Labels are bounded: routes are the
// configured prefixes and "rpc", codes the registered HTTP statuses, 499 for a client
// that left before an answer began, and "other".
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
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
	}
	reg.MustRegister(m.requests, m.duration)
	return m
}

func (m *Metrics) observe(x *exchange, start time.Time) {
	m.count(x.route.Prefix, x.status, start)
}

func (m *Metrics) count(route string, status int, start time.Time) {
	m.requests.WithLabelValues(route, codeLabel(status)).Inc()
	m.duration.WithLabelValues(route).Observe(time.Since(start).Seconds())
}

func codeLabel(status int) string {
	if status != statusClientGone && http.StatusText(status) == "" {
		return "other"
	}
	return strconv.Itoa(status)
}
