package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// statusClientGone is counted where the client left before an answer began
// (nginx's number; it is never sent).
const statusClientGone = 499

// exchange is one request on its way through.
type exchange struct {
	route   *route
	session *auth.Session   // nil: nobody
	client  context.Context //nolint:containedctx // ends when the client is gone
	control *http.ResponseController
	stall   time.Duration // see clientStall
	body    *clientBody   // nil without one
	status  int           // for the metrics
	err     error         // of the transport, before an answer began
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange {
	return r.Context().Value(exchangeKey{}).(*exchange)
}

// begin notes that the backend's answer has begun.
func (x *exchange) begin(res *http.Response) {
	x.status = res.StatusCode
	x.route.upstream.observe(nil)
	res.Body = &answerBody{ReadCloser: res.Body, x: x}
}

// cause finds out who is to blame for x.err: a client that left or sent a bad
// body looks to the transport like a failed request.
func (x *exchange) cause() error {
	var failure error // of the body
	if x.body != nil {
		if f := x.body.failure.Load(); f != nil {
			failure = *f
		}
	}
	switch {
	case errors.Is(failure, os.ErrDeadlineExceeded): // first: to net/http such a client is gone, too
		return errBodyTimeout.Because(failure)
	case x.client.Err() != nil:
		return fault.ErrCanceled.Because(x.err)
	case failure != nil:
		return bodyFault(x.route, failure)
	}
	return x.route.upstream.translate(x.err)
}

var errBodyTimeout = fault.New(fault.Timeout, "body_timeout", "The body came too slowly.")

func bodyFault(rt *route, err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(rt)
	}
	return fault.New(fault.Invalid, "body_unreadable", "The body ended early.").Because(err)
}

// fail notes the status that err is answered with.
func (x *exchange) fail(err error) {
	x.status = rest.Status(fault.Of(err).Kind)
	if x.client.Err() != nil && !errors.Is(err, errBodyTimeout) {
		x.status = statusClientGone
	}
}

// clientBody waits only so long for the next bytes of the client's body, and
// remembers why reading it failed.
type clientBody struct {
	io.ReadCloser
	x       *exchange
	failure atomic.Pointer[error]

	mu     sync.Mutex // held while reading, as net/http's own body does
	closed bool
}

func (b *clientBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		// The transport may come late; the connection's deadline is then
		// already that of the next request.
		return 0, http.ErrBodyReadAfterClose
	}
	_ = b.x.control.SetReadDeadline(time.Now().Add(b.x.stall)) // every real server can
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		// At the end of the body net/http begins to watch for a client that
		// leaves; a deadline would look like one.
		_ = b.x.control.SetReadDeadline(time.Time{})
		if err != io.EOF {
			b.failure.CompareAndSwap(nil, &err)
		}
	}
	return n, err
}

func (b *clientBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.ReadCloser.Close()
}

// answerBody gives the client a deadline to take what was read, and logs a
// backend that breaks off in the middle of its answer. The status is sent by
// then; all that is left is to cut the client off, too.
type answerBody struct {
	io.ReadCloser
	x *exchange
}

func (b *answerBody) Read(p []byte) (int, error) {
	_ = b.x.control.SetWriteDeadline(time.Time{}) // while the backend thinks the client owes nothing
	n, err := b.ReadCloser.Read(p)
	_ = b.x.control.SetWriteDeadline(time.Now().Add(b.x.stall))
	if err != nil && err != io.EOF && b.x.client.Err() == nil {
		slog.WarnContext(b.x.client, "backend broke off its answer",
			"route", b.x.route.Prefix, "request_id", rest.RequestID(b.x.client), "error", err)
	}
	return n, err
}

// bufferPool lends the buffers that answers are copied through.
type bufferPool struct{ pool sync.Pool }

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([32 << 10]byte) }}}
}

func (b *bufferPool) Get() []byte  { return b.pool.Get().(*[32 << 10]byte)[:] }
func (b *bufferPool) Put(s []byte) { b.pool.Put((*[32 << 10]byte)(s)) }
