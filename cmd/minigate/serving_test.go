package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// certificate writes a self-signed one for 127.0.0.1.
func certificate(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "minigate"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for file, content := range map[string][]byte{
		certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool
}

// TestTLS lets minigate end TLS itself: HTTP/2 for calls, and sockets.
func TestTLS(t *testing.T) {
	sim, wechatURL := simulator(t)
	certFile, keyFile, pool := certificate(t)
	p := startServe(t, baseConfig(t, wechatURL)+"tls: {cert_file: "+certFile+", key_file: "+keyFile+"}\n")
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	defer secure.CloseIdleConnections()
	if !strings.HasPrefix(p.Public, "https://") {
		t.Fatalf("the public listener says it is %s", p.Public)
	}
	res, err := secure.Post(p.Public+"/auth/login", "application/json", strings.NewReader(`{"code":"`+sim.NewCode(testAppID, "alice")+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != 200 || res.ProtoMajor != 2 {
		t.Errorf("login: status %d over %s", res.StatusCode, res.Proto)
	}
	h1 := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}}}}
	defer h1.CloseIdleConnections()
	conn, _, err := websocket.Dial(t.Context(), "wss"+strings.TrimPrefix(p.Public, "https")+"/connection/websocket", &websocket.DialOptions{HTTPClient: h1})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.CloseNow()
}

func TestVerificationFilesAndCORS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "MP_verify_abc.txt")
	if err := os.WriteFile(file, []byte("proof"), 0o600); err != nil {
		t.Fatal(err)
	}
	talkative := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
	}))
	defer talkative.Close()
	_, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL)+"verification_files: ["+file+"]\ncors: {allowed_origins: ['https://h5.example.com']}\n"+
		"proxy: {routes: [{prefix: /api/, upstream: '"+talkative.URL+"', login: none}]}\n")
	// Browsers refuse an answer that allows two origins.
	req, err := http.NewRequest("GET", p.Public+"/api/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "https://h5.example.com")
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if got := res.Header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "https://h5.example.com" {
		t.Errorf("a proxied answer allows %q", got)
	}
	if status, raw := callRaw(t, "GET", p.Public+"/MP_verify_abc.txt", nil, nil); status != 200 || string(raw) != "proof" {
		t.Errorf("verification file: status %d %q", status, raw)
	}
	for origin, want := range map[string]string{"https://h5.example.com": "https://h5.example.com", "https://evil.example.com": ""} {
		req, err := http.NewRequest("OPTIONS", p.Public+"/files", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", "POST")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if got := res.Header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("preflight from %s allows %q, want %q", origin, got, want)
		}
	}
}

// TestMetricsAreClean runs Prometheus' own linter over what the program says
// after it has done a little of everything.
func TestMetricsAreClean(t *testing.T) {
	sim, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL)+"proxy: {routes: [{prefix: /api/, upstream: "+backend(t).URL+"}]}\n")
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	s := connect(t, p.Public, me.Token)
	callRaw(t, "POST", p.Ops+"/api/push", map[string]string{"X-API-Key": testAPIKey}, `{"all":true,"data":1}`)
	s.publication()
	callRaw(t, "GET", p.Public+"/api/whoami", bearer(me.Token), nil)
	f := upload(t, p.Public, me.Token, "a.txt", strings.NewReader("hello"))
	callRaw(t, "GET", p.Public+"/files/"+f.ID, bearer(me.Token), nil)

	_, raw := callRaw(t, "GET", p.Ops+"/metrics", nil, nil)
	problems, err := promlint.New(bytes.NewReader(raw)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "minigate_") {
			t.Errorf("%s: %s", problem.Metric, problem.Text)
		}
	}
	for _, want := range []string{
		"minigate_connections 1", "minigate_users 1", "minigate_publications_total", "minigate_deliveries_total",
		`minigate_logins_total{result="ok"} 1`, `minigate_proxy_requests_total{code="200",route="/api/"} 1`,
		`minigate_transfer_bytes_total{direction="upload"} 5`, `minigate_transfer_bytes_total{direction="download"} 5`,
		`minigate_dependency_up{dependency="storage"} 1`,
	} {
		if !bytes.Contains(raw, []byte(want)) {
			t.Errorf("/metrics does not say %s", want)
		}
	}
	if bytes.Contains(raw, []byte(me.Token)) || bytes.Contains(raw, []byte(testSecret)) {
		t.Error("a secret stands in /metrics")
	}
}

// TestSecondSignalEndsAtOnce asks a node that is still telling its sockets
// goodbye to end now.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	sim, wechatURL := simulator(t)
	p := startServe(t, strings.Replace(baseConfig(t, wechatURL), "shutdown_spread: 200ms", "shutdown_spread: 60s", 1))
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	for range 20 {
		connect(t, p.Public, me.Token)
	}
	signal := func() {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	eventually(t, "readyz says stopping", func() bool {
		var r readiness
		return call(t, "GET", p.Ops+"/readyz", nil, nil, &r) == 503 && r.Status == "stopping"
	})
	signal()
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		t.Error("the process goes on after the second signal")
	}
}

// TestOneDataDirectoryOneProcess refuses the second process.
func TestOneDataDirectoryOneProcess(t *testing.T) {
	_, wechatURL := simulator(t)
	config := baseConfig(t, wechatURL)
	startServe(t, config)
	status, _, stderr := cli("serve", "--config", writeConfig(t, config))
	if status != 1 || !strings.Contains(stderr, "another minigate is using") {
		t.Errorf("status %d: %s", status, stderr)
	}
}
