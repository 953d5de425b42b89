package testdeps

import (
	"fmt"
	"io"
	"net/http"
	"testing"
)

func TestNginxEndsWithItsTest(t *testing.T) {
	var addr string
	t.Run("test", func(t *testing.T) {
		addr = loopback(FreePort(t))
		s := Nginx(t, fmt.Sprintf(`server { listen %s; location / { return 200 "served"; } }`, addr))
		wantServed(t, addr)
		s.Kill()
		s.Restart() // over the process id the killed run left behind
		wantServed(t, addr)
	})
	if err := dialable(addr); err == nil {
		t.Errorf("nginx at %s outlived its test", addr)
	}
}

func wantServed(t *testing.T, addr string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if string(body) != "served" {
		t.Errorf("nginx answered %q", body)
	}
}
