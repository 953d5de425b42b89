package tlsfiles

import (
	"crypto"
	"crypto/tls"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Gate keeps TLS handshakes from taking the whole machine. What a handshake
// costs is above all the signature with the private key, a millisecond for RSA:
// only half of the processors make them, the others wait in line. Where the line
// is long, a connection is closed as soon as its first message is there, before
// anything is computed for it. Nobody can hold a place by being slow: waiting
// for a client is outside.
//
// A handshake does not say whether a WebSocket will follow or a request. So
// while the node is overloaded the line is short, but never closed, and those
// who offer HTTP/2 are not concerned: no WebSocket of ours comes that way.
type Gate struct {
	limit      int64 // of the line, 0: none
	overloaded func() bool
	metrics    *Metrics

	keys chan struct{} // holds one for each signature that is being made
	line atomic.Int64  // signatures that are made or waited for
}

// Metrics are the numbers of a gate.
type Metrics struct {
	refused *prometheus.CounterVec
	waiting prometheus.Gauge
}

// NewMetrics registers the metrics of TLS.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_tls_handshakes_refused_total", Help: "TLS handshakes refused before anything was computed for them, by reason.",
		}, []string{"reason"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "minigate_tls_handshakes_waiting", Help: "TLS handshakes that wait for the private key, or use it.",
		}),
	}
	reg.MustRegister(m.refused, m.waiting)
	return m
}

// NewGate makes a gate before which limit handshakes may wait; 0 sets no limit.
// overloaded tells whether the node is.
func NewGate(limit int, overloaded func() bool, m *Metrics) *Gate {
	return &Gate{limit: int64(limit), overloaded: overloaded, metrics: m, keys: make(chan struct{}, (runtime.GOMAXPROCS(0)+1)/2)}
}

// Why handshakes are refused.
const (
	refusedQueue    = "queue"
	refusedOverload = "overload"
)

var errBusy = errors.New("too many TLS handshakes are under way")

// shortLine is the part of the limit that holds while the node is overloaded.
const shortLine = 10

// admit looks at the first message of a handshake. An error ends the connection
// with an alert.
func (g *Gate) admit(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	line, reason := g.line.Load(), ""
	switch {
	case g.limit == 0 || line == 0:
	case line >= g.limit:
		reason = refusedQueue
	case line >= (g.limit+shortLine-1)/shortLine && !slices.Contains(hello.SupportedProtos, "h2") && g.overloaded():
		reason = refusedOverload
	}
	if reason == "" {
		return nil, nil
	}
	g.metrics.refused.WithLabelValues(reason).Inc()
	return nil, errBusy
}

// guard makes a key whose signatures have to wait in line. One that cannot sign
// is left alone.
func (g *Gate) guard(key crypto.PrivateKey) crypto.PrivateKey {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return key
	}
	return &guardedKey{signer, g}
}

// guardedKey is what crypto/tls signs with.
type guardedKey struct {
	crypto.Signer
	gate *Gate
}

// Sign implements crypto.Signer.
func (k *guardedKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	g := k.gate
	g.line.Add(1)
	g.metrics.waiting.Inc()
	g.keys <- struct{}{}
	defer func() {
		<-g.keys
		g.line.Add(-1)
		g.metrics.waiting.Dec()
	}()
	return k.Signer.Sign(rand, digest, opts)
}
