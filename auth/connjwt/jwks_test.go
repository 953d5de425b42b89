package connjwt

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// issuer serves a key set that can change, over a transport in memory so that
// it works inside synctest too.
type issuer struct {
	t *testing.T

	mu      sync.Mutex
	answer  func(w http.ResponseWriter)
	fetched int
}

func newIssuer(t *testing.T, keys ...object) (*issuer, *Verifier) {
	i := &issuer{t: t}
	i.rotate(keys...)
	v := newVerifier(t, Settings{JWKSPublicEndpoint: "https://id.example.com/jwks"})
	v.keys.client.Transport = i
	return i, v
}

func (i *issuer) serve(f func(w http.ResponseWriter)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = f
}

func (i *issuer) rotate(keys ...object) {
	raw, err := json.Marshal(object{"keys": keys})
	if err != nil {
		i.t.Fatal(err)
	}
	i.serve(func(w http.ResponseWriter) { _, _ = w.Write(raw) })
}

func (i *issuer) fail(status int) { i.serve(func(w http.ResponseWriter) { w.WriteHeader(status) }) }

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetched++
	w := httptest.NewRecorder()
	i.answer(w)
	return w.Result(), nil
}

func (i *issuer) wantFetched(n int) {
	i.t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fetched != n {
		i.t.Errorf("fetched %d times, want %d", i.fetched, n)
	}
}

func wantConnect(t *testing.T, v *Verifier, token string, want error) {
	t.Helper()
	if _, err := v.Connect(t.Context(), token); !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Errorf("%v, want %v", err, want)
	}
}

func TestKeySetAlgorithms(t *testing.T) {
	k := testKeys()
	only := jwkOf(t, "only512", &k.rsa.PublicKey)
	only["alg"] = "RS512"
	encrypts := jwkOf(t, "enc", &k.rsa.PublicKey)
	encrypts["use"] = "enc"
	_, v := newIssuer(t,
		jwkOf(t, "rsa", &k.rsa.PublicKey), jwkOf(t, "p256", &k.p256.PublicKey), jwkOf(t, "p384", &k.p384.PublicKey),
		jwkOf(t, "p521", &k.p521.PublicKey), jwkOf(t, "ed", k.ed.Public()), only, encrypts,
		object{"kty": "oct", "kid": "oct", "k": b64.EncodeToString([]byte(secret))},
	)
	for _, tc := range []struct {
		alg, kid string
		key      any
		want     error
	}{
		{"RS256", "rsa", k.rsa, nil},
		{"RS384", "rsa", k.rsa, nil},
		{"RS512", "only512", k.rsa, nil},
		{"ES256", "p256", k.p256, nil},
		{"ES384", "p384", k.p384, nil},
		{"ES512", "p521", k.p521, nil},
		{"EdDSA", "ed", k.ed, nil},
		{"RS256", "only512", k.rsa, ErrInvalid},
		{"RS256", "enc", k.rsa, ErrInvalid},
		{"RS256", "p256", k.rsa, ErrInvalid},
		{"ES256", "p384", k.p384, ErrInvalid},
		{"RS256", "rsa", k.otherRSA, ErrInvalid},
		{"PS256", "rsa", k.rsa, ErrInvalid},
		{"HS256", "rsa", []byte(publicPEM(t, &k.rsa.PublicKey)), ErrInvalid},
		{"HS256", "rsa", k.rsa.N.Bytes(), ErrInvalid},
		{"HS256", "ed", []byte(k.ed.Public().(ed25519.PublicKey)), ErrInvalid},
		{"HS256", "oct", []byte(secret), ErrInvalid},
		{"none", "rsa", nil, ErrInvalid},
		{"RS256", "", k.rsa, ErrInvalid},
		{"RS256", "unknown", k.rsa, ErrInvalid},
	} {
		t.Run(tc.alg+" "+tc.kid, func(t *testing.T) {
			wantConnect(t, v, sign(t, object{"alg": tc.alg, "kid": tc.kid}, object{"sub": "u"}, tc.key), tc.want)
		})
	}
}

// A token with a new key has the set fetched, but not as often as anybody
// likes; an old set serves while the issuer is away, though not for ever.
func TestKeyRotation(t *testing.T) {
	k := testKeys()
	one, two := jwkOf(t, "one", &k.rsa.PublicKey), jwkOf(t, "two", &k.p256.PublicKey)
	byOne := sign(t, object{"alg": "RS256", "kid": "one"}, object{}, k.rsa)
	byTwo := sign(t, object{"alg": "ES256", "kid": "two"}, object{}, k.p256)
	synctest.Test(t, func(t *testing.T) {
		i, v := newIssuer(t, one)
		wantConnect(t, v, byOne, nil)
		wantConnect(t, v, byOne, nil)
		wantConnect(t, v, byTwo, ErrInvalid)
		i.wantFetched(1)
		i.rotate(one, two)
		wantConnect(t, v, byTwo, ErrInvalid) // too soon to look again
		i.wantFetched(1)
		time.Sleep(fetchPause)
		wantConnect(t, v, byTwo, nil)
		wantConnect(t, v, byOne, nil)
		i.wantFetched(2)

		i.rotate(two)
		time.Sleep(keysFresh)
		wantConnect(t, v, byTwo, nil)
		wantConnect(t, v, byOne, ErrInvalid)
		i.wantFetched(3)

		i.fail(http.StatusInternalServerError)
		time.Sleep(keysFresh)
		wantConnect(t, v, byTwo, nil)
		wantConnect(t, v, byOne, errKeysUnavailable)
		time.Sleep(keysStale - keysFresh)
		wantConnect(t, v, byTwo, nil)
		time.Sleep(fetchPause)
		wantConnect(t, v, byTwo, errKeysUnavailable)
		i.rotate(two)
		time.Sleep(fetchPause)
		wantConnect(t, v, byTwo, nil)
	})
}

