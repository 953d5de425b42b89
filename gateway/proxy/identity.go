package proxy

import (
	"bytes"
	"encoding/json"
	"sync"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/jws"
)

// headerIdentity is the caller's identity as a JSON Web Token, for backends
// that do not take the network's word for the X-WX headers.
const headerIdentity = "X-Minigate-Identity"

// identityType is the token's typ. It keeps what else is signed with the same
// keys, and is in the hands of phones, from being taken for an identity.
const identityType = "minigate-identity+jwt"

// IdentitySettings say what the signed identity looks like.
type IdentitySettings struct {
	Enabled  bool          `yaml:"enabled" default:"true" doc:"Whether requests and rpc calls of logged-in users carry it."`
	Issuer   string        `yaml:"issuer" default:"minigate" doc:"Who says so (iss)."`
	Lifetime time.Duration `yaml:"lifetime" default:"2m" doc:"How long it is good for once it is signed, 10s to 1h. It is used again for half of that, but at most 60s, so a backend gets it with at least half of its life left."`
	Claims   bool          `yaml:"claims" default:"true" doc:"Whether it repeats the claims of the login. They may have 4 KiB, which base64 makes 5.4; there are backends that take no more than 8 KiB of headers."`
}

func (s *IdentitySettings) check(report func(path, problem string)) {
	if !s.Enabled {
		return
	}
	if s.Issuer == "" {
		report("issuer", "must not be empty")
	}
	if s.Lifetime < 10*time.Second || s.Lifetime > time.Hour {
		report("lifetime", "must be between 10s and 1h")
	}
}

// identity is the token's payload.
type identity struct {
	Issuer   string          `json:"iss"`
	Audience string          `json:"aud"`
	OpenID   string          `json:"sub"`
	AppID    string          `json:"appid,omitempty"`
	UnionID  string          `json:"unionid,omitempty"`
	Session  string          `json:"sid,omitempty"` // as operators see it
	Claims   json.RawMessage `json:"claims,omitempty"`
	Issued   int64           `json:"iat"` // Unix seconds
	Expires  int64           `json:"exp"`
}

const (
	maxReuse      = time.Minute
	maxIdentities = 1 << 15  // tokens in a generation
	maxIdentBytes = 32 << 20 // what they take together, about
)

// identities signs, and remembers for a while what it signed: a signature
// takes longer than all else that is done for a request. It keeps two
// generations, the older of which is forgotten when the younger one is full or
// has become as old as a token may be used.
type identities struct {
	IdentitySettings
	signer *jws.Signer
	reuse  time.Duration

	mu         sync.Mutex
	young, old map[identityKey]signed
	bytes      int       // of the young ones
	began      time.Time // when the young generation did
}

// identityKey is of a login, or of a connection without one.
type identityKey struct {
	session  auth.Fingerprint
	openID   string
	audience string
}

type signed struct {
	user   auth.User
	claims json.RawMessage
	until  time.Time
	header []string // the token, as http.Header wants it; never changed
}

// newIdentities returns nil where no identity is to be signed.
func newIdentities(s IdentitySettings, signer *jws.Signer) *identities {
	if !s.Enabled || signer == nil {
		return nil
	}
	return &identities{
		IdentitySettings: s, signer: signer, reuse: min(s.Lifetime/2, maxReuse),
		young: map[identityKey]signed{}, old: map[identityKey]signed{},
	}
}

// of is the header's value for s; nil where there is none.
func (is *identities) of(s *auth.Session, audience string) ([]string, error) {
	if is == nil || s == nil {
		return nil, nil
	}
	now, key := time.Now(), identityKey{s.Fingerprint, s.User.OpenID, audience}
	is.mu.Lock()
	is.turn(now, 0)
	known, there := is.young[key]
	if !there {
		known, there = is.old[key]
	}
	is.mu.Unlock()
	// A unionid may become known later, and claims are not trusted to stay.
	if there && now.Before(known.until) && known.user == s.User && bytes.Equal(known.claims, s.Claims) {
		return known.header, nil
	}
	token, err := is.sign(s, audience, now)
	if err != nil {
		return nil, err
	}
	known = signed{s.User, s.Claims, now.Add(is.reuse), []string{token}}
	is.mu.Lock()
	defer is.mu.Unlock()
	is.turn(now, len(token)+len(s.Claims))
	is.young[key] = known
	is.bytes += len(token) + len(s.Claims)
	return known.header, nil
}

// turn begins a new generation where it is time; it wants the lock.
func (is *identities) turn(now time.Time, more int) {
	if len(is.young) < maxIdentities && is.bytes+more <= maxIdentBytes && now.Sub(is.began) < is.reuse {
		return
	}
	is.old = is.young
	if now.Sub(is.began) >= 2*is.reuse { // nobody can be of use any more
		is.old = nil
	}
	is.young, is.bytes, is.began = map[identityKey]signed{}, 0, now
}

func (is *identities) sign(s *auth.Session, audience string, now time.Time) (string, error) {
	id := identity{
		Issuer: is.Issuer, Audience: audience, OpenID: s.User.OpenID, AppID: s.User.AppID, UnionID: s.User.UnionID,
		Issued: now.Unix(), Expires: now.Add(is.Lifetime).Unix(),
	}
	if s.Fingerprint != (auth.Fingerprint{}) {
		id.Session = s.Fingerprint.ID()
	}
	if is.Claims {
		id.Claims = s.Claims
	}
	return is.signer.SignTyped(identityType, id)
}
