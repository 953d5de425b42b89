package proxy

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/settings"
)

func TestSettingsCheck(t *testing.T) {
	good := testRoute("/api/", "http://127.0.0.1:3000")
	with := func(change func(*Route)) []Route {
		r := good
		change(&r)
		return []Route{r}
	}
	for _, c := range []struct {
		name   string
		routes []Route
		want   string // path of the problem
	}{
		{"good", []Route{good, testRoute("/api/v2/", "https://[::1]/base/"), testRoute("/a-b_c.d~/", "http://x")}, ""},
		{"no slash at the end", with(func(r *Route) { r.Prefix = "/api" }), "routes[0].prefix"},
		{"no slash at the start", with(func(r *Route) { r.Prefix = "api/" }), "routes[0].prefix"},
		{"empty prefix", with(func(r *Route) { r.Prefix = "" }), "routes[0].prefix"},
		{"dot segment", with(func(r *Route) { r.Prefix = "/api/../" }), "routes[0].prefix"},
		{"double slash", with(func(r *Route) { r.Prefix = "//" }), "routes[0].prefix"},
		{"escape", with(func(r *Route) { r.Prefix = "/a%20b/" }), "routes[0].prefix"},
		{"wildcard", with(func(r *Route) { r.Prefix = "/{x}/" }), "routes[0].prefix"},
		{"twice", []Route{good, good}, "routes[1].prefix"},
		{"no scheme", with(func(r *Route) { r.Upstream = "127.0.0.1:3000" }), "routes[0].upstream"},
		{"other scheme", with(func(r *Route) { r.Upstream = "ftp://x" }), "routes[0].upstream"},
		{"no host", with(func(r *Route) { r.Upstream = "http://" }), "routes[0].upstream"},
		{"user", with(func(r *Route) { r.Upstream = "http://a:secret@x" }), "routes[0].upstream"},
		{"query", with(func(r *Route) { r.Upstream = "http://x?y" }), "routes[0].upstream"},
		{"fragment", with(func(r *Route) { r.Upstream = "http://x/#y" }), "routes[0].upstream"},
		{"odd path", with(func(r *Route) { r.Upstream = "http://x/../y" }), "routes[0].upstream"},
		{"timeout", with(func(r *Route) { r.Timeout = 0 }), "routes[0].timeout"},
		{"body", with(func(r *Route) { r.MaxBody = 0 }), "routes[0].max_body"},
		{"login", with(func(r *Route) { r.Login = "maybe" }), "routes[0].login"},
		{"no such group", with(func(r *Route) { r.Upstream = "app" }), "routes[0].upstream"},
		{"for some and all", append(with(func(r *Route) { r.AppIDs = []string{"wx1", "wx2"} }), good), ""},
		{"for the same", append(with(func(r *Route) { r.AppIDs = []string{"wx1"} }), with(func(r *Route) { r.AppIDs = []string{"wx2", "wx1"} })...), "routes[1].appids"},
		{"mini-program twice", with(func(r *Route) { r.AppIDs = []string{"wx1", "wx1"} }), "routes[0].appids"},
		{"public for some", with(func(r *Route) { r.AppIDs, r.Login = []string{"wx1"}, LoginNone }), "routes[0].login"},
		{"rewrite", with(func(r *Route) { r.Rewrite = "/v2" }), "routes[0].rewrite"},
		{"rewrite and strip", with(func(r *Route) { r.Rewrite, r.StripPrefix = "/v2/", true }), "routes[0].rewrite"},
		{"rate below zero", with(func(r *Route) { r.UserRate = -1 }), "routes[0].user_rate"},
		{"rate too small", with(func(r *Route) { r.IPRate = 1e-9 }), "routes[0].ip_rate"},
		{"no burst", with(func(r *Route) { r.IPBurst = 0 }), "routes[0].ip_burst"},
		{"users of a public route", with(func(r *Route) { r.UserRate, r.Login = 1, LoginNone }), "routes[0].user_rate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := map[string]string{}
			(&Settings{Routes: c.routes}).Check(func(path, problem string) { got[path] = problem })
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || got[c.want] == "") {
				t.Errorf("problems %v, want one at %q", got, c.want)
			}
			for _, problem := range got {
				if strings.Contains(problem, "secret") {
					t.Errorf("%q shows a password", problem)
				}
			}
		})
	}
}

