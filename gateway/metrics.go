package gateway

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the numbers of the live side of one node.
type Metrics struct {
	connections   prometheus.Gauge
	users         prometheus.Gauge
	channels      prometheus.Gauge
	subscriptions prometheus.Gauge
	received      [commandCount]prometheus.Counter
	publications  prometheus.Counter
	deliveries    prometheus.Counter
	undeliverable prometheus.Counter
	recovered     prometheus.Counter
	unrecovered   prometheus.Counter
	refused       *prometheus.CounterVec // refused handshakes by reason
	disconnects   *prometheus.CounterVec
	skipped       *prometheus.CounterVec // channels of users that they were not subscribed to
	errors        *prometheus.CounterVec // error replies by code
}

// NewMetrics registers the metrics of the live side.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		reg.MustRegister(g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		reg.MustRegister(v)
		return v
	}
	recoveries := vec("minigate_recoveries_total", "Subscriptions that asked for what they missed, by result.", "result")
	received := vec("minigate_messages_received_total", "Messages received from clients, by command.", "command")
	m := &Metrics{
		connections:   gauge("minigate_connections", "Clients connected to this node."),
		users:         gauge("minigate_users", "Users connected to this node."),
		channels:      gauge("minigate_channels", "Channels with subscribers on this node."),
		subscriptions: gauge("minigate_subscriptions", "Subscriptions of clients on this node."),
		publications:  counter("minigate_publications_total", "Publications made on this node, by clients and by the server."),
		deliveries:    counter("minigate_deliveries_total", "Publications, joins and leaves written to clients of this node."),
		undeliverable: counter("minigate_undeliverable_total", "Publications that were not written to a client that speaks JSON, since their data is not JSON."),
		recovered:     recoveries.WithLabelValues("recovered"),
		unrecovered:   recoveries.WithLabelValues("unrecovered"),
		refused:       vec("minigate_connections_refused_total", "Handshakes refused before the upgrade, by reason.", "reason"),
		disconnects:   vec("minigate_disconnects_total", "Connections ended by the server, by code; 0 stands for those the client or the network ended.", "code"),
		skipped:       vec("minigate_user_channels_skipped_total", "Channels named at login, or personal ones, that a connection was not subscribed to, by reason.", "reason"),
		errors:        vec("minigate_command_errors_total", "Commands answered with an error, by its code.", "code"),
	}
	for c := range commandCount {
		m.received[c] = received.WithLabelValues(c.String())
	}
	return m
}

func (m *Metrics) disconnected(code uint32) {
	m.disconnects.WithLabelValues(strconv.FormatUint(uint64(code), 10)).Inc()
}

func (m *Metrics) failed(code uint32) {
	m.errors.WithLabelValues(strconv.FormatUint(uint64(code), 10)).Inc()
}
