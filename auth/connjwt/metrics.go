package connjwt

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what this package counts.
type Metrics struct {
	tokens  *prometheus.CounterVec // by kind and result: "ok" or the fault's code
	fetches *prometheus.CounterVec // by result: "ok" or "error"
}

// NewMetrics registers the metrics of this package with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_client_tokens_verified_total",
			Help: "Connection and subscription JWTs, by kind and result: ok, or the code of the error.",
		}, []string{"kind", "result"}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_client_token_keys_fetched_total",
			Help: "Attempts to fetch a JSON Web Key Set, by result: ok or error.",
		}, []string{"result"}),
	}
	reg.MustRegister(m.tokens, m.fetches)
	return m
}
