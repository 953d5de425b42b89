package proxy

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/settings"
)

func callAlongRoutes(t *testing.T, path string) RPCSettings {
	t.Helper()
	var s RPCSettings
	settings.Defaults(&s)
	s.Routes, s.Path = true, path
	return s
}

// TestCallsTakeTheRoutesOfRequests: a call is what wx.request sends when it
// posts the same to the path of the method.
func TestCallsTakeTheRoutesOfRequests(t *testing.T) {
	captureLogs(t)
	s, other, signer := &seen{}, &seen{}, newSigner(t)
	api := testRoute("/api/", "app")
	api.Rewrite = "/v2/"
	two := testRoute("/api/", backend(t, other).URL)
	two.AppIDs = []string{"wx2"}
	g := newGateOf(t, Options{Signer: signer, RPC: callAlongRoutes(t, "/api/{method}"), Health: func(string, error) {}}, Settings{
		Routes: []Route{api, two}, Identity: identityOn(),
		Upstreams: []UpstreamSettings{group("app", "http://"+newSleepingPort(t).addr, backend(t, s).URL)},
	}).start()
	session := &auth.Session{Fingerprint: annFingerprint, User: ann, Claims: json.RawMessage(annClaims)}
	call := Call{Session: session, Client: "c-1", IP: "203.0.113.7", Method: "orders/list", Data: json.RawMessage(`{"page":2}`)}
	answer, err := g.proxy.Call(t.Context(), call) // the first target is away
	if err != nil || string(answer) != "hello" {
		t.Fatalf("%s %v", answer, err)
	}
	byCall, body := s.last(t), s.bodies[0]
	g.do(g.request("POST", "/api/orders/list", strings.NewReader(`{"page":2}`), "Content-Type", "application/json"))
	byRequest := s.last(t)
	if byCall.Method != byRequest.Method || byCall.RequestURI != byRequest.RequestURI || byCall.RequestURI != "/v2/orders/list" || body != s.bodies[1] {
		t.Errorf("call: %s %s %s; request: %s %s %s", byCall.Method, byCall.RequestURI, body, byRequest.Method, byRequest.RequestURI, s.bodies[1])
	}
	for _, name := range []string{headerOpenID, headerAppID, headerUnionID, headerClaims, headerSource, headerIdentity, "X-Forwarded-For", "Content-Type", "Authorization"} {
		if a, b := byCall.Header.Get(name), byRequest.Header.Get(name); a != b {
			t.Errorf("%s: %q by a call, %q by a request", name, a, b)
		}
	}
	if byCall.Header.Get(headerClient) != "c-1" || byRequest.Header.Get(headerClient) != "" || byCall.Header.Get("X-Request-Id") == "" {
		t.Errorf("by a call %v", byCall.Header)
	}
	call.Session = &auth.Session{User: auth.User{AppID: "wx2", OpenID: "o-tom"}}
	if _, err := g.proxy.Call(t.Context(), call); err != nil || other.count() != 1 {
		t.Errorf("the mini-program's own route: %v, asked %d times", err, other.count())
	}
}

func TestCallsFollowTheRulesOfRoutes(t *testing.T) {
	s := &seen{}
	url := backend(t, s).URL
	public, small, slow := testRoute("/rpc/public/", url), testRoute("/rpc/small/", url), testRoute("/rpc/slow/", url)
	public.Login, small.MaxBody = LoginNone, 8
	slow.UserRate, slow.UserBurst = 1.0/60, 1
	slow.IPRate, slow.IPBurst = 1.0/60, 2
	only := testRoute("/rpc/only/", url)
	only.AppIDs = []string{"wx9"}
	g := newGateOf(t, Options{RPC: callAlongRoutes(t, "/rpc/{method}")}, Settings{
		Routes: []Route{public, small, slow, only, testRoute("/rpc/user/", url)},
	})
	session := func(u auth.User) *auth.Session { return &auth.Session{User: u} }
	for _, c := range []struct {
		name string
		call Call
		kind fault.Kind
		code string
	}{
		{"logged in", Call{Session: session(ann), Method: "user/x"}, 0, ""},
		{"nobody", Call{Method: "user/x"}, fault.Unauthenticated, "login_required"},
		{"nobody on a public route", Call{Method: "public/x"}, 0, ""},
		{"no route", Call{Session: session(ann), Method: "elsewhere"}, fault.NotFound, "not_found"},
		{"another mini-program's", Call{Session: session(ann), Method: "only/x"}, fault.NotFound, "not_found"},
		{"nobody where all are for some", Call{Method: "only/x"}, fault.Unauthenticated, "login_required"},
		{"no method", Call{Session: session(ann), Method: "../x"}, fault.NotFound, "rpc_method_unknown"},
		{"too large", Call{Session: session(ann), Method: "small/x", Data: json.RawMessage(`"1234567"`)}, fault.TooLarge, "body_too_large"},
		{"first of two", Call{Session: session(ann), Method: "slow/x", IP: "203.0.113.1"}, 0, ""},
		{"second of a user", Call{Session: session(ann), Method: "slow/x", IP: "203.0.113.2"}, fault.Limited, "request_rate"},
		{"another user", Call{Session: session(bob), Method: "slow/x", IP: "203.0.113.1"}, 0, ""},
		{"third of an address", Call{Session: session(auth.User{OpenID: "o-eve"}), Method: "slow/x", IP: "203.0.113.1"}, fault.Limited, "request_rate"},
	} {
		before := s.count()
		_, err := g.proxy.Call(t.Context(), c.call)
		if c.code == "" {
			if err != nil || s.count() != before+1 {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if e := fault.Of(err); err == nil || e.Kind != c.kind || e.Code != c.code || s.count() != before {
			t.Errorf("%s: %v, asked %d times", c.name, err, s.count()-before)
		}
	}
	// A public route hears of nobody, as with wx.request.
	if _, err := g.proxy.Call(t.Context(), Call{Session: session(ann), Method: "public/x"}); err != nil || s.last(t).Header.Get(headerOpenID) != "" {
		t.Errorf("%v, the backend saw %v", err, s.last(t).Header)
	}
}

func TestCallsToAGroup(t *testing.T) {
	captureLogs(t)
	b := backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) }))
	rpc := rpcSettings("app")
	p, err := New(Settings{Upstreams: []UpstreamSettings{group("app", "http://"+newSleepingPort(t).addr, b.URL+"/base")}}, Options{RPC: rpc})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	answer, err := p.Call(t.Context(), Call{Method: "m"})
	if err != nil || string(answer) != "/base/rpc/m" {
		t.Errorf("%s %v", answer, err)
	}
}

func TestCallsNeedSomewhereToGo(t *testing.T) {
	routes := []Route{testRoute("/api/v1/", "http://x")}
	for path, ok := range map[string]bool{
		"/api/v1/{method}": true, "/api/{method}": true, "/{method}": true, "/api/v1/x-{method}": true,
		"/rpc/{method}": false, "/api/v2/{method}": false, "/api/v1{method}": true, "/api/v12{method}": false,
	} {
		_, err := New(Settings{Routes: routes}, Options{RPC: callAlongRoutes(t, path)})
		if (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
	}
	both := callAlongRoutes(t, "/api/v1/{method}")
	both.Upstream = "http://x"
	if _, err := New(Settings{Routes: routes}, Options{RPC: both}); err == nil {
		t.Error("an upstream beside the routes")
	}
	if _, err := New(Settings{Routes: routes}, Options{RPC: rpcSettings("nowhere")}); err == nil {
		t.Error("a group that does not exist")
	}
}
