package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// cgiEnv is what a backend that folds header names sees: any punctuation
// becomes "_", letters become capitals, repeats are joined.
func cgiEnv(headers ...http.Header) map[string]string {
	env := map[string]string{}
	for _, h := range headers {
		for name, values := range h {
			key := strings.Map(func(c rune) rune {
				if c < 128 && isAlnum(byte(c)) {
					return c
				}
				return '_'
			}, strings.ToUpper(name))
			env[key] += strings.Join(values, ",")
		}
	}
	return env
}

// wantOnlyAnn fails if any reading of the request's headers and trailers says
// anything about the caller but who he is.
func wantOnlyAnn(t *testing.T, r *http.Request) {
	t.Helper()
	want := map[string]string{"X_WX_OPENID": "o-ann", "X_WX_UNIONID": "u-ann", "X_WX_APPID": "wx1", "X_WX_CLAIMS": annClaims, "X_WX_SOURCE": "wx_client"}
	env := cgiEnv(r.Header, r.Trailer)
	for key, value := range env {
		if strings.HasPrefix(key, "X_WX_") && value != want[key] {
			t.Errorf("backend saw %s=%q", key, value)
		}
		if strings.Contains(value, "evil") {
			t.Errorf("backend saw %s=%q", key, value)
		}
	}
	for key, value := range want {
		if env[key] != value {
			t.Errorf("backend saw %s=%q, want %q", key, env[key], value)
		}
	}
}

var spoofs = []struct{ name, lines string }{
	{"plain", "X-WX-OPENID: evil\r\n"},
	{"lower case", "x-wx-openid: evil\r\n"},
	{"mixed case", "x-Wx-oPENID: evil\r\n"},
	{"underscores", "X_WX_OPENID: evil\r\n"},
	{"mixed separators", "X-WX_OPENID: evil\r\nX_WX-UNIONID: evil\r\n"},
	{"dots", "X.WX.OPENID: evil\r\n"},
	{"other token characters", "X~WX!OPENID: evil\r\nx'wx*openid: evil\r\nX|WX^APPID: evil\r\n"},
	{"claims", "X-WX-CLAIMS: evil\r\nx_wx_claims: evil\r\nConnection: x-wx-claims\r\n"},
	{"duplicates", "X-WX-OPENID: evil\r\nX-WX-OPENID: evil2\r\nx_wx_openid: evil3\r\n"},
	{"other names of 云托管", "X-WX-SOURCE: evil\r\nX-WX-FROM-OPENID: evil\r\nx_wx_env: evil\r\n"},
	{"empty name after the prefix", "X-WX-: evil\r\n"},
	{"empty value beside", "X-WX-OPENID:\r\nX_WX_OPENID: evil\r\n"},
	{"named in Connection", "Connection: X-WX-OPENID, X-WX-UNIONID, X-WX-APPID\r\nX-WX-OPENID: evil\r\n"},
	{"other spelling in Connection", "Connection: x_wx_openid\r\nConnection: x-wx-appid\r\nX_WX_OPENID: evil\r\n"},
	{"in Proxy-Connection and TE", "Proxy-Connection: X-WX-OPENID\r\nTE: trailers\r\nX-WX-OPENID: evil\r\n"},
	{"signed identity", "X-Minigate-Identity: evil\r\nx_minigate_identity: evil\r\n"},
	{"another path", "X-Original-URL: /evil\r\nx_rewrite_url: /evil\r\n"},
	{"httpoxy", "Proxy: evil\r\n"},
	{"client address", "X-Forwarded-For: evil\r\nX_Forwarded_For: evil\r\nForwarded: for=evil\r\nX-Real-IP: evil\r\nX-Original-Forwarded-For: evil\r\n"},
}

