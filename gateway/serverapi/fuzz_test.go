package serverapi

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzRequest sends any body to any method: every answer is one of the
// documented forms.
func FuzzRequest(f *testing.F) {
	w := newWorld(f)
	for name := range methods {
		for _, body := range []string{
			``, `{}`, `null`, `{"channel":"room:a","data":{"a":1}}`, `{"channels":["room:a","nope:b"],"b64data":"MQ=="}`,
			`{"user":"u","channel":"room:a","info":1,"b64data":"e30=","expire_at":4102444800,"recover_since":{"offset":1,"epoch":"e"},"override":{"presence":{"value":true}}}`,
			`{"user":"u","disconnect":{"code":4000,"reason":"{}"}}`, `{"users":["a"],"all":true,"data":"\u0000"}`,
			`{"channel":"room:a","limit":-5,"since":{"offset":18446744073709551615,"epoch":""},"reverse":true}`,
			`{"commands":[{"publish":{"channel":"room:a","data":1}},null,{},{"batch":{"commands":[]}}]}`,
		} {
			f.Add(name, body)
		}
	}
	f.Fuzz(func(t *testing.T, name, body string) {
		if _, known := methods[name]; !known {
			return
		}
		r := httptest.NewRequest("POST", "/api/"+name, strings.NewReader(body))
		r.Header.Set("X-Api-Key", adminKey)
		rec := httptest.NewRecorder()
		w.api.ServeHTTP(rec, r)
		switch rec.Code {
		case 400, 413:
		case 200:
			var top map[string]json.RawMessage
			if err := json.Unmarshal(rec.Body.Bytes(), &top); err != nil || len(top) != 1 {
				t.Fatalf("%s %q: %s", name, body, rec.Body)
			}
		default:
			t.Fatalf("%s %q: %d %s", name, body, rec.Code, rec.Body)
		}
	})
}

// FuzzData checks that data stays the same JSON on one line.
func FuzzData(f *testing.F) {
	for _, data := range []string{`{"a":1}`, "[\n1,\r\n2 ]", `"\n"`, "\"\u2028\"", `1`, `nul`, "\"\xff\"", " \n\"x\"\n "} {
		f.Add([]byte(data), "")
		f.Add([]byte(nil), data)
	}
	f.Fuzz(func(t *testing.T, data []byte, b64 string) {
		if b64 == "" && (!json.Valid(data) || !utf8.Valid(data)) {
			return // never gets past reading the body
		}
		got, err := payload{data, b64}.bytes(1 << 10)
		if err != nil {
			return
		}
		if bytes.ContainsAny(got, "\r\n") || len(got) > 1<<10 || !json.Valid(got) || !utf8.Valid(got) {
			t.Fatalf("%q became %q", data, got)
		}
		if b64 == "" && compact(t, got) != compact(t, data) {
			t.Fatalf("%q became %q", data, got)
		}
	})
}

func compact(t *testing.T, data []byte) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, data); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