func TestUpstreamSettingsCheck(t *testing.T) {
	for want, change := range map[string]func(*UpstreamSettings){
		"":                                        func(*UpstreamSettings) {},
		"upstreams[0].name":                       func(u *UpstreamSettings) { u.Name = "a b" },
		"upstreams[0].targets":                    func(u *UpstreamSettings) { u.Targets = nil },
		"upstreams[0].targets[0].url":             func(u *UpstreamSettings) { u.Targets[0].URL = "http://a:secret@x" },
		"upstreams[0].targets[1].url":             func(u *UpstreamSettings) { u.Targets[1].URL = "http://a:80/y" },
		"upstreams[0].targets[1].weight":          func(u *UpstreamSettings) { u.Targets[1].Weight = 0 },
		"upstreams[0].tries":                      func(u *UpstreamSettings) { u.Tries = 0 },
		"upstreams[0].connect_timeout":            func(u *UpstreamSettings) { u.ConnectTimeout = 0 },
		"upstreams[0].max_fails":                  func(u *UpstreamSettings) { u.MaxFails = 0 },
		"upstreams[0].fail_pause":                 func(u *UpstreamSettings) { u.FailPause = 0 },
		"upstreams[0].health_check.path":          func(u *UpstreamSettings) { u.HealthCheck.Path = "/a?b" },
		"upstreams[0].health_check.interval":      func(u *UpstreamSettings) { u.HealthCheck.Interval = 0 },
		"upstreams[0].health_check.timeout":       func(u *UpstreamSettings) { u.HealthCheck.Timeout = 0 },
		"upstreams[0].health_check.healthy_after": func(u *UpstreamSettings) { u.HealthCheck.HealthyAfter = 0 },
		"upstreams[1].name":                       func(u *UpstreamSettings) { u.Name = "b" },
		"upstreams[0].targets[2].url":             func(u *UpstreamSettings) { u.H2C, u.Targets = true, append(u.Targets, TargetSettings{"https://c", 1}) },
	} {
		u := group("a", "http://a/x", "http://b")
		change(&u)
		var got []string
		s := Settings{Upstreams: []UpstreamSettings{u, group("b", "http://a")}}
		s.Check(func(path, problem string) {
			got = append(got, path)
			if strings.Contains(problem, "secret") {
				t.Errorf("%q shows a password", problem)
			}
		})
		if strings.Join(got, " ") != want {
			t.Errorf("problems at %q, want %q", got, want)
		}
	}
}

func TestReservedPaths(t *testing.T) {
	reserved := []string{"/auth/", "/files", "/connection/websocket", "/wechat/"}
	for prefix, ok := range map[string]bool{
		"/api/": true, "/filesystem/": true, "/authors/": true, "/connections/": true, "/my/auth/": true,
		"/": false, "/auth/": false, "/auth/x/": false, "/files/": false, "/files/x/": false, "/connection/": false, "/wechat/push/": false,
	} {
		_, err := New(Settings{Routes: []Route{testRoute(prefix, "http://x")}}, Options{Reserved: reserved})
		if (err == nil) != ok {
			t.Errorf("prefix %s: %v", prefix, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	var r Route
	settings.Defaults(&r)
	want := testRoute("", "")
	if !reflect.DeepEqual(r, want) {
		t.Errorf("defaults are %+v, want %+v", r, want)
	}
}

func TestUpstreamsAreListedOnce(t *testing.T) {
	p, err := New(Settings{Routes: []Route{
		testRoute("/a/", "http://x:1/y"), testRoute("/longer/", "http://x:1"), testRoute("/c/", "https://x"), testRoute("/d/", "http://[::1]"),
	}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, u := range p.Targets() {
		names[u.Name] = true
	}
	if got := slices.Sorted(maps.Keys(names)); len(p.Targets()) != 3 || strings.Join(got, " ") != "[::1]:80 x:1 x:443" {
		t.Errorf("upstreams %v", got)
	}
	if p.Prefixes()[0] != "/longer/" {
		t.Errorf("prefixes %v", p.Prefixes())
	}
}
