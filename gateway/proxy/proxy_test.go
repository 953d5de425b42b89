package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/internal/rest"
)

func TestIdentityReachesTheBackend(t *testing.T) {
	s := &seen{}
	b := backend(t, s)
	public, optional := testRoute("/public/", b.URL), testRoute("/optional/", b.URL)
	public.Login, optional.Login = LoginNone, LoginOptional
	g := newGate(t, Options{}, testRoute("/api/", b.URL), public, optional).start()

	for _, c := range []struct {
		name, path, authorization string
		status                    int
		openid, unionid, forwards string
	}{
		{"logged in", "/api/x", "Bearer ann", 200, "o-ann", "u-ann", ""},
		{"without unionid", "/api/x", "Bearer bob", 200, "o-bob", "", ""},
		{"no token", "/api/x", "", 401, "", "", ""},
		{"bad token", "/api/x", "Bearer nobody", 401, "", "", ""},
		{"sessions away", "/api/x", "Bearer away", 503, "", "", ""},
		{"optional, nobody", "/optional/x", "", 200, "", "", ""},
		{"optional, somebody", "/optional/x", "Bearer ann", 200, "o-ann", "u-ann", ""},
		{"optional, bad token", "/optional/x", "Bearer nobody", 401, "", "", ""},
		{"public", "/public/x", "", 200, "", "", ""},
		{"public with the backend's own credentials", "/public/x", "Basic YTpi", 200, "", "", "Basic YTpi"},
		{"public with our token", "/public/x", "Bearer ann", 200, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := s.count()
			r := g.request("GET", c.path, nil)
			r.Header.Del("Authorization")
			if c.authorization != "" {
				r.Header.Set("Authorization", c.authorization)
			}
			res, body := g.do(r)
			if res.StatusCode != c.status {
				t.Fatalf("got %d %s, want %d", res.StatusCode, body, c.status)
			}
			if c.status != 200 {
				if s.count() != before {
					t.Fatal("the backend was asked")
				}
				return
			}
			h := s.last(t).Header
			if h.Get("X-WX-OPENID") != c.openid || h.Get("X-WX-UNIONID") != c.unionid {
				t.Errorf("backend saw openid %q unionid %q", h.Get("X-WX-OPENID"), h.Get("X-WX-UNIONID"))
			}
			if (c.openid != "") != (h.Get("X-WX-APPID") == "wx1") {
				t.Errorf("backend saw appid %q", h.Get("X-WX-APPID"))
			}
			if h.Get("Authorization") != c.forwards {
				t.Errorf("backend saw Authorization %q, want %q", h.Get("Authorization"), c.forwards)
			}
		})
	}
}

func TestUnauthenticatedAnswerIsJSON(t *testing.T) {
	g := newGate(t, Options{}, testRoute("/api/", "http://127.0.0.1:1")).start()
	r := g.request("GET", "/api/", nil)
	r.Header.Del("Authorization")
	res, body := g.do(r)
	wantError(t, res, body, 401, "token_invalid")
	if ct := res.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") {
		t.Errorf("Content-Type %q", ct)
	}
}

