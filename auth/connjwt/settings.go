package connjwt

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/url"

	"github.com/minigate/minigate/internal/settings"
)

const (
	minSecret  = 32   // bytes, RFC 7518 section 3.2
	minRSABits = 2048 // RFC 7518 section 3.3
	maxRSABits = 8192
)

// Settings say whose tokens are good. The names are Centrifugo's. Without any
// key tokens of this kind are off.
type Settings struct {
	HMACSecretKey      settings.Secret `yaml:"hmac_secret_key" doc:"Secret for tokens signed with HS256, HS384 or HS512; at least 32 bytes."`
	RSAPublicKey       string          `yaml:"rsa_public_key" doc:"PEM public key for tokens signed with RS256, RS384 or RS512; at least 2048 bits."`
	ECDSAPublicKey     string          `yaml:"ecdsa_public_key" doc:"PEM public key for tokens signed with ES256, ES384 or ES512, whichever fits its curve."`
	JWKSPublicEndpoint string          `yaml:"jwks_public_endpoint" doc:"URL of a JSON Web Key Set with public keys for RS, ES and EdDSA tokens, found by their kid; https, unless it is a loopback address. It replaces the three keys above."`
	Audience           string          `yaml:"audience" doc:"Tokens must name this in their claim aud; empty does not look."`
	Issuer             string          `yaml:"issuer" doc:"Tokens must name this in their claim iss; empty does not look."`
	UserIDClaim        string          `yaml:"user_id_claim" doc:"The claim with the user's id; empty means sub."`
}

// SubscriptionSettings are Settings for subscription tokens alone.
type SubscriptionSettings struct {
	Enabled bool `yaml:"enabled" doc:"Verify subscription tokens with the keys of this block; otherwise with those of client.token."`
	Settings
}

// On tells whether there is anything to verify tokens with.
func (s *Settings) On() bool {
	return s.HMACSecretKey.Value() != "" || s.RSAPublicKey != "" || s.ECDSAPublicKey != "" || s.JWKSPublicEndpoint != ""
}

// Check finds mistakes.
func (s *Settings) Check(report func(path, problem string)) {
	if k := s.HMACSecretKey.Value(); k != "" && len(k) < minSecret {
		report("hmac_secret_key", "must have at least 32 bytes")
	}
	if s.RSAPublicKey != "" {
		if _, err := parseRSA(s.RSAPublicKey); err != nil {
			report("rsa_public_key", err.Error())
		}
	}
	if s.ECDSAPublicKey != "" {
		if _, err := parseECDSA(s.ECDSAPublicKey); err != nil {
			report("ecdsa_public_key", err.Error())
		}
	}
	if s.JWKSPublicEndpoint == "" {
		return
	}
	if err := checkEndpoint(s.JWKSPublicEndpoint); err != nil {
		report("jwks_public_endpoint", err.Error())
	}
	if cmp.Or(s.HMACSecretKey.Value(), s.RSAPublicKey, s.ECDSAPublicKey) != "" {
		report("jwks_public_endpoint", "replaces the other keys: set one or the other")
	}
}

// Check finds mistakes.
func (s *SubscriptionSettings) Check(report func(path, problem string)) {
	s.Settings.Check(report)
	if s.Enabled != s.On() {
		report("enabled", "must be set if and only if this block names a key")
	}
}

// checkEndpoint refuses plain http except to this machine: whoever can change
// what comes from there can be any user.
func checkEndpoint(text string) error {
	u, err := url.Parse(text)
	if err == nil && u.Host != "" && u.User == nil && u.Fragment == "" {
		ip := net.ParseIP(u.Hostname())
		loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
		if u.Scheme == "https" || u.Scheme == "http" && loopback {
			return nil
		}
	}
	return errors.New("must be an https:// URL, or an http:// one of a loopback address")
}

func parsePublic(text string) (any, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("must be a PEM block")
	}
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	}
	return nil, errors.New("must be a PEM block of type PUBLIC KEY")
}

func parseRSA(text string) (*rsa.PublicKey, error) {
	parsed, err := parsePublic(text)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok || checkRSA(key) != nil {
		return nil, errors.New("must be an RSA key of 2048 to 8192 bits")
	}
	return key, nil
}

func checkRSA(key *rsa.PublicKey) error {
	if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return errors.New("an RSA key must have 2048 to 8192 bits")
	}
	return nil
}

func parseECDSA(text string) (*ecdsa.PublicKey, error) {
	parsed, err := parsePublic(text)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || methodOf(key) == "" {
		return nil, errors.New("must be an ECDSA key on P-256, P-384 or P-521")
	}
	return key, nil
}
