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
	Routes []Route `yaml:"routes" doc:"Path prefixes of wx.request that are passed on to a backend; the longest matching prefix wins."`
}

// Route passes every path under one prefix on to one upstream.
type Route struct {
	Prefix      string        `yaml:"prefix" doc:"Path prefix, starting and ending with a slash, such as /api/; letters, digits and - _ . ~ only."`
	Upstream    string        `yaml:"upstream" doc:"Where requests go: an http or https URL without user and query; a path in it is put before the request's."`
	Timeout     time.Duration `yaml:"timeout" default:"30s" doc:"How long the backend may take to begin its answer once it has the whole request; the answer itself may then last as long as it likes."`
	MaxBody     settings.Size `yaml:"max_body" default:"16MiB" doc:"Largest request body in bytes; more is refused with 413."`
	Login       string        `yaml:"login" default:"required" doc:"Whether callers must be logged in: required, optional or none. Bearer credentials are never passed on; with none, other schemes are."`
	StripPrefix bool          `yaml:"strip_prefix" default:"false" doc:"Whether the prefix is cut off the path that the backend sees."`
}

// Check reports every mistake that needs no other settings to be seen.
func (s *Settings) Check(report func(path, problem string)) {
	for i, r := range s.Routes {
		at := fmt.Sprintf("routes[%d].", i)
		if problem := prefixProblem(r.Prefix); problem != "" {
			report(at+"prefix", problem)
		} else if slices.ContainsFunc(s.Routes[:i], func(o Route) bool { return o.Prefix == r.Prefix }) {
			report(at+"prefix", "is the same as another route's")
		}
		if _, err := parseUpstream(r.Upstream); err != nil {
			report(at+"upstream", err.Error())
		}
		if r.Timeout <= 0 {
			report(at+"timeout", "must be more than 0")
		}
		if r.MaxBody <= 0 {
			report(at+"max_body", "must be more than 0")
		}
		if r.Login != LoginRequired && r.Login != LoginOptional && r.Login != LoginNone {
			report(at+"login", "must be required, optional or none")
		}
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
