// Package jws signs short-lived statements that others can verify without
// asking us: JSON Web Tokens (RFC 7519) with ES256, whose public keys are a JWK
// set (RFC 7517).
package jws

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/golang-jwt/jwt/v5"
)

// KeySize is the length of a private key in bytes: a scalar of P-256.
const KeySize = 32

// ErrKey answers for bytes that are no private key.
var ErrKey = errors.New("must be base64 of exactly 32 bytes that are a P-256 private key")

// Signer signs with the first of its keys and publishes all of them, so that
// an old key can stay published while what it signed is still good. It is safe
// for concurrent use.
type Signer struct {
	key *ecdsa.PrivateKey
	id  string
	set []byte // JSON
}

// NewKey makes a private key.
func NewKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return key.Bytes()
}

// ParseKey decodes a private key from base64. Nearly all of 32 random bytes
// are one, so that "openssl rand -base64 32" makes keys.
func ParseKey(text string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != KeySize {
		return nil, ErrKey
	}
	if _, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw); err != nil {
		return nil, ErrKey
	}
	return raw, nil
}

// New makes a Signer from keys of [NewKey] or [ParseKey], the one that signs
// first. Without any it makes a key that lasts as long as the process.
func New(keys ...[]byte) (*Signer, error) {
	if len(keys) == 0 {
		key, err := NewKey()
		if err != nil {
			return nil, err
		}
		keys = [][]byte{key}
	}
	s, set := &Signer{}, make([]jwk, len(keys))
	for i, raw := range keys {
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
		if err != nil {
			return nil, ErrKey
		}
		if set[i], err = publicKey(key); err != nil {
			return nil, err
		}
		if i == 0 {
			s.key, s.id = key, set[i].ID
		}
	}
	var err error
	s.set, err = json.Marshal(map[string]any{"keys": set})
	return s, err
}

// jwk is a public key (RFC 7517 section 4, RFC 7518 section 6.2).
type jwk struct {
	Type  string `json:"kty"`
	Curve string `json:"crv"`
	X     string `json:"x"`
	Y     string `json:"y"`
	Use   string `json:"use"`
	Alg   string `json:"alg"`
	ID    string `json:"kid"`
}

func publicKey(key *ecdsa.PrivateKey) (jwk, error) {
	point, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return jwk{}, err
	}
	enc := base64.RawURLEncoding
	k := jwk{Type: "EC", Curve: "P-256", X: enc.EncodeToString(point[1:33]), Y: enc.EncodeToString(point[33:]), Use: "sig", Alg: "ES256"}
	// The thumbprint of RFC 7638: the required members in this order.
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":%q,"kty":%q,"x":%q,"y":%q}`, k.Curve, k.Type, k.X, k.Y))
	k.ID = enc.EncodeToString(sum[:])
	return k, nil
}

// Sign returns claims, encoded as JSON, as a compact JWS (RFC 7515).
func (s *Signer) Sign(claims any) (string, error) { return s.SignTyped("JWT", claims) }

// SignTyped is Sign for a statement of a kind of its own (RFC 8725 section
// 3.11), so that no other one signed with the same key is taken for it.
func (s *Signer) SignTyped(typ string, claims any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	header := fmt.Appendf(nil, `{"alg":"ES256","kid":%q,"typ":%q}`, s.id, typ)
	signed := enc.EncodeToString(header) + "." + enc.EncodeToString(payload)
	signature, err := jwt.SigningMethodES256.Sign(signed, s.key)
	if err != nil {
		return "", err
	}
	return signed + "." + enc.EncodeToString(signature), nil
}

// ServeKeys is GET /.well-known/jwks.json. Whoever meets an unknown key id
// should fetch it anew.
func (s *Signer) ServeKeys(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(s.set) // the caller may be gone
}

// PublicKey finds a key in a JWK set as ServeKeys answers it, by its id.
func PublicKey(set []byte, id string) (*ecdsa.PublicKey, error) {
	var s struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(set, &s); err != nil {
		return nil, err
	}
	for _, k := range s.Keys {
		if k.ID != id {
			continue
		}
		x, err1 := base64.RawURLEncoding.DecodeString(k.X)
		y, err2 := base64.RawURLEncoding.DecodeString(k.Y)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	}
	return nil, errors.New("the set has no such key")
}
