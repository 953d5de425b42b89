package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/minigate/minigate/internal/samplebackend"
	"github.com/minigate/minigate/internal/seal"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/webhook"
)

// personal is what must not be seen anywhere but in a body that was asked for.
const personal = "13800138000"

// dataOf is the data directory of a config of these tests.
func dataOf(config string) string {
	_, data, _ := strings.Cut(config, "data: ")
	data, _, _ = strings.Cut(data, "\n")
	return data
}

// buryNews leaves dead deliveries in the data directory of a node that does
// not run, as if its backend had refused them for a day.
func buryNews(t *testing.T, config string, ids ...string) {
	t.Helper()
	dir := dataOf(config)
	key, err := dataKey(dir, "seal.key")
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, "minigate.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	sealer, err := seal.New([][32]byte{key})
	if err != nil {
		t.Fatal(err)
	}
	o := webhook.QueueOptions{Sealer: sealer}
	settings.Defaults(&o.Settings)
	q, err := webhook.NewFileQueue(db, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		item := &webhook.Item{
			ID: id, Hook: dataHook, Event: dataHook, Key: testAppID + "/oAlice", Queued: time.Now().Add(-25 * time.Hour),
			Body: json.RawMessage(`{"event":"open_data","delivery":"` + id + `","data":{"phone_number":"` + personal + `"}}`),
		}
		if err := q.Put(t.Context(), item); err != nil {
			t.Fatal(err)
		}
		c, err := q.Take(t.Context(), time.Minute)
		if err != nil || c == nil {
			t.Fatal(c, err)
		}
		c.Item.Attempts, c.Item.Status, c.Item.Failure = 17, 502, "webhook_unavailable: it answered HTTP 502"
		if err := q.Bury(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond) // they are listed by the millisecond
	}
}

// news is a sample backend that verifies what is delivered.
type news struct {
	url     string
	arrived chan string // id, and how many seconds ago it was signed
}

func newNews(t *testing.T) *news {
	n := &news{arrived: make(chan string, 100)}
	key := webhook.Key{ID: "k1", Secret: "a-webhook-secret-for-tests"}
	sample := samplebackend.New()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the node has ended
		}
		signed, _ := strconv.ParseInt(r.Header.Get(webhook.HeaderTimestamp), 10, 64)
		id := r.Header.Get(webhook.HeaderDelivery)
		if err := webhook.Verify(r.Header, body, []webhook.Key{key}, time.Now()); err != nil || time.Now().Unix()-signed > 60 {
			t.Errorf("%s is signed at %d: %v", id, signed, err)
		}
		if want := `{"event":"open_data","delivery":"` + id + `","data":{"phone_number":"` + personal + `"}}`; string(body) != want {
			t.Errorf("arrived as %s, want %s", body, want)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		sample.ServeHTTP(w, r)
		n.arrived <- id
	}))
	t.Cleanup(srv.Close)
	n.url = srv.URL + "/api/echo"
	return n
}

func (n *news) want(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		select {
		case got := <-n.arrived:
			if got != id {
				t.Errorf("%s arrived, want %s", got, id)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s never arrived", id)
		}
	}
}

func newsConfig(t *testing.T, wechatURL, endpoint string) string {
	return baseConfig(t, wechatURL) + "webhooks:\n  keys: [{id: k1, secret: a-webhook-secret-for-tests}]\n  open_data: {endpoint: '" + endpoint + "'}\n"
}

// TestWebhooksOnTheCommandLine looks into the dead, replays and drops them.
func TestWebhooksOnTheCommandLine(t *testing.T) {
	_, wechatURL := simulator(t)
	back := newNews(t)
	config := newsConfig(t, wechatURL, back.url)
	buryNews(t, config, "first", "second", "third", "fourth", "fifth")
	p := startServe(t, config)
	must := func(want string, args ...string) string {
		t.Helper()
		status, stdout, stderr := p.admin(t, append([]string{"webhooks"}, args...)...)
		if status != 0 || !strings.Contains(stdout, want) {
			t.Fatalf("%q: status %d, want 0 and %q\n%s%s", args, status, want, stdout, stderr)
		}
		return stdout
	}
	list := must("0 pending; 5 dead, ", "list")
	for _, want := range []string{"first", "open_data", "17", "502", "it answered HTTP 502"} {
		if !strings.Contains(list, want) {
			t.Errorf("no %s in\n%s", want, list)
		}
	}
	var page webhook.ListAnswer
	if err := json.Unmarshal([]byte(must("{", "list", "--json", "--skip", "1", "--limit", "2")), &page); err != nil || len(page.Deliveries) != 2 || page.Deliveries[0].ID != "fourth" || page.Queue.Dead != 5 {
		t.Fatalf("listed %+v, %v", page, err)
	}
	shown := must("it answered HTTP 502", "show", "--delivery", "first")
	if strings.Contains(list+shown, personal) || strings.Contains(list+shown, "oAlice") {
		t.Errorf("personal data in\n%s%s", list, shown)
	}
	must(personal, "show", "--delivery", "first", "--body")

	must("replayed 1 ", "replay", "--delivery", "second")
	back.want(t, "second")
	must("dropped 1 ", "drop", "--delivery", "fifth")
	must(`{"done":3,"failed":0}`, "replay", "--all", "--json")
	back.want(t, "first", "third", "fourth")
	eventually(t, "an empty queue", func() bool { return strings.Contains(must("", "list"), "0 pending; 0 dead, 0 bytes") })
	must("dropped 0 ", "drop", "--all")
	_, metrics := callRaw(t, "GET", p.Ops+"/metrics", nil, nil)
	if !strings.Contains(string(metrics), `minigate_webhook_deliveries_total{hook="open_data",result="delivered"} 4`) {
		t.Errorf("the deliveries are not counted:\n%s", metrics)
	}

	for name, c := range map[string]struct {
		args   []string
		status int
		stderr string
	}{
		"no verb":     {nil, 2, "list, show, replay, drop"},
		"replay what": {[]string{"replay"}, 2, "either --delivery ID or --all"},
		"drop twice":  {[]string{"drop", "--all", "--delivery", "x"}, 2, "either --delivery ID or --all"},
		"show what":   {[]string{"show"}, 2, "--delivery ID is missing"},
		"unknown id":  {[]string{"replay", "--delivery", "nobody"}, 1, "delivery_unknown"},
		"bad page":    {[]string{"list", "--limit", "0"}, 1, "page_invalid"},
		"no user":     {[]string{"list", "--user", "x"}, 2, "not defined: -user"},
		"wrong key":   {[]string{"list", "--key", "not-the-right-key"}, 1, "api_key_unknown"},
	} {
		if status, _, stderr := p.admin(t, append([]string{"webhooks"}, c.args...)...); status != c.status || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%s: status %d, want %d and %q in %s", name, status, c.status, c.stderr, stderr)
		}
	}
	if log := p.Output(); !strings.Contains(log, "an operator looks at the body") || strings.Contains(log, personal) {
		t.Errorf("the log does not say who looked, or too much:\n%s", log)
	}
}

