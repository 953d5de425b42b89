package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/testdeps"
)

type fileAnswer struct {
	ID, Name, Type, SHA256, URL string
	Size                        int64
}

// upload sends what wx.uploadFile sends: one multipart form, streamed.
func upload(t testing.TB, base, token, name string, content io.Reader) fileAnswer {
	t.Helper()
	status, raw := tryUpload(t, base, token, name, content)
	var f fileAnswer
	if err := json.Unmarshal(raw, &f); err != nil || status != http.StatusCreated {
		t.Fatalf("upload: status %d: %s", status, raw)
	}
	return f
}

func tryUpload(t testing.TB, base, token, name string, content io.Reader) (int, []byte) {
	t.Helper()
	pr, pw := io.Pipe()
	form := multipart.NewWriter(pw)
	go func() {
		_ = form.WriteField("note", "before the file")
		part, err := form.CreateFormFile("file", name)
		if err == nil {
			_, err = io.Copy(part, content)
		}
		if err == nil {
			err = form.Close()
		}
		_ = pw.CloseWithError(err)
	}()
	header := bearer(token)
	header["Content-Type"] = form.FormDataContentType()
	return callRaw(t, "POST", base+"/files", header, pr)
}

// clusterConfig makes a node that shares sessions, fan-out and files.
func clusterConfig(t testing.TB, wechatURL, redis string, s3 testdeps.S3, upstream string) string {
	return baseConfig(t, wechatURL) + fmt.Sprintf(`
keys:
  sealing: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
  signing: [MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDM=]
  tickets: [{id: t1, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDI=}]
redis:
  addresses: [%s]
files:
  store: s3
  max_size: 2GiB
  s3:
    endpoint: %s
    bucket: minigate
    create_bucket: true
    secure: false
    access_key: %s
    secret_key: %s
channel:
  namespaces:
    - name: room
      presence: true
      history_size: 100
      history_ttl: 300s
      force_recovery: true
      allow_subscribe_for_client: true
      allow_publish_for_subscriber: true
proxy:
  routes:
    - prefix: /api/
      upstream: %s
`, redis, s3.Endpoint, s3.AccessKey, s3.SecretKey, upstream)
}

// TestTwoNodes walks through the whole house on two real processes over a
// real Redis and a real S3 server.
func TestTwoNodes(t *testing.T) {
	sim, wechatURL := simulator(t)
	redis, s3, back := testdeps.Redis(t), testdeps.MinIO(t), backend(t)
	a := startServe(t, clusterConfig(t, wechatURL, redis, s3, back.URL))
	b := startServe(t, clusterConfig(t, wechatURL, redis, s3, back.URL))

	me := login(t, a.Public, sim.NewCode(testAppID, "alice"))
	socket := connect(t, b.Public, me.Token)
	push := func(target string) {
		t.Helper()
		var answer struct {
			Result struct{ Sockets int }
			Error  any
		}
		call(t, "POST", a.Ops+"/api/push", map[string]string{"X-API-Key": testAPIKey}, `{`+target+`,"data":{"to":"alice"}}`, &answer)
		if answer.Result.Sockets != 1 {
			t.Errorf("push %s was meant for %d sockets, want 1 (error %v)", target, answer.Result.Sockets, answer.Error)
		}
		if got := socket.publication(); got != `{"to":"alice"}` {
			t.Errorf("push %s arrived as %s", target, got)
		}
	}
	push(`"users":["` + me.User.OpenID + `"]`)
	push(`"unionids":["` + me.User.UnionID + `"]`)
	push(`"all":true`)
	socket.send(`{"id":2,"subscribe":{"channel":"room:lobby"}}`)
	if f := socket.read(); f.ID != 2 || f.Error != nil {
		t.Fatalf("subscribe was answered %+v", f)
	}
	push(`"channels":["room:lobby"]`)

	content := make([]byte, 20<<20+7)
	_, _ = rand.Read(content)
	sum := sha256.Sum256(content)
	file := upload(t, b.Public, me.Token, "照片.bin", bytes.NewReader(content))
	if file.SHA256 != hex.EncodeToString(sum[:]) || file.Size != int64(len(content)) || file.Name != "照片.bin" {
		t.Errorf("upload was answered %+v", file)
	}
	status, back2 := callRaw(t, "GET", a.Public+"/files/"+file.ID, bearer(me.Token), nil)
	if status != 200 || sha256.Sum256(back2) != sum {
		t.Errorf("download on the other node: status %d, %d bytes, other content", status, len(back2))
	}

	var who struct{ OpenID, UnionID, AppID, Path string }
	header := bearer(me.Token)
	header["X-WX-OPENID"] = "somebody else"
	header["X_WX_UNIONID"] = "somebody else"
	if status := call(t, "GET", b.Public+"/api/whoami", header, nil, &who); status != 200 {
		t.Fatalf("whoami: status %d", status)
	}
	if who.OpenID != me.User.OpenID || who.UnionID != me.User.UnionID || who.AppID != testAppID || who.Path != "/api/whoami" {
		t.Errorf("the backend saw %+v, want %+v", who, me.User)
	}

	bob := login(t, a.Public, sim.NewCode(testAppID, "bob"))
	bobs := connect(t, b.Public, bob.Token)
	callRaw(t, "POST", a.Public+"/auth/logout", bearer(bob.Token), nil)
	if code, reason := bobs.goodbye(); code != 3503 || reason != "logged out" {
		t.Errorf("after a logout on the other node the socket was told %d %q", code, reason)
	}

	b.stop(t)
	if code, _ := socket.goodbye(); code != 3001 {
		t.Errorf("goodbye code %d, want 3001", code)
	}
	connect(t, a.Public, me.Token) // the session lives on
	a.stop(t)
	for _, p := range []*program{a, b} {
		noSecrets(t, p, me.Token, s3.SecretKey)
	}
}

// noSecrets greps everything the process wrote.
func noSecrets(t testing.TB, p *program, more ...string) {
	t.Helper()
	out := p.Output()
	for _, secret := range append(more, testSecret, testAPIKey) {
		if strings.Contains(out, secret) {
			t.Errorf("a secret stands in the log: …%s", secret[len(secret)-4:])
		}
	}
}
