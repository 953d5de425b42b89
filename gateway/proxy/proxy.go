// Package proxy passes wx.request on to the business backend and tells it who
// is calling.
//
// What a backend may rely on, whatever the client sends: the headers X-WX-*,
// X-Forwarded-* and X-Request-Id are the gateway's own; the path is the one
// the route was chosen by; the login token never arrives.
package proxy

import (
	"cmp"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/jws"
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
	// Signer signs who the caller is. Where it is nil nobody does.
	Signer  *jws.Signer
	Metrics *Metrics
}

// Proxy is an http.Handler for all configured prefixes.
type Proxy struct {
	verify     func(r *http.Request) (*auth.Session, error)
	places     places
	upstreams  []*Upstream
	identities *identities // nil: none are signed
	rpc        *rpc        // nil: there is none
	rpcCounts  *counts
	buffers    *bufferPool
	ownCORS    bool
	stall      time.Duration // clientStall, except in tests
}

// New refuses settings that Check or CheckReserved find mistakes in.
func New(s Settings, o Options) (*Proxy, error) {
	if err := check(s, o); err != nil {
		return nil, err
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	p := &Proxy{
		verify: o.Verify, rpcCounts: o.Metrics.of("rpc"), stall: clientStall, ownCORS: o.OwnCORS,
		buffers: newBufferPool(), identities: newIdentities(s.Identity, o.Signer),
	}
	for _, settings := range s.Upstreams {
		u, err := newUpstream(settings, o.Metrics, o.Health)
		if err != nil {
			return nil, err
		}
		p.upstreams = append(p.upstreams, u)
	}
	for _, r := range s.Routes {
		rt, err := p.newRoute(r, o)
		if err != nil {
			return nil, err
		}
		p.places.add(rt, o.Metrics)
	}
	p.places.sort()
	return p, p.newRPC(o)
}

func check(s Settings, o Options) error {
	var problems []error
	report := func(path, problem string) { problems = append(problems, errors.New("proxy."+path+": "+problem)) }
	s.Check(report)
	s.CheckReserved(o.Reserved, report)
	reportRPC := func(path, problem string) { problems = append(problems, errors.New("rpc."+path+": "+problem)) }
	o.RPC.Check(reportRPC)
	s.CheckRPC(&o.RPC, reportRPC)
	return errors.Join(problems...)
}

func (p *Proxy) newRoute(r Route, o Options) (*route, error) {
	u, base, err := p.upstreamOf(r.Upstream, o)
	if err != nil {
		return nil, err
	}
	return &route{
		Route: r, base: base, upstream: u, transport: u.transport(r.Timeout),
		audience:  cmp.Or(r.Audience, u.settings.Audience, u.Name),
		users:     newLimiter[userKey](r.UserRate, r.UserBurst),
		addresses: newLimiter[addressKey](r.IPRate, r.IPBurst),
	}, nil
}

// upstreamOf finds the group of that name, or the one that stands for the host
// of a URL; base is the path in the URL.
func (p *Proxy) upstreamOf(name string, o Options) (u *Upstream, base target, err error) {
	for _, u := range p.upstreams {
		if name == u.settings.Name && name != "" {
			return u, base, nil
		}
	}
	to, err := parseUpstream(name)
	if err != nil {
		return nil, base, err
	}
	base = target{strings.TrimSuffix(to.Path, "/"), strings.TrimSuffix(to.EscapedPath(), "/")}
	for _, u := range p.upstreams {
		if u.settings.Name == "" && u.targets[0].address == address(to) && u.targets[0].base.Scheme == to.Scheme {
			return u, base, nil
		}
	}
	if u, err = newUpstream(groupOfOne(to), o.Metrics, o.Health); err != nil {
		return nil, base, err
	}
	p.upstreams = append(p.upstreams, u)
	return u, base, nil
}

// Prefixes are the paths to mount the proxy at, each once.
func (p *Proxy) Prefixes() []string {
	var prefixes []string
	for _, at := range p.places {
		prefixes = append(prefixes, at.prefix)
	}
	return prefixes
}

// Targets are the backends, for health checks.
func (p *Proxy) Targets() []*Target {
	var targets []*Target
	for _, u := range p.upstreams {
		targets = append(targets, u.targets...)
	}
	return targets
}

// Close drops idle connections. Requests under way are not touched.
func (p *Proxy) Close() {
	for _, u := range p.upstreams {
		u.closeIdle()
	}
}

// ServeHTTP answers 404 where no prefix matches.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := p.places.at(r.URL.Path)
	if at == nil {
		rest.Fail(w, r, errNoRoute)
		return
	}
	control := http.NewResponseController(w)
	x := &exchange{w: w, client: r.Context(), control: control, stall: p.stall, writes: rest.WriteDeadline(control, p.stall), http2: r.ProtoMajor > 1}
	start := time.Now()
	defer x.leaveBody()
	defer func() { at.counts.add(x.status, start) }() // also when a broken answer panics with ErrAbortHandler
	if err := p.forward(r, x); err != nil {
		x.end()
		x.fail(err)
		rest.Fail(w, r, err)
	}
}

