package serverapi

import (
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// What SDKs and the JSON libraries of most languages write is plain.
var plainBodies = []string{
	`{"channel":"room:a","data":{"a":1}}`,
	`{"channel": "#oUser_1-2", "data": "text \u4f60\n"}`,
	"{\n\t\"channel\" : \"room:a\" ,\r\n \"data\" : [ 1 , 2 ] \n}\n",
	`{"channel":"room:a","data":null}`,
	`{"channel":"","data":"你好"}`,
	`{"channel":"room:a","data":{"channel":"other","data":2,"data":3}}`,
}

var otherBodies = []string{
	``, `{`, `{}`, `{"channel":"room:a"}`, `{"channel":"room:a","data":}`, `{"channel":"room:a","data":1`, `{"channel":"room:a","data":1}}`,
	`{"channel":"room:a","data":1,"delta":true}`, `{"channel":"room:a","data":1,"data":2}`, `{"channel":"room:a","data":1,"channel":"room:b"}`,
	`{"channel":"房间","data":1}`, `{"channel":"a\u0041","data":1}`, `{"channel":"room:a,"data":1}`, `{"channel":1,"data":1}`, `{"Channel":"room:a","data":1}`,
	`{"data":1,"channel":"room:a"}`, `{"channel":"room:a","data":1} x`, "{\"channel\":\"room:a\",\"data\":\"\n\"}", "{\"channel\":\"a\x7f\",\"data\":1}",
	"\v" + `{"channel":"room:a","data":1}`, `{"channel":"room:a","data":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`,
}

func TestPlainPublish(t *testing.T) {
	for _, body := range plainBodies {
		if !samePublish(t, body) {
			t.Errorf("%q is not plain", body)
		}
	}
	for _, body := range otherBodies {
		if samePublish(t, body) {
			t.Errorf("%.100q is plain", body)
		}
	}
}

// FuzzPlainPublish holds the short way against encoding/json.
func FuzzPlainPublish(f *testing.F) {
	for _, body := range append(plainBodies, otherBodies...) {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if utf8.ValidString(body) { // else it gets never past reading the body
			samePublish(t, body)
		}
	})
}

// samePublish tells whether a body is plain, and whether what is plain is read
// as by encoding/json.
func samePublish(t *testing.T, body string) bool {
	t.Helper()
	bytes := []byte(body)
	got, ok := plainPublish(bytes)
	if !ok {
		return false
	}
	want, err := decode[publishRequest]([]byte(body))
	clear(bytes) // the buffer is used again
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%q is read as %+v, want %+v, %v", body, got, want, err)
	}
	return true
}

func TestPlainReply(t *testing.T) {
	for _, p := range []position{{}, {Offset: 1}, {Epoch: "AbC-_1"}, {Offset: 1<<64 - 1, Epoch: "~ !"}} {
		if got, want := string(p.appendReply(nil)), string(encode(reply{Result: p})); got != want || !plain(p.Epoch) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for _, epoch := range []string{`"`, `\`, "\n", "\x7f", "你"} {
		if plain(epoch) {
			t.Errorf("%q is plain", epoch)
		}
	}
}
