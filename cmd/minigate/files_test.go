package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/webhook"
	"github.com/minigate/minigate/transfer"
)

// The keys of each scope, beside the one of admin.
const (
	testReadKey    = "a-key-that-may-read"
	testPublishKey = "a-key-that-may-publish"
)

func withScopes(config string) string {
	return strings.Replace(config, "  keys:\n", "  keys:\n    - {name: look, key: "+testReadKey+", scope: read}\n    - {name: send, key: "+testPublishKey+", scope: publish}\n", 1)
}

// filesAPI posts to /api/files… and returns status and body.
func filesAPI(t testing.TB, p *program, key, path, body string) (int, string) {
	t.Helper()
	status, raw := callRaw(t, "POST", p.Ops+"/api/files"+path, map[string]string{"X-API-Key": key}, body)
	return status, string(raw)
}

// TestFileRoutesAreGuarded asks with no key and with one of each scope.
func TestFileRoutesAreGuarded(t *testing.T) {
	sim, wechatURL := simulator(t)
	p := startServe(t, withScopes(baseConfig(t, wechatURL)))
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	for path, allowed := range map[string][]string{
		"": {testReadKey, testAPIKey}, "/stat": {testReadKey, testAPIKey}, "/delete": {testAPIKey}, "/link": {testPublishKey, testAPIKey},
		"/verify": {testReadKey, testAPIKey}, "/access": {testAPIKey}, "/owner": {testAPIKey},
	} {
		for _, key := range []string{"", "no-key-of-this-server", testReadKey, testPublishKey, testAPIKey} {
			f := upload(t, p.Public, me.Token, "a.txt", strings.NewReader("hello"))
			want := 403
			if key == "" || key == "no-key-of-this-server" {
				want = 401
			}
			for _, k := range allowed {
				if k == key {
					want = 200
				}
			}
			body := map[string]string{
				"/link": fmt.Sprintf(`{"file":%q,"expires_in":60}`, f.ID), "/verify": `{"side":"files"}`, "/owner": fmt.Sprintf(`{"file":%q,"user":"bob"}`, f.ID),
			}[path]
			if body == "" {
				body = fmt.Sprintf(`{"file":%q}`, f.ID)
			}
			if status, answer := filesAPI(t, p, key, path, body); status != want {
				t.Errorf("%s with %q: status %d, want %d: %s", path, key, status, want, answer)
			}
		}
		if status, _ := callRaw(t, "POST", p.Public+"/api/files"+path, map[string]string{"X-API-Key": testAPIKey}, `{}`); status != 404 {
			t.Errorf("%s on the public listener: status %d", path, status)
		}
	}
}

// TestFilesOfTheBackend lists, looks at, links to and deletes a user's files.
func TestFilesOfTheBackend(t *testing.T) {
	for name, more := range map[string]func() string{
		"alone": func() string { return "" },
		"redis": func() string { return clusterKeys + "redis: {addresses: [" + testdeps.Redis(t) + "]}\n" },
	} {
		t.Run(name, func(t *testing.T) {
			sim, wechatURL := simulator(t)
			p := startServe(t, baseConfig(t, wechatURL)+"log: {access: true, level: debug}\n"+more())
			me, other := login(t, p.Public, sim.NewCode(testAppID, "alice")), login(t, p.Public, sim.NewCode(testAppID, "bob"))
			f := upload(t, p.Public, me.Token, "猫.txt", strings.NewReader("0123456789"))
			g := upload(t, p.Public, other.Token, "b.txt", strings.NewReader("bob's"))

			var page transfer.ListAnswer
			if _, raw := filesAPI(t, p, testAPIKey, "", fmt.Sprintf(`{"user":%q}`, me.User.OpenID)); json.Unmarshal([]byte(raw), &page) != nil || len(page.Files) != 1 || page.Files[0].Name != "猫.txt" {
				t.Errorf("listed %s", raw)
			}
			if _, raw := filesAPI(t, p, testAPIKey, "/stat", fmt.Sprintf(`{"file":%q}`, f.ID)); !strings.Contains(raw, `"owner":{"appid":"`+testAppID+`","openid":"`+me.User.OpenID+`"`) {
				t.Errorf("stat: %s", raw)
			}
			link := testLinks(t, p, f, g, other.Token)
			if status, raw := filesAPI(t, p, testAPIKey, "/delete", fmt.Sprintf(`{"file":%q}`, f.ID)); status != 200 || raw != "{}" {
				t.Errorf("delete: status %d %s", status, raw)
			}
			for _, method := range []string{"GET", "HEAD"} {
				if status, _ := callRaw(t, method, p.Public+link, nil, nil); status != 404 {
					t.Errorf("the link outlived the file: %s status %d", method, status)
				}
			}
			_, secret, _ := strings.Cut(link, "?link=")
			noSecrets(t, p, me.Token, secret, secret[strings.IndexByte(secret, '.')+1:])
		})
	}
}

