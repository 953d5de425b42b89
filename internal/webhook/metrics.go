package webhook

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what this package counts.
type Metrics struct {
	requests   *prometheus.CounterVec // by hook and result: "ok" or the fault's code
	duration   *prometheus.HistogramVec
	open       *prometheus.GaugeVec   // by hook
	deliveries *prometheus.CounterVec // by hook and result: see below
	queued     *prometheus.GaugeVec   // by state
	oldest     prometheus.Gauge
	deadBytes  prometheus.Gauge
	trimmed    *prometheus.CounterVec // by reason
}

// Results of a delivery from the queue.
const (
	resultDelivered = "delivered"
	resultRetried   = "retried"
	resultDead      = "dead"
)

// NewMetrics registers the metrics of this package with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_webhook_requests_total",
			Help: "Calls to the business backend by hook and result: ok, or the code of the error.",
		}, []string{"hook", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "minigate_webhook_request_duration_seconds",
			Help:    "How long calls to the business backend took, waiting for a turn included.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"hook"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "minigate_webhook_breaker_open",
			Help: "1 while a hook of the business backend keeps failing, so that calls fail at once but for a probe now and then; else 0.",
		}, []string{"hook"}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_webhook_deliveries_total",
			Help: "Attempts to deliver from the queue by hook and result: delivered, retried (to be tried again later), dead (given up).",
		}, []string{"hook", "result"}),
		queued: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "minigate_webhook_queue_items",
			Help: "Deliveries in the queue by state: pending or dead. With Redis all nodes show the same.",
		}, []string{"state"}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "minigate_webhook_queue_oldest_seconds",
			Help: "How long the pending delivery that waits longest has waited; 0 if none does.",
		}),
		deadBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "minigate_webhook_dead_bytes",
			Help: "What the dead deliveries take in the queue.",
		}),
		trimmed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_webhook_dead_removed_total",
			Help: "Dead deliveries this node removed for a limit, by which: age, count, bytes.",
		}, []string{"reason"}),
	}
	reg.MustRegister(m.requests, m.duration, m.open, m.deliveries, m.queued, m.oldest, m.deadBytes, m.trimmed)
	return m
}

// measured shows the size of the queue.
func (m *Metrics) measured(s Size, now time.Time) {
	m.queued.WithLabelValues("pending").Set(float64(s.Pending))
	m.queued.WithLabelValues("dead").Set(float64(s.Dead))
	m.deadBytes.Set(float64(s.DeadBytes))
	waited := time.Duration(0)
	if !s.Oldest.IsZero() {
		waited = max(0, now.Sub(s.Oldest))
	}
	m.oldest.Set(waited.Seconds())
}
