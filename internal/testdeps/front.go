package testdeps

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Front is the nginx of deploy/nginx/minigate.conf, as it is shipped but for
// addresses, certificate and log files.
type Front struct {
	URL      string // https://127.0.0.1:port
	PlainURL string // http://127.0.0.1:port, which redirects
	CertFile string // PEM; its own issuer, for localhost and 127.0.0.1
	Certs    *x509.CertPool

	*NginxServer
}

// StartFront puts nginx with TLS in front of the minigate that listens on
// upstream (host:port). Access and error logs are in Dir.
func StartFront(t testing.TB, upstream string) *Front {
	t.Helper()
	conf, err := os.ReadFile(filepath.Join(repoRoot(t), "deploy", "nginx", "minigate.conf"))
	if err != nil {
		t.Fatal(err)
	}
	cert, key := selfSigned(t)
	dir := t.TempDir()
	f := &Front{CertFile: filepath.Join(dir, "cert.pem"), Certs: x509.NewCertPool()}
	f.Certs.AppendCertsFromPEM(cert)
	keyFile := filepath.Join(dir, "key.pem")
	for file, content := range map[string][]byte{f.CertFile: cert, keyFile: key} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tls, plain := loopback(FreePort(t)), loopback(FreePort(t))
	f.URL, f.PlainURL = "https://"+tls, "http://"+plain
	text := string(conf)
	for _, change := range [][2]string{
		{"listen 80;", "listen " + plain + ";"},
		{"listen [::]:80;", ""},
		{"listen 443 ssl http2;", "listen " + tls + " ssl http2;"},
		{"listen [::]:443 ssl http2;", ""},
		{"server 127.0.0.1:8080;", "server " + upstream + ";"},
		{"/etc/nginx/tls/gate.example.com.fullchain.pem", f.CertFile},
		{"/etc/nginx/tls/gate.example.com.key.pem", keyFile},
		{"gate.example.com", "localhost"},
		{"/var/log/nginx/", ""},
	} {
		if !strings.Contains(text, change[0]) {
			t.Fatalf("deploy/nginx/minigate.conf does not contain %q", change[0])
		}
		text = strings.ReplaceAll(text, change[0], change[1])
	}
	f.NginxServer = Nginx(t, text)
	return f
}

// selfSigned makes a certificate for localhost and 127.0.0.1, in PEM.
func selfSigned(t testing.TB) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "localhost"},
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}
