package apikey

import (
	"net/http/httptest"
	"strings"
	"testing"
)

var keys = []Key{
	{"backend", "backend-key-0123456789", Publish},
	{"ops", "ops-key-0123456789abc", Admin},
	{"grafana", "grafana-key-0123456789", Read},
}

func TestAuthenticate(t *testing.T) {
	k, err := New(keys, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ header, value, query, name, scope string }{
		{"X-API-Key", "backend-key-0123456789", "", "backend", Publish},
		{"x-api-key", "ops-key-0123456789abc", "", "ops", Admin},
		{"Authorization", "apikey grafana-key-0123456789", "", "grafana", Read},
		{"Authorization", "ApiKey  grafana-key-0123456789", "", "grafana", Read},
		{"", "", "?api_key=backend-key-0123456789", "backend", Publish},
		{"Authorization", "Bearer x", "?api_key=backend-key-0123456789", "backend", Publish},
		{"X-API-Key", "wrong", "?api_key=backend-key-0123456789", "", ""},
		{"X-API-Key", "backend-key-012345678", "", "", ""},
		{"X-API-Key", "backend-key-01234567890", "", "", ""},
		{"X-API-Key", "backend", "", "", ""},
		{"Authorization", "backend-key-0123456789", "", "", ""},
		{"Authorization", "Bearer backend-key-0123456789", "", "", ""},
		{"Authorization", "apikey", "", "", ""},
		{"", "", "?api_key=", "", ""},
		{"", "", "?API_KEY=backend-key-0123456789", "", ""},
		{"", "", "", "", ""},
	} {
		r := httptest.NewRequest("POST", "/api/publish"+c.query, nil)
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		name, scope, ok := k.Authenticate(r)
		if name != c.name || scope != c.scope || ok != (c.name != "") {
			t.Errorf("%s: %q %s: got %q %q %v", c.header, c.value, c.query, name, scope, ok)
		}
	}
}

func TestNoKeysLetNobodyIn(t *testing.T) {
	k, err := New(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := k.Authenticate(httptest.NewRequest("POST", "/api/publish", nil)); ok {
		t.Error("somebody got in")
	}
}

func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		keys       []Key
		allowShort bool
		want       string
	}{
		"good":          {keys, false, ""},
		"dev":           {[]Key{{"dev", "dev", Admin}}, true, ""},
		"short":         {[]Key{{"dev", "dev", Admin}}, false, "api.keys[0].key: must have at least 16 bytes"},
		"empty":         {[]Key{{"dev", "", Admin}}, true, "api.keys[0].key: is required"},
		"no name":       {[]Key{{"", "0123456789abcdef", Admin}}, false, "api.keys[0].name"},
		"odd name":      {[]Key{{"a b", "0123456789abcdef", Admin}}, false, "api.keys[0].name"},
		"scope":         {[]Key{{"a", "0123456789abcdef", "root"}}, false, "api.keys[0].scope"},
		"name twice":    {[]Key{keys[0], {"backend", "0123456789abcdef", Admin}}, false, "api.keys[1].name"},
		"same key":      {[]Key{keys[0], {"b", keys[0].Key, Admin}}, false, "api.keys[1].key"},
		"two mistakes ": {[]Key{{"", "", ""}}, false, "scope"},
	} {
		_, err := New(c.keys, c.allowShort)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "0123456789") {
			t.Errorf("%s: the error shows a key: %v", name, err)
		}
	}
}

func TestAllows(t *testing.T) {
	for _, c := range []struct {
		scope, needed string
		want          bool
	}{
		{Admin, Publish, true},
		{Admin, Read, true},
		{Admin, Admin, true},
		{Publish, Publish, true},
		{Publish, Read, false},
		{Publish, Admin, false},
		{Read, Read, true},
		{Read, Publish, false},
		{Read, Admin, false},
		{"", Publish, false},
	} {
		if Allows(c.scope, c.needed) != c.want {
			t.Errorf("Allows(%q, %q) = %v", c.scope, c.needed, !c.want)
		}
	}
}