func TestWhatPassesThrough(t *testing.T) {
	s := &seen{}
	b := backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		w.Header().Set("Connection", "X-Private")
		w.Header().Set("X-Private", "hop")
		s.ServeHTTP(w, r)
	}))
	g := newGate(t, Options{}, testRoute("/api/", b.URL)).start()
	referer := "https://servicewechat.com/wx1/0/page-frame.html"
	res, _ := g.do(g.request("POST", "/api/a%20b/%E4%BD%A0?q=a;b&x=%zz&&", strings.NewReader("body"),
		"Referer", referer, "Cookie", "c=3; d=4", "Connection", "X-Hop, keep-alive", "X-Hop", "1", "Keep-Alive", "5",
		"X-Forwarded-For", "6.6.6.6", "Forwarded", "for=6.6.6.6", "X-Real-Ip", "6.6.6.6", "X-Request-Id", "evil", "X_Forwarded_For", "6.6.6.6"))

	if got := res.Header.Values("Set-Cookie"); len(got) != 2 {
		t.Errorf("cookies of the answer: %q", got)
	}
	if res.Header.Get("X-Private") != "" {
		t.Error("a hop-by-hop header of the answer passed")
	}
	r := s.last(t)
	if want := "/api/a%20b/%E4%BD%A0?q=a;b&x=%zz&&"; r.RequestURI != want {
		t.Errorf("backend saw %s, want %s", r.RequestURI, want)
	}
	for name, want := range map[string]string{
		"Referer": referer, "Cookie": "c=3; d=4", "X-Hop": "", "Keep-Alive": "", "Forwarded": "", "X-Real-Ip": "", "X_forwarded_for": "",
		"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "http", "X-Forwarded-Host": strings.TrimPrefix(g.URL, "http://"),
		"X-Request-Id": "req-1", "Accept-Encoding": "gzip", // the client's own
	} {
		if got := strings.Join(r.Header[name], "|"); got != want {
			t.Errorf("backend saw %s: %q, want %q", name, got, want)
		}
	}
	if r.Host != strings.TrimPrefix(b.URL, "http://") {
		t.Errorf("backend saw Host %q", r.Host)
	}
}

func TestSchemeIsTheClients(t *testing.T) {
	r := httptest.NewRequest("GET", "/api/", nil)
	if got := scheme(r); got != "http" {
		t.Errorf("got %q", got)
	}
	r = r.WithContext(rest.WithInfo(r.Context(), &rest.Info{Scheme: "https"})) // TLS ended before us
	if got := scheme(r); got != "https" {
		t.Errorf("got %q", got)
	}
}

func TestMethods(t *testing.T) {
	s := &seen{}
	g := newGate(t, Options{}, testRoute("/api/", backend(t, s).URL)).start()
	override := "X-Http-Method-Override"
	for _, c := range []struct {
		method string
		header []string
		want   string // what the backend sees, or the error code
		status int
	}{
		{"GET", nil, "GET", 200},
		{"HEAD", nil, "HEAD", 200},
		{"PUT", nil, "PUT", 200},
		{"DELETE", nil, "DELETE", 200},
		{"OPTIONS", nil, "OPTIONS", 200},
		{"PATCH", nil, "PATCH", 200},
		{"TRACE", nil, "method_not_allowed", 405},
		{"PROPFIND", nil, "method_not_allowed", 405},
		{"get", nil, "method_not_allowed", 405},
		{"POST", []string{override, "PATCH"}, "PATCH", 200},
		{"POST", []string{override, "patch"}, "PATCH", 200},
		{"POST", []string{override, "DELETE"}, "DELETE", 200},
		{"POST", []string{override, "GET"}, "method_override_invalid", 400},
		{"POST", []string{override, "CONNECT"}, "method_override_invalid", 400},
		{"POST", []string{override, ""}, "method_override_invalid", 400},
		{"POST", []string{override, "PATCH", override, "DELETE"}, "method_override_invalid", 400},
		{"GET", []string{override, "DELETE"}, "GET", 200},
		{"POST", []string{"X_http_method_override", "DELETE"}, "POST", 200},
		{"POST", []string{"X-Method-Override", "DELETE"}, "POST", 200},
	} {
		t.Run(c.method+fmt.Sprint(c.header), func(t *testing.T) {
			res, body := g.do(g.request(c.method, "/api/x", nil, c.header...))
			if c.status != 200 {
				wantError(t, res, body, c.status, c.want)
				if c.status == 405 && !strings.Contains(res.Header.Get("Allow"), "PATCH") {
					t.Errorf("Allow: %q", res.Header.Get("Allow"))
				}
				return
			}
			r := s.last(t)
			if res.StatusCode != 200 || r.Method != c.want {
				t.Errorf("got %d, backend saw %s", res.StatusCode, r.Method)
			}
			for name := range r.Header {
				if strings.Contains(strings.ToLower(name), "method") {
					t.Errorf("backend saw %s: %q", name, r.Header[name])
				}
			}
		})
	}
}

