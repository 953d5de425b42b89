package status

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what this package counts.
type Metrics struct {
	events  *prometheus.CounterVec // by status
	pending prometheus.Gauge
	oldest  prometheus.Gauge
	buried  prometheus.Counter
	failing prometheus.Gauge
}

// NewMetrics registers the metrics of this package with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_user_status_events_total",
			Help: "Events this node put into the queue for the backend by status: online, offline.",
		}, []string{"status"}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "minigate_user_status_pending",
			Help: "Events that are decided and not in the queue for the backend yet. With Redis all nodes show the same.",
		}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "minigate_user_status_oldest_seconds",
			Help: "How long the pending event that waits longest has waited; 0 if none does.",
		}),
		buried: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "minigate_user_status_buried_nodes_total",
			Help: "Nodes whose lease lapsed and whose users this node took from them: killed, or cut off from Redis.",
		}),
		failing: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "minigate_user_status_failing",
			Help: "1 while this node cannot enter or tell who is online, because Redis or the queue fails.",
		}),
	}
	for _, status := range []string{Online, Offline} {
		m.events.WithLabelValues(status)
	}
	reg.MustRegister(m.events, m.pending, m.oldest, m.buried, m.failing)
	return m
}
