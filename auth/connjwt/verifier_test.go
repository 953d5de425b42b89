package connjwt

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/settings"
)

// Every algorithm with every key: what fits is good, all else is not, and no
// public key can be passed off as a secret.
func TestAlgorithms(t *testing.T) {
	k := testKeys()
	rsaPEM, ecPEM := publicPEM(t, &k.rsa.PublicKey), publicPEM(t, &k.p256.PublicKey)
	all := Settings{HMACSecretKey: secret, RSAPublicKey: rsaPEM, ECDSAPublicKey: ecPEM}
	for name, tc := range map[string]struct {
		settings Settings
		alg      string
		key      any
		want     error
	}{
		"HS256":                        {all, "HS256", []byte(secret), nil},
		"HS384":                        {all, "HS384", []byte(secret), nil},
		"HS512":                        {all, "HS512", []byte(secret), nil},
		"RS256":                        {all, "RS256", k.rsa, nil},
		"RS384":                        {all, "RS384", k.rsa, nil},
		"RS512":                        {all, "RS512", k.rsa, nil},
		"ES256":                        {all, "ES256", k.p256, nil},
		"ES384":                        {Settings{ECDSAPublicKey: publicPEM(t, &k.p384.PublicKey)}, "ES384", k.p384, nil},
		"ES512":                        {Settings{ECDSAPublicKey: publicPEM(t, &k.p521.PublicKey)}, "ES512", k.p521, nil},
		"other secret":                 {all, "HS256", []byte(secret + "x"), ErrInvalid},
		"other RSA key":                {all, "RS256", k.otherRSA, ErrInvalid},
		"HS with the RSA key's PEM":    {all, "HS256", []byte(rsaPEM), ErrInvalid},
		"HS with PEM, no secret set":   {Settings{RSAPublicKey: rsaPEM}, "HS256", []byte(rsaPEM), ErrInvalid},
		"HS with the ECDSA key's PEM":  {Settings{ECDSAPublicKey: ecPEM}, "HS256", []byte(ecPEM), ErrInvalid},
		"HS without a secret, empty":   {Settings{RSAPublicKey: rsaPEM}, "HS256", []byte{}, ErrInvalid},
		"RS where only ES":             {Settings{ECDSAPublicKey: ecPEM}, "RS256", k.rsa, ErrInvalid},
		"RS named ES":                  {all, "ES256", k.rsa, ErrInvalid},
		"RS named PS":                  {all, "PS256", k.rsa, ErrInvalid},
		"ES384 with a P-256 key":       {all, "ES384", k.p256, ErrInvalid},
		"ES256 with another curve":     {all, "ES256", k.p384, ErrInvalid},
		"EdDSA without a set":          {all, "EdDSA", k.ed, ErrInvalid},
		"none":                         {all, "none", nil, ErrInvalid},
		"None":                         {all, "None", nil, ErrInvalid},
		"no algorithm":                 {all, "", nil, ErrInvalid},
		"none with a good signature":   {all, "none", []byte(secret), ErrInvalid},
		"signed for another algorithm": {all, "HS512", k.rsa, ErrInvalid},
	} {
		v := newVerifier(t, tc.settings)
		token := sign(t, object{"alg": tc.alg, "typ": "JWT"}, object{"sub": "u"}, tc.key)
		got, err := v.Connect(t.Context(), token)
		if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if (got != nil) != (tc.want == nil) || got != nil && got.User != "u" {
			t.Errorf("%s: token %+v", name, got)
		}
	}
}

