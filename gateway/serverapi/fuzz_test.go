package serverapi

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/minigate/minigate/internal/apidoc/apidoctest"
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
			if err := apidoctest.Check(apidoctest.Exchange{Method: "POST", Path: "/api/" + name, Status: 200, Header: rec.Header(), Answer: rec.Body.Bytes(), Request: []byte(body)}); err != nil {
				t.Fatal(err)
			}
			var top map[string]json.RawMessage
			if err := json.Unmarshal(rec.Body.Bytes(), &top); err != nil || len(top) != 1 {
				t.Fatalf("%s %q: %s", name, body, rec.Body)
			}
		default:
			t.Fatalf("%s %q: %d %s", name, body, rec.Code, rec.Body)
		}
	})
}

// FuzzCommands sends any body in the older form: it is refused, or each command
// is answered by a line that is as described.
func FuzzCommands(f *testing.F) {
	w := newWorld(f)
	for _, body := range []string{
		``, `{}`, `{"id":1,"method":"publish","params":{"channel":"a","data":1}}`, "{\"method\":\"info\"}\n{\"method\":\"batch\"}", `{}{}`, `[]`, `{"id":-1}`,
		`{"method":"subscribe","params":{"user":"u","channel":"room:a"}}`, `{"method":"push","params":{"users":["a"],"data":1}}`, `{"method":"channels","params":{"pattern":"{"}}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "/api", strings.NewReader(body))
		r.Header.Set("X-Api-Key", adminKey)
		rec := httptest.NewRecorder()
		w.api.ServeHTTP(rec, r)
		if rec.Code != 200 {
			if rec.Code != 400 {
				t.Fatalf("%q: %d", body, rec.Code)
			}
			return
		}
		commands := 0
		for dec := json.NewDecoder(strings.NewReader(body)); dec.More(); commands++ {
			var c json.RawMessage
			if err := dec.Decode(&c); err != nil {
				t.Fatalf("%q was taken: %v", body, err)
			}
		}
		if lines := strings.Split(rec.Body.String(), "\n"); len(lines) != commands {
			t.Fatalf("%q: %d commands, %d lines", body, commands, len(lines))
		}
		e := apidoctest.Exchange{Method: "POST", Path: "/api", Status: 200, Header: rec.Header(), Answer: rec.Body.Bytes(), Request: []byte(`{}`)}
		if err := apidoctest.Check(e); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzData checks that data stays the same JSON on one line.
func FuzzData(f *testing.F) {
	for _, data := range []string{`{"a":1}`, "[\n1,\r\n2 ]", "[1,\r2]", `"\n"`, "\"\u2028\"", `1`, `nul`, "\"\xff\"", " \n\"x\"\n "} {
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
