package apikey

import "github.com/prometheus/client_golang/prometheus"

// Metrics count by the names of the keys, which are configured, and by how it
// ended: allowed, refused (the scope is too small) or limited. Those of a key
// that was removed go with it.
type Metrics struct {
	requests *prometheus.CounterVec
}

// NewMetrics registers the metrics of keys with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "minigate_api_key_requests_total",
		Help: "Calls on the ops listener by the name of their API key and result: allowed, refused or limited.",
	}, []string{"key", "result"})}
	reg.MustRegister(m.requests)
	return m
}

func (m *Metrics) count(c Caller, result string) {
	if m != nil {
		m.requests.WithLabelValues(c.Name(), result).Inc()
	}
}

func (m *Metrics) forget(name string) {
	if m != nil {
		m.requests.DeletePartialMatch(prometheus.Labels{"key": name})
	}
}
