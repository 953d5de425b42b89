package serverapi

import "github.com/prometheus/client_golang/prometheus"

// Metrics count requests. Labels are bounded: methods are the known ones,
// "commands" for the older form, or "unknown"; results are "ok", Centrifugo's
// error numbers and the HTTP statuses of refused requests.
type Metrics struct {
	requests *prometheus.CounterVec
	ok       map[string]prometheus.Counter // those of methods that went well, which are nearly all
}

// NewMetrics registers the server API's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_api_requests_total",
			Help: "Server API requests by method and result: ok, an error number of the API, or the HTTP status of a refusal.",
		}, []string{"method", "result"}),
		ok: make(map[string]prometheus.Counter),
	}
	for _, name := range Methods() {
		m.ok[name] = m.requests.WithLabelValues(name, "ok")
	}
	reg.MustRegister(m.requests)
	return m
}
