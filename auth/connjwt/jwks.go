package connjwt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/minigate/minigate/internal/fault"
)

const (
	keysFresh   = time.Hour        // then the set is fetched again
	keysStale   = 24 * time.Hour   // how long it serves while the endpoint is away
	fetchPause  = 10 * time.Second // between two fetches, whatever kids tokens name
	fetchTime   = 5 * time.Second  // for one fetch
	maxSetBytes = 256 << 10
)

var errKeysUnavailable = fault.New(fault.Unavailable, "token_keys_unavailable", "Tokens cannot be verified right now: try again.")

// keySet is a JSON Web Key Set behind a URL, kept for a while. It is fetched
// when somebody needs it, and once more when a token names a key that is not in
// it, which is how issuers rotate keys.
type keySet struct {
	url     string // its query may hold a secret
	name    string // the same for logs: without the query
	client  *http.Client
	metrics *Metrics
	flight  singleflight.Group

	mu      sync.Mutex
	keys    map[string]key
	fetched time.Time // when keys came; zero: never
	tried   time.Time // when the last fetch began
	failed  error     // of the last fetch
}

func newKeySet(address string, m *Metrics) *keySet {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableKeepAlives = true // there is one fetch an hour
	return &keySet{url: address, name: nameOf(address), metrics: m, client: &http.Client{
		Transport: t,
		Timeout:   fetchTime,
		// To wherever that leads, nobody has vetted it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// find returns a key by its id. Faults: ErrInvalid for one that is not in the
// set, errKeysUnavailable where there is no set to look into.
func (s *keySet) find(ctx context.Context, kid string) (key, error) {
	if kid == "" || len(kid) > maxKeyIDLen {
		return key{}, ErrInvalid
	}
	// With an old key only one waits for a fetch, without any all do. The fetch
	// is shared, so the first caller hanging up must not spoil it.
	if k, ok, fresh := s.look(kid); ok && (fresh || !s.due()) {
		return k, nil
	}
	_, _, _ = s.flight.Do("", func() (any, error) {
		if s.due() {
			s.refresh(context.WithoutCancel(ctx))
		}
		return nil, nil
	})
	k, ok, _ := s.look(kid)
	return s.answer(k, ok)
}

func (s *keySet) answer(k key, ok bool) (key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case ok:
		return k, nil
	case s.failed != nil: // it may be a new key
		return key{}, errKeysUnavailable.Because(s.failed)
	}
	return key{}, ErrInvalid
}

// look finds a key that still serves, and tells whether the set is fresh.
func (s *keySet) look(kid string) (k key, ok, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := time.Since(s.fetched)
	if s.fetched.IsZero() || age > keysStale {
		return key{}, false, false
	}
	k, ok = s.keys[kid]
	return k, ok, age < keysFresh
}

// due tells whether it is long enough since the last fetch.
func (s *keySet) due() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tried.IsZero() || time.Since(s.tried) >= fetchPause
}

func (s *keySet) refresh(ctx context.Context) {
	s.mu.Lock()
	s.tried = time.Now()
	s.mu.Unlock()
	keys, err := s.fetch(ctx)
	result := "ok"
	if err != nil {
		result = "error"
		slog.WarnContext(ctx, "the key set for client tokens cannot be fetched", "url", s.name, "error", err)
	}
	s.metrics.fetches.WithLabelValues(result).Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed = err; err == nil {
		s.keys, s.fetched = keys, time.Now()
	}
}

// nameOf is a URL as logs may show it: scheme, host and path.
func nameOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "malformed"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// withoutURL takes the wrapping off an error that quotes the whole URL.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

func (s *keySet) fetch(ctx context.Context) (map[string]key, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, withoutURL(err)
	}
	req.Header.Set("Accept", "application/json")
	res, err := s.client.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxSetBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSetBytes {
		return nil, errors.New("the answer is too large")
	}
	return parseSet(data)
}
