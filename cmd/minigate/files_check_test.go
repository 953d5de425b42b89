package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/wxsim"
)

// front stands where WeChat finds minigate, wherever that is now.
type front struct{ base atomic.Pointer[url.URL] }

func (f *front) set(t *testing.T, base string) {
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	f.base.Store(u)
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	httputil.NewSingleHostReverseProxy(f.base.Load()).ServeHTTP(w, r)
}

// RoundTrip ends TLS as a proxy would.
func (f *front) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = f.base.Load().Scheme, f.base.Load().Host
	return http.DefaultTransport.RoundTrip(r)
}

const pictureHead = "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"

// TestFilesAreChecked drives content checks through the real program, with a
// clamd and the simulated WeChat, which fetches what it is to check; in the
// middle the program is killed.
func TestFilesAreChecked(t *testing.T) {
	at := &front{}
	public := httptest.NewServer(at)
	t.Cleanup(public.Close)
	sim := wxsim.New(wxsim.Options{
		Apps: []wxsim.App{{AppID: testAppID, Secret: testSecret, Push: wxsim.PushTarget{
			URL: public.URL + "/wechat/push/" + testAppID, Token: testPushToken, AESKey: testPushKey,
		}}},
		Fetch: &http.Client{Transport: at},
	})
	wechatAPI := httptest.NewServer(sim)
	t.Cleanup(wechatAPI.Close)
	news := make(chan string, 20)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // what is cut short is no news
		news <- string(body)
	}))
	t.Cleanup(hook.Close)

	config := strings.Replace(baseConfig(t, wechatAPI.URL), "      secret:", "      push: {token: "+testPushToken+", encoding_aes_key: "+testPushKey+"}\n      secret:", 1)
	config += "files:\n  public_url: https://files.example.com\n  user_public: true\n  check:\n    wechat: {enabled: true}\n    clamd: {address: '" + testdeps.Clamd(t, 25<<20).Address + "'}\n" +
		"webhooks:\n  keys: [{id: k1, secret: a-webhook-secret-for-tests}]\n  files: {endpoint: '" + hook.URL + "'}\n"
	p := startServe(t, config)
	at.set(t, p.Public)
	me := login(t, p.Public, sim.NewCode(testAppID, "ann"))
	send := func(name, content string) string { return uploadChecked(t, p, me.Token, name, content) }
	other := login(t, p.Public, sim.NewCode(testAppID, "bob"))
	good, risky, virus := send("good.png", pictureHead+"hello"), send("b.png", pictureHead+wxsim.RiskyText), send("c.txt", testdeps.Eicar)
	text := send("d.txt", "hello") // WeChat does not check it
	callRaw(t, "POST", p.Ops+"/api/files/access", map[string]string{"X-API-Key": testAPIKey}, map[string]any{"file": good, "public": true})
	eventually(t, "WeChat is asked", func() bool {
		return p.metric(t, `minigate_files_checked_total\{checker="wechat",verdict="later"\}`) == 2
	})
	if status, raw := callRaw(t, "GET", p.Public+"/files/"+good, bearer(other.Token), nil); status != 409 || !strings.Contains(string(raw), "file_checking") {
		t.Errorf("read before it has passed: %d %s", status, raw)
	}
	p.kill()
	p = startServe(t, config)
	at.set(t, p.Public)
	if n, err := sim.Deliver(t.Context()); n < 2 || err != nil { // more where it was asked once more
		t.Errorf("%d verdicts delivered, %v", n, err)
	}
	wantFileNews(t, news, map[string]string{good: "file_ready", risky: "file_blocked", virus: "file_blocked", text: "file_ready"})
	if status, raw := callRaw(t, "GET", p.Public+"/files/"+good, bearer(other.Token), nil); status != 200 || !strings.HasSuffix(string(raw), "hello") {
		t.Errorf("read by another: %d %q", status, raw)
	}
	for _, id := range []string{risky, virus} {
		if status, raw := callRaw(t, "GET", p.Public+"/files/"+id, bearer(me.Token), nil); status != 410 || !strings.Contains(string(raw), "file_blocked") {
			t.Errorf("blocked: %d %s", status, raw)
		}
		if status, out, _ := p.admin(t, "files", "stat", "--file", id); status != 0 || !regexp.MustCompile(`reason +(wechat 20002|clamd Test.Eicar)`).MatchString(out) {
			t.Errorf("stat: %d %s", status, out)
		}
	}
	noSecrets(t, p, me.Token)
}

var fileDelivery = regexp.MustCompile(`"delivery":"(file_[a-z]+)-([A-Z2-7]{26})"`)

// wantFileNews waits for one event of each file.
func wantFileNews(t *testing.T, news <-chan string, want map[string]string) {
	t.Helper()
	for len(want) > 0 {
		select {
		case n := <-news:
			told := fileDelivery.FindStringSubmatch(n)
			if told == nil || want[told[2]] != told[1] && want[told[2]] != "" {
				t.Fatalf("told %s, want %v", n, want)
			}
			delete(want, told[2])
		case <-time.After(30 * time.Second):
			t.Fatalf("the backend never heard of %v", want)
		}
	}
}

// uploadChecked uploads a file that then has to be checked.
func uploadChecked(t *testing.T, p *program, token, name, content string) (id string) {
	t.Helper()
	status, raw := tryUpload(t, p.Public, token, name, strings.NewReader(content))
	var f struct{ ID, State string }
	if err := json.Unmarshal(raw, &f); err != nil || status != http.StatusCreated || f.State != "checking" {
		t.Fatalf("upload: %d %s", status, raw)
	}
	return f.ID
}
