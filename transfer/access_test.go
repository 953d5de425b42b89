package transfer

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/webhook"
)

func (h *house) join(user, channel string, in bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.members == nil {
		h.members = map[string]bool{}
	}
	h.members[user+" in "+channel] = in
}

// wantRead checks what each user gets of a file: its content, or a code.
func (h *house) wantRead(f uploaded, content string, want map[string]string) {
	h.t.Helper()
	for user, code := range want {
		a := h.do("GET", f.URL, nil, "User", user)
		if a.code() != code || code == "" && a.body != content {
			h.t.Errorf("%s: %v, want %q", user, a, code)
		}
		if head := h.do("HEAD", f.URL, nil, "User", user); head.StatusCode != a.StatusCode {
			h.t.Errorf("HEAD by %s: %d, GET %d", user, head.StatusCode, a.StatusCode)
		}
	}
}

func TestWhoMayRead(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		f := h.keep("a.txt", "hello")
		access := func(body string) (info FileInfo) {
			t.Helper()
			h.api("/access", `{"file":"`+f.ID+`"`+body+`}`, &info)
			return info
		}
		h.wantRead(f, "hello", map[string]string{"alice": "", "bob": "file_not_found", "nobody": "token_missing"})

		if info := access(`,"public":true`); !info.Public || info.ID != f.ID || !info.ExpiresAt.IsZero() {
			t.Errorf("public: %+v", info)
		}
		h.wantRead(f, "hello", map[string]string{"alice": "", "bob": "", "nobody": ""})
		if keep := h.do("GET", f.URL, nil, "User", "nobody").Header.Get("Cache-Control"); keep != "public, max-age=300" {
			t.Errorf("Cache-Control of a public file: %s", keep)
		}
		if a := h.do("DELETE", f.URL, nil, "User", "bob"); a.code() != "file_not_found" {
			t.Errorf("delete by a reader: %v", a)
		}

		if info := access(`,"channel":"room"`); info.Channel != "room" || info.Public {
			t.Errorf("channel: %+v", info)
		}
		h.wantRead(f, "hello", map[string]string{"alice": "", "bob": "file_not_found", "nobody": "token_missing"})
		h.join("bob", "room", true)
		h.join("carl", "room2", true)
		h.wantRead(f, "hello", map[string]string{"alice": "", "bob": "", "carl": "file_not_found", "nobody": "token_missing"})
		if keep := h.do("GET", f.URL, nil, "User", "bob").Header.Get("Cache-Control"); keep != "private, no-cache" {
			t.Errorf("Cache-Control of a shared file: %s", keep)
		}
		h.join("bob", "room", false) // and at the next request that counts
		h.wantRead(f, "hello", map[string]string{"bob": "file_not_found"})
		h.unsure = errStoreAway
		h.wantRead(f, "hello", map[string]string{"alice": "", "bob": "storage_unavailable"})
		h.unsure = nil

		if info := access(""); info.Access != (Access{}) {
			t.Errorf("private again: %+v", info)
		}
		h.wantRead(f, "hello", map[string]string{"alice": "", "bob": "file_not_found", "nobody": "token_missing"})
	})
}

func TestOwnership(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		f := h.keep("a.txt", "hello")
		var info FileInfo
		h.api("/owner", `{"file":"`+f.ID+`","user":"bob"}`, &info)
		if info.Owner != (auth.User{AppID: "wx1", OpenID: "bob"}) {
			t.Errorf("owner %+v", info.Owner)
		}
		h.wantRead(f, "hello", map[string]string{"bob": "", "alice": "file_not_found"})
		var page ListAnswer
		for user, n := range map[string]int{"alice": 0, "bob": 1} {
			if h.api("", `{"user":"`+user+`"}`, &page); len(page.Files) != n {
				t.Errorf("%d files of %s", len(page.Files), user)
			}
		}
		h.api("/owner", `{"file":"`+f.ID+`","user":"bob","appid":"wx2"}`, &info)
		h.wantRead(f, "hello", map[string]string{"bob": "file_not_found"}) // who is bob of wx1
		if a := h.do("DELETE", f.URL, nil, "User", "alice"); a.code() != "file_not_found" {
			t.Errorf("delete by the owner before: %v", a)
		}
	})
}

