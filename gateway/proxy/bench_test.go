package proxy

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/rest"
)

// nowhere takes an answer as net/http would, but for the network.
type nowhere struct{ header http.Header }

func (w *nowhere) Header() http.Header         { return w.header }
func (w *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (w *nowhere) WriteHeader(int)             {}

// BenchmarkRequest is a small request to a backend on loopback, without what
// the client's side of it costs.
func BenchmarkRequest(b *testing.B) {
	body := make([]byte, 512)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	defer back.Close()
	p, err := New(Settings{Routes: []Route{testRoute("/api/", back.URL)}, Identity: identityOn()},
		Options{Verify: verify, Signer: newSigner(b), Metrics: NewMetrics(prometheus.NewRegistry())})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	r := httptest.NewRequest(http.MethodGet, "/api/orders?page=2", http.NoBody)
	r = r.WithContext(rest.WithInfo(r.Context(), &rest.Info{RequestID: "req-1", ClientIP: "203.0.113.7", Scheme: "https"}))
	r.Header.Set("Authorization", "Bearer ann")
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "Mozilla/5.0")
	b.ReportAllocs()
	for b.Loop() {
		p.ServeHTTP(&nowhere{http.Header{}}, r)
	}
}

// BenchmarkIdentity is the header of a session that has one already.
func BenchmarkIdentity(b *testing.B) {
	is := newIdentities(identityOn(), newSigner(b))
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	r.Header.Set("Authorization", "Bearer ann")
	s, err := verify(r)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := is.of(s, "app"); err != nil {
			b.Fatal(err)
		}
	}
}
