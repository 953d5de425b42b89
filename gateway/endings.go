package gateway

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/coder/websocket"

	"github.com/minigate/minigate/gateway/epoll"
)

// cause is why a connection ended, as it is counted: the code it was closed
// with, 0 where it was not this side that ended it, and a word for operators.
type cause struct {
	code   uint32
	reason string
}

// Reasons that no Disconnect of the hub stands for.
const (
	endClient  = "client"   // it sent a close frame
	endNetwork = "network"  // the line ended without one
	endCut     = "cut"      // by the end of this node, without a goodbye
	endTooBig  = "too_big"  // a message over websocket.message_size_limit
	endBroken  = "protocol" // it does not keep to RFC 6455

	endSlowWrite = "write_timeout" // it took nothing for websocket.write_timeout
	endWrite     = "write_error"   // the line broke while it was written to

	endAPI     = "api"           // server API, console or command line
	endSession = "session_ended" // logout, another login, an operator
	endBackend = "backend"       // a webhook said so
)

// Why subscriptions end. Those that were never announced are not counted: their
// command was answered with an error, which is.
const (
	leftClient       = "client"             // it unsubscribed
	leftGone         = "disconnect"         // the connection ended
	leftServer       = "server"             // server API, or another operation of the backend
	leftExpired      = "expired"            // its token was not replaced, or the backend said so
	leftInsufficient = "insufficient_state" // its position is lost; it has to subscribe anew
)

// words are the reasons of the hub itself: what clients are told.
var words = func() map[*Disconnect]string {
	m := map[*Disconnect]string{DisconnectReplaced: "replaced", DisconnectForced: endAPI, DisconnectWriteError: endWrite, DisconnectExpired: "expired"}
	for _, d := range []*Disconnect{
		DisconnectClosed, DisconnectShutdown, DisconnectSubscriptionExpired, DisconnectSlow,
		DisconnectInsufficientState, DisconnectNoPong, DisconnectTooManyRequests, DisconnectInvalidToken, DisconnectTokenExpired,
		DisconnectBadRequest, DisconnectStale, DisconnectBlocked, DisconnectConnectionLimit, DisconnectChannelLimit,
		DisconnectProtocol, DisconnectPermissionDenied, DisconnectNotAvailable,
	} {
		m[d] = strings.ReplaceAll(d.Reason, " ", "_")
	}
	return m
}()

// word is the reason in the metrics. What is none of the hub's comes from the
// backend, whose words are no label.
func (d *Disconnect) word() string {
	if word, ok := words[d]; ok {
		return word
	}
	return endBackend
}

// causeOf is why a connection under epoll ended.
func causeOf(why error) cause {
	if v, ok := errors.AsType[*epoll.ViolationError](why); ok {
		if v.Code == epoll.CodeTooBig {
			return cause{uint32(v.Code), endTooBig}
		}
		return cause{uint32(v.Code), endBroken}
	}
	switch {
	case errors.Is(why, epoll.ErrLeft):
		return cause{0, endClient}
	case errors.Is(why, epoll.ErrClosed):
		return cause{0, endCut}
	case errors.Is(why, epoll.ErrTimeout):
		return writeCause(why)
	}
	return cause{0, endNetwork}
}

// readCause is why a connection ended that the library reads: err is what it
// said, and raw knows what the network did.
func readCause(err error, raw *boundedConn) cause {
	broken := raw.broken()
	switch {
	case errors.Is(err, websocket.ErrMessageTooBig):
		return cause{uint32(websocket.StatusMessageTooBig), endTooBig}
	case websocket.CloseStatus(err) != -1:
		return cause{0, endClient}
	case errors.Is(broken, os.ErrDeadlineExceeded):
		return writeCause(epoll.ErrTimeout)
	case isOwnClose(broken):
		return cause{0, endCut}
	case broken != nil:
		return cause{0, endNetwork}
	}
	return cause{uint32(websocket.StatusProtocolError), endBroken}
}

// isOwnClose tells whether it was this side that closed the line.
func isOwnClose(err error) bool { return errors.Is(err, net.ErrClosed) }

// writeError makes what the library says of a failed write what epoll would.
func writeError(err error, raw *boundedConn) error {
	broken := raw.broken()
	switch {
	case errors.Is(broken, os.ErrDeadlineExceeded):
		return epoll.ErrTimeout
	case broken == nil || isOwnClose(broken):
		return epoll.ErrClosed // by a close frame of the client's, or by us
	}
	return err
}

// writeCause is the end of a connection that cannot be written to.
func writeCause(err error) cause {
	if errors.Is(err, epoll.ErrTimeout) {
		return cause{DisconnectWriteError.Code, endSlowWrite}
	}
	return cause{DisconnectWriteError.Code, endWrite}
}

// ended counts the end of a connection.
func (m *Metrics) ended(why cause) {
	m.disconnects.WithLabelValues(strconv.FormatUint(uint64(why.code), 10), why.reason).Inc()
}

// leaveFor is leave for a subscription that its client knows of, and counts why
// it ended.
func (c *client) leaveFor(ctx context.Context, s *subscription, notice []byte, why string) bool {
	first := c.leave(ctx, s, notice)
	if first {
		c.hub.metrics.unsubscribes.WithLabelValues(why).Inc()
	}
	return first
}
