package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/transfer"
)

// TestFilesAreShared has two nodes hand out a file to who may read it: what one
// node is told and who is subscribed there counts on the other.
func TestFilesAreShared(t *testing.T) {
	sim, wechatURL := simulator(t)
	redis, s3, back := testdeps.Redis(t), testdeps.MinIO(t), backend(t)
	a := startServe(t, clusterConfig(t, wechatURL, redis, s3, back.URL))
	b := startServe(t, clusterConfig(t, wechatURL, redis, s3, back.URL))
	alice, bob := login(t, a.Public, sim.NewCode(testAppID, "alice")), login(t, a.Public, sim.NewCode(testAppID, "bob"))
	f := upload(t, a.Public, alice.Token, "a.txt", strings.NewReader("hello"))
	read := func(p *program, token, query string, want int) {
		t.Helper()
		var header map[string]string
		if token != "" {
			header = bearer(token)
		}
		status, body := callRaw(t, "GET", p.Public+"/files/"+f.ID+query, header, nil)
		if status != want || want == 200 && string(body) != "hello" {
			t.Errorf("status %d, want %d: %s", status, want, body)
		}
	}
	api := func(path, more string, into any) {
		t.Helper()
		status, raw := filesAPI(t, a, testAPIKey, path, fmt.Sprintf(`{"file":%q%s}`, f.ID, more))
		if status != 200 || json.Unmarshal([]byte(raw), into) != nil {
			t.Fatalf("%s: status %d %s", path, status, raw)
		}
	}
	read(a, bob.Token, "", 404)
	read(a, "", "", 401)

	var info transfer.FileInfo
	api("/access", `,"channel":"room:lobby"`, &info)
	read(a, bob.Token, "", 404)
	socket := connect(t, b.Public, bob.Token)
	socket.send(`{"id":2,"subscribe":{"channel":"room:lobby"}}`)
	if f := socket.read(); f.ID != 2 || f.Error != nil {
		t.Fatalf("subscribe was answered %+v", f)
	}
	read(a, bob.Token, "", 200)
	read(b, bob.Token, "", 200)
	read(a, "", "", 401)

	// A link that bob makes is worth what bob may read.
	var link transfer.LinkAnswer
	call(t, "POST", a.Public+"/files/"+f.ID+"/link", bearer(bob.Token), `{}`, &link)
	u, err := url.Parse(link.URL)
	if err != nil || u.Query().Get("link") == "" {
		t.Fatalf("link %q, %v", link.URL, err)
	}
	bobs := "?" + u.RawQuery
	read(b, "", bobs, 200)
	socket.send(`{"id":3,"unsubscribe":{"channel":"room:lobby"}}`)
	if f := socket.read(); f.ID != 3 || f.Error != nil {
		t.Fatalf("unsubscribe was answered %+v", f)
	}
	read(a, bob.Token, "", 404)
	read(b, "", bobs, 404)

	// Downloads are counted on all nodes together.
	api("/link", `,"max_downloads":1`, &link)
	if u, err = url.Parse(link.URL); err != nil {
		t.Fatal(err)
	}
	read(a, "", "?"+u.RawQuery, 200)
	read(b, "", "?"+u.RawQuery, 403)

	api("/access", `,"public":true`, &info)
	read(a, "", "", 200)
	read(b, bob.Token, "", 200)
	read(b, "no-token", "", 401)
	api("/access", "", &info)
	api("/owner", fmt.Sprintf(`,"user":%q`, bob.User.OpenID), &info)
	read(b, bob.Token, "", 200)
	read(b, alice.Token, "", 404)

	if status, out, errs := a.admin(t, "files", "verify"); status != 0 || !strings.Contains(out, "1 files and 1 objects compared") {
		t.Errorf("verify: status %d\n%s%s", status, out, errs)
	}
}