func TestMalformed(t *testing.T) {
	v := newVerifier(t, hmacSettings())
	good := sign(t, object{"alg": "HS256"}, object{"sub": "u"}, []byte(secret))
	head, rest, _ := strings.Cut(good, ".")
	body, sig, _ := strings.Cut(rest, ".")
	hs := func(header object, payload any) string { return sign(t, header, payload, []byte(secret)) }
	for name, token := range map[string]string{
		"empty": "", "dots": "..", "no signature": head + "." + body + ".", "two parts": head + "." + body,
		"four parts": good + ".x", "padding": good + "=", "line break": good + "\n", "other payload": head + "." + segment(object{"sub": "v"}) + "." + sig,
		"other header": segment(object{"alg": "HS384"}) + "." + body + "." + sig,
		"crit":         hs(object{"alg": "HS256", "crit": []string{"b64"}, "b64": false}, object{"sub": "u"}),
		"no object":    hs(object{"alg": "HS256"}, `["sub"]`),
		"null":         hs(object{"alg": "HS256"}, `null`),
		"no JSON":      hs(object{"alg": "HS256"}, `{"sub":`),
		"too large":    hs(object{"alg": "HS256"}, object{"sub": "u", "x": strings.Repeat("x", maxToken)}),
		"alg is no text": func() string {
			return segment(object{"alg": 5}) + "." + body + "." + sig
		}(),
	} {
		if got, err := v.Connect(t.Context(), token); !errors.Is(err, ErrInvalid) || got != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := v.Connect(t.Context(), good); err != nil {
		t.Error(err)
	}
}

func yes() *bool { b := true; return &b }
func no() *bool  { b := false; return &b }

func raw(text string) json.RawMessage { return json.RawMessage(text) }

func TestConnectClaims(t *testing.T) {
	now := time.Now().Unix()
	at := func(s int64) time.Time { return time.Unix(now+s, 0) }
	base := hmacSettings()
	strictly := base
	strictly.Audience, strictly.Issuer = "gate", "backend"
	renamed := base
	renamed.UserIDClaim = "uid"
	none := map[string]SubscribeOptions{}
	for name, tc := range map[string]struct {
		settings Settings
		payload  any
		want     ConnectToken
		err      error
	}{
		"nothing":            {base, object{}, ConnectToken{Subs: none}, nil},
		"only iat":           {base, object{"iat": now}, ConnectToken{Subs: none}, nil},
		"sub and exp":        {base, object{"sub": "u", "exp": now + 60}, ConnectToken{User: "u", Expires: at(60), Subs: none}, nil},
		"expire_at over exp": {base, object{"exp": now + 60, "expire_at": now + 600}, ConnectToken{Expires: at(600), Subs: none}, nil},
		"expire_at 0":        {base, object{"exp": now + 60, "expire_at": 0}, ConnectToken{Subs: none}, nil},
		"expire_at passed":   {base, object{"exp": now + 60, "expire_at": now - 1}, ConnectToken{Expires: at(-1), Subs: none}, nil},
		"info, meta":         {base, `{"info":{"a": [1, "\n"]},"meta":{"role":"x"}}`, ConnectToken{Info: raw(`{"a":[1,"\n"]}`), Meta: raw(`{"role":"x"}`), Subs: none}, nil},
		"info null":          {base, `{"info":null}`, ConnectToken{Subs: none}, nil},
		"b64info":            {base, object{"info": 1, "b64info": "eyJiIjoxfQ=="}, ConnectToken{Info: raw(`{"b":1}`), Subs: none}, nil},
		"channels":           {base, object{"channels": []string{"a", "b"}}, ConnectToken{Subs: map[string]SubscribeOptions{"a": {}, "b": {}}}, nil},
		"subs over channels": {
			base,
			`{"channels":["a"],"subs":{"c":{"info":1,"data":{"d": 2},"override":{"presence":{"value":true},"join_leave":{"value":false},"force_recovery":{"value":true},"force_positioning":{},"force_push_join_leave":{"value":true}}},"e":{"b64info":"Mw==","b64data":"NA=="},"f":null}}`,
			ConnectToken{Subs: map[string]SubscribeOptions{
				"c": {raw("1"), raw(`{"d":2}`), Override{yes(), no(), yes(), yes(), no()}},
				"e": {Info: raw("3"), Data: raw("4")}, "f": {},
			}},
			nil,
		},
		"other user claim":    {renamed, object{"sub": "s", "uid": "u"}, ConnectToken{User: "u", Subs: none}, nil},
		"no such user claim":  {renamed, object{"sub": "s"}, ConnectToken{Subs: none}, nil},
		"aud and iss":         {strictly, object{"aud": "gate", "iss": "backend"}, ConnectToken{Subs: none}, nil},
		"aud among others":    {strictly, object{"aud": []string{"x", "gate"}, "iss": "backend"}, ConnectToken{Subs: none}, nil},
		"fractions":           {base, object{"exp": float64(now) + 60.5}, ConnectToken{Expires: at(60).Add(time.Second / 2), Subs: none}, nil},
		"other aud":           {strictly, object{"aud": "x", "iss": "backend"}, ConnectToken{}, ErrInvalid},
		"no aud":              {strictly, object{"iss": "backend"}, ConnectToken{}, ErrInvalid},
		"other iss":           {strictly, object{"aud": "gate", "iss": "x"}, ConnectToken{}, ErrInvalid},
		"expired, other iss":  {strictly, object{"aud": "gate", "iss": "x", "exp": 1}, ConnectToken{}, ErrInvalid},
		"expired":             {base, object{"exp": now}, ConnectToken{}, ErrExpired},
		"exp 0":               {base, object{"exp": 0}, ConnectToken{}, ErrExpired},
		"not yet":             {base, object{"nbf": now + 60}, ConnectToken{}, ErrExpired},
		"channel":             {base, object{"channel": "a"}, ConnectToken{}, ErrInvalid},
		"empty channel":       {base, object{"channel": ""}, ConnectToken{}, ErrInvalid},
		"sub is a number":     {base, object{"sub": 42}, ConnectToken{}, ErrInvalid},
		"exp is text":         {base, object{"exp": "soon"}, ConnectToken{}, ErrInvalid},
		"exp out of range":    {base, `{"exp":1e300}`, ConnectToken{}, ErrInvalid},
		"iat is text":         {base, object{"iat": "x"}, ConnectToken{}, ErrInvalid},
		"jti is a number":     {base, object{"jti": 1}, ConnectToken{}, ErrInvalid},
		"b64info no base64":   {base, object{"b64info": "!"}, ConnectToken{}, ErrInvalid},
		"b64info no JSON":     {base, object{"b64info": "aGVsbG8="}, ConnectToken{}, ErrInvalid},
		"channels is text":    {base, object{"channels": "a"}, ConnectToken{}, ErrInvalid},
		"subs is a list":      {base, object{"subs": []string{"a"}}, ConnectToken{}, ErrInvalid},
		"user too long":       {base, object{"sub": strings.Repeat("u", 256)}, ConnectToken{}, ErrInvalid},
		"names are exact":     {base, object{"SUB": "u", "Channel": "x", "EXP": 1}, ConnectToken{Subs: none}, nil},
		"subs data no base64": {base, `{"subs":{"a":{"b64data":"!"}}}`, ConnectToken{}, ErrInvalid},
	} {
		got, err := newVerifier(t, tc.settings).Connect(t.Context(), sign(t, object{"alg": "HS256"}, tc.payload, []byte(secret)))
		switch {
		case !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil):
			t.Errorf("%s: %v, want %v", name, err, tc.err)
		case err == nil && !reflect.DeepEqual(*got, tc.want):
			t.Errorf("%s: got %+v, want %+v", name, *got, tc.want)
		}
	}
}

