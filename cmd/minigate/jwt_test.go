package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// keySet makes an ECDSA key and serves its public half as a JSON Web Key Set.
func keySet(t *testing.T, kid string) (url, privatePEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	set, err := json.Marshal(map[string]any{"keys": []map[string]string{
		{"kty": "EC", "kid": kid, "crv": "P-256", "x": enc(point[1:33]), "y": enc(point[33:])},
	}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) }))
	t.Cleanup(srv.Close)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return srv.URL, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// TestCentrifugeSDKWithJWT drives the stock centrifuge client with tokens that
// a backend signs.
func TestCentrifugeSDKWithJWT(t *testing.T) {
	const secret = "a secret of more than thirty-two bytes"
	url, key := keySet(t, "sub")
	_, wechatURL := simulator(t)
	config := strings.Replace(baseConfig(t, wechatURL), "client:\n", fmt.Sprintf(`client:
  token: {hmac_secret_key: %s}
  subscription_token: {enabled: true, jwks_public_endpoint: '%s'}
`, secret, url), 1)
	p := startServe(t, config+devChannels)
	t.Log(runNode(t, "jwt-sdk.mjs", append(clientEnv(t, p, wechatURL, p.Public), "JWT_SECRET="+secret, "JWT_KEY="+key)...))
	if strings.Contains(p.Output(), secret) {
		t.Error("the secret was logged")
	}
}