const clusterKeys = `keys:
  sealing: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
  signing: [MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDM=]
  tickets: [{id: t1, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDI=}]
`

// testLinks uses a link to f as whoever has it may, and as nobody may.
func testLinks(t *testing.T, p *program, f, g fileAnswer, otherToken string) (link string) {
	t.Helper()
	var made transfer.LinkAnswer
	if status, raw := filesAPI(t, p, testAPIKey, "/link", fmt.Sprintf(`{"file":%q,"expires_in":3600}`, f.ID)); status != 200 || json.Unmarshal([]byte(raw), &made) != nil {
		t.Fatalf("link: status %d %s", status, raw)
	}
	link = made.URL
	if life := time.Until(made.ExpiresAt); life > time.Hour || life < 50*time.Minute || !strings.HasPrefix(link, "/files/"+f.ID+"/file.txt?link=") {
		t.Errorf("%s lives for %v", link, life)
	}
	secret := link[strings.IndexByte(link, '?'):]
	forged := []byte(secret)
	if middle := &forged[len(forged)-9]; *middle == 'A' {
		*middle = 'B'
	} else {
		*middle = 'A'
	}
	for name, tc := range map[string]struct {
		method, target string
		header         map[string]string
		want           int
	}{
		"read":              {"GET", link, nil, 200},
		"again":             {"GET", link, nil, 200},
		"head":              {"HEAD", link, nil, 200},
		"range":             {"GET", link, map[string]string{"Range": "bytes=2-4"}, 206},
		"behind the end":    {"GET", link, map[string]string{"Range": "bytes=10-"}, 416},
		"unchanged":         {"GET", link, map[string]string{"If-None-Match": `"` + f.SHA256 + `"`}, 304},
		"without a name":    {"GET", "/files/" + f.ID + secret, nil, 200},
		"another name":      {"GET", "/files/" + f.ID + "/x.y" + secret, nil, 200},
		"by another user":   {"GET", link, bearer(otherToken), 200},
		"forged":            {"GET", "/files/" + f.ID + string(forged), nil, 403},
		"of another file":   {"GET", "/files/" + g.ID + secret, bearer(otherToken), 403},
		"nonsense":          {"GET", "/files/" + f.ID + "?link=x", nil, 403},
		"to delete":         {"DELETE", "/files/" + f.ID + secret, nil, 401},
		"to upload":         {"POST", "/files" + secret, nil, 401},
		"as somebody":       {"GET", "/auth/session" + secret, nil, 401},
		"no link, no login": {"GET", "/files/" + f.ID, nil, 401},
	} {
		req, err := http.NewRequest(tc.method, p.Public+tc.target, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range tc.header {
			req.Header.Set(k, v)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != tc.want {
			t.Errorf("%s: status %d, want %d: %s", name, res.StatusCode, tc.want, body)
		}
		if policy := res.Header.Get("Referrer-Policy"); tc.want != 401 && policy != "no-referrer" {
			t.Errorf("%s: Referrer-Policy %q", name, policy)
		}
		if want := map[int]string{200: "0123456789", 206: "234"}[tc.want]; tc.method == "GET" && want != "" && string(body) != want {
			t.Errorf("%s: %q, want %q", name, body, want)
		}
	}
	return link
}

// fileBackend is a backend that is asked about uploads and told of files.
type fileBackend struct {
	url string

	mu   sync.Mutex
	news []transfer.News
}

func newFileBackend(t *testing.T) *fileBackend {
	b := new(fileBackend)
	key := webhook.Key{ID: "k1", Secret: settings.Secret("a-webhook-secret-for-tests")}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // its node was killed
		}
		if err := webhook.Verify(r.Header, body, []webhook.Key{key}, time.Now()); err != nil {
			t.Errorf("signature: %v", err)
		}
		if r.URL.Path == "/ask" {
			answer := `{"attributes":{"album":"a1"}}`
			if strings.Contains(string(body), "virus") {
				answer = `{"allow":false,"reason":"No viruses, please."}`
			}
			_, _ = io.WriteString(w, answer)
			return
		}
		var n transfer.News
		if err := json.Unmarshal(body, &n); err != nil || n.Delivery != r.Header.Get("X-Minigate-Delivery") {
			t.Errorf("told %s", body)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.news = append(b.news, n)
	}))
	t.Cleanup(srv.Close)
	b.url = srv.URL
	return b
}

