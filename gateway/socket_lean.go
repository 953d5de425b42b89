package gateway

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/minigate/minigate/gateway/epoll"
)

// leanSocket is a socket that is watched by epoll: an idle one has no goroutine
// and no buffer.
type leanSocket epoll.Conn[*client]

// closeTimeout is how long a client may take to answer a close frame.
const closeTimeout = 5 * time.Second

// lean makes the poller that holds lean sockets when the first of them comes:
// not all hubs have any.
type lean struct {
	begun  chan struct{} // closed when Run has begun
	mu     sync.Mutex
	ctx    context.Context //nolint:containedctx // of Hub.Run
	group  *errgroup.Group // nil: Run is at its end
	poller *epoll.Poller[*client]
}

// open lets Run's goroutines have one more.
func (l *lean) open(ctx context.Context, group *errgroup.Group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ctx, l.group = ctx, group
	close(l.begun)
}

func (l *lean) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.group = nil
}

// of returns the poller of h; nil where there can be none. A connection that
// comes before Run has begun waits for it: after a restart thousands do, and
// each would be held by goroutines for as long as it lives.
func (l *lean) of(h *Hub) *epoll.Poller[*client] {
	select {
	case <-l.begun:
	case <-h.life.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.poller != nil || l.group == nil {
		return l.poller
	}
	poller, err := h.newPoller()
	if err != nil {
		slog.Error("no epoll: connections are held by goroutines", "error", err)
		l.group = nil // and so are all others
		return nil
	}
	l.poller = poller
	l.group.Go(func() error { return poller.Run(l.ctx) })
	return poller
}

func (h *Hub) newPoller() (*epoll.Poller[*client], error) {
	return epoll.NewPoller(epoll.Options[*client]{
		MessageLimit: int(h.settings.WebSocket.MessageSizeLimit),
		WriteTimeout: h.settings.WebSocket.WriteTimeout,
		CloseTimeout: closeTimeout,
		Message: func(c *client, op epoll.Opcode, p []byte) {
			if c.binary && op == epoll.Text { // text cannot be Protobuf
				c.disconnect(DisconnectProtocol)
				return
			}
			c.receive(p)
		},
		Short: func(c *client, op epoll.Opcode, p []byte) bool {
			pong := string(p) == c.pong() && (op == epoll.Binary || !c.binary)
			if pong {
				c.receive(p)
			}
			return pong
		},
		Room: (*client).resume,
		Gone: func(c *client, why error) {
			c.gone(causeOf(why))
			h.release(c.ip)
		},
	})
}

// detach takes a connection away from the library and the Go runtime, where
// that is possible, and reports whether it is c's lean socket now.
func (h *Hub) detach(c *client, sock *wsSocket) bool {
	if !epoll.Supported || !h.settings.WebSocket.Epoll {
		return false
	}
	conn := sock.raw.Conn
	if !epoll.CanDetach(conn) {
		return false
	}
	poller := h.lean.of(h)
	if poller == nil {
		return false
	}
	fd, ok := epoll.Detach(conn)
	if !ok {
		return false
	}
	lean := poller.Take(fd, sock.deflate, c)
	c.sock = (*leanSocket)(lean)
	h.metrics.held.WithLabelValues(heldByEpoll).Inc()
	_ = sock.conn.CloseNow() // of the old descriptor; the connection goes on
	h.enroll(c)
	lean.Start(sock.early)
	return true
}

func (s *leanSocket) conn() *epoll.Conn[*client] { return (*epoll.Conn[*client])(s) }

func (s *leanSocket) waits() bool { return false }

func (s *leanSocket) write(frames []byte, shared bool) (left int, err error) {
	return s.conn().Write(frames, shared)
}

func (s *leanSocket) close(code uint32, reason string) {
	_ = s.conn().Close(uint16(code), reason) // gone either way
}

func (s *leanSocket) abort() { s.conn().Abort() }
