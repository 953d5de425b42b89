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

var errAppRate = fault.New(fault.Limited, "login_rate", "Too many logins in this mini-program right now: try again.")

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
	return takeFrom(l.of(clientNet(r)), errLoginRate)
}

// takeFrom takes one from limiter, or answers refusal with the time to wait.
func takeFrom(limiter *rate.Limiter, refusal *fault.Error) error {
	now := time.Now()
	reservation := limiter.ReserveN(now, 1)
	if wait := reservation.DelayFrom(now); wait > 0 {
		reservation.CancelAt(now)
		return refusal.After(wait)
	}
	return nil
}

// newAppLimiter bounds what one mini-program's logins ask of WeChat.
func newAppLimiter(s SessionSettings) *rate.Limiter {
	if s.LoginAppRate == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(s.LoginAppRate), s.LoginAppBurst)
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

// clientNet is whom a request counts for.
func clientNet(r *http.Request) netip.Prefix {
	text := rest.ClientIP(r.Context())
	if text == "" {
		text, _, _ = net.SplitHostPort(r.RemoteAddr)
	}
	return rest.Network(text)
}
