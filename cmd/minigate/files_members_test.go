package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/minigate/minigate/transfer"
)

// TestFilesOfGroups has files of a channel read by who belongs to it by his
// login, without a socket, and by nobody whose login does not say so.
func TestFilesOfGroups(t *testing.T) {
	var channels atomic.Value // what the backend says at login
	channels.Store(`{}`)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, channels.Load().(string)) // to a client that waits
	}))
	defer hook.Close()
	sim, wechatURL := simulator(t)
	p := startServe(t, strings.Replace(baseConfig(t, wechatURL), "wechat:\n", "session:\n  login_webhook: {endpoint: '"+hook.URL+"', required: true}\nwebhooks:\n  keys: [{id: k1, secret: a-webhook-secret-for-tests}]\nwechat:\n", 1)+
		devChannels+"files: {user_channel: true}\n")
	owner := login(t, p.Public, sim.NewCode(testAppID, "carol"))
	channels.Store(`{"channels":["room:club","nosuch:namespace"]}`)
	member := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	channels.Store(`{"channels":["room:other"]}`)
	other := login(t, p.Public, sim.NewCode(testAppID, "bob"))

	f := upload(t, p.Public, owner.Token, "a.txt", strings.NewReader("hello"))
	read := func(what, path, token string, want int) {
		t.Helper()
		var header map[string]string
		if token != "" {
			header = bearer(token)
		}
		status, body := callRaw(t, "GET", p.Public+path, header, nil)
		if status != want || want == 200 && string(body) != "hello" {
			t.Errorf("%s: status %d, want %d: %s", what, status, want, body)
		}
	}
	share := func(channel string) {
		t.Helper()
		if status, text := filesAPI(t, p, testAPIKey, "/access", `{"file":"`+f.ID+`","channel":"`+channel+`"}`); status != 200 {
			t.Fatalf("share with %s: status %d %s", channel, status, text)
		}
	}
	path := "/files/" + f.ID
	read("nobody's", path, member.Token, 404)
	share("room:other")
	read("of a channel that is another's", path, member.Token, 404)
	read("of his channel", path, other.Token, 200)
	share("nosuch:namespace")
	read("of a channel that cannot be", path, member.Token, 404)
	share("#" + member.User.OpenID)
	read("of the user's own channel", path, member.Token, 200)
	read("of another user's own channel", path, other.Token, 404)
	share("room:club")
	read("of the group", path, member.Token, 200)
	read("of a group of others", path, other.Token, 404)
	if a := sendSmall(t, p.Public+"/files?channel=room:club", other.Token); a != 403 {
		t.Errorf("an upload to a group of others: status %d", a)
	}
	if a := sendSmall(t, p.Public+"/files?channel=room:club", member.Token); a != 201 {
		t.Errorf("an upload to the group: status %d", a)
	}

	// A link goes by the newest login, since it comes without any.
	var link transfer.LinkAnswer
	call(t, "POST", p.Public+path+"/link", bearer(member.Token), `{}`, &link)
	u, err := url.Parse(link.URL)
	if err != nil || u.Query().Get("link") == "" {
		t.Fatalf("link %q, %v", link.URL, err)
	}
	linked := path + "?" + u.RawQuery
	read("by a link of a member", linked, "", 200)
	read("by a link of a member, with another's login", linked, other.Token, 200)

	channels.Store(`{}`)
	left := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	read("by a login after leaving the group", path, left.Token, 404)
	read("by the login before, which goes on", path, member.Token, 200)
	read("by a link after leaving the group", linked, "", 404)
	if status, _ := callRaw(t, "POST", p.Public+"/auth/logout", bearer(member.Token), nil); status >= 300 {
		t.Fatalf("logout: status %d", status)
	}
	read("by the login before, when it has ended", path, member.Token, 401)

	socket := connect(t, p.Public, left.Token) // and live subscriptions count as before
	socket.send(`{"id":2,"subscribe":{"channel":"room:club"}}`)
	if f := socket.read(); f.ID != 2 || f.Error != nil {
		t.Fatalf("subscribe was answered %+v", f)
	}
	read("by who subscribed", path, left.Token, 200)
	read("by a link of who subscribed", linked, "", 200)
}

// sendSmall uploads a small file.
func sendSmall(t *testing.T, url, token string) int {
	t.Helper()
	header := bearer(token)
	header["Content-Type"] = "multipart/form-data; boundary=b"
	status, _ := callRaw(t, "POST", url, header, "--b\r\nContent-Disposition: form-data; name=f; filename=a.txt\r\n\r\nhello\r\n--b--\r\n")
	return status
}
