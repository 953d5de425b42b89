// Package rest lets HTTP handlers return errors and answers them in one shape:
//
//	{"error":{"code":"…","message":"…","request_id":"…"}}
package rest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"mime"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// Handler is an http.Handler that may fail. It must not have written anything
// when it returns an error that the client should see.
type Handler func(w http.ResponseWriter, r *http.Request) error

// ServeHTTP runs h and answers its error.
func (h Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h(w, r); err != nil {
		Fail(w, r, err)
	}
}

var statuses = map[fault.Kind]int{
	fault.Internal:        http.StatusInternalServerError,
	fault.Invalid:         http.StatusBadRequest,
	fault.Unauthenticated: http.StatusUnauthorized,
	fault.Forbidden:       http.StatusForbidden,
	fault.NotFound:        http.StatusNotFound,
	fault.NotAllowed:      http.StatusMethodNotAllowed,
	fault.Timeout:         http.StatusRequestTimeout,
	fault.Conflict:        http.StatusConflict,
	fault.Gone:            http.StatusGone,
	fault.LengthRequired:  http.StatusLengthRequired,
	fault.Precondition:    http.StatusPreconditionFailed,
	fault.TooLarge:        http.StatusRequestEntityTooLarge,
	fault.Unsupported:     http.StatusUnsupportedMediaType,
	fault.Range:           http.StatusRequestedRangeNotSatisfiable,
	fault.Limited:         http.StatusTooManyRequests,
	fault.Upstream:        http.StatusBadGateway,
	fault.Unavailable:     http.StatusServiceUnavailable,
	fault.UpstreamTimeout: http.StatusGatewayTimeout,
	fault.NoSpace:         http.StatusInsufficientStorage,
	fault.UpgradeRequired: http.StatusUpgradeRequired,
}

// Status is the HTTP status of a kind of error.
func Status(k fault.Kind) int { return statuses[k] }

// ofTheContent are headers a handler may have set for an answer that then did
// not come.
var ofTheContent = []string{
	"Accept-Ranges", "Content-Disposition", "Content-Encoding", "Content-Length", "Content-Range", "ETag", "Last-Modified",
}

type errorBody struct {
	Error errorDetail `json:"error"`
}

type errorDetail struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	RequestID string `json:"request_id,omitempty"`
}

// Fail answers err. Server faults are logged here, once, with their cause; that
// a dependency is away is only worth a debug line for each request, since its
// health is watched and logged where that changes.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	e := fault.Of(err)
	if errors.Is(e, fault.ErrCanceled) && r.Context().Err() != nil {
		return // the client is gone
	}
	status := Status(e.Kind)
	if status >= http.StatusInternalServerError {
		level := slog.LevelError
		if e.Kind == fault.Unavailable {
			level = slog.LevelDebug
		}
		slog.Log(r.Context(), level, "request failed",
			"method", r.Method, "path", r.URL.Path, "status", status, "request_id", RequestID(r.Context()), "error", err)
	}
	h := w.Header()
	length := h.Get("Content-Range")
	for _, name := range ofTheContent {
		h.Del(name)
	}
	if e.Kind == fault.Range && length != "" { // there it says how long the content is (RFC 9110 §14.4)
		h.Set("Content-Range", length)
	}
	h.Set("Cache-Control", "no-store")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	} else if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, status, errorBody{errorDetail{e.Code, e.Msg, RequestID(r.Context())}})
}

// JSON answers v with status.
func JSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, status, v)
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		slog.Error("answer cannot be encoded", "error", err) // a bug: our own types always encode
		status, body = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"Something went wrong on our side."}}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone, which is its own affair
}

// Decode reads a JSON object of at most limit bytes into v. Unknown keys are
// ignored, so that older servers serve newer clients; anything after the
// object is refused. A Content-Type other than JSON is refused with 415, a
// missing one is taken as JSON (wx.request always sends one, curl -d does not).
func Decode(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		mt, _, err := mime.ParseMediaType(ct)
		if err != nil || (mt != "application/json" && mt != "application/x-www-form-urlencoded" && mt != "text/plain") {
			return fault.New(fault.Unsupported, "unsupported_media_type", "The body must be application/json.")
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return fault.Newf(fault.TooLarge, "body_too_large", "The body may have at most %d bytes.", limit)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fault.New(fault.Timeout, "body_timeout", "The body came too slowly.").Because(err)
		}
		return fault.New(fault.Invalid, "body_unreadable", "The body ended early.").Because(err)
	}
	if len(body) == 0 {
		return fault.New(fault.Invalid, "body_missing", "A JSON body is required.")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fault.New(fault.Invalid, "json_invalid", "The body is not the JSON this endpoint expects: "+jsonProblem(err)+".").Because(err)
	}
	return nil
}

// jsonProblem says where a body went wrong without repeating any of it.
func jsonProblem(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		return "field " + strconv.Quote(e.Field) + " has the wrong type"
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return "syntax error at byte " + strconv.FormatInt(e.Offset, 10)
	}
	return "it is not a JSON object"
}

type ctxKey struct{}

// Info is what the outermost middleware learnt about a request.
type Info struct {
	RequestID string
	ClientIP  string // as trusted proxies report it
	Scheme    string // http or https, of the client's own connection as trusted proxies report it
	Start     time.Time
}

// infoContext is a context with Info in it: context.WithValue would allocate
// once more for every request.
type infoContext struct {
	context.Context
	info Info
}

func (c *infoContext) Value(key any) any {
	if key == (ctxKey{}) {
		return &c.info
	}
	return c.Context.Value(key)
}

// WithInfo puts info into the request's context.
func WithInfo(ctx context.Context, info *Info) context.Context { return &infoContext{ctx, *info} }

// RequestID returns the request's id, "" outside a request.
func RequestID(ctx context.Context) string {
	if i, ok := ctx.Value(ctxKey{}).(*Info); ok {
		return i.RequestID
	}
	return ""
}

// ClientIP returns the client's address as trusted proxies report it; without
// the middleware it is "".
func ClientIP(ctx context.Context) string {
	if i, ok := ctx.Value(ctxKey{}).(*Info); ok {
		return i.ClientIP
	}
	return ""
}

// Scheme returns how the client reached the first proxy that is ours, "http"
// or "https"; without the middleware it is "".
func Scheme(ctx context.Context) string {
	if i, ok := ctx.Value(ctxKey{}).(*Info); ok {
		return i.Scheme
	}
	return ""
}
