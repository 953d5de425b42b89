package apikey

import (
	"net/http/httptest"
	"strings"
	"testing"
)

var keys = []Key{
	{Name: "backend", Key: "backend-key-0123456789", Scope: Publish},
	{Name: "ops", Key: "ops-key-0123456789abc", Scope: Admin},
	{Name: "grafana", Key: "grafana-key-0123456789", Scope: Read},
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
		who, ok := k.Authenticate(r)
		if who.Name() != c.name || who.Scope() != c.scope || ok != (c.name != "") {
			t.Errorf("%s: %q %s: got %q %q %v", c.header, c.value, c.query, who.Name(), who.Scope(), ok)
		}
	}
}

func TestNoKeysLetNobodyIn(t *testing.T) {
	k, err := New(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := k.Authenticate(httptest.NewRequest("POST", "/api/publish", nil)); ok {
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
		"dev":           {[]Key{{Name: "dev", Key: "dev", Scope: Admin}}, true, ""},
		"short":         {[]Key{{Name: "dev", Key: "dev", Scope: Admin}}, false, "api.keys[0].key: must have at least 16 bytes"},
		"empty":         {[]Key{{Name: "dev", Key: "", Scope: Admin}}, true, "api.keys[0].key: is required"},
		"no name":       {[]Key{{Name: "", Key: "0123456789abcdef", Scope: Admin}}, false, "api.keys[0].name"},
		"odd name":      {[]Key{{Name: "a b", Key: "0123456789abcdef", Scope: Admin}}, false, "api.keys[0].name"},
		"scope":         {[]Key{{Name: "a", Key: "0123456789abcdef", Scope: "root"}}, false, "api.keys[0].scope"},
		"name twice":    {[]Key{keys[0], {Name: "backend", Key: "0123456789abcdef", Scope: Admin}}, false, "api.keys[1].name"},
		"same key":      {[]Key{keys[0], {Name: "b", Key: keys[0].Key, Scope: Admin}}, false, "api.keys[1].key"},
		"two mistakes ": {[]Key{{Name: "", Key: "", Scope: ""}}, false, "scope"},
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