func TestSubscribeClaims(t *testing.T) {
	now := time.Now().Unix()
	for name, tc := range map[string]struct {
		payload any
		want    SubscribeToken
		err     error
	}{
		"channel":   {object{"channel": "c"}, SubscribeToken{Channel: "c"}, nil},
		"all":       {`{"sub":"u","channel":"$c","client":"id","info":1,"data":2,"override":{"presence":{"value":true}}}`, SubscribeToken{User: "u", Channel: "$c", Client: "id", SubscribeOptions: SubscribeOptions{raw("1"), raw("2"), Override{Presence: yes()}}}, nil},
		"b64":       {object{"channel": "c", "b64info": "MQ==", "b64data": "Mg=="}, SubscribeToken{Channel: "c", SubscribeOptions: SubscribeOptions{Info: raw("1"), Data: raw("2")}}, nil},
		"exp":       {object{"channel": "c", "exp": now + 60}, SubscribeToken{Channel: "c", Expires: time.Unix(now+60, 0)}, nil},
		"expire_at": {object{"channel": "c", "exp": now + 60, "expire_at": 0}, SubscribeToken{Channel: "c"}, nil},
		"expired":   {object{"channel": "c", "exp": now - 1}, SubscribeToken{}, ErrExpired},
		"none":      {object{"sub": "u"}, SubscribeToken{}, ErrInvalid},
		"empty":     {object{"channel": ""}, SubscribeToken{}, ErrInvalid},
		"a number":  {object{"channel": 1}, SubscribeToken{}, ErrInvalid},
		"override":  {object{"channel": "c", "override": object{"presence": true}}, SubscribeToken{}, ErrInvalid},
		"info":      {object{"channel": "c", "b64info": "{"}, SubscribeToken{}, ErrInvalid},
	} {
		got, err := newVerifier(t, hmacSettings()).Subscribe(t.Context(), sign(t, object{"alg": "HS256"}, tc.payload, []byte(secret)))
		switch {
		case !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil):
			t.Errorf("%s: %v, want %v", name, err, tc.err)
		case err == nil && !reflect.DeepEqual(*got, tc.want):
			t.Errorf("%s: got %+v, want %+v", name, *got, tc.want)
		}
	}
}

// exp and nbf are looked at to the second, without leeway.
func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, hmacSettings())
		now := time.Now().Unix()
		token := sign(t, object{"alg": "HS256"}, object{"nbf": now + 10, "exp": now + 20}, []byte(secret))
		for _, step := range []struct {
			wait time.Duration
			want error
		}{{0, ErrExpired}, {10*time.Second - 1, ErrExpired}, {1, nil}, {10*time.Second - 1, nil}, {1, ErrExpired}} {
			time.Sleep(step.wait)
			if _, err := v.Connect(t.Context(), token); !errors.Is(err, step.want) || (err == nil) != (step.want == nil) {
				t.Errorf("%v after the start: %v, want %v", time.Now().Unix()-now, err, step.want)
			}
		}
	})
}

