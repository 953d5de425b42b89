package proxy

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/jws"
	"github.com/minigate/minigate/internal/settings"
)

func newSigner(t testing.TB) *jws.Signer {
	t.Helper()
	s, err := jws.New()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func identityOn() IdentitySettings {
	var s IdentitySettings
	settings.Defaults(&s)
	return s
}

// payloadOf verifies a token as a backend would, with what is published.
func payloadOf(t *testing.T, signer *jws.Signer, token string) map[string]any {
	t.Helper()
	published := httptest.NewRecorder()
	signer.ServeKeys(published, nil)
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("the token is %q", token)
	}
	decode := func(s string) []byte {
		raw, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	var header struct{ Alg, Typ, Kid string }
	if err := json.Unmarshal(decode(parts[0]), &header); err != nil || header.Alg != "ES256" || header.Typ != "minigate-identity+jwt" {
		t.Fatalf("header %+v, %v", header, err)
	}
	key, err := jws.PublicKey(published.Body.Bytes(), header.Kid)
	if err != nil {
		t.Fatal(err)
	}
	sum, signature := sha256.Sum256([]byte(parts[0]+"."+parts[1])), decode(parts[2])
	if !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		t.Fatal("the signature is wrong")
	}
	var payload map[string]any
	if err := json.Unmarshal(decode(parts[1]), &payload); err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestSignedIdentity(t *testing.T) {
	s, signer := &seen{}, newSigner(t)
	b := backend(t, s)
	named, own := testRoute("/named/", "app"), testRoute("/own/", b.URL)
	own.Audience = "shop"
	optional, public := testRoute("/optional/", "app"), testRoute("/public/", "app")
	optional.Login, public.Login = LoginOptional, LoginNone
	g := newGateOf(t, Options{Signer: signer}, Settings{
		Routes:    []Route{testRoute("/api/", b.URL), named, own, optional, public},
		Upstreams: []UpstreamSettings{group("app", b.URL)}, Identity: identityOn(),
	}).start()
	for path, audience := range map[string]string{"/api/": strings.TrimPrefix(b.URL, "http://"), "/named/": "app", "/own/": "shop", "/optional/": "app"} {
		g.do(g.request("GET", path, nil, "X-Minigate-Identity", "evil", "x_minigate_identity", "evil", "Connection", "X-Minigate-Identity"))
		h := s.last(t).Header
		if len(h.Values(headerIdentity)) != 1 || h["X_minigate_identity"] != nil {
			t.Fatalf("%s: the backend saw %v", path, h)
		}
		p := payloadOf(t, signer, h.Get(headerIdentity))
		want := map[string]any{
			"iss": "minigate", "aud": audience, "sub": "o-ann", "appid": "wx1", "unionid": "u-ann", "sid": annFingerprint.ID(),
			"claims": map[string]any{"vip": 1.0, "name": "安"}, "iat": p["iat"], "exp": p["exp"],
		}
		if !reflect.DeepEqual(p, want) {
			t.Errorf("%s: says %v, want %v", path, p, want)
		}
		if life := p["exp"].(float64) - p["iat"].(float64); life != 120 {
			t.Errorf("good for %v seconds", life)
		}
	}
	// Whom nobody knows is said nothing about, whatever he says.
	for _, path := range []string{"/optional/", "/public/"} {
		r := g.request("GET", path, nil, "X-Minigate-Identity", "evil", "X-Wx-Source", "wx_client")
		r.Header.Del("Authorization")
		g.do(r)
		h := s.last(t).Header
		for _, name := range []string{headerIdentity, headerOpenID, headerAppID, headerSource} {
			if h.Get(name) != "" {
				t.Errorf("%s: nobody has %s: %s", path, name, h.Get(name))
			}
		}
		if h.Get("X-Original-Forwarded-For") != "203.0.113.7" {
			t.Errorf("%s: client address %q", path, h.Get("X-Original-Forwarded-For"))
		}
	}
	// A user of the backend's own tokens has no mini-program and no login here.
	r := g.request("GET", "/named/", nil)
	r.Header.Set("Authorization", "Bearer own")
	g.do(r)
	h := s.last(t).Header
	p := payloadOf(t, signer, h.Get(headerIdentity))
	if p["sub"] != "own-user" || p["appid"] != nil || p["sid"] != nil || p["claims"] != nil || h.Get(headerSource) != "" {
		t.Errorf("says %v, source %q", p, h.Get(headerSource))
	}
}

func TestIdentityOff(t *testing.T) {
	s := &seen{}
	g := newGateOf(t, Options{Signer: newSigner(t)}, Settings{Routes: []Route{testRoute("/api/", backend(t, s).URL)}}).start()
	g.do(g.request("GET", "/api/", nil, "X-Minigate-Identity", "evil"))
	if h := s.last(t).Header; h.Get(headerIdentity) != "" || h.Get(headerOpenID) != "o-ann" {
		t.Errorf("the backend saw %v", h)
	}
}

// TestIdentityIsUsedAgain: for half of its life at most, and only for whom and
// what it was signed.
func TestIdentityIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer := newSigner(t)
		is := newIdentities(identityOn(), signer)
		of := func(s auth.Session, audience string) string {
			t.Helper()
			h, err := is.of(&s, audience)
			if err != nil || len(h) != 1 {
				t.Fatal(h, err)
			}
			if p := payloadOf(t, signer, h[0]); p["sub"] != s.User.OpenID || p["aud"] != audience || p["exp"].(float64) < float64(time.Now().Add(time.Minute).Unix()) {
				t.Fatalf("%+v at %s: says %v at %d", s, audience, p, time.Now().Unix())
			}
			return h[0]
		}
		s := auth.Session{Fingerprint: auth.Fingerprint{1}, User: ann}
		first := of(s, "a")
		time.Sleep(30 * time.Second)
		if of(s, "a") != first {
			t.Error("signed anew")
		}
		if of(s, "b") == first {
			t.Error("the same for another audience")
		}
		other := s
		other.User = bob
		of(other, "a")
		grown := s
		grown.User.UnionID = "u-new"
		if p := payloadOf(t, signer, of(grown, "a")); p["unionid"] != "u-new" {
			t.Errorf("says %v", p)
		}
		grown.Claims = json.RawMessage(`{"a":1}`)
		if p := payloadOf(t, signer, of(grown, "a")); p["claims"] == nil {
			t.Errorf("says %v", p)
		}
		for range 20 { // whenever it is asked for, it is good for another minute
			time.Sleep(7 * time.Second)
			of(s, "a")
		}
	})
}

