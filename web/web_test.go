package web

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/health"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/webhook"
)

const adminKey, readKey = "the-admin-key-of-tests", "the-read-key-of-tests"

type fixture struct {
	*Console
	url    string
	client *http.Client // keeps cookies, as a browser does
	kicked []string
	users  []string // what was done to users and deliveries, as "verb body"
}

func newFixture(t *testing.T, open bool) *fixture {
	t.Helper()
	reg := prometheus.NewRegistry()
	conns := prometheus.NewGauge(prometheus.GaugeOpts{Name: "minigate_connections", Help: "h"})
	transferred := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "minigate_transfer_bytes_total", Help: "h"}, []string{"direction"})
	news := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "minigate_webhook_queue_items", Help: "h"}, []string{"state"})
	oldest := prometheus.NewGauge(prometheus.GaugeOpts{Name: "minigate_webhook_queue_oldest_seconds", Help: "h"})
	reg.MustRegister(conns, transferred, news, oldest)
	news.WithLabelValues("pending").Set(5)
	news.WithLabelValues("dead").Set(6)
	oldest.Set(7)
	conns.Set(3)
	transferred.WithLabelValues("upload").Add(10)
	transferred.WithLabelValues("download").Add(20)

	keys, err := apikey.New([]apikey.Key{
		{Name: "boss", Key: settings.Secret(adminKey), Scope: "admin"},
		{Name: "guest", Key: settings.Secret(readKey), Scope: "read"},
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{}
	f.Console = New(Options{
		Gatherer:    reg,
		Health:      func() health.Snapshot { return health.Snapshot{Status: "ready"} },
		Nodes:       func(context.Context) ([]engine.Node, error) { return []engine.Node{{UID: "n1", Clients: 3}}, nil },
		Connections: func(int) []gateway.ConnectionInfo { return []gateway.ConnectionInfo{{Client: "c1", User: "alice"}} },
		Kick: func(_ context.Context, user, client string) error {
			f.kicked = append(f.kicked, user+"/"+client)
			return nil
		},
		Users: UserHandlers{
			Info: f.userHandler("info"), Revoke: f.userHandler("revoke"), Block: f.userHandler("block"), Unblock: f.userHandler("unblock"),
		},
		Webhooks: WebhookHandlers{
			List: f.userHandler("list"), Show: f.userHandler("show"), Replay: f.userHandler("replay"), Drop: f.userHandler("drop"),
		},
		Hooks: func() []webhook.EndpointInfo {
			return []webhook.EndpointInfo{{Hook: "connect", Host: "b.example", Open: true, Reason: "webhook_timeout: It took too long."}}
		},
		Alerts:  func() []auth.Alert { return []auth.Alert{{AppID: "wx1", Code: 40164, IP: "192.0.2.7"}} },
		Keys:    keys,
		Open:    open,
		Version: "v1",
	})
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	t.Cleanup(f.live.close) // before the server, which waits for its streams
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	f.url, f.client = srv.URL, &http.Client{Jar: jar}
	return f
}

func (f *fixture) userHandler(verb string) rest.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		body, err := io.ReadAll(r.Body)
		f.users = append(f.users, verb+" "+string(body))
		return err
	}
}

func (f *fixture) call(t *testing.T, method, path, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, f.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(raw)
}

func TestSampleReadsTheRegistry(t *testing.T) {
	f := newFixture(t, true)
	s, err := takeSample(f.o.Gatherer, time.UnixMilli(42))
	if err != nil {
		t.Fatal(err)
	}
	if s.Time != 42 || s.Connections != 3 || s.UploadBytes != 10 || s.DownloadBytes != 20 || s.NewsPending != 5 || s.NewsDead != 6 || s.NewsOldest != 7 {
		t.Errorf("sample is %+v", s)
	}
}

// event reads one server-sent event.
func event(t *testing.T, r *bufio.Reader) (name, data string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		line = strings.TrimSuffix(line, "\n")
		if v, ok := strings.CutPrefix(line, "event: "); ok {
			name = v
		} else if v, ok := strings.CutPrefix(line, "data: "); ok {
			data = v
		} else if line == "" {
			return name, data
		}
	}
}

