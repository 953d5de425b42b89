package auth

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	token, want := newToken()
	if len(token) != 46 || !strings.HasPrefix(token, "mg_") {
		t.Errorf("token of %d characters", len(token))
	}
	if got, ok := parseToken(token); !ok || got != want {
		t.Errorf("parsed %v, %v, want %v", got, ok, want)
	}
	zero := "mg_" + strings.Repeat("A", 43)
	for name, bad := range map[string]string{
		"empty": "", "prefix only": "mg_", "short": token[:45], "long": token + "A",
		"other prefix": "MG_" + token[3:], "padding": token[:45] + "=", "standard alphabet": zero[:45] + "/",
		"other spelling of the same bytes": zero[:45] + "B", "line break": zero[:44] + "\nA", "space": " " + token[1:],
		"NUL": token[:45] + "\x00", "not ASCII": token[:43] + "明",
	} {
		if _, ok := parseToken(bad); ok {
			t.Errorf("%s: %q is taken as a token", name, bad)
		}
	}
	if n := testing.AllocsPerRun(100, func() { parseToken(token) }); n != 0 {
		t.Errorf("parseToken allocates %v times", n)
	}
}

func TestBearerToken(t *testing.T) {
	for name, tc := range map[string]struct {
		headers     []string
		token, code string
	}{
		"good":          {[]string{"Bearer abc"}, "abc", ""},
		"any case":      {[]string{"bEARER abc"}, "abc", ""},
		"more spaces":   {[]string{"Bearer   abc"}, "abc", ""},
		"none":          {nil, "", "token_missing"},
		"empty":         {[]string{""}, "", "token_invalid"},
		"scheme only":   {[]string{"Bearer"}, "", "token_invalid"},
		"no token":      {[]string{"Bearer  "}, "", "token_invalid"},
		"other scheme":  {[]string{"Basic abc"}, "", "token_invalid"},
		"bare token":    {[]string{"mg_abc"}, "", "token_invalid"},
		"two headers":   {[]string{"Bearer abc", "Bearer abc"}, "", "token_invalid"},
		"tab for space": {[]string{"Bearer\tabc"}, "", "token_invalid"},
	} {
		got, err := BearerToken(&http.Request{Header: http.Header{"Authorization": tc.headers}})
		if tc.headers == nil {
			got, err = BearerToken(&http.Request{})
		}
		if got != tc.token {
			t.Errorf("%s: token %q, want %q", name, got, tc.token)
		}
		wantFault(t, err, tc.code)
	}
}

func FuzzParseToken(f *testing.F) {
	token, _ := newToken()
	for _, seed := range []string{token, "", "mg_", token[:45] + "\n", "mg_" + strings.Repeat("A", 43)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fp, ok := parseToken(text)
		if ok && fp != sha256.Sum256([]byte(text)) {
			t.Error("the fingerprint is not that of the token")
		}
		raw, err := strict.DecodeString(strings.TrimPrefix(text, tokenPrefix))
		if want := err == nil && text == tokenPrefix+strict.EncodeToString(raw) && len(raw) == tokenSize; ok != want {
			t.Errorf("%q: taken %v, want %v", text, ok, want)
		}
	})
}

func FuzzBearerToken(f *testing.F) {
	for _, seed := range []string{"Bearer abc", "bearer  x", "", " ", "Basic x", "Bearer"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		token, err := BearerToken(&http.Request{Header: http.Header{"Authorization": {header}}})
		if (err == nil) == (token == "") {
			t.Errorf("token %q with error %v", token, err)
		}
		if err == nil && (!strings.HasSuffix(header, token) || strings.HasPrefix(token, " ")) {
			t.Errorf("%q gave %q", header, token)
		}
	})
}

func FuzzStoredSession(f *testing.F) {
	data, err := encodeSession(newSession("ann", 0))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{data, nil, []byte("{}"), []byte(`{"o":"x","e":"!"}`), []byte("null")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeSession(Fingerprint{}, data)
		if (err == nil) != (s != nil && s.User.OpenID != "") {
			t.Errorf("%q gave %+v, %v", data, s, err)
		}
	})
}

func FuzzEndedMessage(f *testing.F) {
	s := NewRedisStore(nil, "test")
	for _, seed := range []string{"", "{}", "null", `{"node":"x","session":"` + Fingerprint{1}.String() + `","user":{"openid":"o"},"reason":"logout"}`, `{"node":"x","block":{"openid":"o","blocked":true}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		heard := 0
		s.tell(payload, Hear{
			Ended: func(end SessionEnd) {
				if heard++; end.Fingerprint == (Fingerprint{}) {
					t.Errorf("%q ended no session", payload)
				}
			},
			Blocked: func(c BlockChange) {
				if heard++; c.OpenID == "" {
					t.Errorf("%q blocked nobody", payload)
				}
			},
		})
		if heard > 1 {
			t.Errorf("%q said %d things", payload, heard)
		}
	})
}
