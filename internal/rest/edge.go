package rest

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

const headerRequestID = "X-Request-Id"

// Edge is the outermost middleware of a listener: it names each request, finds
// out who sent it, keeps a panic from taking the connection's answer with it,
// and logs what was answered.
type Edge struct {
	TrustedProxies []netip.Prefix // peers whose X-Forwarded-For, X-Forwarded-Proto, X-Real-IP and X-Request-Id count
	AccessLog      bool           // one line for each request; never its query, where tickets travel
}

// Wrap puts the edge around next. The ResponseWriter that next gets keeps
// Flush, Hijack, ReadFrom and everything http.ResponseController reaches.
func (e Edge) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := peer(r)
		trusted := e.trusts(from)
		rec := &recorder{ResponseWriter: w, context: infoContext{r.Context(), Info{
			RequestID: requestID(r, trusted), ClientIP: e.clientIP(r, from, trusted), Scheme: scheme(r, trusted), Start: time.Now(),
		}}}
		info := &rec.context.info
		rec.requestID[0] = info.RequestID
		r = r.WithContext(&rec.context)
		rec.name()
		if e.AccessLog {
			// Taken now, since handlers may rewrite both.
			defer logAccess(rec, r, info, r.Method, r.URL.Path)
		}
		defer func() {
			if v := recover(); v != nil {
				answerPanic(rec, r, v)
			}
		}()
		next.ServeHTTP(rec, r)
	})
}

// requestID takes over the id that a trusted proxy gave, so that its log and
// ours can be read side by side.
func requestID(r *http.Request, trusted bool) string {
	if trusted {
		if id := r.Header.Get(headerRequestID); validRequestID(id) {
			return id
		}
	}
	return newRequestID()
}

// newRequestID returns 100 bits as 20 letters and digits. They tell requests
// apart, and are no secret.
func newRequestID() string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	var id [20]byte
	bits := [2]uint64{rand.Uint64(), rand.Uint64()}
	for i := range id {
		half := &bits[i%2]
		id[i] = alphabet[*half%32]
		*half /= 32
	}
	return string(id[:])
}

func validRequestID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		if !isNameByte(c) {
			return false
		}
	}
	return true
}

// isNameByte reports whether c is one of [A-Za-z0-9._-].
func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}

// answerPanic answers 500 where nothing was written yet. Otherwise it breaks
// the connection, so that half an answer is not taken for a whole one.
func answerPanic(w *recorder, r *http.Request, v any) {
	if v == http.ErrAbortHandler {
		panic(v) // not a mistake: how a handler breaks the connection
	}
	cause := fmt.Errorf("panic: %v\n%s", v, debug.Stack())
	if w.status != 0 {
		slog.ErrorContext(r.Context(), "request failed after its answer began",
			"method", r.Method, "path", r.URL.Path, "request_id", w.requestID[0], "error", cause)
		panic(http.ErrAbortHandler)
	}
	clear(w.Header()) // whatever it describes does not come
	Fail(w, r, fault.New(fault.Internal, "internal", "Something went wrong on our side.").Because(cause))
}

// statusClientGone is nginx's number for a client that left before the answer.
const statusClientGone = 499

func logAccess(w *recorder, r *http.Request, info *Info, method, path string) {
	status := w.status
	switch {
	case status != 0:
	case r.Context().Err() != nil:
		status = statusClientGone
	default:
		status = http.StatusOK // what net/http sends where a handler writes nothing
	}
	slog.InfoContext(r.Context(), "request",
		"method", method, "path", path, "status", status, "bytes", w.bytes,
		"duration", time.Since(info.Start), "client", info.ClientIP, "request_id", info.RequestID)
}