func TestAccessRefused(t *testing.T) {
	h := newTestHouse(t)
	f := h.keep("a.txt", "hello")
	pending := reserved(t, h.ledger, 0)
	for _, tt := range []struct{ path, file, more, code string }{
		{"/access", f.ID, `,"public":true,"channel":"room"`, "access_invalid"},
		{"/access", f.ID, `,"channel":"a b"`, "channel_invalid"},
		{"/access", f.ID, `,"channel":"a\u0000"`, "channel_invalid"},
		{"/access", f.ID, `,"channel":"` + strings.Repeat("x", 256) + `"`, "channel_invalid"},
		{"/access", f.ID, `,"expires_in":-1`, "expires_in_invalid"},
		{"/access", f.ID, `,"expires_in":99999999999`, "expires_in_invalid"},
		{"/access", f.ID, `,"public":"yes"`, "json_invalid"},
		{"/access", "x", ``, "file_id_invalid"},
		{"/access", newFile(alice).ID, ``, "file_not_found"},
		{"/access", pending.ID, ``, "file_state"},
		{"/owner", f.ID, ``, "openid_invalid"},
		{"/owner", f.ID, `,"user":"a b"`, "openid_invalid"},
		{"/owner", f.ID, `,"user":"bob","appid":"a b"`, "appid_invalid"},
		{"/owner", f.ID, `,"user":"bob","appid":"` + strings.Repeat("x", 65) + `"`, "appid_invalid"},
		{"/owner", f.ID, `,"user":"bob","unionid":"a b"`, "openid_invalid"},
		{"/owner", newFile(alice).ID, `,"user":"bob"`, "file_not_found"},
		{"/link", f.ID, `,"user":"bob"`, "link_not_allowed"},
		{"/link", f.ID, `,"user":"b b"`, "openid_invalid"},
		{"/link", f.ID, `,"appid":"wx2"`, "openid_invalid"},
		{"/link", f.ID, `,"max_downloads":-1`, "max_downloads_invalid"},
		{"/link", f.ID, `,"max_downloads":1000001`, "max_downloads_invalid"},
	} {
		if a := h.api(tt.path, `{"file":"`+tt.file+`"`+tt.more+`}`, nil); a.code() != tt.code {
			t.Errorf("%s %s: %v, want %s", tt.path, tt.more, a, tt.code)
		}
	}
	if f, err := h.ledger.Get(t.Context(), f.ID); err != nil || f.Access != (Access{}) || f.Owner != alice {
		t.Errorf("after all that: %+v, %v", f, err)
	}
}

func TestUploadShared(t *testing.T) {
	form := formOf(field{"f", "a.txt", "hello"})
	h := newTestHouse(t)
	for query, code := range map[string]string{
		"?public=true": "access_not_allowed", "?channel=room": "access_not_allowed", "?public=1": "access_invalid",
		"?public=true&channel=room": "access_invalid", "?channel=a%20b": "channel_invalid",
	} {
		if a := h.upload(query, form); a.code() != code {
			t.Errorf("%s: %v, want %s", query, a, code)
		}
	}
	h.wantEmpty()

	h = newTestHouse(t, func(s *Settings) { s.UserPublic, s.UserChannel = true, true })
	if a := h.upload("?channel=room", form); a.code() != "channel_not_allowed" {
		t.Errorf("by who is not in the channel: %v", a)
	}
	h.wantEmpty()
	h.join("alice", "room", true)
	h.join("bob", "room", true)
	h.wantRead(h.decode(h.upload("?channel=room", form)), "hello", map[string]string{"alice": "", "bob": "", "carl": "file_not_found"})
	h.wantRead(h.decode(h.upload("?public=true", form)), "hello", map[string]string{"alice": "", "nobody": ""})
	h.wantRead(h.decode(h.upload("?public=false", form)), "hello", map[string]string{"alice": "", "bob": "file_not_found"})
}

