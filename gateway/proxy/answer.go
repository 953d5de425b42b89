package proxy

import (
	"io"
	"log/slog"
	"net/http"
	"net/textproto"
	"time"

	"github.com/minigate/minigate/internal/rest"
)

const (
	// headerPatience is how long the answer's header waits for the first bytes
	// of its body, with which it is sent in one packet.
	headerPatience = 2 * time.Millisecond

	// unsent is what net/http surely keeps until the handler returns.
	unsent = 1 << 10
)

// answer passes the backend's answer on, each chunk as soon as it is here. An
// answer that breaks off takes the client's connection with it, by a panic:
// its status is sent by then, and half of it must not pass for a whole one.
func (p *Proxy) answer(x *exchange, res *http.Response) {
	defer func() { _ = res.Body.Close() }()
	x.begin(res, p.ownCORS)
	defer x.end()
	if res.Body == http.NoBody {
		return
	}
	buf := p.buffers.Get()
	defer p.buffers.Put(buf)
	late := time.AfterFunc(headerPatience, x.flushHeader)
	defer late.Stop()
	for first := true; ; first = false {
		n, err := res.Body.Read(buf)
		if first {
			late.Stop()
		}
		if n > 0 {
			if x.write(buf[:n], err == nil, first) != nil {
				panic(http.ErrAbortHandler)
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			x.brokeOff(err)
		}
	}
}

func (x *exchange) brokeOff(err error) {
	if x.client.Err() == nil {
		slog.WarnContext(x.client, "backend broke off its answer",
			"route", x.route.Prefix, "request_id", rest.RequestID(x.client), "error", err)
	}
	panic(http.ErrAbortHandler)
}

// begin writes the answer's header.
func (x *exchange) begin(res *http.Response, ownCORS bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.status, x.begun = res.StatusCode, true
	dropNamed(res.Header, res.Header["Connection"])
	if ownCORS {
		dropCORS(res.Header)
	}
	h := x.w.Header()
	for name, values := range res.Header {
		if hopByHop(name) {
			continue
		}
		if before := h[name]; len(before) > 0 { // such as Vary
			values = append(before[:len(before):len(before)], values...)
		}
		h[name] = values
	}
	x.w.WriteHeader(res.StatusCode)
}

func (x *exchange) answering() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.begun
}

// early passes on what a backend says before its answer, such as early hints.
// What it says of the connection is between the two of us.
func (x *exchange) early(code int, header textproto.MIMEHeader) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.begun || x.ended || code == http.StatusContinue {
		return nil
	}
	h := x.w.Header()
	before := h.Clone()
	for name, values := range header {
		if !hopByHop(name) {
			h[name] = values
		}
	}
	x.w.WriteHeader(code)
	clear(h)
	for name, values := range before {
		h[name] = values
	}
	return nil
}

// flushHeader is for a body that takes its time.
func (x *exchange) flushHeader() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended {
		return
	}
	x.writes.Extend()
	_ = x.control.Flush() // the next write has the same error
	x.rest()
}

// write hands a chunk to the client, and waits until it is sent if more is to
// come. While the backend thinks the client owes nothing.
func (x *exchange) write(chunk []byte, more, first bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if more || !first || len(chunk) > unsent {
		x.writes.Extend()
	}
	if _, err := x.w.Write(chunk); err != nil {
		return err
	}
	if !more {
		return nil
	}
	err := x.control.Flush()
	x.rest()
	return err
}

// rest takes the write deadline back where it would act by itself. It wants
// x.mu.
func (x *exchange) rest() {
	if x.http2 {
		x.writes.Lift()
	}
}

// end leaves the connection to the next request.
func (x *exchange) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ended = true
	x.writes.Lift()
}
