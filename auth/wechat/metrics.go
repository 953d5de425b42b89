package wechat

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what this package counts.
type Metrics struct {
	requests *prometheus.CounterVec // by api and result: "ok" or the fault's code
	duration *prometheus.HistogramVec
}

// NewMetrics registers the metrics of this package with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_wechat_requests_total",
			Help: "Calls to WeChat's server API, retries counted too, by API and result: ok, or the code of the error.",
		}, []string{"api", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "minigate_wechat_request_duration_seconds",
			Help:    "How long calls to WeChat's server API took.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"api"}),
	}
	reg.MustRegister(m.requests, m.duration)
	return m
}
