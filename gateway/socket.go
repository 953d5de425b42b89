package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/minigate/minigate/gateway/epoll"
)

// wsSocket is a socket over coder/websocket, with a goroutine that reads.
type wsSocket struct {
	conn    *websocket.Conn
	raw     *boundedConn
	early   []byte // what the server had read of raw beyond the handshake
	binary  bool   // Protobuf is spoken
	deflate bool   // permessage-deflate was agreed on
}

// upgrade answers the handshake. On an error it has answered the request.
func upgrade(w http.ResponseWriter, r *http.Request, subprotocols []string, binary bool, s *WebSocketSettings) (*wsSocket, error) {
	h := &hijacker{ResponseWriter: w, timeout: s.WriteTimeout, sendBuffer: int(s.SendBuffer)}
	o := websocket.AcceptOptions{
		Subprotocols:       subprotocols,
		InsecureSkipVerify: true, // ServeWebSocket has looked at the origin
	}
	if s.Compression {
		o.CompressionMode = websocket.CompressionNoContextTakeover
	}
	conn, err := websocket.Accept(h, r, &o)
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(int64(s.MessageSizeLimit))
	deflate := w.Header().Get("Sec-WebSocket-Extensions") != ""
	return &wsSocket{conn: conn, raw: h.conn, early: h.early, binary: binary, deflate: deflate}, nil
}

func (s *wsSocket) waits() bool { return true }

// write goes past the library, which would compress a message for each client.
// What the library writes by itself are control frames, one in each call.
func (s *wsSocket) write(frames []byte, _ bool) (left int, err error) {
	if _, err = s.raw.Write(frames); err != nil {
		err = writeError(err, s.raw)
	}
	return 0, err
}

func (s *wsSocket) close(code uint32, reason string) {
	_ = s.conn.Close(websocket.StatusCode(code), reason) // gone either way
}

func (s *wsSocket) abort() { _ = s.raw.Close() }

var readBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// serve reads until the connection ends. An idle connection holds no buffer.
// Text cannot be Protobuf, and is for refuse; JSON may also come in binary
// messages, as some runtimes send it. It returns why the connection ended.
func (s *wsSocket) serve(receive func([]byte), refuse func()) cause {
	defer func() {
		s.abort()
		// The library closes by itself only after a close frame. What was not
		// closed keeps a finalizer, and never becomes garbage: with that in a
		// cycle of pointers the collector leaves it alone.
		_ = s.conn.CloseNow()
	}()
	for {
		typ, r, err := s.conn.Reader(context.Background())
		if err != nil {
			return readCause(err, s.raw)
		}
		handle := receive
		if typ == websocket.MessageText && s.binary {
			handle = func([]byte) { refuse() }
		}
		if err := s.read(r, handle); err != nil {
			if errors.Is(err, websocket.ErrMessageTooBig) {
				// The close frame 1009 is sent already; this waits for the
				// client to see it instead of cutting the line.
				s.close(uint32(websocket.StatusMessageTooBig), "message too big")
			}
			return readCause(err, s.raw)
		}
	}
}

func (s *wsSocket) read(r io.Reader, receive func([]byte)) error {
	buf := readBuffers.Get().(*bytes.Buffer)
	defer readBuffers.Put(buf)
	buf.Reset()
	if _, err := buf.ReadFrom(r); err != nil {
		return err
	}
	receive(buf.Bytes())
	return nil
}

// hijacker takes the connection over from net/http with small buffers, and
// bounds every write to it, also those that the library makes by itself.
type hijacker struct {
	http.ResponseWriter
	timeout    time.Duration
	sendBuffer int // bytes, 0: as the system likes
	conn       *boundedConn
	early      []byte // read, and not looked at yet
}

// Buffer sizes: commands and most pushes are small, and larger messages are
// copied past a full buffer anyway.
const (
	readBuffer  = 512
	writeBuffer = 1 << 10
)

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Time{}) // what the server had set for the request; fails if the client is gone
	h.bound(conn)
	early, _ := rw.Reader.Peek(rw.Reader.Buffered()) // as many as are there
	h.conn = &boundedConn{Conn: conn, timeout: h.timeout}
	// websocket.Accept reads what is buffered, then from the connection; the
	// buffered part must fit.
	br := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(early), h.conn), max(readBuffer, len(early)))
	_, _ = br.Peek(len(early))
	h.early = slices.Clone(early)
	return h.conn, bufio.NewReadWriter(br, bufio.NewWriterSize(h.conn, writeBuffer)), nil
}

// bound limits what the kernel keeps for a client that does not read: by itself
// it lets a socket's buffer grow to megabytes.
func (h *hijacker) bound(conn net.Conn) {
	if outer, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = outer.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok && h.sendBuffer > 0 {
		_ = tcp.SetWriteBuffer(h.sendBuffer) // fails if the client is gone
	}
}

// boundedConn is a net.Conn whose writes time out: each piece of a long one by
// itself, since what takes long on a slow line is no reason to give it up. What
// is given to Write in one call is written in one go.
type boundedConn struct {
	net.Conn
	timeout time.Duration

	mu      sync.Mutex // guards what follows, and held while somebody writes
	closing bool       // a close frame was written: nothing may follow it

	failure atomic.Pointer[error] // the first, of reading or writing: the library hides it
}

// Read implements net.Conn.
func (c *boundedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.note(err)
	return n, err
}

func (c *boundedConn) note(err error) {
	if err != nil {
		c.failure.CompareAndSwap(nil, &err)
	}
}

// broken is what the network said; nil: nothing bad yet.
func (c *boundedConn) broken() error {
	if err := c.failure.Load(); err != nil {
		return *err
	}
	return nil
}

const (
	writePiece = 64 << 10
	closeFrame = 0x80 | byte(epoll.Close) // how one begins
)

// Write implements net.Conn.
func (c *boundedConn) Write(p []byte) (written int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return 0, net.ErrClosed
	}
	c.closing = len(p) > 0 && p[0] == closeFrame
	for {
		if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written:min(written+writePiece, len(p))])
		c.note(err)
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
	}
}