func TestUploadFor(t *testing.T) {
	backend := newAsked(t, `{"allow":false}`) // of users it would take nothing
	h := openHouse(t, Options{
		Store: newTestFolder(t), Ledger: newTestFileLedger(t), Webhooks: backend.client,
		Webhook: WebhookSettings{Endpoint: backend.URL, Timeout: 5 * time.Second, Required: true},
	})
	form := formOf(field{"f", "a.txt", "hello"})
	if a := h.upload("", form); a.code() != "upload_refused" {
		t.Errorf("of a user: %v", a)
	}
	asked := len(backend.questions())
	post := func(query string) answer {
		return h.do("POST", "/api/files/upload"+query, strings.NewReader(form), "Content-Type", formType, "User", "nobody")
	}
	f := h.decode(post("?user=bob&appid=wx1&channel=room"))
	if len(backend.questions()) != asked {
		t.Error("the backend was asked about its own upload")
	}
	h.join("carl", "room", true)
	h.wantRead(f, "hello", map[string]string{"bob": "", "carl": "", "alice": "file_not_found"})
	for query, code := range map[string]string{"": "openid_invalid", "?user=a%20b&appid=wx1": "openid_invalid", "?user=bob": "appid_invalid"} {
		if a := post(query); a.code() != code {
			t.Errorf("%q: %v, want %s", query, a, code)
		}
	}
}

// asked is a backend that answers every question in the same way.
type asked struct {
	*httptest.Server
	client *webhook.Client

	mu     sync.Mutex
	answer string
	bodies []string
}

func newAsked(t *testing.T, answer string) *asked {
	t.Helper()
	b := &asked{answer: answer}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.bodies = append(b.bodies, string(body))
		if b.answer == "" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, b.answer) // to a client that waits
	}))
	b.client = testWebhooks(t)
	t.Cleanup(b.Close)
	return b
}

func (b *asked) questions() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bodies
}

func (b *asked) set(answer string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

func TestDownloadHook(t *testing.T) {
	for _, required := range []bool{false, true} {
		backend := newAsked(t, `{}`)
		h := openHouse(t, Options{
			Store: newTestFolder(t), Ledger: newTestFileLedger(t), Webhooks: backend.client,
			DownloadWebhook: DownloadWebhookSettings{Endpoint: backend.URL, Timeout: 5 * time.Second, Required: required},
		})
		f := h.keep("a.txt", "hello")
		h.wantRead(f, "hello", map[string]string{"alice": "", "bob": "file_not_found", "nobody": "token_missing"})
		backend.set(`{"allow":true}`)
		h.wantRead(f, "hello", map[string]string{"alice": "", "bob": "", "nobody": ""})
		if keep := h.do("GET", f.URL, nil).Header.Get("Cache-Control"); keep != "private, no-cache" {
			t.Errorf("Cache-Control: %s", keep)
		}
		backend.set(`{"allow":false,"reason":"Not today."}`)
		h.wantRead(f, "hello", map[string]string{"alice": "download_refused", "bob": "file_not_found", "nobody": "token_missing"})
		if a := h.do("GET", f.URL, nil); !strings.Contains(a.body, "Not today.") || a.StatusCode != http.StatusForbidden {
			t.Errorf("refused: %v", a)
		}
		if a := h.do("GET", f.URL, nil, "User", "nobody", "Link", f.ID); a.code() != "download_refused" {
			t.Errorf("a link that is refused: %v", a)
		}
		backend.set("nonsense")
		want := map[string]string{"alice": "", "bob": "file_not_found"}
		if required {
			want = map[string]string{"alice": "download_webhook_unavailable", "bob": "download_webhook_unavailable"}
		}
		h.wantRead(f, "hello", want)
		if n := testutil.ToFloat64(h.metrics.downloadsUnchecked); n > 0 == required {
			t.Errorf("required %v: %v counted as unchecked", required, n)
		}
		asked := len(backend.questions())
		h.do("GET", "/files/"+newFile(alice).ID, nil)
		if len(backend.questions()) != asked {
			t.Error("asked about a file that does not exist")
		}
		backend.set(`{}`)
		h.do("GET", f.URL, nil, "User", "bob")
		h.do("GET", f.URL, nil, "User", "nobody", "Link", f.ID)
		q := backend.questions()[asked:]
		for i, parts := range [][]string{
			{`"event":"download"`, `"user":{"appid":"wx1","openid":"bob","unionid":"u-alice"}`, `"allowed":false`, `"id":"` + f.ID + `"`},
			{`"allowed":true`, `"via":"link"`},
		} {
			for _, part := range parts {
				if !strings.Contains(q[i], part) {
					t.Errorf("question %d lacks %s: %s", i, part, q[i])
				}
			}
		}
		if strings.Contains(q[1], `"user"`) {
			t.Errorf("a link has a user: %s", q[1])
		}
	}
}

// A link of a user is worth what the user may read when it is used.
func TestLinkOfUser(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		f := h.keep("a.txt", "hello")
		bob := auth.User{AppID: "wx1", OpenID: "bob"}
		follow := func(user auth.User, code string) {
			t.Helper()
			h.follow = auth.Link{User: user}
			a := h.do("GET", f.URL, nil, "User", "nobody", "Link", f.ID)
			if a.code() != code || code == "" && a.body != "hello" {
				t.Errorf("%v, want %q", a, code)
			}
		}
		follow(bob, "file_not_found")
		follow(auth.User{AppID: "wx1", OpenID: "alice"}, "")
		h.api("/access", `{"file":"`+f.ID+`","channel":"room"}`, &FileInfo{})
		h.join("bob", "room", true)
		follow(bob, "")

		var link LinkAnswer
		h.api("/link", `{"file":"`+f.ID+`","user":"bob","max_downloads":3}`, &link)
		if h.signed.User != bob || h.signed.Downloads != 3 || h.signed.File != f.ID || !h.signed.Expires.Equal(link.ExpiresAt) {
			t.Errorf("signed %+v", h.signed)
		}
		a := h.do("POST", f.URL+"/link", strings.NewReader(`{"expires_in":60}`), "User", "bob", "Content-Type", "application/json")
		if a.StatusCode != http.StatusOK || h.signed.User != bob || h.signed.Downloads != 0 || time.Until(h.signed.Expires) > time.Minute {
			t.Errorf("%v, signed %+v", a, h.signed)
		}
		for user, code := range map[string]string{"carl": "file_not_found", "nobody": "token_missing"} {
			if a := h.do("POST", f.URL+"/link", strings.NewReader(`{}`), "User", user, "Content-Type", "application/json"); a.code() != code {
				t.Errorf("by %s: %v", user, a)
			}
		}
		if a := h.do("POST", f.URL+"/link", strings.NewReader(`{"expires_in":3601}`), "User", "bob", "Content-Type", "application/json"); a.code() != "expires_in_invalid" {
			t.Errorf("for too long: %v", a)
		}
		h.join("bob", "room", false)
		follow(bob, "file_not_found")
		h.settings.UserLinkMaxTTL = 0
		if a := h.do("POST", f.URL+"/link", strings.NewReader(`{}`), "Content-Type", "application/json"); a.code() != "links_off" {
			t.Errorf("switched off: %v", a)
		}
	})
}

