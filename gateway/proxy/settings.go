package proxy

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/settings"
)

// What a route asks of its callers.
const (
	LoginRequired = "required" // 401 without a valid token
	LoginOptional = "optional" // no Authorization header: nobody; a bad one: 401
	LoginNone     = "none"     // nobody is asked, no identity is injected
)

// Settings say which paths are proxied where.
type Settings struct {
	Routes    []Route            `yaml:"routes" doc:"Path prefixes of wx.request that are passed on to a backend; the longest matching prefix wins."`
	Upstreams []UpstreamSettings `yaml:"upstreams" doc:"Named groups of backends that do the same work, for routes to lead to. A route that needs just one backend can name its URL instead."`
	Identity  IdentitySettings   `yaml:"identity" doc:"The header X-Minigate-Identity, which says who the caller is in a form that backends can verify (keys at /.well-known/jwks.json on the ops listener)."`
}

// Route passes every path under one prefix on to one upstream.
type Route struct {
	Prefix      string        `yaml:"prefix" doc:"Path prefix, starting and ending with a slash, such as /api/; letters, digits and - _ . ~ only."`
	AppIDs      []string      `yaml:"appids" doc:"Mini-programs whose users take this route. Of routes with the same prefix the one that names the caller's mini-program wins over the one that names none; callers nobody knows take the latter. Not with login: none."`
	Upstream    string        `yaml:"upstream" doc:"Where requests go: the name of one of proxy.upstreams, or an http or https URL without user and query. A path in a URL is put before the request's."`
	Timeout     time.Duration `yaml:"timeout" default:"30s" doc:"How long the backend may take to begin its answer once it has the whole request, and before that how long it may take nothing more of the body; the answer itself may then last as long as it likes."`
	MaxBody     settings.Size `yaml:"max_body" default:"16MiB" doc:"Largest request body in bytes; more is refused with 413."`
	Login       string        `yaml:"login" default:"required" doc:"Whether callers must be logged in: required, optional or none. Bearer credentials are never passed on; with none, other schemes are."`
	StripPrefix bool          `yaml:"strip_prefix" default:"false" doc:"Whether the prefix is cut off the path that the backend sees."`
	Rewrite     string        `yaml:"rewrite" doc:"Path that the backend sees instead of the prefix, starting and ending with a slash: with /v2/ the request /api/x of the prefix /api/ arrives as /v2/x."`
	Audience    string        `yaml:"audience" doc:"Whom the signed identity is for (aud). Empty: the audience of the upstream."`
	UserRate    float64       `yaml:"user_rate" default:"0" doc:"Requests per second that one user may send along this route, on each node; more are answered 429. 0 sets no limit."`
	UserBurst   int           `yaml:"user_burst" default:"20" doc:"Requests that one user may send at once before user_rate holds."`
	IPRate      float64       `yaml:"ip_rate" default:"0" doc:"Requests per second from one address (IPv6: one /64) along this route, on each node; more are answered 429. Many phones share the address of their carrier. 0 sets no limit."`
	IPBurst     int           `yaml:"ip_burst" default:"100" doc:"Requests that one address may send at once before ip_rate holds."`
}

// Check reports every mistake that needs no other settings to be seen.
func (s *Settings) Check(report func(path, problem string)) {
	s.checkUpstreams(report)
	for i := range s.Routes {
		r := &s.Routes[i]
		in := func(path, problem string) { report(fmt.Sprintf("routes[%d].%s", i, path), problem) }
		if problem := prefixProblem(r.Prefix); problem != "" {
			in("prefix", problem)
		} else {
			r.checkOthers(s.Routes[:i], in)
		}
		if s.upstream(r.Upstream) == nil {
			if _, err := parseUpstream(r.Upstream); err != nil && strings.ContainsAny(r.Upstream, ":/") {
				in("upstream", err.Error())
			} else if err != nil {
				in("upstream", "is neither an http or https URL nor the name of one of proxy.upstreams")
			}
		}
		r.check(in)
	}
	s.Identity.check(func(path, problem string) { report("identity."+path, problem) })
}

