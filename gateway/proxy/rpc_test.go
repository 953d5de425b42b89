package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/settings"
)

func rpcSettings(upstream string) RPCSettings {
	var s RPCSettings
	settings.Defaults(&s)
	s.Upstream = upstream
	return s
}

func newRPC(t *testing.T, s RPCSettings) *Proxy {
	t.Helper()
	p, err := New(Settings{}, Options{Verify: verify, RPC: s, Metrics: NewMetrics(prometheus.NewRegistry()), Health: func(string, error) {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// A call is a POST with the identity headers that requests have.
func TestCall(t *testing.T) {
	var got *http.Request
	var body []byte
	p := newRPC(t, rpcSettings(serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"ok":true}`)
	})+"/base"))
	answer, err := p.Call(t.Context(), Call{
		Session: &auth.Session{User: ann, Claims: json.RawMessage(annClaims)},
		Client:  "c-1", IP: "203.0.113.7", Method: "orders/list", Data: json.RawMessage(`{"page":2}`),
	})
	if err != nil || string(answer) != `{"ok":true}` {
		t.Fatalf("%s %v", answer, err)
	}
	if got.Method != "POST" || got.URL.Path != "/base/rpc/orders/list" || got.URL.RawQuery != "" || string(body) != `{"page":2}` {
		t.Errorf("asked %s %s %s", got.Method, got.URL, body)
	}
	for name, want := range map[string]string{
		"X-Wx-Openid": "o-ann", "X-Wx-Unionid": "u-ann", "X-Wx-Appid": "wx1", "X-Wx-Claims": annClaims,
		"X-Forwarded-For": "203.0.113.7", "X-Minigate-Client": "c-1", "Content-Type": "application/json",
	} {
		if h := got.Header.Get(name); h != want {
			t.Errorf("%s: %q, want %q", name, h, want)
		}
	}
	if got.Header.Get("X-Request-Id") == "" {
		t.Error("no X-Request-Id")
	}
	if _, err = p.Call(t.Context(), Call{Session: &auth.Session{User: auth.User{OpenID: "u"}}, Method: "m"}); err != nil {
		t.Fatal(err)
	}
	if _, there := got.Header["X-Wx-Appid"]; there || string(body) != "null" {
		t.Errorf("user without a mini-program: %v %s", got.Header, body)
	}
	if _, err = p.Call(t.Context(), Call{Method: "m"}); err != nil {
		t.Fatal(err)
	}
	if _, there := got.Header["X-Wx-Openid"]; there {
		t.Errorf("nobody: %v", got.Header)
	}
	if n := testutil.ToFloat64(p.rpcCounts.metrics.requests.WithLabelValues("rpc", "200")); n != 3 {
		t.Errorf("%v calls counted", n)
	}
}

// What comes of the backend's answers.
func TestCallAnswers(t *testing.T) {
	long := strings.Repeat("离", 1000)
	for name, tc := range map[string]struct {
		status int
		body   string
		want   string // data, kind of the error, or the error of the backend
	}{
		"ok":                  {200, `1`, "data 1"},
		"created":             {201, `{"id":7}`, `data {"id":7}`},
		"no content":          {204, ``, "data "},
		"error in a 200":      {200, `{"error":{"code":1000,"message":"m"}}`, `data {"error":{"code":1000,"message":"m"}}`},
		"own error":           {400, `{"error":{"code":1000,"message":"no stock"}}`, "said 1000 no stock"},
		"own temporary error": {503, `{"error":{"code":400,"message":"soon","temporary":true}}`, "said 400 soon (temporary)"},
		"code too small":      {400, `{"error":{"code":103,"message":"m"}}`, "kind 400"},
		"code too large":      {400, `{"error":{"code":2000,"message":"m"}}`, "kind 400"},
		"code of text":        {403, `{"error":{"code":"forbidden","message":"m"}}`, "kind 403"},
		"code below zero":     {404, `{"error":{"code":-1000,"message":"m"}}`, "kind 404"},
		"error of text":       {404, `{"error":"not here"}`, "kind 404"},
		"long message":        {400, `{"error":{"code":1000,"message":"` + long + `"}}`, "said 1000 " + long[:3*341]},
		"unauthorized":        {401, ``, "kind 401"},
		"forbidden":           {403, `<html>`, "kind 403"},
		"not found":           {404, ``, "kind 404"},
		"timeout":             {408, ``, "kind 504"},
		"conflict":            {409, ``, "kind 400"},
		"too many":            {429, ``, "kind 429"},
		"redirection":         {302, ``, "kind 502"},
		"broken":              {500, ``, "kind 502"},
		"away":                {503, ``, "kind 502"},
		"at the limit":        {200, `"` + strings.Repeat("x", 1022) + `"`, `data "` + strings.Repeat("x", 1022) + `"`},
		"too large":           {200, `"` + strings.Repeat("x", 1023) + `"`, "kind 502"},
	} {
		t.Run(name, func(t *testing.T) {
			s := rpcSettings(serve(t, func(w http.ResponseWriter, r *http.Request) {
				if tc.status == 302 {
					w.Header().Set("Location", "/elsewhere")
				}
				w.WriteHeader(tc.status)
				if r.URL.Path == "/elsewhere" {
					t.Error("the redirection was followed")
				}
				_, _ = io.WriteString(w, tc.body)
			}))
			s.MaxAnswer = 1 << 10
			if len(tc.body) > 2<<10 {
				s.MaxAnswer = 8 << 10
			}
			answer, err := newRPC(t, s).Call(t.Context(), Call{Method: "m"})
			if got := outcome(answer, err); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func outcome(answer []byte, err error) string {
	var said *BackendError
	switch {
	case err == nil:
		return "data " + string(answer)
	case errors.As(err, &said) && said.Temporary:
		return "said " + itoa(int(said.Code)) + " " + said.Message + " (temporary)"
	case errors.As(err, &said):
		return "said " + itoa(int(said.Code)) + " " + said.Message
	}
	return "kind " + itoa(rest.Status(fault.Of(err).Kind))
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// A backend that is slow, gone or mute is an error for the caller, in time.
func TestCallWithoutAnswer(t *testing.T) {
	wait := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then the server watches for a caller that leaves
		<-r.Context().Done()
	}
	halfway := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"half":`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, tc := range map[string]struct {
		upstream string
		kind     fault.Kind
	}{
		"slow":         {serve(t, wait), fault.UpstreamTimeout},
		"slow halfway": {serve(t, halfway), fault.UpstreamTimeout},
		"gone":         {gone.URL, fault.Unavailable},
	} {
		s := rpcSettings(tc.upstream)
		s.Timeout = 50 * time.Millisecond
		if _, err := newRPC(t, s).Call(t.Context(), Call{Method: "m"}); fault.Of(err).Kind != tc.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	came := make(chan struct{})
	p := newRPC(t, rpcSettings(serve(t, func(w http.ResponseWriter, r *http.Request) { close(came); wait(w, r) })))
	go func() { <-came; cancel() }()
	if _, err := p.Call(ctx, Call{Method: "m"}); fault.Of(err).Code != fault.ErrCanceled.Code {
		t.Errorf("cancelled: %v", err)
	}
}

func TestRPCSettings(t *testing.T) {
	for want, change := range map[string]func(*RPCSettings){
		"":           func(*RPCSettings) {},
		"upstream":   func(s *RPCSettings) { s.Upstream = "ftp://a" },
		"timeout":    func(s *RPCSettings) { s.Timeout = 0 },
		"max_answer": func(s *RPCSettings) { s.MaxAnswer = 1 },
		"path":       func(s *RPCSettings) { s.Path = "/rpc" },
	} {
		s := rpcSettings("http://127.0.0.1:1")
		change(&s)
		got := ""
		s.Check(func(path, _ string) { got += path })
		new(Settings).CheckRPC(&s, func(path, _ string) { got += path })
		if got != want {
			t.Errorf("%q reported, want %q", got, want)
		}
	}
	for _, path := range []string{"", "{method}", "/{method}/{method}", "/a b/{method}", "/../{method}", "//{method}", "/a?m={method}", "/%2e/{method}"} {
		s := rpcSettings("http://127.0.0.1:1")
		s.Path = path
		reported := false
		s.Check(func(p, _ string) { reported = reported || p == "path" })
		if !reported {
			t.Errorf("path %q passes", path)
		}
	}
	off := RPCSettings{}
	off.Check(func(path, problem string) { t.Errorf("switched off: %s %s", path, problem) })
	if newRPC(t, off).HasRPC() {
		t.Error("there is no backend")
	}
}

// FuzzMethod: whatever a client calls, the request stays below the path that
// is configured, and has one meaning.
func FuzzMethod(f *testing.F) {
	for _, m := range []string{"m", "orders/list", "a:b", "", "/", "..", "a/../..", "a//b", "%2e%2e/x", "a?b", "a#b", "a\\b", "é", "a\x00", strings.Repeat("x", 300), "{method}", "a;b", ".", "a/"} {
		f.Add(m)
	}
	s := rpcSettings("http://127.0.0.1:1/base")
	p, err := New(Settings{}, Options{RPC: s})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method string) {
		o, u, err := p.orderOf(context.Background(), Call{Method: method})
		if err != nil {
			if fault.Of(err).Kind != fault.NotFound {
				t.Fatalf("%q: %v", method, err)
			}
			return
		}
		to := u.targets[0].url(o.path, o.raw, o.query, o.force)
		rest, below := strings.CutPrefix(to.EscapedPath(), "/base/rpc/")
		if !below || rest != method || to.Path != "/base/rpc/"+method || to.Host != "127.0.0.1:1" ||
			to.RawQuery != "" || to.Fragment != "" || strings.Contains("/"+rest+"/", "/../") || method == "" || len(method) > maxMethod {
			t.Fatalf("%q leads to %s", method, to)
		}
	})
}

// FuzzRefused: any answer of a backend is an error that can be told.
func FuzzRefused(f *testing.F) {
	f.Add(400, []byte(`{"error":{"code":1000,"message":"m"}}`))
	f.Add(500, []byte(`{"error":null}`))
	f.Add(404, []byte("{\"error\":{\"code\":400,\"message\":\"\xff\"}}"))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		err := refused(status, body)
		var said *BackendError
		if err == nil || errors.As(err, &said) && (said.Code < 400 || said.Code > 1999 || len(said.Message) > maxMessage || !utf8.ValidString(said.Message)) {
			t.Fatalf("%d %q: %v", status, body, err)
		}
	})
}