func TestOff(t *testing.T) {
	v, err := New(Settings{Audience: "x"}, nil)
	if v != nil || err != nil {
		t.Errorf("%v, %v", v, err)
	}
}

func TestCheck(t *testing.T) {
	k := testKeys()
	rsaPEM, ecPEM := publicPEM(t, &k.rsa.PublicKey), publicPEM(t, &k.p256.PublicKey)
	for name, tc := range map[string]struct {
		settings SubscriptionSettings
		want     string
	}{
		"off":             {SubscriptionSettings{}, ""},
		"good":            {SubscriptionSettings{true, Settings{HMACSecretKey: secret, RSAPublicKey: rsaPEM, ECDSAPublicKey: ecPEM}}, ""},
		"short secret":    {SubscriptionSettings{true, Settings{HMACSecretKey: "short"}}, "hmac_secret_key"},
		"RSA is ECDSA":    {SubscriptionSettings{true, Settings{RSAPublicKey: ecPEM}}, "rsa_public_key"},
		"ECDSA is RSA":    {SubscriptionSettings{true, Settings{ECDSAPublicKey: rsaPEM}}, "ecdsa_public_key"},
		"no PEM":          {SubscriptionSettings{true, Settings{RSAPublicKey: "AAAA"}}, "rsa_public_key"},
		"https":           {SubscriptionSettings{true, Settings{JWKSPublicEndpoint: "https://id.example.com/jwks"}}, ""},
		"loopback":        {SubscriptionSettings{true, Settings{JWKSPublicEndpoint: "http://127.0.0.1:1/jwks"}}, ""},
		"plain http":      {SubscriptionSettings{true, Settings{JWKSPublicEndpoint: "http://id.example.com/jwks"}}, "jwks_public_endpoint"},
		"http, lookalike": {SubscriptionSettings{true, Settings{JWKSPublicEndpoint: "http://localhost.example.com/"}}, "jwks_public_endpoint"},
		"file":            {SubscriptionSettings{true, Settings{JWKSPublicEndpoint: "file:///etc/jwks"}}, "jwks_public_endpoint"},
		"both":            {SubscriptionSettings{true, Settings{JWKSPublicEndpoint: "https://id.example.com/", HMACSecretKey: secret}}, "jwks_public_endpoint"},
		"on without key":  {SubscriptionSettings{true, Settings{}}, "enabled"},
		"key without on":  {SubscriptionSettings{false, hmacSettings()}, "enabled"},
	} {
		got := ""
		tc.settings.Check(func(path, _ string) { got += path })
		if got != tc.want {
			t.Errorf("%s: reported %q, want %q", name, got, tc.want)
		}
	}
}

func FuzzToken(f *testing.F) {
	v, err := New(Settings{HMACSecretKey: settings.Secret(secret)}, nil)
	if err != nil {
		f.Fatal(err)
	}
	good := sign(f, object{"alg": "HS256"}, object{"sub": "u", "exp": 1 << 39, "subs": object{"a": object{"info": 1}}}, []byte(secret))
	for _, seed := range []string{good, good[:40], "..", "e30.e30.", segment(object{"alg": "none"}) + ".e30."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if got, err := v.Connect(t.Context(), token); err == nil && (token != good || got.User != "u") {
			t.Errorf("%q is taken for %+v", token, got)
		}
		_, _ = v.Subscribe(t.Context(), token)
	})
}

// FuzzClaims lets the payload be anything that was signed.
func FuzzClaims(f *testing.F) {
	v, err := New(Settings{HMACSecretKey: settings.Secret(secret)}, nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{`{}`, `{"sub":"u","exp":1e9}`, `{"info":[1],"b64info":"MQ=="}`, `{"subs":{"a":{"override":{"presence":{"value":true}}}}}`, `{"channel":"c","expire_at":-1}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		token := sign(t, object{"alg": "HS256"}, payload, []byte(secret))
		if c, err := v.Connect(t.Context(), token); err == nil {
			if c.Info != nil && (!json.Valid(c.Info) || strings.Contains(string(c.Info), "\n")) {
				t.Errorf("info %q", c.Info)
			}
		}
		if s, err := v.Subscribe(t.Context(), token); err == nil && s.Channel == "" {
			t.Error("a subscription token without a channel")
		}
	})
}
