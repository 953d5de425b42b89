package connjwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
)

const (
	maxKeys     = 100 // in a set
	maxKeyIDLen = 256 // bytes
)

// key is one public key of a set.
type key struct {
	public any    // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	alg    string // the only algorithm it is for, "": all that fit
}

func (k key) takes(alg string) bool { return (k.alg == "" || k.alg == alg) && fits(k.public, alg) }

// jwk is a key as RFC 7517 and RFC 7518 section 6 write it; OKP is of RFC 8037.
type jwk struct {
	Kty string `json:"kty"`
	Kid string `json:"kid"`
	Use string `json:"use"`
	Alg string `json:"alg"`
	N   string `json:"n"`
	E   string `json:"e"`
	Crv string `json:"crv"`
	X   string `json:"x"`
	Y   string `json:"y"`
}

var (
	errKeyUnusable = errors.New("no key for signatures that we can use")
	errSetTooLarge = errors.New("too many keys")
)

// parseSet reads the keys of a set by kid. Keys of other kinds or uses, and
// those without a kid, are passed over; that no key is left is an error.
func parseSet(data []byte) (map[string]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, err
	}
	if len(set.Keys) > maxKeys {
		return nil, errSetTooLarge
	}
	keys := make(map[string]key, len(set.Keys))
	for _, raw := range set.Keys {
		var j jwk
		if json.Unmarshal(raw, &j) != nil || j.Kid == "" || len(j.Kid) > maxKeyIDLen || j.Use != "" && j.Use != "sig" {
			continue
		}
		if public, err := j.public(); err == nil {
			keys[j.Kid] = key{public, j.Alg}
		}
	}
	if len(keys) == 0 {
		return nil, errKeyUnusable
	}
	return keys, nil
}

// public decodes the key. A symmetric one (kty oct) is none: what anybody can
// fetch is no secret.
func (j *jwk) public() (any, error) {
	switch j.Kty {
	case "RSA":
		return j.rsa()
	case "EC":
		return j.ecdsa()
	case "OKP":
		x, err := base64.RawURLEncoding.DecodeString(j.X)
		if err != nil || j.Crv != "Ed25519" || len(x) != ed25519.PublicKeySize {
			return nil, errKeyUnusable
		}
		return ed25519.PublicKey(x), nil
	}
	return nil, errKeyUnusable
}

func (j *jwk) rsa() (any, error) {
	n, err1 := base64.RawURLEncoding.DecodeString(j.N)
	e, err2 := base64.RawURLEncoding.DecodeString(j.E)
	if err1 != nil || err2 != nil || len(e) > 4 {
		return nil, errKeyUnusable
	}
	k := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	if k.E < 3 || k.E%2 == 0 || k.E > 1<<31-1 {
		return nil, errKeyUnusable
	}
	return k, checkRSA(k)
}

func (j *jwk) ecdsa() (any, error) {
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[j.Crv]
	x, err1 := base64.RawURLEncoding.DecodeString(j.X)
	y, err2 := base64.RawURLEncoding.DecodeString(j.Y)
	if curve == nil || err1 != nil || err2 != nil {
		return nil, errKeyUnusable
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) != size || len(y) != size {
		return nil, errKeyUnusable
	}
	return ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, x...), y...))
}