func TestIdentitiesAreBounded(t *testing.T) {
	is := newIdentities(identityOn(), newSigner(t))
	is.began = time.Now()
	for i := range maxIdentities + 1 {
		is.young[identityKey{openID: fmt.Sprint(i)}] = signed{}
	}
	if _, err := is.of(&auth.Session{User: ann}, "a"); err != nil {
		t.Fatal(err)
	}
	if len(is.young) != 1 || len(is.old) <= maxIdentities {
		t.Errorf("%d young ones, %d old ones", len(is.young), len(is.old))
	}
	is.bytes = maxIdentBytes
	if _, err := is.of(&auth.Session{User: bob}, "a"); err != nil {
		t.Fatal(err)
	}
	if len(is.young) != 1 || len(is.old) != 1 || is.bytes > 4<<10 {
		t.Errorf("%d young ones, %d old ones, %d bytes", len(is.young), len(is.old), is.bytes)
	}
}

func TestLargestIdentity(t *testing.T) {
	// The largest claims still fit what http.Server takes of headers by default
	// in Node.js, 16 KiB.
	claims := json.RawMessage(`{"a":"` + strings.Repeat("x", 4<<10-8) + `"}`)
	h := addTo(http.Header{})
	s := &auth.Session{User: ann, Claims: claims}
	signed, err := newIdentities(identityOn(), newSigner(t)).of(s, "a")
	if err != nil {
		t.Fatal(err)
	}
	h.identity(s, signed)
	size := 0
	for name, values := range h.Header {
		size += len(name) + len(values[0]) + 4
	}
	if size > 12<<10 {
		t.Errorf("%d bytes of identity", size)
	}
}
