package deploy_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

const deadline = 20 * time.Second

// front puts the shipped nginx configuration before handler.
func front(t *testing.T, handler http.HandlerFunc) (*testdeps.Front, *http.Client) {
	t.Helper()
	backend := httptest.NewServer(handler)
	t.Cleanup(backend.Close)
	f := testdeps.StartFront(t, backend.Listener.Addr().String())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.Certs}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return f, &http.Client{
		Transport:     transport,
		Timeout:       deadline,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func get(t *testing.T, client *http.Client, url string, header http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// TestNginxReplacesForwardedHeaders: a phone must not choose the address that
// limits and logs see.
func TestNginxReplacesForwardedHeaders(t *testing.T) {
	seen := make(chan *http.Request, 1)
	f, client := front(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r })
	for _, path := range []string{"/api/a%2Fb//c%20d?x=1%2F2", "/connection/websocket"} {
		resp := get(t, client, f.URL+path, http.Header{
			"X-Forwarded-For":   {"6.6.6.6"},
			"X-Forwarded-Proto": {"http"},
			"X-Forwarded-Host":  {"evil.example"},
			"X-Real-Ip":         {"6.6.6.6"},
			"Forwarded":         {"for=6.6.6.6"},
			"Authorization":     {"Bearer token"},
		})
		if resp.ProtoMajor != 2 {
			t.Errorf("%s: answered over %s, want HTTP/2", path, resp.Proto)
		}
		r := <-seen
		if r.RequestURI != path {
			t.Errorf("path arrives as %s, want %s", r.RequestURI, path)
		}
		for name, want := range map[string]string{
			"X-Forwarded-For":   "127.0.0.1",
			"X-Forwarded-Proto": "https",
			"X-Forwarded-Host":  "127.0.0.1",
			"X-Real-Ip":         "127.0.0.1",
			"Forwarded":         "",
			"Connection":        "",
			"Upgrade":           "",
			"Authorization":     "Bearer token",
		} {
			if got := strings.Join(r.Header.Values(name), ", "); got != want {
				t.Errorf("%s: %s arrives as %q, want %q", path, name, got, want)
			}
		}
	}
}

func TestNginxRedirectsPlainHTTP(t *testing.T) {
	f, client := front(t, func(http.ResponseWriter, *http.Request) { t.Error("a plain request got through") })
	resp := get(t, client, f.PlainURL+"/api/x?y=z", nil)
	if got, want := resp.Header.Get("Location"), "https://127.0.0.1/api/x?y=z"; resp.StatusCode != 301 || got != want {
		t.Errorf("answered %d to %q, want 301 to %q", resp.StatusCode, got, want)
	}
}

// TestNginxCarriesSockets: after the handshake bytes flow both ways.
func TestNginxCarriesSockets(t *testing.T) {
	f, _ := front(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Connection") != "upgrade" || r.Header.Get("Upgrade") != "websocket" {
			http.Error(w, "no upgrade asked for", http.StatusBadRequest)
			return
		}
		c, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"))
		_, _ = io.Copy(c, buf) // echoes until the client is gone
	})
	c, err := tls.Dial("tcp", strings.TrimPrefix(f.URL, "https://"), &tls.Config{RootCAs: f.Certs})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprint(c, "GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", resp, err)
	}
	for _, message := range []string{"first", "second"} {
		if _, err := io.WriteString(c, message); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(message))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != message {
			t.Fatalf("echo %q, %v, want %q", got, err, message)
		}
	}
}

// TestNginxDoesNotBuffer: the client sends the second half of its body only
// once the backend has the first, and the backend likewise. The whole is more
// than nginx takes by default.
func TestNginxDoesNotBuffer(t *testing.T) {
	half := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	uploaded, downloaded := make(chan struct{}), make(chan struct{})
	f, client := front(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadFull(r.Body, make([]byte, len(half))); err != nil {
			t.Errorf("first half of the upload: %v", err)
		}
		close(uploaded)
		rest, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(rest, half) {
			t.Errorf("second half of the upload: %d bytes, %v", len(rest), err)
		}
		_, _ = w.Write(half) // the client reports what is missing
		_ = http.NewResponseController(w).Flush()
		select {
		case <-downloaded:
			_, _ = w.Write(half)
		case <-r.Context().Done():
		}
	})
	body, sink := io.Pipe()
	go func() {
		_, _ = sink.Write(half)
		select {
		case <-uploaded:
			_, err := sink.Write(half)
			_ = sink.CloseWithError(err)
		case <-t.Context().Done():
		}
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.URL+"/files", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.ReadFull(resp.Body, make([]byte, len(half))); err != nil {
		t.Errorf("first half of the download: %v", err)
	}
	close(downloaded)
	if rest, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(rest, half) {
		t.Errorf("second half of the download: %d bytes, %v", len(rest), err)
	}
}

// TestNginxLogsNoQueryStrings: tickets travel in query strings. The second
// request fails, which nginx writes into its error log by default.
func TestNginxLogsNoQueryStrings(t *testing.T) {
	const secret = "c2VjcmV0LXRpY2tldA"
	f, client := front(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/files/broken" {
			panic(http.ErrAbortHandler)
		}
	})
	header := http.Header{"Referer": {"https://page.example/?ticket=" + secret}}
	for path, want := range map[string]int{"/files/fine": 200, "/files/broken": 502} {
		if resp := get(t, client, f.URL+path+"?ticket="+secret, header); resp.StatusCode != want {
			t.Errorf("%s answered %d, want %d", path, resp.StatusCode, want)
		}
	}
	get(t, client, f.PlainURL+"/files/plain?ticket="+secret, header)
	f.Stop() // so that the logs are complete
	logs, err := filepath.Glob(filepath.Join(f.Dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, file := range logs {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
	}
	for _, path := range []string{"/files/fine", "/files/broken", "/files/plain"} {
		if !strings.Contains(all, path) {
			t.Errorf("%s is in none of the logs %v", path, logs)
		}
	}
	if strings.Contains(all, secret) {
		t.Errorf("a query string got into the logs:\n%s", all)
	}
}
