package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

const (
	jsonProtocol     = "centrifuge-json"
	protobufProtocol = "centrifuge-protobuf"
	bearerProtocol   = "bearer."
)

var (
	errOrigin  = fault.New(fault.Forbidden, "origin_not_allowed", "Pages of this origin may not connect.")
	errUpgrade = fault.New(fault.UpgradeRequired, "upgrade_required", "This address speaks WebSocket: connect with wx.connectSocket or a Centrifuge SDK. A proxy in between must pass on the Upgrade header.")
)

// ServeWebSocket upgrades a request to a connection of the live side. It
// returns as soon as the connection is established.
//
// A token may come as "Authorization: Bearer", as subprotocol "bearer.<token>",
// or in the connect command; instead of one, a ticket as query "ticket=". Bad
// ones do not refuse the handshake, since a mini-program cannot read a 401: the
// connection is upgraded, told why, and closed.
func (h *Hub) ServeWebSocket(w http.ResponseWriter, r *http.Request) {
	switch {
	case !asksForWebSocket(r):
		h.metrics.refused.WithLabelValues("upgrade").Inc()
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		rest.Fail(w, r, errUpgrade)
		return
	case !originAllowed(r.Header.Get("Origin"), h.settings.WebSocket.AllowedOrigins):
		h.metrics.refused.WithLabelValues("origin").Inc()
		rest.Fail(w, r, errOrigin)
		return
	}
	ip := clientIP(r)
	if no := h.admit(ip); no != nil {
		h.refuse(w, r, no)
		return
	}
	defer h.pending.done()
	if !h.accept(w, r, ip) {
		h.release(ip)
	}
}

func asksForWebSocket(r *http.Request) bool {
	return hasToken(r.Header["Connection"], "upgrade") && hasToken(r.Header["Upgrade"], "websocket")
}

// hasToken looks for a word in a header whose values are lists.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// accept upgrades an admitted request and starts serving it.
func (h *Hub) accept(w http.ResponseWriter, r *http.Request, ip string) bool {
	offered := offeredProtocols(r)
	c := newClient(h, nil)
	// Copies of parts of what has been read, which need not stay.
	c.ip, c.software = strings.Clone(ip), unique.Make(software{agent: strings.Clone(r.UserAgent())})
	if err := c.mayAsk(r.Header); err != nil {
		h.metrics.refused.WithLabelValues("headers").Inc()
		rest.Fail(w, r, err)
		return false
	}
	c.opening.tokens = handshakeTokens(r, offered, h.ask.Wants("Authorization"))
	if h.verifyTicket != nil {
		c.opening.ticket = r.URL.Query().Get("ticket")
	}
	c.binary = wantsProtobuf(r, offered)
	if tokens := c.opening.tokens; len(tokens) > 0 {
		c.opening.verdict = h.judge(r.Context(), tokens)
	}
	sock, err := upgrade(w, r, chooseProtocol(offered), c.binary, &h.settings.WebSocket)
	if err != nil {
		h.metrics.refused.WithLabelValues("handshake").Inc()
		slog.Debug("websocket handshake refused", "ip", c.ip, "error", err)
		return false
	}
	c.deflate = sock.deflate
	if !h.detach(c, sock) {
		h.metrics.held.WithLabelValues(heldByGoroutine).Inc()
		c.sock = sock
		go h.serve(c, sock)
	}
	return true
}

// serve is the goroutine of a connection.
func (h *Hub) serve(c *client, sock *wsSocket) {
	defer h.release(c.ip)
	h.enroll(c)
	c.gone(sock.serve(c.receive, func() { c.disconnect(DisconnectProtocol) }))
}

// enroll starts a client whose transport is ready, or ends one that comes while
// the hub does.
func (h *Hub) enroll(c *client) {
	c.beginAsking()
	switch closed, over := h.clients.add(c); {
	case over:
		c.sock.abort()
	case closed:
		c.disconnect(DisconnectShutdown)
	}
	c.open()
}

// judge verifies the tokens of a handshake. nil says that connect may go on
// with them, also where they cannot be verified just now.
func (h *Hub) judge(ctx context.Context, tokens []string) *Disconnect {
	ctx, cancel := context.WithTimeout(ctx, h.settings.Client.RequestTimeout)
	defer cancel()
	var first *auth.Session
	for _, t := range tokens {
		s, err := h.verify(ctx, t)
		switch e := fault.Of(err); {
		case err == nil && first != nil && !sameUser(first, s):
			return DisconnectInvalidToken
		case err == nil:
			first = s
		case e.Kind != fault.Unauthenticated:
			return nil // connect will answer with a temporary error
		case e.Code == ErrTokenExpired.Code:
			return DisconnectTokenExpired
		default:
			return DisconnectInvalidToken
		}
	}
	return nil
}

// originAllowed looks at the Origin header, which browsers send and programs
// may forge. It protects nobody here: logins are tokens that a page has to
// present itself, never cookies that a browser adds. So by default all may.
func originAllowed(origin string, allowed []string) bool {
	origin = strings.ToLower(origin)
	if len(allowed) == 0 || origin == "" || strings.HasPrefix(origin, "weapp://") || origin == "https://servicewechat.com" {
		return true
	}
	return slices.ContainsFunc(allowed, func(pattern string) bool {
		ok, err := path.Match(strings.ToLower(pattern), origin)
		return ok && err == nil
	})
}

func offeredProtocols(r *http.Request) (list []string) {
	for _, v := range r.Header.Values("Sec-Websocket-Protocol") {
		for p := range strings.SplitSeq(v, ",") {
			if p = strings.TrimSpace(p); p != "" {
				list = append(list, p)
			}
		}
	}
	return list
}

// chooseProtocol picks what is echoed. Chromium fails if something is offered
// and nothing chosen, so a lone token is echoed as it is.
func chooseProtocol(offered []string) []string {
	for _, prefix := range []string{jsonProtocol, protobufProtocol, bearerProtocol} {
		for _, p := range offered {
			if p == prefix || prefix == bearerProtocol && strings.HasPrefix(p, prefix) {
				return []string{p}
			}
		}
	}
	return nil
}

// wantsProtobuf tells whether a client speaks the binary encoding.
func wantsProtobuf(r *http.Request, offered []string) bool {
	q := r.URL.Query()
	return q.Get("format") == "protobuf" || q.Get("cf_protocol") == "protobuf" ||
		slices.Contains(offered, protobufProtocol) && !slices.Contains(offered, jsonProtocol)
}

// handshakeTokens are those that stand for a login. Where the backend is passed
// Authorization on, what is none of ours in there is for the backend.
func handshakeTokens(r *http.Request, offered []string, passed bool) (tokens []string) {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "bearer") {
		if token = strings.TrimSpace(token); !passed || auth.IsLoginToken(token) {
			tokens = append(tokens, token)
		}
	}
	for _, p := range offered {
		if token, ok := strings.CutPrefix(p, bearerProtocol); ok {
			tokens = append(tokens, token)
		}
	}
	return tokens
}

func clientIP(r *http.Request) string {
	if ip := rest.ClientIP(r.Context()); ip != "" {
		return ip
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// now is the hub's clock: monotonic, zero at its start.
func (h *Hub) now() time.Duration { return time.Since(h.start) }
