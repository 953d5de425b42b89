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
	body    *clientBody     // nil without one
	status  int             // for the metrics
	err     error           // of the transport, before an answer began
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
	if x.client.Err() != nil {
		return fault.ErrCanceled.Because(x.err)
	}
	if x.body != nil {
		if failure := x.body.failure.Load(); failure != nil {
			return bodyFault(x.route, *failure)
		}
	}
	return x.route.upstream.translate(x.err)
}

func bodyFault(rt *route, err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(rt)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fault.New(fault.Timeout, "body_timeout", "The body came too slowly.").Because(err)
	}
	return fault.New(fault.Invalid, "body_unreadable", "The body ended early.").Because(err)
}

// fail notes the status that err is answered with.
func (x *exchange) fail(err error) {
	x.status = rest.Status(fault.Of(err).Kind)
	if x.client.Err() != nil {
		x.status = statusClientGone
	}
}

// clientBody remembers why reading the client's body failed.
type clientBody struct {
	io.ReadCloser
	failure atomic.Pointer[error]
}

func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.failure.CompareAndSwap(nil, &err)
	}
	return n, err
}

// answerBody logs a backend that breaks off in the middle of its answer. The
// status is sent by then; all that is left is to cut the client off, too.
type answerBody struct {
	io.ReadCloser
	x *exchange
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
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
