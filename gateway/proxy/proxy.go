// Package proxy passes wx.request on to the business backend and tells it who
// is calling.
//
// What a backend may rely on, whatever the client sends: the headers X-WX-*,
// X-Forwarded-* and X-Request-Id are the gateway's own; the path is the one
// the route was chosen by; the login token never arrives.
package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// clientStall is how long a client may send nothing of its body, or take
// nothing of the answer. Either may last as long as it likes while it moves.
const clientStall = time.Minute

// Options are what the proxy needs from the rest of the program.
type Options struct {
	// Verify returns the session of a request's login token, or the error the
	// client is to see.
	Verify func(r *http.Request) (*auth.Session, error)
	// Reserved are the gateway's own paths; no route may overlap them.
	Reserved []string
	// Health hears when a backend goes away (err says why) and when it is back
	// (nil), once each, however many requests find out. It must not block.
	// Where it is nil the change is logged.
	Health func(upstream string, err error)
	// OwnCORS says that the gateway answers for CORS: what a backend says of it
	// is dropped, since browsers refuse an answer with two allowed origins.
	OwnCORS bool
	RPC     RPCSettings
	Metrics *Metrics
}

// Proxy is an http.Handler for all configured prefixes.
type Proxy struct {
	verify    func(r *http.Request) (*auth.Session, error)
	routes    []*route // longest prefix first
	upstreams []*Upstream
	rpc       *rpc // nil: there is none
	metrics   *Metrics
	stall     time.Duration // clientStall, except in tests
}

type route struct {
	Route
	target    *url.URL
	upstream  *Upstream
	transport *http.Transport
	reverse   *httputil.ReverseProxy
}

// New refuses settings that Check or CheckReserved find mistakes in.
func New(s Settings, o Options) (*Proxy, error) {
	var problems []error
	report := func(path, problem string) { problems = append(problems, errors.New("proxy."+path+": "+problem)) }
	s.Check(report)
	s.CheckReserved(o.Reserved, report)
	o.RPC.Check(func(path, problem string) { problems = append(problems, errors.New("rpc."+path+": "+problem)) })
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	p := &Proxy{verify: o.Verify, metrics: o.Metrics, stall: clientStall}
	buffers := newBufferPool()
	for _, r := range s.Routes {
		target, err := parseUpstream(r.Upstream)
		if err != nil {
			return nil, err
		}
		rt := &route{Route: r, target: target, upstream: p.upstreamAt(target, o.Health)}
		rt.transport = rt.upstream.newTransport(r.Timeout)
		rt.reverse = &httputil.ReverseProxy{
			Rewrite:       rt.rewrite,
			Transport:     rt.transport,
			FlushInterval: -1,
			ErrorLog:      log.New(io.Discard, "", 0), // answer logs what matters
			BufferPool:    buffers,
			ModifyResponse: func(res *http.Response) error {
				if o.OwnCORS {
					dropCORS(res.Header)
				}
				exchangeOf(res.Request).begin(res)
				return nil
			},
			ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) { exchangeOf(r).err = err },
		}
		p.routes = append(p.routes, rt)
	}
	if err := p.newRPC(o.RPC, o.Health); err != nil {
		return nil, err
	}
	slices.SortFunc(p.routes, func(a, b *route) int { return len(b.Prefix) - len(a.Prefix) })
	return p, nil
}

func (p *Proxy) upstreamAt(target *url.URL, onChange func(string, error)) *Upstream {
	for _, u := range p.upstreams {
		if u.Name == address(target) {
			return u
		}
	}
	u := newUpstream(target, onChange)
	p.upstreams = append(p.upstreams, u)
	return u
}

// Prefixes are the paths to mount the proxy at.
func (p *Proxy) Prefixes() []string {
	var prefixes []string
	for _, rt := range p.routes {
		prefixes = append(prefixes, rt.Prefix)
	}
	return prefixes
}

// Upstreams are the backends, each once, for health checks.
func (p *Proxy) Upstreams() []*Upstream { return p.upstreams }

// Close drops idle connections. Requests under way are not touched.
func (p *Proxy) Close() {
	for _, rt := range p.routes {
		rt.transport.CloseIdleConnections()
	}
	if p.rpc != nil {
		p.rpc.transport.CloseIdleConnections()
	}
}

