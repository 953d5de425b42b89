package auth

import (
	"crypto/rand"
	"encoding/json"
	"time"
)

// proof is what we state to the backend about a user, in a JWS that goes by
// way of the phone. Issuer is "minigate", subject the openid, audience the
// appid; a backend has to compare the latter two with the user it talks to.
type proof struct {
	Issuer  string          `json:"iss"`
	OpenID  string          `json:"sub"`
	AppID   string          `json:"aud"`
	Issued  int64           `json:"iat"` // Unix seconds
	Expires int64           `json:"exp"`
	ID      string          `json:"jti"`
	UnionID string          `json:"unionid,omitempty"`
	Kind    string          `json:"kind"` // "opendata" or "phone"
	RawData json.RawMessage `json:"raw_data,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
}

const proofIssuer = "minigate"

func (s *Service) prove(user User, kind string, p proof) (string, error) {
	now := time.Now()
	p.Issuer, p.OpenID, p.AppID, p.UnionID = proofIssuer, user.OpenID, user.AppID, user.UnionID
	p.Issued, p.Expires = now.Unix(), now.Add(s.opener.ProofTTL).Unix()
	p.ID, p.Kind = rand.Text(), kind
	return s.opener.signer.Sign(p)
}
