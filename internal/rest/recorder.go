package rest

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// recorder notes what goes through a ResponseWriter. A wrapper hides the
// optional methods of what it wraps, so it has each of them itself.
type recorder struct {
	http.ResponseWriter
	context   infoContext // of the request, in the same allocation: who keeps it keeps the ResponseWriter
	requestID [1]string   // as a header has it, so that setting it allocates nothing
	status    int         // 0 until the answer begins
	bytes     int64
}

// begin notes the final status; 1xx come before it, except 101, which is one.
func (w *recorder) begin(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
		w.name() // a proxied answer may have brought its own
	}
}

// name puts the request's id into the header.
func (w *recorder) name() { w.Header()[headerRequestID] = w.requestID[:] }

func (w *recorder) WriteHeader(status int) {
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	w.begin(http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom keeps sendfile(2) working for downloads.
func (w *recorder) ReadFrom(src io.Reader) (int64, error) {
	w.begin(http.StatusOK)
	n, err := io.Copy(w.ResponseWriter, src)
	w.bytes += n
	return n, err
}

func (w *recorder) Flush() { _ = w.FlushError() } // http.Flusher knows no error

// FlushError is what http.ResponseController calls.
func (w *recorder) FlushError() error {
	w.begin(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.begin(http.StatusSwitchingProtocols)
	}
	return conn, buf, err
}

// Unwrap lets http.ResponseController reach deadlines and full duplex.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