// checkOthers wants one route at most for a mini-program at a prefix.
func (r *Route) checkOthers(others []Route, report func(path, problem string)) {
	for _, o := range others {
		if o.Prefix != r.Prefix {
			continue
		}
		if len(r.AppIDs) == 0 && len(o.AppIDs) == 0 {
			report("prefix", "is the same as another route's")
			return
		}
		for _, id := range r.AppIDs {
			if slices.Contains(o.AppIDs, id) {
				report("appids", "has "+id+", as has another route with this prefix")
				return
			}
		}
	}
}

func (r *Route) check(report func(path, problem string)) {
	for i, id := range r.AppIDs {
		if id == "" || slices.Contains(r.AppIDs[:i], id) {
			report("appids", "must not have empty or equal entries")
		}
	}
	if r.Timeout <= 0 {
		report("timeout", "must be more than 0")
	}
	if r.MaxBody <= 0 {
		report("max_body", "must be more than 0")
	}
	switch {
	case r.Login != LoginRequired && r.Login != LoginOptional && r.Login != LoginNone:
		report("login", "must be required, optional or none")
	case r.Login == LoginNone && len(r.AppIDs) > 0:
		report("login", "must not be none with appids: whose mini-program it is only a login says")
	}
	if r.Rewrite != "" {
		if problem := prefixProblem(r.Rewrite); problem != "" {
			report("rewrite", problem)
		} else if r.StripPrefix {
			report("rewrite", "does not go with strip_prefix, which is the same as rewrite: /")
		}
	}
	checkRate("user", r.UserRate, r.UserBurst, report)
	checkRate("ip", r.IPRate, r.IPBurst, report)
	if r.UserRate > 0 && r.Login == LoginNone {
		report("user_rate", "does not go with login: none, where no user is known")
	}
}

func checkRate(name string, rate float64, burst int, report func(path, problem string)) {
	// Less than one an hour is more likely a mistake than a wish, and bounds
	// how long a bucket has to be remembered.
	if rate < 0 || rate > 1e6 || rate > 0 && rate < 1.0/3600 {
		report(name+"_rate", "must be 0 for no limit, or between one in an hour and 1000000 in a second")
	}
	if burst < 1 || burst > 1e6 {
		report(name+"_burst", "must be between 1 and 1000000")
	}
}

// CheckReserved reports every prefix that would take paths from the gateway
// itself or would never be reached because the gateway answers there.
func (s *Settings) CheckReserved(reserved []string, report func(path, problem string)) {
	for i, r := range s.Routes {
		prefix := strings.TrimRight(r.Prefix, "/") + "/"
		for _, own := range reserved {
			own = strings.TrimRight(own, "/") + "/"
			if strings.HasPrefix(prefix, own) || strings.HasPrefix(own, prefix) {
				report(fmt.Sprintf("routes[%d].prefix", i), "overlaps the gateway's own path "+own)
			}
		}
	}
}

// prefixProblem keeps prefixes to characters that have one spelling in a URL
// and no meaning in a ServeMux pattern.
func prefixProblem(prefix string) string {
	if !strings.HasPrefix(prefix, "/") || !strings.HasSuffix(prefix, "/") {
		return "must start and end with a slash"
	}
	for _, c := range []byte(prefix) {
		if !isAlnum(c) && !strings.ContainsRune("/-_.~", rune(c)) {
			return "may contain letters, digits and - _ . ~ only"
		}
	}
	if rest.OddPath(prefix) != "" {
		return "must not contain empty, . or .. segments"
	}
	return ""
}

func parseUpstream(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL") // the parser's own message repeats what may hold a password
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("must be an http or https URL")
	case u.Hostname() == "":
		return nil, errors.New("has no host")
	case u.User != nil:
		return nil, errors.New("must not contain a user or password")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("must not contain a query or fragment")
	case rest.OddPath(u.EscapedPath()) != "" && u.Path != "":
		return nil, errors.New("must not contain empty, . or .. segments")
	}
	return u, nil
}
