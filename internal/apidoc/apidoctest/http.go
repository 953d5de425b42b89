package apidoctest

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Wrap has a test fail for every exchange with next, below /api, that is not as
// described.
func Wrap(t testing.TB, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/api") {
			next.ServeHTTP(w, r)
			return
		}
		var request, answer bytes.Buffer
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(r.Body, &request), r.Body}
		rec := &recorder{w, http.StatusOK, &answer}
		next.ServeHTTP(rec, r)
		if err := Check(Exchange{r.Method, r.URL.Path, request.Bytes(), rec.status, w.Header(), answer.Bytes()}); err != nil {
			t.Error(err)
		}
	})
}

type recorder struct {
	http.ResponseWriter
	status int
	body   *bytes.Buffer
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.body.Write(b)
	return r.ResponseWriter.Write(b)
}