// forward returns an error only while nothing has been answered.
func (p *Proxy) forward(r *http.Request, x *exchange) error {
	if problem := rest.OddPath(r.URL.EscapedPath()); problem != "" {
		return fault.New(fault.Invalid, "path_invalid", "This path is refused: "+problem+".")
	}
	method, err := effectiveMethod(r)
	if err != nil {
		x.w.Header().Set("Allow", strings.Join(methods, ", "))
		return err
	}
	if wantsSocket(r) {
		return fault.New(fault.Invalid, "upgrade_refused", "This path answers plain requests only; sockets connect to /connection/websocket.")
	}
	if err := p.admit(r, x); err != nil {
		return err
	}
	if r.ContentLength > int64(x.route.MaxBody) {
		return tooLarge(x.route)
	}
	if x.order.request, err = p.request(r, x, method); err != nil {
		return err
	}
	x.takeBody(r)
	res, t, err := x.route.upstream.send(&x.order)
	if err != nil {
		x.err = err
		return x.cause()
	}
	defer t.release()
	p.answer(x, res)
	return nil
}

// admit finds the request's route and who sends it, and whether he may.
func (p *Proxy) admit(r *http.Request, x *exchange) (err error) {
	credentials := r.Header.Get("Authorization")
	c := caller{
		bearer: isBearer(credentials), claimed: credentials != "",
		verify: func() (*auth.Session, error) { return p.verify(r) },
	}
	if x.route, err = p.places.find(r.URL.Path, &c); err != nil {
		return err
	}
	if x.route.addresses != nil {
		if err := x.route.limitAddress(clientIP(r)); err != nil {
			return err
		}
	}
	if x.session, err = c.of(x.route); err != nil {
		return err
	}
	return x.route.limitUserOf(x.session)
}

// request makes the backend's request out of the client's, without a body. The
// headers that Connection names are gone before ours are set, so a client
// cannot have what is set here taken out again.
func (p *Proxy) request(in *http.Request, x *exchange, method string) (*http.Request, error) {
	rt, o := x.route, &x.order
	signed, err := p.identities.of(x.session, rt.audience)
	if err != nil {
		return nil, err
	}
	h := addTo(passOn(in.Header))
	if rt.Login != LoginNone || slices.ContainsFunc(h.Values("Authorization"), isBearer) {
		h.Del("Authorization") // the token is between the client and us
	}
	if _, there := h.Header["User-Agent"]; !there {
		h.Header["User-Agent"] = noUserAgent
	}
	h.identity(x.session, signed)
	h.address(clientIP(in))
	h.set("X-Forwarded-Host", in.Host)
	h.set("X-Forwarded-Proto", scheme(in))
	h.set("X-Request-Id", rest.RequestID(in.Context()))

	// The parts of a new URL: the client's may name a user, which would become
	// a header. The query goes as it came: nothing here reads it.
	o.path, o.raw = rt.rewritten(in.URL.Path, in.URL.EscapedPath())
	o.query, o.force = in.URL.RawQuery, in.URL.ForceQuery
	o.ctx, o.transport = in.Context(), rt.transport
	if in.ProtoAtLeast(1, 1) { // older ones take it for the answer
		o.trace.Got1xxResponse = x.early
	}
	return &http.Request{Method: method, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h.Header, ContentLength: in.ContentLength}, nil
}

// noUserAgent keeps the transport from naming itself.
var noUserAgent = []string{""}

// takeBody prepares the client's body for reading, where there is one.
func (x *exchange) takeBody(r *http.Request) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		x.order.request.ContentLength = 0
		return
	}
	x.body = &clientBody{Reader: http.MaxBytesReader(x.w, r.Body, int64(x.route.MaxBody)), x: x, reads: rest.ReadDeadline(x.control, x.stall)}
	x.order.body = x.body
	x.order.ctx = x.body.watch(x.order.ctx)
	// Lets an answer begin while the request is still being read. HTTP/2
	// always does, and a recorder in a test has no use for it.
	_ = x.control.EnableFullDuplex()
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
