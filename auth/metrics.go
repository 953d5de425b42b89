package auth

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what this package counts.
type Metrics struct {
	logins    *prometheus.CounterVec // by result: "ok" or the fault's code
	fromCache prometheus.Counter
	fromStore prometheus.Counter
	ended     *prometheus.CounterVec // by reason
	wechat    *prometheus.CounterVec // by api and result: "ok" or the fault's code
	wechatFor *prometheus.HistogramVec
}

// NewMetrics registers the metrics of this package with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	verified := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "minigate_sessions_verified_total",
		Help: "Tokens found good, by whether the node's cache or the session store knew.",
	}, []string{"source"})
	m := &Metrics{
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_logins_total",
			Help: "Logins by result: ok, or the code of the error.",
		}, []string{"result"}),
		fromCache: verified.WithLabelValues("cache"),
		fromStore: verified.WithLabelValues("store"),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_sessions_ended_total",
			Help: "Sessions this node ended before they expired, by reason.",
		}, []string{"reason"}),
		wechat: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_wechat_requests_total",
			Help: "Calls to WeChat's server API, retries counted too, by API and result: ok, or the code of the error.",
		}, []string{"api", "result"}),
		wechatFor: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "minigate_wechat_request_duration_seconds",
			Help:    "How long calls to WeChat's server API took.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"api"}),
	}
	m.logins.WithLabelValues("ok")
	reg.MustRegister(m.logins, verified, m.ended, m.wechat, m.wechatFor)
	return m
}
