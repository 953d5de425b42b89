package tlsfiles

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair makes a self-signed certificate for localhost with the name cn.
func pair(t *testing.T, cn string) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn}, DNSNames: []string{"localhost"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// written gives each write a modification time of its own: a test is faster
// than the clock of some file systems.
var written = time.Unix(1e9, 0)

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	written = written.Add(time.Second)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, written, written); err != nil {
		t.Fatal(err)
	}
}

// served is the name on the certificate that f answers.
func served(t *testing.T, f *Files) string {
	t.Helper()
	c, err := f.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf.Subject.CommonName
}

// lines is a log that is written and read by different goroutines.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was logged since it was last called.
func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.b.String()
	l.b.Reset()
	return s
}

func TestReload(t *testing.T) {
	var log lines
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(old)
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	oneCert, oneKey := pair(t, "one")
	twoCert, twoKey := pair(t, "two")
	write(t, cert, oneCert)
	write(t, key, oneKey)

	synctest.Test(t, func(t *testing.T) {
		f, err := Load(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { f.Run(ctx); close(done) }()
		defer func() { cancel(); <-done }()
		for _, step := range []struct {
			name   string
			change func()
			serves string
			logs   string // one new line with this, or none
		}{
			{"nothing new", func() {}, "one", ""},
			{"certificate without its key", func() { write(t, cert, twoCert) }, "one", "the old one stays"},
			{"still without", func() {}, "one", ""},
			{"key", func() { write(t, key, twoKey) }, "two", "renewed"},
			{"gone", func() { _ = os.Remove(key) }, "two", "the old one stays"},
			{"half", func() { write(t, key, oneKey[:50]) }, "two", "the old one stays"},
			{"first again", func() { write(t, key, oneKey); write(t, cert, oneCert) }, "one", "renewed"},
		} {
			step.change()
			time.Sleep(3 * interval)
			synctest.Wait()
			logged := log.take()
			right := logged == "" && step.logs == "" || step.logs != "" && strings.Contains(logged, step.logs) && strings.Count(logged, "\n") == 1
			if got := served(t, f); got != step.serves || !right {
				t.Errorf("%s: serves %s, log:\n%s", step.name, got, logged)
			}
		}
	})
}

func TestHandshake(t *testing.T) {
	dir := t.TempDir()
	cert, key := pair(t, "one")
	write(t, filepath.Join(dir, "c"), cert)
	write(t, filepath.Join(dir, "k"), key)
	f, err := Load(filepath.Join(dir, "c"), filepath.Join(dir, "k"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	for _, tt := range []struct {
		max    uint16
		protos []string
		want   string // "" for a refused handshake
	}{
		{tls.VersionTLS13, []string{"h2", "http/1.1"}, "h2"},
		{tls.VersionTLS12, []string{"http/1.1"}, "http/1.1"},
		{tls.VersionTLS11, []string{"http/1.1"}, ""},
	} {
		client, server := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- tls.Server(server, f.Config()).Handshake(); _ = server.Close() }()
		//nolint:gosec // old versions are offered to see them refused
		c := tls.Client(client, &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: tt.max, NextProtos: tt.protos})
		err := c.Handshake()
		if (err == nil) != (tt.want != "") || c.ConnectionState().NegotiatedProtocol != tt.want {
			t.Errorf("%x: %q, %v", tt.max, c.ConnectionState().NegotiatedProtocol, err)
		}
		_ = client.Close()
		if err := <-ended; (err == nil) != (tt.want != "") {
			t.Errorf("%x: server: %v", tt.max, err)
		}
	}
}

func TestLoadProblems(t *testing.T) {
	dir := t.TempDir()
	oneCert, oneKey := pair(t, "one")
	_, otherKey := pair(t, "other")
	files := map[string][]byte{"cert": oneCert, "key": oneKey, "other": otherKey, "junk": []byte("junk")}
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	for _, p := range [][2]string{{"missing", "key"}, {"cert", "missing"}, {"cert", "other"}, {"junk", "key"}, {"cert", "junk"}} {
		_, err := Load(filepath.Join(dir, p[0]), filepath.Join(dir, p[1]))
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, p[0])) {
			t.Errorf("%v: %v", p, err)
		}
	}
}
