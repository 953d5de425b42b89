package proxy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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
	Upstream  string        `yaml:"upstream" doc:"Backend that answers rpc commands of sockets: an http or https URL without user and query, or the name of one of proxy.upstreams. Without it and rpc.routes all are answered with 108."`
	Routes    bool          `yaml:"routes" default:"false" doc:"Whether they are sent along proxy.routes instead, as if wx.request had asked for rpc.path: to the same backends, under the same rules for logins, rates, sizes and rewriting."`
	Path      string        `yaml:"path" default:"/rpc/{method}" doc:"Path of the request, with {method} for the method's name, which may have slashes. /api/{method} leads the method orders/list to the handler of POST /api/orders/list."`
	Timeout   time.Duration `yaml:"timeout" default:"5s" doc:"How long the backend may take for its whole answer; after that the client is told 100, temporary. The SDKs themselves give up after 5s."`
	MaxAnswer settings.Size `yaml:"max_answer" default:"256KiB" doc:"Largest answer in bytes; instead of a larger one the client is told 100."`
}

const methodMark = "{method}"

func (s *RPCSettings) on() bool { return s.Upstream != "" || s.Routes }

// Check reports every mistake that needs no other settings to be seen.
func (s *RPCSettings) Check(report func(path, problem string)) {
	if !s.on() {
		return
	}
	if s.Upstream != "" && s.Routes {
		report("routes", "does not go with rpc.upstream: calls go to one or along the other")
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

// CheckRPC reports where calls cannot lead anywhere.
func (s *Settings) CheckRPC(r *RPCSettings, report func(path, problem string)) {
	if r.Upstream != "" && s.upstream(r.Upstream) == nil {
		if _, err := parseUpstream(r.Upstream); err != nil {
			report("upstream", "is neither an http or https URL nor the name of one of proxy.upstreams")
		}
	}
	if !r.Routes {
		return
	}
	before, _, _ := strings.Cut(r.Path, methodMark)
	for _, rt := range s.Routes {
		if strings.HasPrefix(before, rt.Prefix) || strings.HasPrefix(rt.Prefix, before) {
			return
		}
	}
	report("path", "is under none of the prefixes of proxy.routes, so no call would lead anywhere")
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
	route *route // where all of them go; nil: along the routes of requests
}

func (p *Proxy) newRPC(o Options) error {
	if !o.RPC.on() {
		return nil
	}
	p.rpc = &rpc{RPCSettings: o.RPC}
	if o.RPC.Routes {
		return nil
	}
	// A route that everybody takes, and that tells who is known.
	all := Route{Upstream: o.RPC.Upstream, Timeout: o.RPC.Timeout, MaxBody: 1 << 30, Login: LoginOptional}
	rt, err := p.newRoute(all, o)
	p.rpc.route = rt
	return err
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
	status, body, err := p.exchange(ctx, c)
	if err == nil && status/100 != 2 {
		err = refused(status, body)
	} else if err != nil {
		status = rest.Status(fault.Of(err).Kind)
	}
	p.rpcCounts.add(status, start)
	if err != nil {
		return nil, err
	}
	return body, nil
}

// exchange sends a call and reads the answer, whatever it is.
func (p *Proxy) exchange(ctx context.Context, c Call) (status int, body []byte, err error) {
	o, u, err := p.orderOf(ctx, c)
	if err != nil {
		return 0, nil, err
	}
	res, t, err := u.send(o) // which follows no redirections
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
			return 0, nil, fault.ErrCanceled.Because(err)
		}
		return 0, nil, translate(err)
	}
	defer t.release()
	defer func() { _ = res.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(res.Body, int64(p.rpc.MaxAnswer)+1))
	switch {
	case err != nil:
		return 0, nil, translate(err)
	case len(body) > int(p.rpc.MaxAnswer):
		return 0, nil, fault.Newf(fault.Upstream, "backend_answer_too_large", "The answer may have at most %d bytes.", p.rpc.MaxAnswer)
	}
	return res.StatusCode, body, nil
}

// errLogin answers for a socket of nobody.
var errLogin = fault.New(fault.Unauthenticated, "login_required", "You must log in to do this.")

// admitCall finds the route of a call, and whether its caller may take it.
func (p *Proxy) admitCall(path string, c *Call) (*route, error) {
	if p.rpc.route != nil {
		return p.rpc.route, nil
	}
	who := caller{bearer: c.Session != nil, claimed: c.Session != nil, verify: func() (*auth.Session, error) {
		if c.Session == nil {
			return nil, errLogin
		}
		return c.Session, nil
	}}
	rt, err := p.places.find(path, &who)
	if err != nil {
		return nil, err
	}
	if err := rt.limitAddress(c.IP); err != nil {
		return nil, err
	}
	if c.Session, err = who.of(rt); err != nil {
		return nil, err
	}
	return rt, rt.limitUserOf(c.Session)
}

// orderOf makes a request of a call: what wx.request would send if it asked
// for the path of the method by POST.
func (p *Proxy) orderOf(ctx context.Context, c Call) (*order, *Upstream, error) {
	path, err := p.rpc.pathOf(c.Method)
	if err != nil {
		return nil, nil, err
	}
	rt, err := p.admitCall(path, &c)
	if err != nil {
		return nil, nil, err
	}
	if len(c.Data) > int(rt.MaxBody) {
		return nil, nil, tooLarge(rt)
	}
	signed, err := p.identities.of(c.Session, rt.audience)
	if err != nil {
		return nil, nil, err
	}
	h := addTo(make(http.Header, maxOurs))
	h.set("Content-Type", "application/json")
	h.set("Accept", "application/json")
	h.set("User-Agent", "minigate")
	h.set("X-Request-Id", rand.Text())
	h.set(headerClient, c.Client)
	h.address(c.IP)
	h.identity(c.Session, signed)
	data := jsonBody(cmp.Or(string(c.Data), "null"))
	o := &order{
		ctx: ctx, transport: rt.transport, body: data,
		request: &http.Request{Method: http.MethodPost, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h.Header, ContentLength: int64(len(data))},
	}
	// The transport asks for it where a connection has gone away before the
	// backend saw anything.
	o.request.GetBody = func() (io.ReadCloser, error) { return data.open(), nil }
	o.path, o.raw = rt.rewritten(path, path)
	return o, rt.upstream, nil
}

// jsonBody is the body of a call; every try gets all of it.
type jsonBody []byte

func (b jsonBody) open() io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }
func (b jsonBody) whole() bool         { return true }
func (b jsonBody) failed() bool        { return false }

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
