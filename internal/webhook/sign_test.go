package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The vector was made with: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac first-signing-secret
const vector = "v1=a0cd8314c35fc1b90bf4a137d0ce8f1c10840fb0de4c097d1e0accc56ffce0d8"

func TestSignVector(t *testing.T) {
	h := http.Header{}
	Sign(h, []byte(`{"a":1}`), keyA, time.Unix(1700000000, 999))
	if got := h.Get("X-Minigate-Signature"); got != vector {
		t.Errorf("signature %s", got)
	}
	if h.Get("X-Minigate-Timestamp") != "1700000000" || h.Get("X-Minigate-Key-Id") != "a" || len(h) != 3 {
		t.Errorf("headers %v", h)
	}
}

func TestVerify(t *testing.T) {
	signed := time.Unix(1700000000, 0)
	body := []byte(`{"a":1}`)
	set := func(name, value string) func(http.Header) { return func(h http.Header) { h.Set(name, value) } }
	change := func(name string, f func(string) string) func(http.Header) {
		return func(h http.Header) { h.Set(name, f(h.Get(name))) }
	}
	for _, tt := range []struct {
		name   string
		change func(http.Header)
		keys   []Key
		body   string
		later  time.Duration
		code   string
	}{
		{name: "good"},
		{name: "as old as may be", later: Window},
		{name: "as new as may be", later: -Window},
		{name: "too old", later: Window + time.Second, code: "signature_expired"},
		{name: "too new", later: -Window - time.Second, code: "signature_expired"},
		{name: "verified by the second key", keys: []Key{keyB, keyA}},
		{name: "key withdrawn", keys: []Key{keyB}, code: "signature_invalid"},
		{name: "same id, other key", keys: []Key{{ID: "a", Secret: keyB.Secret}}, code: "signature_invalid"},
		{name: "no keys", keys: []Key{}, code: "signature_invalid"},
		{name: "other body", body: `{"a":2}`, code: "signature_invalid"},
		{name: "other key's name", change: set(HeaderKeyID, "b"), code: "signature_invalid"},
		{name: "other time", change: set(HeaderTimestamp, "1700000001"), code: "signature_invalid"},
		{name: "dot moved", change: set(HeaderTimestamp, "170000000"), body: `0.{"a":1}`, code: "signature_invalid"},
		{name: "time with a sign", change: set(HeaderTimestamp, "+1700000000"), code: "signature_invalid"},
		{name: "no time", change: set(HeaderTimestamp, ""), code: "signature_invalid"},
		{name: "absurd time", change: set(HeaderTimestamp, strconv.Itoa(math.MinInt64)), code: "signature_invalid"},
		{name: "no signature", change: func(h http.Header) { h.Del(HeaderSignature) }, code: "signature_invalid"},
		{name: "two signatures", change: func(h http.Header) { h.Add(HeaderSignature, "v1=00") }, code: "signature_invalid"},
		{name: "another version only", change: change(HeaderSignature, func(s string) string { return "v2" + s[2:] }), code: "signature_invalid"},
		{name: "another version, too", change: change(HeaderSignature, func(s string) string { return "v2=zz, " + s })},
		{name: "upper case", change: change(HeaderSignature, func(s string) string { return "v1=" + strings.ToUpper(s[3:]) })},
		{name: "cut short", change: change(HeaderSignature, func(s string) string { return s[:len(s)-2] }), code: "signature_invalid"},
		{name: "cut to nothing", change: set(HeaderSignature, "v1="), code: "signature_invalid"},
		{name: "one bit off", change: change(HeaderSignature, func(s string) string { return s[:len(s)-1] + string(s[len(s)-1]^1) }), code: "signature_invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			Sign(h, body, keyA, signed)
			if tt.change != nil {
				tt.change(h)
			}
			if tt.keys == nil {
				tt.keys = []Key{keyA, keyB}
			}
			received := body
			if tt.body != "" {
				received = []byte(tt.body)
			}
			wantCode(t, Verify(h, received, tt.keys, signed.Add(tt.later)), tt.code)
		})
	}
}

func FuzzVerify(f *testing.F) {
	now := time.Unix(1700000000, 0)
	good := http.Header{}
	Sign(good, []byte("{}"), keyA, now)
	f.Add("1700000000", "a", good.Get(HeaderSignature), "{}")
	f.Add("", "", "", "")
	f.Add("-1", "b", "v1=,v1=,,,", "x")
	f.Add("1700000000", "a", "v2=ab,v1="+strings.Repeat("0", 64), "{}")
	f.Fuzz(func(t *testing.T, timestamp, keyID, sig, body string) {
		h := http.Header{}
		h.Set(HeaderTimestamp, timestamp)
		h.Set(HeaderKeyID, keyID)
		h.Set(HeaderSignature, sig)
		if Verify(h, []byte(body), []Key{keyA}, now) != nil {
			return
		}
		m := hmac.New(sha256.New, []byte(keyA.Secret.Value()))
		m.Write([]byte(timestamp + "." + body))
		if keyID != "a" || !strings.Contains(strings.ToLower(sig), hex.EncodeToString(m.Sum(nil))) {
			t.Errorf("believed %q %q %q %q", timestamp, keyID, sig, body)
		}
	})
}
