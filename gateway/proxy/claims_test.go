package proxy

import "testing"

// Who has no claims cannot bring any.
func TestClaims(t *testing.T) {
	saw := &seen{}
	g := newGate(t, Options{}, testRoute("/api/", backend(t, saw).URL)).start()
	for caller, want := range map[string]string{"Bearer ann": annClaims, "Bearer bob": ""} {
		r := g.request("GET", "/api/x", nil, "X-WX-CLAIMS", `{"admin":true}`, "x_wx_claims", `{"admin":true}`)
		r.Header.Set("Authorization", caller)
		g.do(r)
		if env := cgiEnv(saw.last(t).Header); env["X_WX_CLAIMS"] != want {
			t.Errorf("%s: the backend saw %q, want %q", caller, env["X_WX_CLAIMS"], want)
		}
	}
}