// ServeHTTP answers 404 where no prefix matches.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt := p.match(r.URL.Path)
	if rt == nil {
		rest.Fail(w, r, fault.New(fault.NotFound, "not_found", "There is nothing at this path."))
		return
	}
	x := &exchange{route: rt, client: r.Context(), control: http.NewResponseController(w), stall: p.stall}
	defer p.metrics.observe(x, time.Now()) // also when a broken answer panics with ErrAbortHandler
	if err := p.forward(w, r, x); err != nil {
		x.fail(err)
		rest.Fail(w, r, err)
	}
}

func (p *Proxy) match(path string) *route {
	for _, rt := range p.routes {
		if strings.HasPrefix(path, rt.Prefix) {
			return rt
		}
	}
	return nil
}

// forward returns an error only while nothing has been answered.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, x *exchange) error {
	if problem := rest.OddPath(r.URL.EscapedPath()); problem != "" {
		return fault.New(fault.Invalid, "path_invalid", "This path is refused: "+problem+".")
	}
	method, err := effectiveMethod(r)
	if err != nil {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		return err
	}
	if wantsSocket(r) {
		return fault.New(fault.Invalid, "upgrade_refused", "This path answers plain requests only; sockets connect to /connection/websocket.")
	}
	if x.session, err = p.authenticate(r, x.route.Login); err != nil {
		return err
	}
	if r.ContentLength > int64(x.route.MaxBody) {
		return tooLarge(x.route)
	}
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	r.Method = method
	if r.Body != nil && r.Body != http.NoBody {
		x.body = &clientBody{ReadCloser: http.MaxBytesReader(w, r.Body, int64(x.route.MaxBody)), x: x}
		r.Body = x.body
		// Lets an answer begin while the request is still being read. HTTP/2
		// always does, and a recorder in a test has no use for it.
		_ = x.control.EnableFullDuplex()
	}
	defer func() { _ = x.control.SetWriteDeadline(time.Time{}) }() // the connection may serve another request
	x.route.reverse.ServeHTTP(w, r)
	if x.err == nil {
		return nil
	}
	return x.cause()
}

func (p *Proxy) authenticate(r *http.Request, login string) (*auth.Session, error) {
	if login == LoginNone || login == LoginOptional && r.Header.Get("Authorization") == "" {
		return nil, nil
	}
	return p.verify(r)
}

// rewrite makes the backend's request out of the client's. The standard
// library has removed hop-by-hop headers before, also those that Connection
// names, so a client cannot have what is set here taken out again.
func (rt *route) rewrite(pr *httputil.ProxyRequest) {
	in, out := pr.In, pr.Out
	path, raw := in.URL.Path, in.URL.EscapedPath()
	if rt.StripPrefix {
		path, raw = path[len(rt.Prefix)-1:], cutPrefix(raw, rt.Prefix)
	}
	// A new URL: the client's may name a user, which would become a header.
	out.URL = &url.URL{
		Scheme:     rt.target.Scheme,
		Host:       rt.target.Host,
		Path:       strings.TrimSuffix(rt.target.Path, "/") + path,
		RawPath:    strings.TrimSuffix(rt.target.EscapedPath(), "/") + raw,
		RawQuery:   in.URL.RawQuery, // as it came: nothing here reads it
		ForceQuery: in.URL.ForceQuery,
	}
	out.Host = ""
	// Trailers could smuggle headers into backends that merge them; no
	// mini-program can send any, and a proxy may drop them (RFC 9110, 6.5.1).
	out.Trailer = nil

	h := out.Header
	stripOurs(h)
	if rt.Login != LoginNone || isBearer(h.Get("Authorization")) {
		h.Del("Authorization") // the token is between the client and us
	}
	setIdentity(h, exchangeOf(in).session)
	h.Set("X-Forwarded-For", clientIP(in))
	h.Set("X-Forwarded-Host", in.Host)
	h.Set("X-Forwarded-Proto", scheme(in))
	if id := rest.RequestID(in.Context()); id != "" {
		h.Set("X-Request-Id", id)
	}
}

func clientIP(r *http.Request) string {
	if ip := rest.ClientIP(r.Context()); ip != "" {
		return ip
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return "unknown" // RFC 7239, 6.2
	}
	return host
}

func scheme(r *http.Request) string {
	if s := rest.Scheme(r.Context()); s != "" {
		return s
	}
	if r.TLS != nil {
		return "https"
	}
	return "http"
}
