package tlsfiles

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// slowKey signs when it is told to.
type slowKey struct {
	crypto.Signer
	entered chan struct{} // gets one for each signature that is begun
	sign    chan struct{} // lets one be made
	now     atomic.Int32
	most    atomic.Int32 // at a time
}

func (k *slowKey) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if n := k.now.Add(1); n > k.most.Load() {
		k.most.Store(n)
	}
	defer k.now.Add(-1)
	k.entered <- struct{}{}
	<-k.sign
	return k.Signer.Sign(r, digest, o)
}

// gated is a server with TLS behind a gate.
type gated struct {
	*Gate
	key  *slowKey
	addr string
}

func startGated(t *testing.T, limit int, overloaded func() bool) *gated {
	t.Helper()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cert, key := pair(t, "a")
	write(t, certFile, cert)
	write(t, keyFile, key)
	f, err := Load(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	s := &gated{Gate: NewGate(limit, overloaded, NewMetrics(prometheus.NewRegistry()))}
	loaded := f.pair.Load()
	s.key = &slowKey{Signer: loaded.PrivateKey.(crypto.Signer), entered: make(chan struct{}, 100), sign: make(chan struct{})}
	loaded.PrivateKey = s.key
	f.Guard(s.Gate)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = plain.Addr().String()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })}
	srv.TLSConfig = f.Config()
	served := make(chan struct{})
	go func() { _ = srv.Serve(tls.NewListener(plain, srv.TLSConfig)); close(served) }()
	t.Cleanup(func() {
		close(s.key.sign)
		_ = srv.Close()
		<-served
	})
	return s
}

// dial makes a handshake with new keys.
func (s *gated) dial(protos ...string) (*tls.Conn, error) {
	conn, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: protos})
	if err == nil {
		_ = conn.Close()
	}
	return conn, err
}

func (s *gated) refusals(reason string) float64 {
	return testutil.ToFloat64(s.metrics.refused.WithLabelValues(reason))
}

// Where the line before the key is full a connection is closed before anything
// is computed for it, and those in the line are served.
func TestFullLineIsRefused(t *testing.T) {
	s := startGated(t, 1, func() bool { return false })
	first := make(chan error, 1)
	go func() { _, err := s.dial(); first <- err }()
	<-s.key.entered
	for _, proto := range []string{"http/1.1", "h2"} {
		if _, err := s.dial(proto); err == nil {
			t.Errorf("%s: let in before a full line", proto)
		}
	}
	if n := s.refusals(refusedQueue); n != 2 || len(s.key.entered) != 0 {
		t.Errorf("%v refused, %d signatures begun", n, len(s.key.entered))
	}
	s.key.sign <- struct{}{}
	if err := <-first; err != nil {
		t.Errorf("who waited: %v", err)
	}
	go func() { s.key.sign <- struct{}{} }()
	if _, err := s.dial(); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if n := testutil.ToFloat64(s.metrics.waiting); n != 0 {
		t.Errorf("%v still wait", n)
	}
}

// While the node is overloaded the line is short for who may bring a WebSocket,
// and open for whoever is alone.
func TestShortLine(t *testing.T) {
	var overloaded atomic.Bool
	g := NewGate(100, overloaded.Load, NewMetrics(prometheus.NewRegistry()))
	for _, tt := range []struct {
		line       int64
		overloaded bool
		protos     []string
		refused    bool
	}{
		{99, false, nil, false},
		{100, false, nil, true},
		{0, true, nil, false},
		{9, true, nil, false},
		{10, true, nil, true},
		{10, true, []string{"http/1.1"}, true},
		{10, true, []string{"h2", "http/1.1"}, false},
		{100, true, []string{"h2", "http/1.1"}, true},
	} {
		g.line.Store(tt.line)
		overloaded.Store(tt.overloaded)
		_, err := g.admit(&tls.ClientHelloInfo{SupportedProtos: tt.protos})
		if (err != nil) != tt.refused {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	if a, b := testutil.ToFloat64(g.metrics.refused.WithLabelValues(refusedQueue)), testutil.ToFloat64(g.metrics.refused.WithLabelValues(refusedOverload)); a != 2 || b != 2 {
		t.Errorf("%v and %v refused", a, b)
	}
	free := NewGate(0, func() bool { return true }, NewMetrics(prometheus.NewRegistry()))
	free.line.Store(1 << 20)
	if _, err := free.admit(&tls.ClientHelloInfo{}); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

// Signatures leave processors to others.
func TestSignaturesWaitInLine(t *testing.T) {
	s := startGated(t, 100, func() bool { return false })
	s.keys = make(chan struct{}, 2)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			if _, err := s.dial(); err != nil {
				t.Error(err)
			}
		})
	}
	for range 8 {
		<-s.key.entered
		s.key.sign <- struct{}{}
	}
	clients.Wait()
	if n := s.key.most.Load(); n > 2 {
		t.Errorf("%d signatures at a time", n)
	}
}

// A renewed certificate is behind the gate as well.
func TestRenewedKeyIsGuarded(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	renew := func(cn string) {
		cert, key := pair(t, cn)
		write(t, certFile, cert)
		write(t, keyFile, key)
	}
	renew("a")
	f, err := Load(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	f.Guard(NewGate(1, func() bool { return false }, NewMetrics(prometheus.NewRegistry())))
	for _, cn := range []string{"a", "b"} {
		renew(cn)
		f.refresh()
		if _, ok := f.pair.Load().PrivateKey.(*guardedKey); !ok || served(t, f) != cn {
			t.Errorf("%s: the key is a %T", cn, f.pair.Load().PrivateKey)
		}
	}
}

// What a refusal saves: go test -bench Handshake ./internal/tlsfiles
func BenchmarkHandshake(b *testing.B) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "b"}, NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &rsaKey.PublicKey, rsaKey)
	if err != nil {
		b.Fatal(err)
	}
	for name, line := range map[string]int64{"served": 0, "refused": 1} {
		b.Run(name, func(b *testing.B) {
			g := NewGate(1, func() bool { return false }, NewMetrics(prometheus.NewRegistry()))
			g.line.Store(line)
			server := &tls.Config{
				Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: g.guard(rsaKey)}},
				GetConfigForClient: g.admit, SessionTicketsDisabled: true,
			}
			client := &tls.Config{InsecureSkipVerify: true}
			for b.Loop() {
				a, z := net.Pipe()
				done := make(chan struct{})
				go func() { _ = tls.Client(z, client).Handshake(); _ = z.Close(); close(done) }()
				_ = tls.Server(a, server).Handshake()
				_ = a.Close()
				<-done
			}
		})
	}
}
