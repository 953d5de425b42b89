package engine

import "github.com/prometheus/client_golang/prometheus"

// Metrics count what the Redis engine does; the memory engine has nothing to
// say that the hub does not count.
type Metrics struct {
	batch      prometheus.Histogram
	roundTrip  prometheus.Histogram
	refused    prometheus.Counter
	dropped    prometheus.Counter
	reconnects prometheus.Counter
}

// NewMetrics registers the metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "minigate_engine_batch_commands",
			Help:    "Commands sent to Redis in one round trip.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 6),
		}),
		roundTrip: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "minigate_engine_round_trip_seconds",
			Help:    "Time of one round trip to Redis.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "minigate_engine_refused_total",
			Help: "Operations refused because the queue to Redis was full.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "minigate_engine_dropped_total",
			Help: "Messages from Redis dropped because this node could not keep up.",
		}),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "minigate_engine_reconnects_total",
			Help: "Times the pub/sub connection to Redis was lost.",
		}),
	}
	reg.MustRegister(m.batch, m.roundTrip, m.refused, m.dropped, m.reconnects)
	return m
}