func TestEventsCarryThePastThenTheNews(t *testing.T) {
	f := newFixture(t, true)
	f.live.add(sample{Time: 1, Connections: 1})
	f.live.add(sample{Time: 2, Connections: 2})
	res, err := f.client.Get(f.url + "/console/events")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	in := bufio.NewReader(res.Body)

	name, data := event(t, in)
	var past []sample
	if err := json.Unmarshal([]byte(data), &past); err != nil || name != "samples" || len(past) != 2 {
		t.Fatalf("first event is %s %s", name, data)
	}
	name, data = event(t, in)
	var l lists
	if err := json.Unmarshal([]byte(data), &l); err != nil || name != "lists" {
		t.Fatalf("second event is %s %s", name, data)
	}
	if len(l.Alerts) != 1 || l.Alerts[0].IP != "192.0.2.7" {
		t.Errorf("alerts are %+v", l.Alerts)
	}
	if len(l.Hooks) != 1 || l.Hooks[0].Hook != "connect" || !l.Hooks[0].Open {
		t.Errorf("hooks are %+v", l.Hooks)
	}
	if l.Version != "v1" || len(l.Connections) != 1 || l.Connections[0].User != "alice" || len(l.Nodes) != 1 {
		t.Errorf("lists are %+v", l)
	}
	f.live.add(sample{Time: 3, Connections: 7})
	name, data = event(t, in)
	if name != "samples" || !strings.Contains(data, `"connections":7`) || strings.Contains(data, `"connections":2`) {
		t.Errorf("the news came as %s %s", name, data)
	}
	f.live.close()
	if _, err := in.ReadString('\n'); err != io.EOF {
		t.Errorf("the stream of an ended console gave %v, want EOF", err)
	}
}

func TestLiveKeepsFiveMinutes(t *testing.T) {
	l := newLive()
	for i := range 310 {
		l.add(sample{Time: int64(i+1) * 1000})
	}
	all, _, _ := l.since(0)
	if len(all) != 300 || all[0].Time != 11_000 {
		t.Errorf("kept %d samples from %d", len(all), all[0].Time)
	}
	if none, _, _ := l.since(310_000); len(none) != 0 {
		t.Errorf("%d samples are newer than the newest", len(none))
	}
	l.add(sample{Time: 200_000}) // the clock was set back
	if all, _, _ := l.since(0); len(all) != 190 || all[189].Time != 200_000 {
		t.Errorf("kept %d samples, the last of %d", len(all), all[len(all)-1].Time)
	}
	l.add(sample{Time: 10_000_000}) // after a pause that is longer
	if all, _, _ := l.since(0); len(all) != 1 {
		t.Errorf("kept %d samples across a pause", len(all))
	}
}

// Reading all metrics takes memory and time: where nobody looks it is done less.
func TestSamplesWhileSomebodyLooks(t *testing.T) {
	o := newFixture(t, true).o
	synctest.Test(t, func(t *testing.T) {
		var taken atomic.Int32
		o.Gatherer = prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
			taken.Add(1)
			return nil, nil
		})
		c := New(o)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = c.Run(ctx) }() // it ends with ctx
		in := func(d time.Duration) int32 {
			synctest.Wait()
			before := taken.Load()
			time.Sleep(d)
			synctest.Wait()
			return taken.Load() - before
		}
		if n := in(time.Minute + time.Second/2); n != 6 {
			t.Errorf("%d samples in a minute with nobody there", n)
		}
		looking, leave := context.WithCancel(t.Context())
		r := httptest.NewRequestWithContext(looking, "GET", "/console/events", nil)
		gone := make(chan struct{})
		go func() {
			c.serveEvents(patient{httptest.NewRecorder()}, r)
			close(gone)
		}()
		if n := in(10 * time.Second); n != 10 {
			t.Errorf("%d samples in ten seconds with somebody there", n)
		}
		leave()
		<-gone
		if n := in(time.Minute); n != 6 {
			t.Errorf("%d samples in the minute after", n)
		}
		cancel()
		synctest.Wait()
	})
}

// patient is a writer that can be told how long it may take.
type patient struct{ *httptest.ResponseRecorder }

func (patient) SetWriteDeadline(time.Time) error { return nil }

