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
	lingering     prometheus.Gauge
	subscriptions prometheus.Gauge
	received      [commandCount]prometheus.Counter
	publications  prometheus.Counter
	deliveries    prometheus.Counter
	undeliverable prometheus.Counter
	recovered     prometheus.Counter
	unrecovered   prometheus.Counter
	refused       *prometheus.CounterVec // refused handshakes by reason
	held          *prometheus.CounterVec // upgraded connections, by what holds them
	disconnects   *prometheus.CounterVec
	unsubscribes  *prometheus.CounterVec
	skipped       *prometheus.CounterVec // channels of users that they were not subscribed to
	errors        *prometheus.CounterVec // error replies by code
	slow          *prometheus.CounterVec // connections closed with 3008, by reason
	dropped       *prometheus.CounterVec // what somebody did not get, by reason
	rewound       prometheus.Counter
	reads         [readCount]prometheus.Counter    // of streams from the engine
	checks        [checkResults]prometheus.Counter // of positions

	placedFromMemory, placedFromEngine prometheus.Counter

	pending                 prometheus.Gauge
	waitClock, waitFanOut   prometheus.Gauge
	waitProcessor           prometheus.Gauge
	overloaded              prometheus.Gauge
	overloads               prometheus.Counter
	memoryUsed, memoryLimit *prometheus.GaugeVec
}

// Why connections are closed as slow.
const (
	slowQueue   = "queue"   // queue_max_size
	slowNode    = "node"    // queue_total_max_size
	slowBacklog = "backlog" // channel_backlog, where history cannot help
	slowMemory  = "memory"  // memory_soft_limit
)

// What holds a connection.
const (
	heldByEpoll     = "epoll"
	heldByGoroutine = "goroutine"
)

// Why somebody did not get something and was not told.
const (
	droppedPresence = "presence" // joins and leaves that a subscriber was too slow for
	droppedRate     = "rate"     // messages without an id, over command_rate_limit
	droppedUnsent   = "unsent"   // replies and messages that waited for a connection when it ended
)

// streamRead is why a stream is read from the engine, for counting.
type streamRead uint8

const (
	readSubscribe streamRead = iota
	readRefill               // this node missed something
	readRepair               // one subscriber was too slow for the backlog
	readCheck
	readCount
)

var readNames = [readCount]string{"subscribe", "refill", "repair", "check"}

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
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	recoveries := vec("minigate_recoveries_total", "Subscriptions that asked for what they missed, by result.", "result")
	reads := vec("minigate_stream_reads_total", "Reads of channel streams from the engine, by reason.", "reason")
	checks := vec("minigate_position_checks_total", "Checks whether a quiet channel missed something on this node, by result.", "result")
	placed := vec("minigate_positions_total", "Positions told to subscribers, by where they came from.", "source")
	received := vec("minigate_messages_received_total", "Messages received from clients, by command.", "command")
	gauges := func(name, help, label string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{label})
		reg.MustRegister(v)
		return v
	}
	waits := gauges("minigate_wait_seconds", "How long work waited when it was measured last: goroutines for a processor (the median of a second), the clock, channels for fan-out.", "of")
	m := &Metrics{
		connections:   gauge("minigate_connections", "Clients connected to this node."),
		users:         gauge("minigate_users", "Users connected to this node."),
		channels:      gauge("minigate_channels", "Channels with subscribers on this node."),
		lingering:     gauge("minigate_channels_lingering", "Channels without subscribers on this node that it still hears."),
		subscriptions: gauge("minigate_subscriptions", "Subscriptions of clients on this node."),
		publications:  counter("minigate_publications_total", "Publications made on this node, by clients and by the server."),
		deliveries:    counter("minigate_deliveries_total", "Publications, joins, leaves and messages written to clients of this node."),
		undeliverable: counter("minigate_undeliverable_total", "Publications that were not written to a client that speaks JSON, since their data is not JSON."),
		recovered:     recoveries.WithLabelValues("recovered"),
		unrecovered:   recoveries.WithLabelValues("unrecovered"),
		held:          vec("minigate_connections_accepted_total", "Upgraded connections by what holds them: epoll, or a goroutine each.", "held_by"),
		refused:       vec("minigate_connections_refused_total", "Handshakes refused before the upgrade, by reason.", "reason"),
		disconnects:   vec("minigate_disconnects_total", "Connections that ended, by the code of the server, 0 where it was not the server that ended them, and by reason.", "code", "reason"),
		unsubscribes:  vec("minigate_unsubscribes_total", "Subscriptions that ended, by reason.", "reason"),
		skipped:       vec("minigate_user_channels_skipped_total", "Channels named at login, or personal ones, that a connection was not subscribed to, by reason.", "reason"),
		errors:        vec("minigate_command_errors_total", "Commands answered with an error, by its code.", "code"),
		slow:          vec("minigate_slow_disconnects_total", "Connections closed as slow, by reason.", "reason"),
		dropped:       vec("minigate_dropped_total", "Times that somebody did not get something, by reason.", "reason"),
		rewound:       counter("minigate_streams_rewound_total", "Times that a stream was seen to have fallen back, as after a failover that lost publications."),

		placedFromMemory: placed.WithLabelValues("memory"),
		placedFromEngine: placed.WithLabelValues("engine"),

		pending:    gauge("minigate_handshakes", "Handshakes and connect commands that are being handled."),
		waitClock:  waits.WithLabelValues("clock"),
		waitFanOut: waits.WithLabelValues("fan_out"),

		waitProcessor: waits.WithLabelValues("processor"),
		overloaded:    gauge("minigate_overloaded", "1 while new connections are refused because work waits for longer than client.overload_delay."),
		overloads:     counter("minigate_overloads_total", "Times that this node became overloaded."),
		memoryUsed:    gauges("minigate_memory_used_bytes", "Memory in use, by how it is measured: what is alive in the process, or the control group without reclaimable files.", "of"),
		memoryLimit:   gauges("minigate_memory_soft_limit_bytes", "Soft limits of minigate_memory_used_bytes; none where there is none.", "of"),
	}
	for r := range readCount {
		m.reads[r] = reads.WithLabelValues(readNames[r])
	}
	for r := range checkResults {
		m.checks[r] = checks.WithLabelValues(checkResultNames[r])
	}
	for c := range commandCount {
		m.received[c] = received.WithLabelValues(c.String())
	}
	return m
}

func (m *Metrics) failed(code uint32) {
	m.errors.WithLabelValues(strconv.FormatUint(uint64(code), 10)).Inc()
}
