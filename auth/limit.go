package auth

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

const maxLimited = 1 << 16 // client addresses remembered

var errLoginRate = fault.New(fault.Limited, "login_rate", "Too many logins from this address: try again later.")

// loginLimits bound the logins per client address: one IPv4 address, or one
// IPv6 /64, which is what a single customer usually gets.
type loginLimits struct {
	rate  rate.Limit
	burst int

	mu      sync.Mutex
	clients recent[netip.Prefix, *rate.Limiter]
}

func newLoginLimits(s SessionSettings) *loginLimits {
	return &loginLimits{rate: rate.Limit(s.LoginRate), burst: s.LoginBurst, clients: newRecent[netip.Prefix, *rate.Limiter](maxLimited)}
}

// take answers `login_rate` with the time to wait where the client has spent
// its share.
func (l *loginLimits) take(r *http.Request) error {
	if l.rate == 0 {
		return nil
	}
	now := time.Now()
	reservation := l.of(clientNet(r)).ReserveN(now, 1)
	if wait := reservation.DelayFrom(now); wait > 0 {
		reservation.CancelAt(now)
		return errLoginRate.After(wait)
	}
	return nil
}

func (l *loginLimits) of(client netip.Prefix) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter, ok := l.clients.get(client)
	if !ok {
		limiter = rate.NewLimiter(l.rate, l.burst)
		l.clients.put(client, limiter)
	}
	return limiter
}

// clientNet is whom a request counts for. Requests without an IP address, as
// over a Unix socket, count together.
func clientNet(r *http.Request) netip.Prefix {
	text := rest.ClientIP(r.Context())
	if text == "" {
		text, _, _ = net.SplitHostPort(r.RemoteAddr)
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	client, _ := ip.Prefix(bits) // fails only for bits beyond the address
	return client
}
