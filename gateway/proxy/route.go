package proxy

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

// route is a Route that is ready for requests.
type route struct {
	Route
	base      target // what stands before every path, where the upstream is a URL
	upstream  *Upstream
	transport *http.Transport
	audience  string
	users     *limiter[userKey] // nil: no limit
	addresses *limiter[addressKey]
	counts    *counts
}

// place is a prefix and the routes that begin there.
type place struct {
	prefix  string
	general *route            // for everybody else; nil: there is none
	byApp   map[string]*route // by mini-program
	counts  *counts
}

// places are all prefixes, the longest first.
type places []*place

func (ps *places) add(rt *route, m *Metrics) {
	i := slices.IndexFunc(*ps, func(p *place) bool { return p.prefix == rt.Prefix })
	if i < 0 {
		i = len(*ps)
		*ps = append(*ps, &place{prefix: rt.Prefix, byApp: map[string]*route{}, counts: m.of(rt.Prefix)})
	}
	p := (*ps)[i]
	rt.counts = p.counts
	if len(rt.AppIDs) == 0 {
		p.general = rt
	}
	for _, id := range rt.AppIDs {
		p.byApp[id] = rt
	}
}

func (ps places) sort() {
	slices.SortStableFunc(ps, func(a, b *place) int { return cmp.Compare(len(b.prefix), len(a.prefix)) })
}

// at finds the longest prefix of path.
func (ps places) at(path string) *place {
	for _, p := range ps {
		if strings.HasPrefix(path, p.prefix) {
			return p
		}
	}
	return nil
}

var (
	errNoRoute    = fault.New(fault.NotFound, "not_found", "There is nothing at this path.")
	errNotForThis = fault.New(fault.NotFound, "not_found", "There is nothing at this path for this mini-program.")
)

// find chooses the route of a caller: the longest prefix counts first, then
// the mini-program. A prefix with nothing for this caller leaves him to a
// shorter one. Nobody is asked who he is where all routes are for everybody.
func (ps places) find(path string, c *caller) (*route, error) {
	refusal := errNoRoute
	for _, p := range ps {
		if !strings.HasPrefix(path, p.prefix) {
			continue
		}
		if len(p.byApp) > 0 {
			s, err := c.known()
			if err != nil {
				return nil, err
			}
			if s != nil && p.byApp[s.User.AppID] != nil {
				return p.byApp[s.User.AppID], nil
			}
			refusal = errNotForThis
		}
		if p.general != nil {
			return p.general, nil
		}
	}
	if refusal == errNotForThis { // a login may lead on
		if _, err := c.login(); err != nil {
			return nil, err
		}
	}
	return nil, refusal
}

// caller is who sent a request, found out at most once and only where
// somebody wants to know.
type caller struct {
	bearer  bool // he brought a token
	claimed bool // he brought credentials of any kind
	verify  func() (*auth.Session, error)

	asked   bool
	session *auth.Session // nil: nobody
	err     error
}

// login is who he is, an error where he is nobody.
func (c *caller) login() (*auth.Session, error) {
	if !c.asked {
		c.session, c.err = c.verify()
		c.asked = true
	}
	return c.session, c.err
}

// known is who he is, nil where he brought no token.
func (c *caller) known() (*auth.Session, error) {
	if !c.bearer {
		return nil, nil
	}
	return c.login()
}

// of is who he is to a route.
func (c *caller) of(rt *route) (*auth.Session, error) {
	if rt.Login == LoginNone || rt.Login == LoginOptional && !c.claimed {
		return nil, nil
	}
	return c.login()
}

// target is where a path is put behind.
type target struct{ path, raw string }

// rewritten is the path that the target sees, as it is and as it was escaped.
// The prefix may be spelled with escapes in raw.
func (rt *route) rewritten(path, raw string) (string, string) {
	switch {
	case rt.StripPrefix:
		path, raw = path[len(rt.Prefix)-1:], cutPrefix(raw, rt.Prefix)
	case rt.Rewrite != "":
		path, raw = rt.Rewrite+path[len(rt.Prefix):], rt.Rewrite+cutPrefix(raw, rt.Prefix)[1:]
	}
	return rt.base.path + path, rt.base.raw + raw
}
