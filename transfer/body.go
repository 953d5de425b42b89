package transfer

import (
	"bufio"
	"context"
	"errors"
	"hash"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

var (
	errFileTooLarge = fault.New(fault.TooLarge, "file_too_large", "The file is larger than this server takes.")
	errStalled      = fault.New(fault.Timeout, "upload_stalled", "Nothing came for too long.")
	errTooSlow      = fault.New(fault.Timeout, "upload_too_slow", "The upload took too long, or came too slowly.")
)

// body is the body of an upload request. Its errors are io.EOF or faults.
type body struct {
	ctx     context.Context
	r       io.Reader
	control *http.ResponseController
	stalled rest.Deadline
	pace    pace
	err     error // what went wrong

	buffered *bufio.Reader // of this body: larger reads, and room to look ahead
}

var bodyBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 64<<10) }}

// newBody takes over the request's body of at most limit bytes. close must be
// called when nobody reads it any more.
func (s *Service) newBody(ctx context.Context, w http.ResponseWriter, r *http.Request, limit int64) *body {
	control := http.NewResponseController(w)
	b := &body{
		ctx: ctx, r: http.MaxBytesReader(w, r.Body, limit), control: control, stalled: rest.ReadDeadline(control, s.settings.StallTimeout),
		pace:     pace{rate: int64(s.settings.MinRate), window: s.settings.StallTimeout},
		buffered: bodyBuffers.Get().(*bufio.Reader),
	}
	b.buffered.Reset(b)
	return b
}

// Read implements io.Reader. It waits at most stall_timeout for the next byte, and
// gives up on a client that sends, but hardly.
func (b *body) Read(p []byte) (int, error) {
	if context.Cause(b.ctx) == errTooSlow {
		return 0, errTooSlow
	}
	began := time.Now()
	b.stalled.Extend()
	n, err := b.r.Read(p)
	if err == nil {
		if !b.pace.keeps(n, time.Since(began)) {
			b.err = errTooSlow
			return 0, b.err
		}
		return n, nil
	}
	if err == io.EOF {
		// Now net/http begins to watch for a client that leaves; the deadline
		// would look like one.
		b.stalled.Lift()
		return n, err
	}
	b.err = bodyFault(err)
	return n, b.err
}

// pace tells whether bytes come fast enough. Only the time that is spent
// waiting for them counts: that our storage is slow is not the client's fault.
type pace struct {
	rate   int64         // bytes a second, on average over window; 0: any
	window time.Duration // of waiting
	waited time.Duration // since the last window ended
	bytes  int64         // in that time
}

func (p *pace) keeps(n int, waited time.Duration) bool {
	p.bytes += int64(n)
	if p.waited += waited; p.waited < p.window {
		return true
	}
	enough := float64(p.bytes) >= float64(p.rate)*p.waited.Seconds()
	p.waited, p.bytes = 0, 0
	return enough
}

// cause returns why an upload failed with err. A body that cannot be read on
// also cancels the request, and either may be noticed first.
func (b *body) cause(err error) error {
	switch {
	case !errors.Is(err, context.Canceled):
		return err
	case b.err != nil:
		return b.err
	}
	return errTorn.Because(err) // and answered: the client may have closed only its half
}

func bodyFault(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errFileTooLarge.Because(err)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errStalled.Because(err)
	}
	return errTorn.Because(err)
}

// close lifts the server's write deadline, which may have passed during a long
// upload, so that the answer gets out. The read deadline stays: net/http reads
// on a little after an error, and sets its own before the next request.
func (b *body) close() {
	_ = b.control.SetWriteDeadline(time.Time{})
	b.buffered.Reset(nil)
	bodyBuffers.Put(b.buffered)
}

// meter measures a file while it passes.
type meter struct {
	r     io.Reader
	max   int64
	n     int64
	hash  hash.Hash
	crc   hash.Hash
	bytes prometheus.Counter
}

// Read implements io.Reader.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if m.n > m.max {
		return 0, errFileTooLarge
	}
	_, _ = m.hash.Write(p[:n]) // never fails
	_, _ = m.crc.Write(p[:n])  // as above
	m.bytes.Add(float64(n))
	if err != nil && err != io.EOF {
		err = formFault(err)
	}
	return n, err
}
