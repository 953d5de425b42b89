package auth

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/auth/wechat"
)

// Metrics are what this package counts.
type Metrics struct {
	logins          *prometheus.CounterVec // by result: "ok" or the fault's code
	unchecked       prometheus.Counter
	fromCache       prometheus.Counter
	fromStore       prometheus.Counter
	ended           *prometheus.CounterVec // by reason
	ticketsMade     prometheus.Counter
	ticketsVerified *prometheus.CounterVec // by result: "ok" or the fault's code
	linksVerified   *prometheus.CounterVec // by result: "ok" or the fault's code
	alerts          *prometheus.GaugeVec   // by appid and errcode
	openData        *prometheus.CounterVec // by kind and result: "ok" or the fault's code
	pushes          *prometheus.CounterVec // by result
	wechat          *wechat.Metrics
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
		unchecked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "minigate_logins_unchecked_total",
			Help: "Logins let through, without claims, although the login webhook gave no usable answer.",
		}),
		fromCache: verified.WithLabelValues("cache"),
		fromStore: verified.WithLabelValues("store"),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_sessions_ended_total",
			Help: "Sessions this node ended before they expired, by reason.",
		}, []string{"reason"}),
		ticketsMade: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "minigate_tickets_made_total",
			Help: "Tickets made.",
		}),
		ticketsVerified: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_tickets_verified_total",
			Help: "Tickets presented, by result: ok, or the code of the error.",
		}, []string{"result"}),
		linksVerified: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_links_verified_total",
			Help: "Links to files presented, by result: ok, or the code of the error.",
		}, []string{"result"}),
		alerts: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "minigate_wechat_alerts",
			Help: "1 while WeChat refuses a mini-program for how it is set up, by appid and errcode.",
		}, []string{"appid", "errcode"}),
		openData: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_opendata_total",
			Help: "Open data and phone numbers asked for, by kind and result: ok, or the code of the error.",
		}, []string{"kind", "result"}),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_wechat_pushes_total",
			Help: "Messages pushed by WeChat, by result: ok, duplicate, refused (not from WeChat, or not readable) or failed (WeChat will send it again).",
		}, []string{"result"}),
		wechat: wechat.NewMetrics(reg),
	}
	m.logins.WithLabelValues("ok")
	reg.MustRegister(m.logins, m.unchecked, verified, m.ended, m.ticketsMade, m.ticketsVerified, m.linksVerified, m.alerts, m.openData, m.pushes)
	return m
}