func (b *fileBackend) config() string {
	return "webhooks:\n  keys: [{id: k1, secret: a-webhook-secret-for-tests}]\n  upload: {endpoint: '" + b.url + "/ask', required: true, timeout: 30s}\n  files: {endpoint: '" + b.url + "/told'}\n"
}

// heard are the events of a file, in the order in which they first came.
func (b *fileBackend) heard(file string) (events []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.news {
		if n.File.ID == file {
			events = append(events, n.Event)
		}
	}
	return events
}

// TestFileWebhooks asks and tells a backend over the life of a file.
func TestFileWebhooks(t *testing.T) {
	b := newFileBackend(t)
	sim, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL)+b.config())
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	status, raw := tryUpload(t, p.Public, me.Token, "virus.txt", strings.NewReader("hello"))
	if status != 403 || !strings.Contains(string(raw), `"code":"upload_refused","message":"No viruses, please."`) {
		t.Errorf("a refused upload: status %d %s", status, raw)
	}
	f := upload(t, p.Public, me.Token, "a.txt", strings.NewReader("hello"))
	if _, raw := filesAPI(t, p, testAPIKey, "/stat", fmt.Sprintf(`{"file":%q}`, f.ID)); !strings.Contains(raw, `"attributes":{"album":"a1"}`) {
		t.Errorf("stat: %s", raw)
	}
	if status, _ := callRaw(t, "DELETE", p.Public+"/files/"+f.ID, bearer(me.Token), nil); status != 204 {
		t.Fatalf("delete: status %d", status)
	}
	eventually(t, "both events arrive", func() bool { return len(b.heard(f.ID)) >= 2 })
	if got := b.heard(f.ID); got[0] != transfer.FileReady || got[len(got)-1] != transfer.FileDeleted {
		t.Errorf("heard %q", got)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.news {
		if string(n.File.Attributes) != `{"album":"a1"}` || n.File.Owner.OpenID != me.User.OpenID || n.File.SHA256 != f.SHA256 {
			t.Errorf("told %+v", n)
		}
	}
}

// TestKilledBetweenFileAndNews kills the process under many uploads, again and
// again: the backend hears of every file that there is.
func TestKilledBetweenFileAndNews(t *testing.T) {
	b := newFileBackend(t)
	sim, wechatURL := simulator(t)
	config := baseConfig(t, wechatURL) + b.config()
	p := startServe(t, config)
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	var mu sync.Mutex
	var acknowledged []string
	for round := range 4 {
		var wg sync.WaitGroup
		var kill sync.Once
		for range 8 {
			wg.Go(func() {
				for i := 0; uploadOnce(p, me.Token, func(id string) {
					mu.Lock()
					defer mu.Unlock()
					acknowledged = append(acknowledged, id)
				}); i++ {
					if i == 3+round {
						kill.Do(p.kill)
					}
				}
			})
		}
		wg.Wait()
		p = startServe(t, config)
	}
	there := map[string]bool{}
	for cursor, more := "", true; more; more = cursor != "" {
		var page transfer.ListAnswer
		_, raw := filesAPI(t, p, testAPIKey, "", fmt.Sprintf(`{"limit":7,"cursor":%q}`, cursor))
		if err := json.Unmarshal([]byte(raw), &page); err != nil {
			t.Fatal(err)
		}
		for _, f := range page.Files {
			there[f.ID] = true
		}
		cursor = page.Cursor
	}
	for _, id := range acknowledged {
		if !there[id] {
			t.Errorf("%s was acknowledged and is gone", id)
		}
	}
	t.Logf("%d files, of which %d were acknowledged", len(there), len(acknowledged))
	for id := range there {
		eventually(t, "the backend hears of "+id, func() bool { return len(b.heard(id)) > 0 })
	}
}

// uploadOnce tells whether the node still lives.
func uploadOnce(p *program, token string, took func(id string)) bool {
	const form = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nhello\r\n--x--\r\n"
	req := newRequest("POST", p.Public+"/files", token, strings.NewReader(form))
	req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	var f fileAnswer
	if json.NewDecoder(res.Body).Decode(&f) != nil || res.StatusCode != http.StatusCreated {
		return false
	}
	took(f.ID)
	return true
}
