package jws

import (
	"encoding/base64"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func mustKey(t *testing.T) []byte {
	t.Helper()
	key, err := NewKey()
	if err != nil || len(key) != KeySize {
		t.Fatalf("%d bytes, %v", len(key), err)
	}
	return key
}

func keySet(s *Signer) string {
	w := httptest.NewRecorder()
	s.ServeKeys(w, nil)
	return w.Body.String()
}

func verify(set, text string) error {
	_, err := jwt.Parse(text, func(t *jwt.Token) (any, error) {
		return PublicKey([]byte(set), t.Header["kid"].(string))
	}, jwt.WithValidMethods([]string{"ES256"}))
	return err
}

func TestRotation(t *testing.T) {
	old, next := mustKey(t), mustKey(t)
	before, err := New(old)
	if err != nil {
		t.Fatal(err)
	}
	after, err := New(next, old)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.RegisteredClaims{Subject: "o", ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Minute))}
	oldText, err1 := before.Sign(claims)
	newText, err2 := after.Sign(claims)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	for _, text := range []string{oldText, newText} {
		if err := verify(keySet(after), text); err != nil {
			t.Errorf("the set of both keys: %v", err)
		}
	}
	if verify(keySet(before), newText) == nil {
		t.Error("a key that is not in the set is taken")
	}
	cut := strings.LastIndexByte(oldText, '.') + 1
	if verify(keySet(before), oldText[:cut]+newText[strings.LastIndexByte(newText, '.')+1:]) == nil {
		t.Error("another key's signature is taken")
	}
	if strings.Contains(keySet(after), `"d"`) {
		t.Error("the private key is published")
	}
	again, _ := New(old)
	if keySet(again) != keySet(before) {
		t.Error("the same key has another id after a restart")
	}
}

func TestParseKey(t *testing.T) {
	key := mustKey(t)
	if got, err := ParseKey(base64.StdEncoding.EncodeToString(key)); err != nil || string(got) != string(key) {
		t.Errorf("%v", err)
	}
	for name, raw := range map[string][]byte{
		"none": nil, "short": key[1:], "long": append(key, 1), "zero": make([]byte, 32),
		"beyond the order": []byte(strings.Repeat("\xff", 32)),
	} {
		if _, err := ParseKey(base64.StdEncoding.EncodeToString(raw)); err != ErrKey {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := New(raw); err != ErrKey {
			t.Errorf("New with %s: %v", name, err)
		}
	}
	if _, err := ParseKey("!"); err != ErrKey {
		t.Errorf("%v", err)
	}
	if s, err := New(); err != nil || !strings.Contains(keySet(s), `"ES256"`) {
		t.Errorf("%v", err)
	}
}
