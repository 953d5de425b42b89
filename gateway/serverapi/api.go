// Package serverapi is the HTTP API through which business backends push to
// clients, in the shapes of Centrifugo's server API (v6), so that its server
// SDKs work unchanged:
//
//	POST /api/<method> {…} → 200 {"result":{…}} or 200 {"error":{"code":107,"message":"bad request"}}
//
// Refused before a method is reached: an unknown method (404), anything but
// POST (405), no or a wrong key (401 with an empty body), a key without the
// right (403), too large a body (413), and one that is not a JSON object
// (400). Ours beside theirs is push.
package serverapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/fault"
)

// maxTargets is how many channels, users or commands one request may name.
const maxTargets = 10_000

// API serves POST <prefix>/<method>; only the last part of the path counts.
type API struct {
	hub      *gateway.Hub
	keys     *apikey.Keys
	settings Settings
	metrics  *Metrics
}

// New makes the handler to mount at /api/ on the ops listener. Keys are given
// apart from the settings since other ops endpoints ask them, too.
func New(hub *gateway.Hub, keys *apikey.Keys, s Settings, m *Metrics) *API {
	return &API{hub, keys, s, m}
}

// method is what a name in the URL stands for.
type method struct {
	scope string // what a key must be allowed; "" leaves it to the commands inside
	call  func(a *API, ctx context.Context, c caller, body []byte) (any, error)
}

// caller is the key a request came with.
type caller struct {
	name, scope string
}

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
	return &apiError{c.Code, c.Message}
}

// badRequest is 107 to the caller; reason is for the debug log.
func badRequest(reason string) error { return gateway.ErrBadRequest.Because(errors.New(reason)) }

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	m, known := methods[name]
	if !known {
		a.refuse(w, "unknown", http.StatusNotFound, "404 page not found")
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		a.refuse(w, name, http.StatusMethodNotAllowed, "Method Not Allowed")
		return
	}
	var c caller
	var ok bool
	if c.name, c.scope, ok = a.keys.Authenticate(r); !ok {
		a.refuse(w, name, http.StatusUnauthorized, "")
		return
	}
	a.metrics.keys.WithLabelValues(c.name).Inc()
	if m.scope != "" && !apikey.Allows(c.scope, m.scope) {
		a.refuse(w, name, http.StatusForbidden, "The key "+c.name+" has the scope "+c.scope+"; "+name+" needs "+m.scope+".")
		return
	}
	body, status := a.read(w, r)
	if status != http.StatusOK {
		a.refuse(w, name, status, http.StatusText(status))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.settings.Timeout)
	defer cancel()
	result, err := m.call(a, ctx, c, body)
	if errors.Is(err, errMalformed) {
		a.refuse(w, name, http.StatusBadRequest, http.StatusText(http.StatusBadRequest))
		return
	}
	a.answer(w, r, name, c, result, err)
}

// read returns the body, or the status to refuse it with. Bytes that are not
// UTF-8 must go no further: one such message in a WebSocket text frame ends
// the connection of every client that gets it (RFC 6455, 8.1).
func (a *API) read(w http.ResponseWriter, r *http.Request) ([]byte, int) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(a.settings.MaxBody)))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, http.StatusRequestEntityTooLarge
	}
	if err != nil || !isObject(body) || !utf8.Valid(body) {
		return nil, http.StatusBadRequest
	}
	return body, http.StatusOK
}

func isObject(body []byte) bool {
	trimmed := bytes.TrimLeft(body, " \t\r\n")
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
		a.metrics.requests.WithLabelValues(name, "ok").Inc()
		if whole, ok := result.(batchReply); ok {
			writeJSON(w, http.StatusOK, whole) // the one result that is not wrapped
			return
		}
		writeJSON(w, http.StatusOK, reply{Result: result})
		return
	}
	e := errorOf(err)
	a.metrics.requests.WithLabelValues(name, strconv.FormatUint(uint64(e.Code), 10)).Inc()
	slog.Log(r.Context(), logLevel(err), "api call failed", "method", name, "key", c.name, "code", e.Code, "error", err)
	if r.Header.Get("X-Centrifugo-Error-Mode") == "transport" {
		writeJSON(w, transportStatus(e.Code), e)
		return
	}
	writeJSON(w, http.StatusOK, reply{Error: e})
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
	case 112:
		return http.StatusRequestedRangeNotSatisfiable
	case 113:
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // data goes out as it came in
	if err := enc.Encode(v); err != nil {
		slog.Error("answer cannot be encoded", "error", err) // a bug: our own types always encode
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(bytes.TrimSuffix(out.Bytes(), []byte("\n"))) // the caller may be gone
}