func TestUpgradeIsRefused(t *testing.T) {
	s := &seen{}
	g := newGate(t, Options{}, testRoute("/api/", backend(t, s).URL)).start()
	for _, header := range [][]string{
		{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-Websocket-Key", "x"},
		{"Connection", "keep-alive, upgrade", "Upgrade", "h2c"},
		{"Upgrade", "websocket"},
		{"Sec-Websocket-Key", "x"},
	} {
		res, body := g.do(g.request("GET", "/api/", nil, header...))
		wantError(t, res, body, 400, "upgrade_refused")
		if !strings.Contains(body, "/connection/websocket") {
			t.Errorf("%s does not say where sockets connect", body)
		}
	}
	if s.count() > 0 {
		t.Error("the backend was asked")
	}
}

func TestRouting(t *testing.T) {
	named := func(name string) string {
		return backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintf(w, "%s %s", name, r.RequestURI)
		})).URL
	}
	cut := testRoute("/cut/it/", named("cut")+"/base/")
	cut.StripPrefix = true
	g := newGate(t, Options{},
		testRoute("/api/", named("short")), testRoute("/api/v2/", named("long")), cut, testRoute("/deep/", named("deep")+"/a%20b")).start()

	for path, want := range map[string]string{
		"/api/":                "short /api/",
		"/api/v1?q":            "short /api/v1?q",
		"/api/v2":              "short /api/v2",
		"/api/v2/":             "long /api/v2/",
		"/api/v2/x":            "long /api/v2/x",
		"/%61pi/v2/x":          "long /%61pi/v2/x",
		"/cut/it/":             "cut /base/",
		"/cut/it/a%3Bb/c?":     "cut /base/a%3Bb/c?",
		"/c%75t/i%74/a%20b":    "cut /base/a%20b",
		"/deep/x":              "deep /a%20b/deep/x",
		"/api/a..b/.well/...x": "short /api/a..b/.well/...x",
		"/api/100%25/x":        "short /api/100%25/x",
		"/api":                 "404", "/": "404", "/apiv2/x": "404", "/API/x": "404", "/cut/": "404",
	} {
		res, body := g.do(g.request("GET", path, nil))
		if want == "404" {
			wantError(t, res, body, 404, "not_found")
		} else if body != want {
			t.Errorf("GET %s: got %q, want %q", path, body, want)
		}
	}
}

func TestBodies(t *testing.T) {
	s := &seen{}
	small := testRoute("/api/", backend(t, s).URL)
	small.MaxBody = 1 << 20
	g := newGate(t, Options{}, small).start()

	full := strings.Repeat("x", 1<<20)
	for name, r := range map[string]*http.Request{
		"with length": g.request("POST", "/api/", strings.NewReader(full)),
		"chunked":     g.request("POST", "/api/", struct{ *strings.Reader }{strings.NewReader(full)}),
	} {
		if res, body := g.do(r); res.StatusCode != 200 {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
		if s.bodies[len(s.bodies)-1] != full {
			t.Errorf("%s: the backend got another body", name)
		}
	}
	before := s.count()
	res, body := g.do(g.request("POST", "/api/", strings.NewReader(full+"x")))
	wantError(t, res, body, 413, "body_too_large")
	if s.count() != before {
		t.Error("a declared length above the limit reached the backend")
	}
	res, body = g.do(g.request("POST", "/api/", struct{ *strings.Reader }{strings.NewReader(full + "x")}))
	wantError(t, res, body, 413, "body_too_large")
}

func TestMetrics(t *testing.T) {
	b := backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/odd" {
			w.WriteHeader(799)
		}
	}))
	g := newGate(t, Options{}, testRoute("/api/", b.URL)).start()
	for _, path := range []string{"/api/ok", "/api/odd", "/api/..", "/elsewhere"} {
		g.do(g.request("GET", path, nil))
	}
	g.busy.Wait()
	for code, want := range map[string]float64{"200": 1, "other": 1, "400": 1, "404": 0} {
		if got := testutil.ToFloat64(g.proxy.places[0].counts.metrics.requests.WithLabelValues("/api/", code)); got != want {
			t.Errorf("code %s counted %v times, want %v", code, got, want)
		}
	}
	problems, err := testutil.GatherAndLint(g.metrics)
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}
