package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/minigate/minigate/internal/jws"
	"github.com/minigate/minigate/internal/wxsim"
)

const (
	testPushToken = "AAAAA"
	testPushKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// TestOpenDataAndPush drives what WeChat hands to phones, and what it pushes,
// through the real program.
func TestOpenDataAndPush(t *testing.T) {
	sim, wechatURL := simulator(t)
	config := baseConfig(t, wechatURL)
	config = strings.Replace(config, "      secret:", "      push: {token: "+testPushToken+", encoding_aes_key: "+testPushKey+"}\n      secret:", 1)
	config = strings.Replace(config, "  keys:\n", "  keys:\n    - {name: backend, key: a-key-that-may-publish, scope: publish}\n    - {name: eyes, key: a-key-that-may-look, scope: read}\n", 1)
	p := startServe(t, config)
	me := login(t, p.Public, sim.NewCode(testAppID, "ann"))
	bearer := map[string]string{"Authorization": "Bearer " + me.Token}

	var fetched wxsim.OpenData
	call(t, "POST", wechatURL+"/sim/opendata", nil, map[string]string{"appid": testAppID, "user": "ann"}, &fetched)
	body := map[string]string{
		"raw_data": fetched.RawData, "signature": fetched.Signature, "encrypted_data": fetched.EncryptedData, "iv": fetched.IV,
		"user": me.User.OpenID,
	}
	var opened struct {
		Data struct{ OpenID string }
		JWS  string
	}
	if status := call(t, "POST", p.Public+"/auth/opendata", bearer, body, &opened); status != 200 || opened.Data.OpenID != me.User.OpenID {
		t.Errorf("status %d, %+v", status, opened)
	}
	status, set := callRaw(t, "GET", p.Ops+"/.well-known/jwks.json", nil, nil)
	_, err := jwt.Parse(opened.JWS, func(token *jwt.Token) (any, error) { return jws.PublicKey(set, token.Header["kid"].(string)) }, jwt.WithAudience(testAppID))
	if status != 200 || err != nil {
		t.Errorf("the JWS with the published keys: status %d, %v", status, err)
	}
	for key, want := range map[string]int{"a-key-that-may-publish": 200, testAPIKey: 200, "a-key-that-may-look": 403, "": 401} {
		if status, raw := callRaw(t, "POST", p.Ops+"/api/opendata", map[string]string{"X-API-Key": key}, body); status != want {
			t.Errorf("the backend with key %q: status %d %s", key, status, raw)
		}
	}
	var number struct {
		Number string `json:"phone_number"`
	}
	if status := call(t, "POST", p.Public+"/auth/phone", bearer, map[string]string{"code": sim.NewPhoneCode(testAppID, "ann")}, &number); status != 200 || number.Number != wxsim.Phone("ann") {
		t.Errorf("phone: status %d, %+v", status, number)
	}

	target := wxsim.PushTarget{URL: p.Public + "/wechat/push/" + testAppID, Token: testPushToken, AESKey: testPushKey}
	pusher := wxsim.New(wxsim.Options{Apps: []wxsim.App{{AppID: testAppID, Push: target}}})
	if err := pusher.Push(t.Context(), testAppID, []byte(`{"MsgType":"event","FromUserName":"o","CreateTime":1,"Event":"x"}`)); err != nil {
		t.Errorf("push: %v", err)
	}
	if status, _ := callRaw(t, "POST", target.URL, nil, `{"MsgType":"event"}`); status != 403 {
		t.Errorf("a forged push: status %d", status)
	}
	noSecrets(t, p, me.Token)
}

// The key of what we sign survives restarts and is nobody else's to read.
func TestSigningKeyOfTheDataDirectory(t *testing.T) {
	cfg := &Config{Data: t.TempDir()}
	ids := make(map[string]bool)
	for range 2 {
		s, err := signer(cfg)
		if err != nil {
			t.Fatal(err)
		}
		text, err := s.Sign(struct{}{})
		if err != nil {
			t.Fatal(err)
		}
		token, _, err := jwt.NewParser().ParseUnverified(text, jwt.MapClaims{})
		if err != nil {
			t.Fatal(err)
		}
		id, _ := json.Marshal(token.Header["kid"])
		ids[string(id)] = true
	}
	if len(ids) != 1 {
		t.Errorf("keys %v", ids)
	}
	file := filepath.Join(cfg.Data, "signing.key")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(file, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := signer(cfg); err == nil || !strings.Contains(err.Error(), "signing.key") {
		t.Errorf("a damaged key: %v", err)
	}
}
