package connjwt

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const maxUser = 255 // bytes of a user's id

// ConnectToken is what a connection token says.
type ConnectToken struct {
	User    string                      // "" is an anonymous user
	Expires time.Time                   // of the connection; zero: never
	Info    json.RawMessage             // what others see of the connection (conn_info), nil: nothing
	Meta    json.RawMessage             // never shown to clients
	Subs    map[string]SubscribeOptions // channels the server subscribes the client to
}

// SubscribeToken is what a subscription token says.
type SubscribeToken struct {
	User    string
	Channel string
	Client  string    // only this connection may use it; "": any of the user
	Expires time.Time // of the subscription; zero: never
	SubscribeOptions
}

// SubscribeOptions are how one subscription differs from its namespace.
type SubscribeOptions struct {
	Info     json.RawMessage // what others see of it (chan_info), nil: nothing
	Data     json.RawMessage // for the client, in the subscribe reply
	Override Override
}

// Override replaces settings of the namespace; nil leaves them.
type Override struct {
	Presence           *bool
	JoinLeave          *bool
	ForcePushJoinLeave *bool
	ForceRecovery      *bool
	ForcePositioning   *bool
}

// claims are a token's payload by claim. JSON members are found by their exact
// names, unlike in a struct, where encoding/json ignores case.
type claims map[string]json.RawMessage

// read decodes a claim into v, which stays as it is where there is none.
func (c claims) read(name string, v any) error {
	raw, ok := c[name]
	if !ok || bytes.Equal(raw, []byte("null")) {
		return nil
	}
	return json.Unmarshal(raw, v)
}

func (c claims) text(name string) (s string, err error) {
	err = c.read(name, &s)
	return s, err
}

// date reads a NumericDate (RFC 7519 section 2), which may have a fraction.
func (c claims) date(name string) (*jwt.NumericDate, error) {
	var f *float64
	if err := c.read(name, &f); err != nil || f == nil {
		return nil, err
	}
	if math.Abs(*f) > 1<<40 { // far in the future, and still exact
		return nil, errors.New("a date out of range")
	}
	whole, part := math.Modf(*f)
	return &jwt.NumericDate{Time: time.Unix(int64(whole), int64(part*1e9))}, nil
}

// GetExpirationTime and the methods below make claims a jwt.Claims.
func (c claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.date("exp") }

// GetIssuedAt implements jwt.Claims.
func (c claims) GetIssuedAt() (*jwt.NumericDate, error) { return c.date("iat") }

// GetNotBefore implements jwt.Claims.
func (c claims) GetNotBefore() (*jwt.NumericDate, error) { return c.date("nbf") }

// GetIssuer implements jwt.Claims.
func (c claims) GetIssuer() (string, error) { return c.text("iss") }

// GetSubject implements jwt.Claims.
func (c claims) GetSubject() (string, error) { return c.text("sub") }

// GetAudience implements jwt.Claims.
func (c claims) GetAudience() (list jwt.ClaimStrings, err error) {
	err = c.read("aud", &list)
	return list, err
}

// user returns who the token is for.
func (c claims) user(claim string) (string, error) {
	user, err := c.text(cmp.Or(claim, "sub"))
	if len(user) > maxUser {
		err = errors.New("the user's id is too long")
	}
	return user, err
}

// expires is expire_at, where 0 means never, or else exp.
func (c claims) expires() (time.Time, error) {
	at, err := c.date("expire_at")
	if at == nil && err == nil {
		at, err = c.date("exp")
	} else if err == nil && at.Unix() <= 0 {
		at = nil
	}
	if err != nil || at == nil {
		return time.Time{}, err
	}
	return at.Time, nil
}

// payload is a JSON value given as such or in base64.
func payload(raw json.RawMessage, b64 string) (json.RawMessage, error) {
	if b64 != "" {
		var err error
		if raw, err = base64.StdEncoding.DecodeString(b64); err != nil {
			return nil, err
		}
	}
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil, nil
	}
	var compact bytes.Buffer // in a frame a line break would end the message
	if err := json.Compact(&compact, raw); err != nil {
		return nil, err
	}
	return compact.Bytes(), nil
}

// subscribeClaims are the members of claim subs, and part of a subscription
// token.
type subscribeClaims struct {
	Info     json.RawMessage `json:"info"`
	B64Info  string          `json:"b64info"`
	Data     json.RawMessage `json:"data"`
	B64Data  string          `json:"b64data"`
	Override Overrides       `json:"override"`
}

func (s *subscribeClaims) options() (o SubscribeOptions, err error) {
	o.Info, err = payload(s.Info, s.B64Info)
	if err != nil {
		return o, err
	}
	o.Data, err = payload(s.Data, s.B64Data)
	o.Override = s.Override.Override()
	return o, err
}

// Overrides is an Override as tokens and webhooks spell it:
// {"presence":{"value":true}}.
type Overrides map[string]*struct{ Value bool }

// Override leaves out what it does not know.
func (m Overrides) Override() (o Override) {
	for name, to := range map[string]**bool{
		"presence":              &o.Presence,
		"join_leave":            &o.JoinLeave,
		"force_push_join_leave": &o.ForcePushJoinLeave,
		"force_recovery":        &o.ForceRecovery,
		"force_positioning":     &o.ForcePositioning,
	} {
		if v := m[name]; v != nil {
			*to = &v.Value
		}
	}
	return o
}

func (c claims) connectToken(userClaim string) (*ConnectToken, error) {
	if _, there := c["channel"]; there {
		return nil, errors.New("a subscription token is no connection token")
	}
	var t ConnectToken
	var b64 string
	var err [5]error
	t.User, err[0] = c.user(userClaim)
	t.Expires, err[1] = c.expires()
	b64, err[2] = c.text("b64info")
	t.Info, err[3] = payload(c["info"], b64)
	t.Subs, err[4] = c.subs()
	t.Meta = c["meta"]
	return &t, errors.Join(err[:]...)
}

// subs returns the claim subs or, where there is none, channels.
func (c claims) subs() (map[string]SubscribeOptions, error) {
	var channels []string
	var given map[string]*subscribeClaims
	if err := errors.Join(c.read("channels", &channels), c.read("subs", &given)); err != nil {
		return nil, err
	}
	subs := make(map[string]SubscribeOptions, len(given))
	for name, s := range given {
		if s == nil {
			s = &subscribeClaims{}
		}
		o, err := s.options()
		if err != nil {
			return nil, err
		}
		subs[name] = o
	}
	if len(given) > 0 {
		return subs, nil
	}
	for _, name := range channels {
		subs[name] = SubscribeOptions{}
	}
	return subs, nil
}

func (c claims) subscribeToken(userClaim string) (*SubscribeToken, error) {
	var t SubscribeToken
	var s subscribeClaims
	var err [9]error
	t.User, err[0] = c.user(userClaim)
	t.Channel, err[1] = c.text("channel")
	t.Client, err[2] = c.text("client")
	t.Expires, err[3] = c.expires()
	s.B64Info, err[4] = c.text("b64info")
	s.B64Data, err[5] = c.text("b64data")
	err[6] = c.read("override", &s.Override)
	s.Info, s.Data = c["info"], c["data"]
	t.SubscribeOptions, err[7] = s.options()
	if t.Channel == "" {
		err[8] = errors.New("a subscription token names a channel")
	}
	return &t, errors.Join(err[:]...)
}