func TestKeySetFetchIsShared(t *testing.T) {
	k := testKeys()
	i, v := newIssuer(t, jwkOf(t, "one", &k.rsa.PublicKey))
	token := sign(t, object{"alg": "RS256", "kid": "one"}, object{}, k.rsa)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() { wantConnect(t, v, token, nil) })
	}
	wg.Wait()
	i.wantFetched(1)
}

func TestKeySetRefused(t *testing.T) {
	k := testKeys()
	token := sign(t, object{"alg": "RS256", "kid": "one"}, object{}, k.rsa)
	set, err := json.Marshal(object{"keys": []object{jwkOf(t, "one", &k.rsa.PublicKey)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, answer := range map[string]func(w http.ResponseWriter){
		"status": func(w http.ResponseWriter) { w.WriteHeader(404); _, _ = w.Write(set) },
		"redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://other.example.com")
			w.WriteHeader(302)
		},
		"no JSON": func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) },
		"no keys": func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"keys":[]}`)) },
		"too large": func(w http.ResponseWriter) {
			_, _ = w.Write(append(set, strings.Repeat(" ", maxSetBytes)...))
		},
		"too many": func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(`{"keys":[` + strings.Repeat(`{},`, maxKeys) + `{}]}`))
		},
	} {
		i, v := newIssuer(t)
		i.serve(answer)
		_, err := v.Connect(t.Context(), token)
		if fault.Of(err).Kind != fault.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
		i.wantFetched(1)
	}
}

// Over a real connection, and with a caller that gives up at once.
func TestKeySetOverHTTP(t *testing.T) {
	k := testKeys()
	set, err := json.Marshal(object{"keys": []object{jwkOf(t, "one", &k.rsa.PublicKey)}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(set) }))
	defer srv.Close()
	v := newVerifier(t, Settings{JWKSPublicEndpoint: srv.URL})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Connect(ctx, sign(t, object{"alg": "RS256", "kid": "one"}, object{"sub": "u"}, k.rsa)); err != nil {
		t.Error(err)
	}
}

type brokenWay struct{ err error }

func (b brokenWay) RoundTrip(*http.Request) (*http.Response, error) { return nil, b.err }

// The query of a key set's URL may hold a secret: however the fetch fails,
// neither the log nor the error shows it.
func TestKeySetKeepsItsQuery(t *testing.T) {
	var logged bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(before)
	k := testKeys()
	token := sign(t, object{"alg": "RS256", "kid": "one"}, object{"sub": "u"}, k.rsa)
	const name = "https://id.example.com/tenant/jwks"
	for what, way := range map[string]http.RoundTripper{
		"no way":     brokenWay{errors.New("no route")},
		"timeout":    brokenWay{context.DeadlineExceeded},
		"404":        transport(func(w http.ResponseWriter) { w.WriteHeader(404) }),
		"no JSON":    transport(func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) }),
		"redirected": transport(func(w http.ResponseWriter) { w.Header().Set("Location", "?key=hush"); w.WriteHeader(302) }),
	} {
		logged.Reset()
		v := newVerifier(t, Settings{JWKSPublicEndpoint: name + "?key=hush&x=%68ush2"})
		v.keys.client.Transport = way
		_, err := v.Connect(t.Context(), token)
		if fault.Of(err).Code != "token_keys_unavailable" {
			t.Errorf("%s: %v", what, err)
		}
		for at, text := range map[string]string{"the log": logged.String(), "the error": fmt.Sprintf("%v %+v", err, errors.Unwrap(err))} {
			if strings.Contains(text, "hush") || strings.Contains(text, "68ush") {
				t.Errorf("%s: %s shows the query: %s", what, at, text)
			}
		}
		if !strings.Contains(logged.String(), name) {
			t.Errorf("%s: the log does not say which: %s", what, logged.String())
		}
	}
	for address, want := range map[string]string{
		"https://u:p@h.example:8443/a/b?c#d": "https://h.example:8443/a/b", "http://[::1]/": "http://[::1]/", "ht tp://hush": "malformed", "https://h?hush": "https://h",
	} {
		if got := nameOf(address); got != want {
			t.Errorf("%s is called %s, want %s", address, got, want)
		}
	}
	if _, err := newKeySet("ht\x7ftp://hush/?hush", v0(t).keys.metrics).fetch(t.Context()); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("a malformed URL: %v", err)
	}
}

func v0(t *testing.T) *Verifier {
	_, v := newIssuer(t)
	return v
}

type transport func(w http.ResponseWriter)

func (f transport) RoundTrip(*http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	f(w)
	return w.Result(), nil
}

func FuzzKeySet(f *testing.F) {
	k := testKeys()
	for _, public := range []any{&k.rsa.PublicKey, &k.p256.PublicKey, &k.p521.PublicKey, k.ed.Public()} {
		raw, err := json.Marshal(object{"keys": []object{jwkOf(f, "a", public)}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"a","n":"AQ","e":"AAAAAQ"},{"kty":"EC","kid":"b","crv":"P-256","x":"","y":""}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseSet(data)
		if err == nil && len(keys) == 0 {
			t.Error("an empty set is no error")
		}
		for kid, key := range keys {
			if kid == "" || key.takes("HS256") || key.takes("none") {
				t.Errorf("key %q takes what it must not", kid)
			}
		}
	})
}
