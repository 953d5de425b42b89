package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/settings"
)

// RPCSettings say where the rpc commands of sockets go. A backend answers them
// with the handlers it has for wx.request.
type RPCSettings struct {
	Upstream  string        `yaml:"upstream" doc:"Backend that answers rpc commands of sockets: an http or https URL without user and query. Empty answers them all with 108."`
	Path      string        `yaml:"path" default:"/rpc/{method}" doc:"Path of the request, with {method} for the method's name, which may have slashes. /api/{method} leads the method orders/list to the handler of POST /api/orders/list."`
	Timeout   time.Duration `yaml:"timeout" default:"5s" doc:"How long the backend may take for its whole answer; after that the client is told 100, temporary. The SDKs themselves give up after 5s."`
	MaxAnswer settings.Size `yaml:"max_answer" default:"256KiB" doc:"Largest answer in bytes; instead of a larger one the client is told 100."`
}

const methodMark = "{method}"

// Check reports every mistake that needs no other settings to be seen.
func (s *RPCSettings) Check(report func(path, problem string)) {
	if s.Upstream == "" {
		return
	}
	if _, err := parseUpstream(s.Upstream); err != nil {
		report("upstream", err.Error())
	}
	if _, err := s.pathOf("m"); err != nil || strings.Count(s.Path, methodMark) != 1 || s.Path[0] != '/' {
		report("path", "must be a path that begins with a slash and has {method} in it, once; else letters, digits, slashes and - _ . ~ only")
	}
	if s.Timeout <= 0 || s.Timeout > time.Minute {
		report("timeout", "must be more than 0 and at most 1m")
	}
	if s.MaxAnswer < 1<<10 {
		report("max_answer", "must be at least 1KiB")
	}
}

// maxMethod is how many bytes the name of a method may have.
const maxMethod = 255

var errNoMethod = fault.New(fault.NotFound, "rpc_method_unknown", "There can be no method of this name.")

// pathOf puts the name of a method in its place. What comes out has one
// spelling only, and stays where the configuration has put it.
func (s *RPCSettings) pathOf(method string) (string, error) {
	path := strings.Replace(s.Path, methodMark, method, 1)
	for _, c := range []byte(path) {
		if !isAlnum(c) && !strings.ContainsRune("/-_.~:", rune(c)) {
			return "", errNoMethod
		}
	}
	if method == "" || len(method) > maxMethod || method[0] == '/' || strings.HasSuffix(method, "/") || rest.OddPath(path) != "" {
		return "", errNoMethod
	}
	return path, nil
}

// Call is an rpc command.
type Call struct {
	Session *auth.Session // whose it is; nil: nobody's
	Client  string        // id of the connection
	IP      string
	Method  string
	Data    json.RawMessage // empty: null
}

// BackendError is an error in the backend's own words.
type BackendError struct {
	Code      uint32 // 400 to 1999
	Message   string // at most 1 KiB
	Temporary bool
}

// Error implements error.
func (e *BackendError) Error() string {
	return fmt.Sprintf("the backend answered error %d: %s", e.Code, e.Message)
}

// headerClient is the id of the connection that an rpc came from.
const headerClient = "X-Minigate-Client"

// rpc makes requests of rpc commands.
type rpc struct {
	RPCSettings
	target    *url.URL
	upstream  *Upstream
	transport *http.Transport
}

func (p *Proxy) newRPC(s RPCSettings, onChange func(string, error)) error {
	if s.Upstream == "" {
		return nil
	}
	target, err := parseUpstream(s.Upstream)
	if err != nil {
		return err
	}
	p.rpc = &rpc{RPCSettings: s, target: target, upstream: p.upstreamAt(target, onChange)}
	p.rpc.transport = p.rpc.upstream.newTransport(s.Timeout)
	return nil
}

// HasRPC tells whether Call leads anywhere.
func (p *Proxy) HasRPC() bool { return p.rpc != nil }

