package health

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the numbers of this package.
type Metrics struct {
	up *prometheus.GaugeVec
}

// NewMetrics registers them with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "minigate_dependency_up",
		Help: "Whether the last check of a dependency succeeded (1) or not (0).",
	}, []string{"dependency"})}
	reg.MustRegister(m.up)
	return m
}

func (m *Metrics) set(dependency string, up bool) {
	value := 0.0
	if up {
		value = 1
	}
	m.up.WithLabelValues(dependency).Set(value)
}
