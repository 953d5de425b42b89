package consumer

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what this package counts. Their labels come from the
// configuration.
type Metrics struct {
	entries  *prometheus.CounterVec // by consumer and result
	failures *prometheus.CounterVec // by consumer
	lag      *prometheus.GaugeVec   // by consumer and stream
	oldest   *prometheus.GaugeVec   // by consumer and stream
	held     *prometheus.GaugeVec   // by consumer and stream
}

// Results of an entry.
const (
	resultDone    = "processed"
	resultPoison  = "poison"
	resultGivenUp = "given_up"
	resultGone    = "gone"
)

// NewMetrics registers the metrics of this package with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	perStream := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"consumer", "stream"})
	}
	m := &Metrics{
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_consumer_entries_total",
			Help: "Stream entries this node is done with, by consumer and result: processed, poison (refused, set aside), given_up (failed for too long, set aside), gone (deleted from the stream before their turn).",
		}, []string{"consumer", "result"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_consumer_failures_total",
			Help: "Attempts at stream entries that failed for now and will be repeated, by consumer.",
		}, []string{"consumer"}),
		lag: perStream("minigate_consumer_lag_entries",
			"Entries of a stream that are not acknowledged yet; shown by the node that consumes it, 0 on others."),
		oldest: perStream("minigate_consumer_oldest_seconds",
			"Age of the oldest entry that is not acknowledged yet, by its id; shown by the node that consumes the stream, 0 on others."),
		held: perStream("minigate_consumer_held",
			"1 where this node consumes the stream, else 0."),
	}
	reg.MustRegister(m.entries, m.failures, m.lag, m.oldest, m.held)
	return m
}
