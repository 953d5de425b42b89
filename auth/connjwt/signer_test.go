package connjwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.Hash
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/minigate/minigate/internal/settings"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "a secret of more than thirty-two bytes"

// The test signs with nothing but crypto/…, so that a mistake shared with the
// library that verifies would show.

var b64 = base64.RawURLEncoding

func segment(v any) string {
	if text, ok := v.(string); ok {
		return b64.EncodeToString([]byte(text))
	}
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b64.EncodeToString(raw)
}

type object = map[string]any

// sign makes a token. key is []byte, *rsa.PrivateKey, *ecdsa.PrivateKey,
// ed25519.PrivateKey or nil for no signature.
func sign(t testing.TB, header object, payload, key any) string {
	t.Helper()
	text := segment(header) + "." + segment(payload)
	alg, _ := header["alg"].(string)
	sig, err := signature(alg, []byte(text), key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64.EncodeToString(sig)
}

func signature(alg string, text []byte, key any) ([]byte, error) {
	hash := crypto.SHA256
	if len(alg) == 5 {
		hash = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
	}
	digest := func() []byte { h := hash.New(); h.Write(text); return h.Sum(nil) }
	switch k := key.(type) {
	case []byte:
		mac := hmac.New(hash.New, k)
		mac.Write(text)
		return mac.Sum(nil), nil
	case *rsa.PrivateKey:
		return rsa.SignPKCS1v15(nil, k, hash, digest())
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, digest())
		if err != nil {
			return nil, err
		}
		size := (k.Params().BitSize + 7) / 8
		sig := make([]byte, 2*size)
		r.FillBytes(sig[:size])
		s.FillBytes(sig[size:])
		return sig, nil
	case ed25519.PrivateKey:
		return ed25519.Sign(k, text), nil
	}
	return nil, nil
}

// keys of the tests: making them takes a while, so all tests share them.
type keyring struct {
	rsa, otherRSA    *rsa.PrivateKey
	p256, p384, p521 *ecdsa.PrivateKey
	ed               ed25519.PrivateKey
}

var testKeys = sync.OnceValue(func() *keyring {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var k keyring
	var err error
	k.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	k.otherRSA, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	for curve, to := range map[elliptic.Curve]**ecdsa.PrivateKey{elliptic.P256(): &k.p256, elliptic.P384(): &k.p384, elliptic.P521(): &k.p521} {
		*to, err = ecdsa.GenerateKey(curve, rand.Reader)
		must(err)
	}
	_, k.ed, err = ed25519.GenerateKey(rand.Reader)
	must(err)
	return &k
})

func publicPEM(t testing.TB, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func newVerifier(t testing.TB, s Settings) *Verifier {
	t.Helper()
	s.Check(func(path, problem string) { t.Errorf("settings: %s %s", path, problem) })
	v, err := New(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func hmacSettings() Settings { return Settings{HMACSecretKey: settings.Secret(secret)} }

// jwkOf writes a public key as RFC 7517 does.
func jwkOf(t testing.TB, kid string, public any) object {
	t.Helper()
	switch k := public.(type) {
	case *rsa.PublicKey:
		return object{"kty": "RSA", "kid": kid, "use": "sig", "n": b64.EncodeToString(k.N.Bytes()), "e": "AQAB"}
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		half := (len(point) - 1) / 2
		return object{
			"kty": "EC", "kid": kid, "crv": k.Params().Name,
			"x": b64.EncodeToString(point[1 : 1+half]), "y": b64.EncodeToString(point[1+half:]),
		}
	case ed25519.PublicKey:
		return object{"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": b64.EncodeToString(k)}
	}
	t.Fatalf("no JWK for %T", public)
	return nil
}