// Call asks the backend and returns the body of its answer, which may be empty
// and need not be JSON. Errors are *BackendError, or of a kind that says what
// the status was; see rpc.refused.
func (p *Proxy) Call(ctx context.Context, c Call) ([]byte, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, p.rpc.Timeout)
	defer cancel()
	status, body, err := p.rpc.exchange(ctx, c)
	if err == nil && status/100 != 2 {
		err = refused(status, body)
	} else if err != nil {
		status = rest.Status(fault.Of(err).Kind)
	}
	p.metrics.count("rpc", status, start)
	if err != nil {
		return nil, err
	}
	return body, nil
}

// exchange sends a call and reads the answer, whatever it is.
func (r *rpc) exchange(ctx context.Context, c Call) (status int, body []byte, err error) {
	req, err := r.request(ctx, c)
	if err != nil {
		return 0, nil, err
	}
	res, err := r.transport.RoundTrip(req) // and no client, which would follow redirections
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
			return 0, nil, fault.ErrCanceled.Because(err)
		}
		return 0, nil, r.upstream.translate(err)
	}
	defer func() { _ = res.Body.Close() }()
	r.upstream.observe(nil)
	body, err = io.ReadAll(io.LimitReader(res.Body, int64(r.MaxAnswer)+1))
	switch {
	case err != nil:
		return 0, nil, r.upstream.translate(err)
	case len(body) > int(r.MaxAnswer):
		return 0, nil, fault.Newf(fault.Upstream, "backend_answer_too_large", "The answer may have at most %d bytes.", r.MaxAnswer)
	}
	return res.StatusCode, body, nil
}

func (r *rpc) request(ctx context.Context, c Call) (*http.Request, error) {
	path, err := r.pathOf(c.Method)
	if err != nil {
		return nil, err
	}
	if len(c.Data) == 0 {
		c.Data = []byte("null")
	}
	to := *r.target
	to.Path = strings.TrimSuffix(to.Path, "/") + path
	to.RawPath = strings.TrimSuffix(r.target.EscapedPath(), "/") + path
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(c.Data))
	if err != nil {
		return nil, err
	}
	h := req.Header
	h.Set("Content-Type", "application/json")
	h.Set("Accept", "application/json")
	h.Set("User-Agent", "minigate")
	h.Set("X-Request-Id", rand.Text())
	h.Set("X-Forwarded-For", c.IP)
	h.Set(headerClient, c.Client)
	setIdentity(h, c.Session)
	return req, nil
}

// maxMessage is how many bytes of a backend's error message clients are told.
const maxMessage = 1 << 10

// refused makes an error of an answer that is none of 2xx: the one that the
// body names, or else what the status stands for.
func refused(status int, body []byte) error {
	var said struct {
		Error *struct {
			Code      uint32 `json:"code"`
			Message   string `json:"message"`
			Temporary bool   `json:"temporary"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &said) == nil && said.Error != nil && 400 <= said.Error.Code && said.Error.Code <= 1999 {
		e := said.Error
		return &BackendError{e.Code, clip(e.Message, maxMessage), e.Temporary}
	}
	cause := fmt.Errorf("the backend answered %d", status)
	switch {
	case status == http.StatusUnauthorized:
		return fault.New(fault.Unauthenticated, "backend_unauthorized", "You must log in to do this.").Because(cause)
	case status == http.StatusForbidden:
		return fault.New(fault.Forbidden, "backend_forbidden", "You may not do this.").Because(cause)
	case status == http.StatusNotFound:
		return fault.New(fault.NotFound, "backend_not_found", "There is no such method.").Because(cause)
	case status == http.StatusTooManyRequests:
		return fault.New(fault.Limited, "backend_busy", "Too many requests, try again later.").Because(cause)
	case status == http.StatusRequestTimeout:
		return fault.New(fault.UpstreamTimeout, "backend_timeout", "The service took too long.").Because(cause)
	case status/100 == 4:
		return fault.New(fault.Invalid, "backend_refused", "The service does not take this request.").Because(cause)
	}
	return fault.New(fault.Upstream, "backend_failed", "The service could not do this.").Because(cause)
}

// clip shortens s to at most limit bytes of whole characters.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
