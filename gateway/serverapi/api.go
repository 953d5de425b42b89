// Package serverapi is the HTTP API through which business backends push to
// clients, in the shapes of Centrifugo's server API (v6), so that its server
// SDKs work unchanged:
//
//	POST /api/<method> {…} → 200 {"result":{…}} or 200 {"error":{"code":107,"message":"bad request"}}
//
// Refused before a method is reached: an unknown method (404), anything but
// POST (405), no or a wrong key (401 with an empty body), a key without the
// right (403) or over its limit (429, in the form of an error), too large a
// body (413), and one that is not a JSON object (400). Ours beside theirs is
// push. The older form, POST /api with commands that name their method, is
// there, too.
package serverapi

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/audit"
	"github.com/minigate/minigate/internal/fault"
)

// maxTargets is how many channels, users or commands one request may name.
const maxTargets = 10_000

// maxLooks is how many bytes the looks within one batch may answer. Each of
// them is bounded, but 10,000 full histories would be 190 GB.
const maxLooks = 64 << 20

// API serves POST /api/<method>, and the older POST /api.
type API struct {
	hub      *gateway.Hub
	keys     *apikey.Keys
	settings Settings
	metrics  *Metrics
	maxLooks int64 // maxLooks, except in tests
}

// New makes the handler to mount at /api and /api/ on the ops listener. Keys
// are given apart from the settings since other ops endpoints ask them, too.
func New(hub *gateway.Hub, keys *apikey.Keys, s Settings, m *Metrics) *API {
	return &API{hub, keys, s, m, maxLooks}
}

// method is what a name in the URL stands for.
type method struct {
	scope   string // what a key must be allowed; "" leaves it to the commands inside
	audited bool   // it changes what others see, and is not a message
	call    func(a *API, ctx context.Context, c caller, body []byte) (any, error)
}

func (m method) allows(c caller) bool { return m.scope == "" || apikey.Allows(c.Scope(), m.scope) }

// caller is the key a request came with.
type caller struct {
	apikey.Caller
	r     *http.Request
	looks *atomic.Int64 // bytes that the looks of a batch have answered
}

// Methods names the methods of POST /api/<method>.
func Methods() []string { return slices.Sorted(maps.Keys(methods)) }

// reply is a body in Centrifugo's form.
type reply struct {
	Result any       `json:"result,omitempty"`
	Error  *apiError `json:"error,omitempty"`
}

type apiError struct {
	Code    uint32 `json:"code"`
	Message string `json:"message"`
}

func errorOf(err error) *apiError {
	c := gateway.CodeOf(err)
	if e, ok := errors.AsType[explained](err); ok {
		c.Message += ": " + e.why
	}
	return &apiError{c.Code, c.Message}
}

// badRequest is 107 to the caller; reason is for the debug log.
func badRequest(reason string) error { return gateway.ErrBadRequest.Because(errors.New(reason)) }

// explained is an error of a method of ours, which may say more than
// Centrifugo's texts.
type explained struct {
	error
	why string
}

func (e explained) Unwrap() error { return e.error }

// explain tells the caller of a method of ours what was wrong with the request.
func explain(err error) error {
	f, ok := errors.AsType[*fault.Error](err)
	switch {
	case !ok || f.Kind != fault.Invalid:
		return err
	case errors.Is(f, gateway.ErrBadRequest) && f.Unwrap() != nil:
		return explained{err, f.Unwrap().Error()}
	}
	return explained{err, f.Msg}
}

// prefix is where the API is mounted.
const prefix = "/api"

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, prefix), "/")
	m, known := methods[name]
	if r.URL.Path == prefix {
		name, m, known = "commands", method{}, true
	}
	if !known {
		a.refuse(w, "unknown", http.StatusNotFound, "404 page not found")
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		a.refuse(w, name, http.StatusMethodNotAllowed, "Method Not Allowed")
		return
	}
	c := caller{r: r}
	var err error
	if c.Caller, err = a.keys.Admit(r, m.scope); err != nil {
		a.turnAway(w, name, m, c, err)
		return
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer release(buf)
	if status := a.read(w, r, buf); status != http.StatusOK {
		a.refuse(w, name, status, http.StatusText(status))
		return
	}
	body := buf.Bytes() // no method keeps any of it
	ctx := withTimeout(r.Context(), a.settings.Timeout)
	defer ctx.cancel()
	if m.call == nil {
		a.serveCommands(ctx, w, c, body)
		return
	}
	result, err := a.do(ctx, c, name, m, body)
	if errors.Is(err, errMalformed) {
		a.refuse(w, name, http.StatusBadRequest, http.StatusText(http.StatusBadRequest))
		return
	}
	a.answer(w, r, name, c, result, err)
}