// rawHTTP1 sends bytes as they are and returns the answer's status.
func rawHTTP1(t *testing.T, addr, text string) int {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

const head = "POST /api/x HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer ann\r\n"

func TestSpoofedHeadersHTTP1(t *testing.T) {
	s := &seen{}
	g := newGate(t, Options{}, testRoute("/api/", backend(t, s).URL)).start()
	for _, c := range spoofs {
		t.Run(c.name, func(t *testing.T) {
			if status := rawHTTP1(t, g.Listener.Addr().String(), head+c.lines+"Content-Length: 0\r\n\r\n"); status != 200 {
				t.Fatalf("status %d", status)
			}
			wantOnlyAnn(t, s.last(t))
		})
	}
}

func TestSpoofedTrailersHTTP1(t *testing.T) {
	s := &seen{}
	g := newGate(t, Options{}, testRoute("/api/", backend(t, s).URL)).start()
	for _, c := range spoofs {
		for _, declared := range []string{"", "Trailer: X-WX-OPENID, x_wx_openid, X-Harmless\r\n"} {
			t.Run(c.name+declared, func(t *testing.T) {
				before := s.count()
				status := rawHTTP1(t, g.Listener.Addr().String(), head+declared+
					"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Harmless: 1\r\n"+c.lines+"\r\n")
				if status != 200 && s.count() == before {
					return // net/http refuses some names in trailers itself
				}
				r := s.last(t)
				wantOnlyAnn(t, r)
				if len(r.Trailer) > 0 || r.Header.Get("Trailer") != "" {
					t.Errorf("backend saw trailers %v", r.Trailer)
				}
				if s.bodies[len(s.bodies)-1] != "body" {
					t.Errorf("backend saw the body %q", s.bodies[len(s.bodies)-1])
				}
			})
		}
	}
}

// TestSpoofedHTTP2 sends headers and trailers to an HTTP/2 front and on to an
// HTTP/2 backend.
func TestSpoofedHTTP2(t *testing.T) {
	s := &seen{}
	b := newTLSBackend(t, s)
	g := newGate(t, Options{}, testRoute("/api/", b.URL))
	g.trust(b)
	g.startTLS()

	r := g.request("POST", "/api/x", struct{ *strings.Reader }{strings.NewReader("body")})
	r.Trailer = http.Header{}
	for _, name := range []string{"x-wx-openid", "X_WX_OPENID", "x.wx.openid", "X-Wx-Source", "x_wx-unionid"} {
		r.Header[name] = []string{"evil", "evil2"}
		r.Trailer[name] = []string{"evil"}
	}
	res, body := g.do(r)
	if res.StatusCode != 200 || res.ProtoMajor != 2 {
		t.Fatalf("%s %d %s", res.Proto, res.StatusCode, body)
	}
	in := s.last(t)
	wantOnlyAnn(t, in)
	if in.ProtoMajor != 2 || len(in.Trailer) > 0 || s.bodies[0] != "body" {
		t.Errorf("backend saw %s, trailers %v, body %q", in.Proto, in.Trailer, s.bodies[0])
	}
	if in.Header.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("X-Forwarded-Proto %q", in.Header.Get("X-Forwarded-Proto"))
	}
}

// TestNothingIsAdded sends less than any client does.
func TestNothingIsAdded(t *testing.T) {
	s := &seen{}
	route := testRoute("/api/", backend(t, s).URL)
	route.Login = LoginNone
	g := newGate(t, Options{}, route).start()
	text := fmt.Sprintf("GET http://evil:evil@%s/api/x HTTP/1.1\r\nHost: gate\r\n\r\n", g.Listener.Addr())
	if status := rawHTTP1(t, g.Listener.Addr().String(), text); status != 200 {
		t.Fatalf("status %d", status)
	}
	for _, name := range []string{"Authorization", "Accept-Encoding", "User-Agent", "X-Wx-Openid"} {
		if got := s.last(t).Header.Get(name); got != "" {
			t.Errorf("backend saw %s: %q", name, got)
		}
	}
}

func FuzzPassOn(f *testing.F) {
	for _, c := range spoofs {
		for line := range strings.SplitSeq(c.lines, "\r\n") {
			name, _, _ := strings.Cut(line, ":")
			f.Add(name)
		}
	}
	f.Add("X-Wxopenid")
	f.Add("X-Wx")
	f.Add("Content-Type")
	f.Fuzz(func(t *testing.T, name string) {
		h := passOn(http.Header{name: {"evil"}})
		env := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
		if strings.HasPrefix(env, "x-wx-") && len(h) > 0 {
			t.Errorf("%q was kept", name)
		}
		if !strings.HasPrefix(env, "x") && !strings.HasPrefix(env, "forwarded") && !hopByHop(name) && name != "" && len(h) == 0 {
			t.Errorf("%q was taken away", name)
		}
	})
}
