// Package tlsfiles ends TLS with a certificate and a key from files, and takes
// new ones into use when the files change, as certificate renewal makes them.
package tlsfiles

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// interval is how often the files are looked at.
const interval = 5 * time.Second

// Files is a certificate, with its chain, and its key, both PEM.
type Files struct {
	cert, key string
	pair      atomic.Pointer[tls.Certificate]
	seen      stamps // of the files when they were last read; Run's alone
	gate      *Gate  // nil: handshakes come as they like
}

// Load reads the files; the error says which one is wrong and why.
func Load(certFile, keyFile string) (*Files, error) {
	f := &Files{cert: certFile, key: keyFile}
	// The stamps come first: a change while we read is then seen later.
	f.seen = f.stamps()
	if err := f.read(); err != nil {
		return nil, err
	}
	return f, nil
}

// Guard has handshakes with the files go through a gate. It is called before
// Config and Run.
func (f *Files) Guard(g *Gate) {
	f.gate = g
	pair := *f.pair.Load()
	pair.PrivateKey = g.guard(pair.PrivateKey)
	f.pair.Store(&pair)
}

// Config is a server's configuration with the files: TLS 1.2 or newer, HTTP/2
// and HTTP/1.1 (WebSockets need the latter).
func (f *Files) Config() *tls.Config {
	c := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: f.GetCertificate,
	}
	if f.gate != nil {
		c.GetConfigForClient = f.gate.admit
	}
	return c
}

// GetCertificate answers the newest pair that could be read, for any name.
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.pair.Load(), nil
}

// Run looks at the files every few seconds until ctx ends. A pair that cannot
// be used is logged once and the old one stays: half-written files, or a
// certificate whose key comes a moment later, mend themselves.
func (f *Files) Run(ctx context.Context) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f.refresh()
		}
	}
}

func (f *Files) refresh() {
	now := f.stamps()
	if now == f.seen {
		return
	}
	f.seen = now
	if err := f.read(); err != nil {
		slog.Error("the new TLS certificate cannot be used, the old one stays", "error", err)
		return
	}
	slog.Info("TLS certificate renewed", "cert", f.cert, "valid_until", f.pair.Load().Leaf.NotAfter)
}

func (f *Files) read() error {
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return fmt.Errorf("TLS certificate %s with key %s: %w", f.cert, f.key, err)
	}
	if f.gate != nil {
		pair.PrivateKey = f.gate.guard(pair.PrivateKey)
	}
	f.pair.Store(&pair)
	return nil
}

// stamp changes when a file does; a missing file has the zero one.
type stamp struct {
	size     int64
	modified time.Time
}

type stamps struct{ cert, key stamp }

func (f *Files) stamps() stamps { return stamps{stampOf(f.cert), stampOf(f.key)} }

func stampOf(file string) stamp {
	info, err := os.Stat(file) // through symlinks, as certbot and Kubernetes use them
	if err != nil {
		return stamp{}
	}
	return stamp{info.Size(), info.ModTime()}
}
