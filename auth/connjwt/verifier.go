package connjwt

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/fault"
)

// maxToken is how many bytes a token may have: room for a hundred channels.
const maxToken = 16 << 10

var (
	// ErrExpired answers for a token that was good, or will be.
	ErrExpired = fault.New(fault.Unauthenticated, "token_expired", "This token is not valid at this time: get a new one.")
	// ErrInvalid answers for what no key of ours has signed, or not for this.
	ErrInvalid = fault.New(fault.Unauthenticated, "token_invalid", "This is not a token for this server.")
)

// Verifier verifies tokens of one kind. It is safe for concurrent use.
type Verifier struct {
	audience, issuer, userClaim string

	parser  *jwt.Parser
	static  map[string]any // keys by algorithm
	keys    *keySet        // instead of static, nil without an endpoint
	metrics *Metrics
}

// New makes a verifier out of settings that passed their Check; nil where they
// name no key. m may be nil.
func New(s Settings, m *Metrics) (*Verifier, error) {
	if !s.On() {
		return nil, nil
	}
	if m == nil {
		m = NewMetrics(prometheus.NewRegistry())
	}
	v := &Verifier{audience: s.Audience, issuer: s.Issuer, userClaim: s.UserIDClaim, static: map[string]any{}, metrics: m}
	if s.JWKSPublicEndpoint != "" {
		v.keys = newKeySet(s.JWKSPublicEndpoint, m)
	} else if err := v.addStatic(s); err != nil {
		return nil, err
	}
	// Claims are validated below, against the whole of Centrifugo's rules.
	v.parser = jwt.NewParser(jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation(), jwt.WithValidMethods(v.methods()))
	return v, nil
}

func (v *Verifier) addStatic(s Settings) error {
	if secret := s.HMACSecretKey.Value(); secret != "" {
		for _, alg := range []string{"HS256", "HS384", "HS512"} {
			v.static[alg] = []byte(secret)
		}
	}
	if s.RSAPublicKey != "" {
		key, err := parseRSA(s.RSAPublicKey)
		if err != nil {
			return err
		}
		for _, alg := range []string{"RS256", "RS384", "RS512"} {
			v.static[alg] = key
		}
	}
	if s.ECDSAPublicKey != "" {
		key, err := parseECDSA(s.ECDSAPublicKey)
		if err != nil {
			return err
		}
		v.static[methodOf(key)] = key
	}
	return nil
}

// methods lists the algorithms that there can be keys for.
func (v *Verifier) methods() (list []string) {
	if v.keys != nil {
		return []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"}
	}
	for alg := range v.static {
		list = append(list, alg)
	}
	return list
}

// methodOf is the one algorithm an ECDSA key is for (RFC 7518 section 3.4).
func methodOf(key *ecdsa.PublicKey) string {
	return map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[key.Params().Name]
}

// fits tells whether a key of a set may verify tokens with an algorithm.
func fits(key any, alg string) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return alg == "RS256" || alg == "RS384" || alg == "RS512"
	case *ecdsa.PublicKey:
		return alg == methodOf(k)
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// Connect verifies a connection token. Faults: ErrInvalid, ErrExpired;
// Unavailable `token_keys_unavailable` where the key set cannot be had now.
func (v *Verifier) Connect(ctx context.Context, token string) (*ConnectToken, error) {
	return counted(v, "connection", func() (*ConnectToken, error) {
		c, err := v.verify(ctx, token)
		if err != nil {
			return nil, err
		}
		return checked(v, c, claims.connectToken)
	})
}

// Subscribe verifies a subscription token. Whether it is for this user,
// channel and connection is for the caller to see. Faults: as of Connect.
func (v *Verifier) Subscribe(ctx context.Context, token string) (*SubscribeToken, error) {
	return counted(v, "subscription", func() (*SubscribeToken, error) {
		c, err := v.verify(ctx, token)
		if err != nil {
			return nil, err
		}
		return checked(v, c, claims.subscribeToken)
	})
}

func counted[T any](v *Verifier, kind string, f func() (*T, error)) (*T, error) {
	t, err := f()
	result := "ok"
	if err != nil {
		t, result = nil, fault.Of(err).Code
	}
	v.metrics.tokens.WithLabelValues(kind, result).Inc()
	return t, err
}

// verify returns the claims of a token that one of our keys signed.
func (v *Verifier) verify(ctx context.Context, token string) (claims, error) {
	if len(token) > maxToken || strings.ContainsAny(token, "\r\n") { // base64 skips line breaks
		return nil, ErrInvalid
	}
	var c claims
	_, err := v.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		if _, there := t.Header["crit"]; there { // RFC 7515 section 4.1.11: we know no extension
			return nil, errors.New("unknown extensions")
		}
		alg := t.Method.Alg()
		if v.keys == nil {
			return v.static[alg], nil
		}
		kid, _ := t.Header["kid"].(string)
		key, err := v.keys.find(ctx, kid)
		if err == nil && !key.takes(alg) {
			err = ErrInvalid
		}
		return key.public, err
	})
	switch {
	case err == nil && c == nil: // the JSON value null
		return nil, ErrInvalid
	case err == nil:
		return c, nil
	case fault.Of(err).Kind == fault.Unavailable:
		return nil, fault.Of(err)
	}
	return nil, ErrInvalid.Because(err)
}

// checked validates the claims of a verified token and decodes them. Times have
// no leeway, as in Centrifugo.
func checked[T any](v *Verifier, c claims, decode func(c claims, userClaim string) (*T, error)) (*T, error) {
	t, err := decode(c, v.userClaim)
	exp, err1 := c.GetExpirationTime()
	nbf, err2 := c.GetNotBefore()
	_, err3 := c.GetIssuedAt()
	iss, err4 := c.GetIssuer()
	aud, err5 := c.GetAudience()
	_, err6 := c.text("jti")
	if err := errors.Join(err, err1, err2, err3, err4, err5, err6); err != nil {
		return nil, ErrInvalid.Because(err)
	}
	now := time.Now()
	switch {
	case v.issuer != "" && iss != v.issuer, v.audience != "" && !slices.Contains(aud, v.audience):
		return nil, ErrInvalid
	case exp != nil && !now.Before(exp.Time), nbf != nil && now.Before(nbf.Time):
		return nil, ErrExpired
	}
	return t, nil
}