func TestLinkIsSpent(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		f := h.keep("a.txt", "0123456789")
		h.follow = auth.Link{Downloads: 2, Count: 7}
		get := func(method, code string, header ...string) {
			t.Helper()
			a := h.do(method, f.URL, nil, append([]string{"User", "nobody", "Link", f.ID}, header...)...)
			if a.code() != code {
				t.Errorf("%s %v: %v, want %q", method, header, a, code)
			}
			if keep := a.Header.Get("Cache-Control"); code == "" && keep != "private, no-store" {
				t.Errorf("Cache-Control: %s", keep)
			}
		}
		get("HEAD", "")
		get("GET", "link_spent", "Range", "bytes=5-") // nothing was begun
		get("GET", "", "If-None-Match", `"`+f.SHA256+`"`)
		get("GET", "range_not_satisfiable", "Range", "bytes=99-")
		get("GET", "")
		get("GET", "", "Range", "bytes=5-")
		get("GET", "", "Range", "bytes=0-3")
		get("GET", "link_spent")
		get("GET", "link_spent", "Range", "bytes=0-3")
		get("GET", "", "Range", "bytes=5-")
		h.follow.Count = 8 // another link
		get("GET", "")
		h.follow = auth.Link{} // one that is not counted
		if a := h.do("GET", f.URL, nil, "User", "nobody", "Link", f.ID); a.StatusCode != http.StatusOK {
			t.Errorf("%v", a)
		}
	})
}

