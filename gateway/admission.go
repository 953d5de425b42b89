package gateway

import (
	mathrand "math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// refusal is why a handshake is turned away before anything was done for it: no
// token was verified, no webhook asked, no connection upgraded.
type refusal struct {
	reason string // in the metrics
	err    *fault.Error
	spread time.Duration // Retry-After is between one second and this
}

// Refusals. Retry-After is drawn for each, so that those who were turned away
// together do not come back together.
var (
	refusedOverload = &refusal{"overload", fault.New(fault.Unavailable, "overloaded", "This node is overloaded, try again later."), 10 * time.Second}
	refusedMemory   = &refusal{"memory", fault.New(fault.Unavailable, "overloaded", "This node is overloaded, try again later."), 30 * time.Second}
	refusedPending  = &refusal{"handshakes", fault.New(fault.Unavailable, "too_many_handshakes", "Too many connections are being made, try again later."), 10 * time.Second}
	refusedRate     = &refusal{"rate", fault.New(fault.Unavailable, "too_many_handshakes", "Too many new connections, try again later."), 10 * time.Second}
	refusedIP       = &refusal{"ip", fault.New(fault.Limited, "too_many_from_address", "Too many connections from this address, close some or try again later."), 30 * time.Second}
	refusedLimit    = &refusal{"limit", fault.New(fault.Unavailable, "too_many_connections", "This node takes no more connections now, try again later."), 30 * time.Second}
	refusedShutdown = &refusal{"shutdown", fault.New(fault.Unavailable, "stopping", "This node is stopping, try again."), 3 * time.Second}
)

// admit decides whether a handshake from ip goes on. nil lets it: then release
// has to follow at the end of the connection, and settle when the handshake is
// over. The cheapest questions come first.
func (h *Hub) admit(ip string) *refusal {
	if no := h.overload.refuses(); no != nil {
		return no
	}
	if !h.pending.begin(h.settings.Client.HandshakeLimit) {
		return refusedPending
	}
	no := refusedIP
	if h.addresses.take(ip) {
		if no = h.clients.admit(h.settings.Client.ConnectionLimit); no == nil {
			if h.rate == nil || h.rate.Allow() {
				return nil
			}
			no = refusedRate // last: who is refused for another reason takes nothing of the rate
			h.clients.leave()
		}
		h.addresses.leave(ip)
	}
	h.pending.done()
	return no
}

// release is the end of a connection that was admitted.
func (h *Hub) release(ip string) {
	h.addresses.leave(ip)
	h.clients.leave()
}

// refuse answers a handshake that is not admitted. What it came on is closed:
// it would be kept for minutes in case another request follows.
func (h *Hub) refuse(w http.ResponseWriter, r *http.Request, no *refusal) {
	h.metrics.refused.WithLabelValues(no.reason).Inc()
	w.Header().Set("Connection", "close")
	rest.Fail(w, r, no.err.After(time.Second+mathrand.N(no.spread-time.Second)))
}

// pending counts what this node does for clients that are not connected yet:
// handshakes that are verified and upgraded, and connect commands. What a
// client leaves undone does not count, so none can keep others out by waiting.
type pending struct {
	metrics *Metrics
	n       atomic.Int64
}

// begin counts one more, unless limit are counted; 0 is no limit.
func (p *pending) begin(limit int) bool {
	if n := p.n.Add(1); limit > 0 && n > int64(limit) {
		p.n.Add(-1)
		return false
	}
	p.metrics.pending.Inc()
	return true
}

func (p *pending) done() {
	p.n.Add(-1)
	p.metrics.pending.Dec()
}
