package rest

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// ParseProxies reads addresses ("127.0.0.1") and networks ("10.0.0.0/8") for
// Edge.TrustedProxies.
func ParseProxies(list []string) ([]netip.Prefix, error) {
	prefixes := make([]netip.Prefix, len(list))
	for i, s := range list {
		if addr, err := netip.ParseAddr(s); err == nil {
			addr = plain(addr)
			prefixes[i] = netip.PrefixFrom(addr, addr.BitLen())
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", s)
		}
		prefixes[i] = p.Masked()
	}
	return prefixes, nil
}

// clientIP is the first address, coming from us, that is not a trusted proxy; from
// is the peer, trusted whether it is one. Only what trusted peers say counts:
// anybody can send X-Forwarded-For, and each proxy appends to it the peer that it
// saw itself, so it is read from the right. X-Real-IP counts only where there is no
// X-Forwarded-For.
func (e Edge) clientIP(r *http.Request, from netip.Addr, trusted bool) string {
	client := from
	if !client.IsValid() {
		return "" // no IP at all, such as a Unix socket
	}
	if !trusted {
		return client.String()
	}
	forwarded := r.Header.Values("X-Forwarded-For")
	if len(forwarded) == 0 {
		if addr, ok := forwardedAddr(r.Header.Get("X-Real-Ip")); ok {
			client = addr
		}
		return client.String()
	}
	rest := strings.Join(forwarded, ",")
	for more := true; more && e.trusts(client); {
		hop := rest
		i := strings.LastIndexByte(rest, ',')
		if more = i >= 0; more {
			rest, hop = rest[:i], rest[i+1:]
		}
		addr, ok := forwardedAddr(hop)
		if !ok {
			break // what stands to the left of nonsense is nonsense
		}
		client = addr
	}
	return client.String()
}

// scheme is how the client connected: to a trusted proxy that says so, or to us.
func scheme(r *http.Request, trusted bool) string {
	if trusted {
		if s := r.Header.Get("X-Forwarded-Proto"); s == "http" || s == "https" {
			return s
		}
	}
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

func (e Edge) trusts(addr netip.Addr) bool {
	for _, p := range e.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// peer is the other end of the connection, invalid where it has no IP.
func peer(r *http.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return plain(ap.Addr())
}

// forwardedAddr reads one hop: an address, possibly in brackets or with a port
// as some proxies write it.
func forwardedAddr(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return plain(ap.Addr()), true
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return plain(addr), err == nil
}

// plain makes equal addresses equal: ::ffff:1.2.3.4 is 1.2.3.4, zones go.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// Network is whom an address counts for in limits: itself, or with IPv6 the
// /64 that a single customer usually gets. What is no address counts together.
func Network(ip string) netip.Prefix {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return netip.Prefix{}
	}
	addr = plain(addr)
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	network, _ := addr.Prefix(bits) // fails only for bits beyond the address
	return network
}