// A download that fails before its first byte costs a link nothing, and one by a
// link that is used up costs the storage nothing.
func TestLinkIsNotSpentForNothing(t *testing.T) {
	store := &brokenStore{Store: newTestFolder(t)}
	h := newHouse(t, store, newTestFileLedger(t), withThumbs)
	photo, empty := h.keep("a.jpg", photo(t, 60, 60)), h.keep("a.txt", "")
	away := func(down bool) { store.down = down }
	crowded := func(full bool) {
		n := int64(h.thumbs.Workers + h.thumbs.Queue)
		if !full {
			n = -n
		}
		h.thumbs.inside.Add(n)
	}
	for i, tt := range []struct {
		file        uploaded
		query, code string
		fail        func(on bool)
	}{
		{photo, "", "storage_unavailable", away},
		{photo, "?w=10", "storage_unavailable", away},
		{photo, "?w=20", "thumbnails_busy", crowded},
		{empty, "", "", away}, // which needs no storage
	} {
		h.follow = auth.Link{Downloads: 2, Count: uint64(i)}
		get := func(code string) {
			t.Helper()
			if a := h.do("GET", tt.file.URL+tt.query, nil, "User", "nobody", "Link", tt.file.ID); a.code() != code {
				t.Errorf("%s%s: %v, want %q", tt.file.Name, tt.query, a, code)
			}
		}
		tt.fail(true)
		get(tt.code)
		tt.fail(false)
		if tt.code != "" {
			get("")
		}
		get("")
		get("link_spent")
		tt.fail(true)
		get("link_spent")
		tt.fail(false)
	}
}

func TestExpiry(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		store := newTestFolder(t)
		h := newHouse(t, store, l, func(s *Settings) { s.TTL.Public = time.Hour })
		f, stays := h.keep("a.txt", "hello"), h.keep("b.txt", "hello")
		var info FileInfo
		h.api("/access", `{"file":"`+f.ID+`","public":true}`, &info)
		if info.ExpiresAt.Sub(info.Created) != time.Hour {
			t.Errorf("a public file created at %v ends at %v", info.Created, info.ExpiresAt)
		}
		h.api("/access", `{"file":"`+f.ID+`","public":true,"expires_in":60}`, &info)
		if left := time.Until(info.ExpiresAt); left > time.Minute || left < 50*time.Second {
			t.Errorf("expires_in 60 leaves %v", left)
		}
		var age int
		if _, err := fmt.Sscanf(h.do("GET", f.URL, nil).Header.Get("Cache-Control"), "private, no-cache"); err != nil {
			t.Error(err)
		}
		if n, err := fmt.Sscanf(h.do("GET", f.URL, nil, "User", "nobody").Header.Get("Cache-Control"), "public, max-age=%d", &age); n != 1 || err != nil || age > 60 {
			t.Errorf("kept for %d seconds, %v", age, err)
		}
		info = FileInfo{}
		h.api("/access", `{"file":"`+f.ID+`","public":true,"expires_in":0}`, &info)
		if !info.ExpiresAt.IsZero() {
			t.Errorf("expires_in 0: %v", info.ExpiresAt)
		}
		if _, err := l.Amend(t.Context(), f.ID, func(f *File) error { f.Expires = now().Add(-time.Second); return nil }); err != nil {
			t.Fatal(err)
		}
		h.wantRead(f, "", map[string]string{"alice": "file_not_found", "nobody": "token_missing"}) // at once, not with the sweep
		if err := h.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Get(t.Context(), f.ID); err == nil {
			t.Error("its record is still there")
		}
		if n := len(filesIn(t, store.dir)); n != 1 {
			t.Errorf("%d files are stored, want 1", n)
		}
		if n := testutil.ToFloat64(h.metrics.expired); n != 1 {
			t.Errorf("%v counted", n)
		}
		if last := h.told[len(h.told)-1]; last.Event != FileDeleted || last.File.ID != f.ID {
			t.Errorf("told %+v", last)
		}
		h.wantRead(stays, "hello", map[string]string{"alice": ""})
	})
}

// testWebhooks makes a client that signs.
func testWebhooks(t *testing.T) *webhook.Client {
	t.Helper()
	var s webhook.Settings
	settings.Defaults(&s)
	s.Keys = []webhook.Key{hookKey}
	client := webhook.NewClient(webhook.Options{Settings: s})
	t.Cleanup(client.Close)
	return client
}
