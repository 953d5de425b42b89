package rest

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestScheme(t *testing.T) {
	edge := Edge{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, c := range []struct {
		peer, forwarded string
		tls             bool
		want            string
	}{
		{"10.0.0.1:1", "https", false, "https"},
		{"10.0.0.1:1", "http", true, "http"},
		{"10.0.0.1:1", "", false, "http"},
		{"10.0.0.1:1", "", true, "https"},
		{"10.0.0.1:1", "javascript", false, "http"},
		{"203.0.113.1:1", "https", false, "http"},
		{"203.0.113.1:1", "http", true, "https"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-Proto", c.forwarded)
		}
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		var got string
		edge.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = Scheme(r.Context()) })).ServeHTTP(httptest.NewRecorder(), r)
		if got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}