func TestSignIn(t *testing.T) {
	f := newFixture(t, false)
	expect := func(what string, want int, method, path, body string, header ...string) {
		t.Helper()
		if got, raw := f.call(t, method, path, body, header...); got != want {
			t.Errorf("%s: status %d, want %d: %s", what, got, want, raw)
		}
	}
	const kick = `{"user":"alice","client":"c1"}`
	expect("the page itself", 200, "GET", "/", "")
	expect("events before signing in", 401, "GET", "/console/events", "")
	expect("a wrong key", 401, "POST", "/console/session", `{"key":"wrong"}`)
	expect("no key", 400, "POST", "/console/session", "")
	expect("a reader's key", 200, "POST", "/console/session", `{"key":"`+readKey+`"}`)
	expect("a reader who kicks", 403, "POST", "/console/kick", kick)
	if _, who := f.call(t, "GET", "/console/session", ""); !strings.Contains(who, `"name":"guest"`) {
		t.Errorf("the session is %s", who)
	}
	expect("signing out", 204, "DELETE", "/console/session", "")
	expect("kick after signing out", 401, "POST", "/console/kick", kick)
	expect("an admin's key", 200, "POST", "/console/session", `{"key":"`+adminKey+`"}`)
	expect("an admin who kicks", 200, "POST", "/console/kick", kick)
	expect("another site acting for the admin", 403, "POST", "/console/kick", kick, "Sec-Fetch-Site", "cross-site")
	if len(f.kicked) != 1 || f.kicked[0] != "alice/c1" {
		t.Errorf("kicked %v", f.kicked)
	}
}

func TestActionsAreForAdmins(t *testing.T) {
	f := newFixture(t, false)
	paths := map[string]string{
		"/console/user": "info", "/console/user/revoke": "revoke", "/console/user/block": "block", "/console/user/unblock": "unblock",
		"/console/webhooks": "list", "/console/webhooks/show": "show", "/console/webhooks/replay": "replay", "/console/webhooks/drop": "drop",
	}
	const body = `{"user":"alice"}`
	for path, verb := range paths {
		for _, tc := range []struct {
			who    string
			status int
			header []string
		}{
			{"nobody", 401, nil},
			{"a reader", 403, []string{"X-API-Key", readKey}},
			{"an admin by way of another site", 403, []string{"X-API-Key", adminKey, "Sec-Fetch-Site", "cross-site"}},
			{"an admin", 200, []string{"X-API-Key", adminKey}},
		} {
			f.users = nil
			if status, raw := f.call(t, "POST", path, body, tc.header...); status != tc.status {
				t.Errorf("%s at %s: status %d, want %d: %s", tc.who, path, status, tc.status, raw)
			}
			if done := slices.Equal(f.users, []string{verb + " " + body}); done != (tc.status == 200) || !done && f.users != nil {
				t.Errorf("%s at %s: did %q", tc.who, path, f.users)
			}
		}
	}
}

func TestSignInAttemptsAreLimited(t *testing.T) {
	f := newFixture(t, false)
	status := 0
	for range signInsBurst + 5 {
		status, _ = f.call(t, "POST", "/console/session", `{"key":"guess"}`)
	}
	if status != http.StatusTooManyRequests {
		t.Errorf("after %d guesses: status %d", signInsBurst+5, status)
	}
}

func TestVisitorsAreForgotten(t *testing.T) {
	v := newVisitors()
	now := time.Now()
	first := v.add(visitor{name: "first", until: now.Add(time.Minute)}, now)
	for i := range maxVisitors {
		v.add(visitor{until: now.Add(time.Hour + time.Duration(i))}, now)
	}
	if len(v.byID) != maxVisitors {
		t.Errorf("%d visitors are remembered, want %d", len(v.byID), maxVisitors)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: cookieName, Value: first})
	if who, ok := v.find(r); ok {
		t.Errorf("the oldest visitor is still there: %+v", who)
	}
}

func TestPage(t *testing.T) {
	f := newFixture(t, false)
	for path, want := range map[string]int{"/": 200, "/assets/../../page.go": 404, "/assets/none.js": 404, "/etc/passwd": 404} {
		req := httptest.NewRequest("GET", "http://ops/", nil)
		req.URL.Path = path
		rec := httptest.NewRecorder()
		servePage(rec, req)
		if rec.Code != want {
			t.Errorf("%s: status %d, want %d", path, rec.Code, want)
		}
	}
	if _, body := f.call(t, "GET", "/", ""); !strings.Contains(body, "minigate") {
		t.Errorf("the page is %q", body)
	}
}