// TestWebhookRoutesAreGuarded asks without a key and with one that may only
// publish.
func TestWebhookRoutesAreGuarded(t *testing.T) {
	_, wechatURL := simulator(t)
	p := startServe(t, strings.Replace(baseConfig(t, wechatURL), "  keys:\n", "  keys:\n    - {name: weak, key: a-key-that-may-publish, scope: publish}\n    - {name: reader, key: a-key-that-may-read, scope: read}\n", 1))
	for _, path := range []string{"/api/webhooks", "/api/webhooks/show", "/api/webhooks/replay", "/api/webhooks/drop"} {
		for key, want := range map[string]int{"": 401, "a-key-that-may-publish": 403, "a-key-that-may-read": 403} {
			if status, raw := callRaw(t, "POST", p.Ops+path, map[string]string{"X-API-Key": key}, `{"all":true}`); status != want {
				t.Errorf("%s with the key %q: status %d %s", path, key, status, raw)
			}
		}
		if status, _ := callRaw(t, "POST", p.Public+path, map[string]string{"X-API-Key": testAPIKey}, `{"all":true}`); status != 404 {
			t.Errorf("%s on the public listener: status %d", path, status)
		}
	}
	// Without any hook there still is a queue to look into.
	if status, raw := callRaw(t, "POST", p.Ops+"/api/webhooks", map[string]string{"X-API-Key": testAPIKey}, `{}`); status != 200 {
		t.Errorf("status %d %s", status, raw)
	}
}

// TestSealingKeyIsLost starts a node whose key is gone: it works, says what is
// wrong, and delivers once the key is back.
func TestSealingKeyIsLost(t *testing.T) {
	_, wechatURL := simulator(t)
	back := newNews(t)
	config := newsConfig(t, wechatURL, back.url)
	buryNews(t, config, "first")
	file := filepath.Join(dataOf(config), "seal.key")
	key, err := os.ReadFile(file)
	if err == nil {
		err = os.Remove(file)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := startServe(t, config)
	if status, _, stderr := p.admin(t, "webhooks", "replay", "--all"); status != 1 || !strings.Contains(stderr, "delivery_sealed") {
		t.Errorf("replay: status %d %s", status, stderr)
	}
	if status, stdout, _ := p.admin(t, "webhooks", "show", "--delivery", "first"); status != 0 || !strings.Contains(stdout, "keys.sealing_old") {
		t.Errorf("show: status %d %s", status, stdout)
	}
	p.stop(t)
	if err := errors.Join(os.WriteFile(file, key, 0o600), os.Unsetenv(keyVariable)); err != nil { // serve refuses it
		t.Fatal(err)
	}
	p = startServe(t, config)
	if status, _, stderr := p.admin(t, "webhooks", "replay", "--all"); status != 0 {
		t.Errorf("replay with the key: status %d %s", status, stderr)
	}
	back.want(t, "first")
	log := p.Output()
	for _, secret := range []string{string(key), base64.StdEncoding.EncodeToString(key), hex.EncodeToString(key), personal} {
		if strings.Contains(log, secret) {
			t.Error("a secret was logged")
		}
	}
}

// TestWebhookConsole looks at the dead in Chromium, replays one and drops
// the rest. Set SCREENSHOT to a path that ends in .png to look at it.
func TestWebhookConsole(t *testing.T) {
	_, wechatURL := simulator(t)
	back := newNews(t)
	config := newsConfig(t, wechatURL, back.url)
	var ids []string
	for i := range 60 { // more than a page
		ids = append(ids, "n-"+strconv.Itoa(i))
	}
	buryNews(t, config, ids...)
	p := startServe(t, config)
	t.Log(runNode(t, "webhooks.mjs", append(clientEnv(t, p, wechatURL, p.Public),
		"CHROMIUM="+testdeps.Chromium(t), "SCREENSHOT="+os.Getenv("SCREENSHOT"))...))
	back.want(t, "n-59", "n-0")
	if log := p.Output(); strings.Contains(log, personal) {
		t.Error("personal data was logged")
	}
}