// do calls a method that the key allows.
func (a *API) do(ctx context.Context, c caller, name string, m method, body []byte) (any, error) {
	result, err := m.call(a, ctx, c, body)
	if m.audited {
		audit.Log(c.r, c.Name(), name, body, audit.Result(err))
	}
	return result, err
}

// turnAway answers a request that its key does not let in.
func (a *API) turnAway(w http.ResponseWriter, name string, m method, c caller, err error) {
	f := fault.Of(err)
	if m.audited && c.Name() != "" {
		audit.Log(c.r, c.Name(), name, nil, f.Code)
	}
	switch f.Kind {
	case fault.Limited:
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
		a.metrics.requests.WithLabelValues(name, strconv.Itoa(http.StatusTooManyRequests)).Inc()
		a.fail(w, c.r, http.StatusTooManyRequests, errorOf(err))
	case fault.Forbidden:
		a.refuse(w, name, http.StatusForbidden, f.Msg)
	default:
		a.refuse(w, name, http.StatusUnauthorized, "")
	}
}

// read reads the body, and returns another status than 200 to refuse it with.
// Bytes that are not UTF-8 must go no further: one such message in a WebSocket
// text frame ends the connection of every client that gets it (RFC 6455, 8.1).
func (a *API) read(w http.ResponseWriter, r *http.Request, body *bytes.Buffer) (status int) {
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, int64(a.settings.MaxBody)))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge
	}
	if err != nil || !isObject(body.Bytes()) || !utf8.Valid(body.Bytes()) {
		return http.StatusBadRequest
	}
	return http.StatusOK
}

func isObject(body []byte) bool {
	trimmed := trimLeft(body)
	return len(trimmed) > 0 && trimmed[0] == '{'
}

// refuse answers what never became a call; Centrifugo does so in plain text.
func (a *API) refuse(w http.ResponseWriter, name string, status int, text string) {
	a.metrics.requests.WithLabelValues(name, strconv.Itoa(status)).Inc()
	if text == "" {
		w.WriteHeader(status)
		return
	}
	http.Error(w, text, status)
}

func (a *API) answer(w http.ResponseWriter, r *http.Request, name string, c caller, result any, err error) {
	if err == nil {
		a.metrics.ok[name].Inc()
		if whole, ok := result.(batchReply); ok {
			writeJSON(w, http.StatusOK, whole) // the one result that is not wrapped
			return
		}
		if p, ok := result.(position); ok && plain(p.Epoch) {
			writePosition(w, p)
			return
		}
		writeJSON(w, http.StatusOK, reply{Result: result})
		return
	}
	e := errorOf(err)
	a.metrics.requests.WithLabelValues(name, strconv.FormatUint(uint64(e.Code), 10)).Inc()
	slog.Log(r.Context(), logLevel(err), "api call failed", "method", name, "key", c.Name(), "code", e.Code, "error", err)
	a.fail(w, r, http.StatusOK, e)
}

// fail answers an error: inline with status, or in the way of the transport.
func (a *API) fail(w http.ResponseWriter, r *http.Request, status int, e *apiError) {
	if a.settings.ErrorMode == transportErrors || r.Header.Get("X-Centrifugo-Error-Mode") == transportErrors {
		writeJSON(w, transportStatus(e.Code), e)
		return
	}
	writeJSON(w, status, reply{Error: e})
}

// logLevel keeps the log for what operators must see: callers learn their own
// mistakes from the answer, and that a dependency is away is logged where its
// health is watched.
func logLevel(err error) slog.Level {
	if fault.Of(err).Kind == fault.Internal {
		return slog.LevelError
	}
	return slog.LevelDebug
}

// transportStatus is the HTTP status in error mode "transport".
func transportStatus(code uint32) int {
	switch code {
	case 102, 104:
		return http.StatusNotFound
	case 103:
		return http.StatusForbidden
	case 107, 108:
		return http.StatusBadRequest
	case 111:
		return http.StatusTooManyRequests
	case 112:
		return http.StatusRequestedRangeNotSatisfiable
	case 113:
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}
