package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	order   order
	route   *route
	session *auth.Session   // nil: nobody
	client  context.Context //nolint:containedctx // ends when the client is gone
	control *http.ResponseController
	stall   time.Duration // see clientStall
	http2   bool          // deadlines act as soon as they are over, see clientBody
	body    *clientBody   // nil without one
	status  int           // for the metrics
	err     error         // of the transport, before an answer began

	mu     sync.Mutex // held while writing to the client
	w      http.ResponseWriter
	begun  bool // the answer's header is written
	ended  bool // nothing more is to be written
	writes rest.Deadline
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
	return translate(x.err)
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
// only so long until the backend takes more of it. It remembers why reading it
// failed.
type clientBody struct {
	io.Reader
	x       *exchange
	failure atomic.Pointer[error]
	touched atomic.Bool
	ended   atomic.Bool
	unread  *time.Timer // gives the backend up; runs between two readings
	giveUp  context.CancelCauseFunc

	mu     sync.Mutex // held while reading, as net/http's own body does
	closed bool
	reads  rest.Deadline
}

// errTakesNothing is a timeout of a backend that does not read on. While a body
// is unread net/http does not notice that its client is gone, so nobody else
// would end such a request.
var errTakesNothing = fmt.Errorf("the backend takes nothing more of the body: %w", os.ErrDeadlineExceeded)

// watch returns a context that ends where the backend, which has not begun its
// answer, takes nothing more of b for the timeout of the route. The caller
// calls giveUp.
func (b *clientBody) watch(ctx context.Context) context.Context {
	ctx, b.giveUp = context.WithCancelCause(ctx)
	b.unread = time.AfterFunc(b.x.route.Timeout, func() {
		if !b.x.answering() {
			b.giveUp(errTakesNothing)
		}
	})
	b.unread.Stop()
	return ctx
}

func (b *clientBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unread.Stop()
	if b.closed {
		// The transport may come late; the connection's deadline is then
		// already that of the next request.
		return 0, http.ErrBodyReadAfterClose
	}
	b.touched.Store(true)
	b.reads.Extend()
	n, err := b.Reader.Read(p)
	if err != nil || b.x.http2 {
		// At the end of the body net/http begins to watch for a client that
		// leaves; a deadline would look like one. With HTTP/2 it would also end
		// a body that the backend is slow to take.
		b.reads.Lift()
	}
	switch {
	case err == nil:
		b.unread.Reset(b.x.route.Timeout)
		return n, nil
	case err != io.EOF:
		b.failure.CompareAndSwap(nil, &err)
	}
	b.ended.Store(true)
	return n, err
}

// leaveBody lets nobody read the body any more: the transport may come late. A
// client that is still sending may be what it waits for, and hears the answer
// first.
func (x *exchange) leaveBody() {
	if x.body == nil {
		return
	}
	if !x.body.ended.Load() {
		_ = x.control.Flush()
	}
	_ = x.body.Close()
	x.body.giveUp(nil)
}

// Close leaves the rest to net/http, which closes its own body.
func (b *clientBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.unread.Stop()
	return nil
}

// open is for another try after one that did not get to the body.
func (b *clientBody) open() io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = false
	return b
}

func (b *clientBody) whole() bool  { return !b.touched.Load() }
func (b *clientBody) failed() bool { return b.failure.Load() != nil }

// bufferPool lends the buffers that answers are copied through.
type bufferPool struct{ pool sync.Pool }

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([32 << 10]byte) }}}
}

func (b *bufferPool) Get() []byte  { return b.pool.Get().(*[32 << 10]byte)[:] }
func (b *bufferPool) Put(s []byte) { b.pool.Put((*[32 << 10]byte)(s)) }
