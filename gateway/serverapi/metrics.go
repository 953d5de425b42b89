package serverapi

import "github.com/prometheus/client_golang/prometheus"

// Metrics count requests. Labels are bounded: methods are the known ones or
// "unknown"; results are "ok", Centrifugo's error numbers and the HTTP
// statuses of refused requests; keys are the configured names.
type Metrics struct {
	requests *prometheus.CounterVec
	keys     *prometheus.CounterVec
}

// NewMetrics registers the server API's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_api_requests_total",
			Help: "Server API requests by method and result: ok, an error number of the API, or the HTTP status of a refusal.",
		}, []string{"method", "result"}),
		keys: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_api_key_requests_total",
			Help: "Server API requests let in by the name of their key.",
		}, []string{"key"}),
	}
	reg.MustRegister(m.requests, m.keys)
	return m
}
