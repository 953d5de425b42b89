package gateway

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/minigate/minigate/internal/rest"
)

// addresses counts the connections of each client network: an IPv4 address, or
// the /64 of an IPv6 address. A network costs about 20 bytes, a connection
// nothing; without a limit nothing is counted.
type addresses struct {
	limit int // connections of one network, 0: none; read only

	mu     sync.Mutex
	counts map[uint64]int32
	hinted bool // the log has the hint about proxies
}

// networkKey tells networks apart. ok is false for what is no IP address: that
// cannot be told from others, and is not limited.
func networkKey(ip string) (key uint64, ok bool) {
	network := rest.Network(ip)
	if !network.IsValid() {
		return 0, false
	}
	if a := network.Addr(); a.Is4() {
		b := a.As4()
		// Beside any source in IPv6: ff00::/8 is multicast (RFC 4291, section 2.7).
		return 0xff<<56 | uint64(binary.BigEndian.Uint32(b[:])), true
	}
	b := network.Addr().As16()
	return binary.BigEndian.Uint64(b[:8]), true
}

// take counts one more connection from ip, unless it is one too many.
func (a *addresses) take(ip string) bool {
	if a.limit == 0 {
		return true
	}
	key, ok := networkKey(ip)
	if !ok {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if int(a.counts[key]) >= a.limit {
		a.hint(ip)
		return false
	}
	if a.counts == nil {
		a.counts = make(map[uint64]int32)
	}
	a.counts[key]++
	return true
}

// leave is the end of a connection that take has counted.
func (a *addresses) leave(ip string) {
	if a.limit == 0 {
		return
	}
	key, ok := networkKey(ip)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counts[key]--; a.counts[key] <= 0 {
		delete(a.counts, key)
	}
}

// hint says once what is likely wrong where an address is refused that no phone
// has: a proxy of ours that is not trusted, so that all phones share its
// address. mu is held.
func (a *addresses) hint(ip string) {
	addr, err := netip.ParseAddr(ip)
	if err != nil || a.hinted || !addr.IsLoopback() && !addr.IsPrivate() {
		return
	}
	a.hinted = true
	slog.Warn("client.ip_connection_limit refuses an address that no phone has: if it is a proxy of yours, name it in trusted_proxies", "ip", ip)
}
