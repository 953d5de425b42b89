package transfer

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/webhook"
)

var hookKey = webhook.Key{ID: "k1", Secret: "secret-of-the-upload-webhook"}

// asking makes a house that asks backend about uploads.
func asking(t *testing.T, o Options, backend http.Handler, change ...func(*WebhookSettings)) *house {
	t.Helper()
	server := httptest.NewServer(backend)
	t.Cleanup(server.Close)
	var s webhook.Settings
	settings.Defaults(&s)
	s.Keys = []webhook.Key{hookKey}
	o.Webhooks = webhook.NewClient(webhook.Options{Settings: s})
	t.Cleanup(o.Webhooks.Close)
	settings.Defaults(&o.Webhook)
	o.Webhook.Endpoint, o.Webhook.Timeout = server.URL+"/hook?token=hush", 30*time.Second // no test waits for it
	for _, f := range change {
		f(&o.Webhook)
	}
	return openHouse(t, o)
}

func askingAlone(t *testing.T, backend http.Handler, change ...func(*WebhookSettings)) *house {
	t.Helper()
	return asking(t, Options{Store: newTestFolder(t), Ledger: newTestFileLedger(t)}, backend, change...)
}

// says is a backend that always gives the same answer.
func says(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// The backend is asked before anything is stored; what it attaches stays with
// the file to its end.
func TestUploadWebhook(t *testing.T) {
	for name, l := range map[string]Ledger{"file": newTestFileLedger(t), "redis": newTestRedisLedger(t)} {
		t.Run(name, func(t *testing.T) {
			folder := newTestFolder(t)
			var asked map[string]any
			h := asking(t, Options{Store: folder, Ledger: l}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if err := webhook.Verify(r.Header, body, []webhook.Key{hookKey}, time.Now()); err != nil {
					t.Errorf("signature: %v", err)
				}
				asked = nil
				if err := json.Unmarshal(body, &asked); err != nil || asked["delivery"] != r.Header.Get("X-Minigate-Delivery") || r.Header.Get("X-Minigate-Event") != "upload" {
					t.Errorf("asked %s, %v", body, r.Header)
				}
				if n := len(filesIn(t, folder.dir)) + len(unfinished(t, l, time.Now().Add(time.Hour), 10)); n != 0 {
					t.Errorf("%d things are stored already", n)
				}
				_, _ = io.WriteString(w, ` { "attributes": {"album": "旅行", "n": 1.50} , "later": 1 }`)
			}))
			inner := h.server.Config.Handler
			h.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				inner.ServeHTTP(w, r.WithContext(rest.WithInfo(r.Context(), &rest.Info{ClientIP: "203.0.113.7"})))
			})
			form := formOf(field{"name", "", "照片.png"}, field{"f", "tmp.png", png}, field{"name", "", "evil.exe"})
			f := h.decode(h.upload(fmt.Sprintf("?size=%d", len(png)), form))
			at, _ := asked["time"].(float64)
			if time.Since(time.Unix(int64(at), 0)).Abs() > time.Minute {
				t.Errorf("asked at %v", at)
			}
			delete(asked, "time")
			delete(asked, "delivery")
			want := map[string]any{
				"event": "upload", "ip": "203.0.113.7",
				"user": map[string]any{"appid": "wx1", "openid": "alice", "unionid": "u-alice"},
				"file": map[string]any{"name": "照片.png", "type": "image/png", "size": float64(len(png))},
			}
			if !reflect.DeepEqual(asked, want) {
				t.Errorf("asked %v\nwant %v", asked, want)
			}
			if f.Name != "照片.png" {
				t.Errorf("it was asked about another name than %q", f.Name)
			}
			const attributes = `{"album":"旅行","n":1.50}`
			var stat FileInfo
			var page ListAnswer
			h.api("/stat", `{"file":"`+f.ID+`"}`, &stat)
			h.api("", `{}`, &page)
			h.do("DELETE", f.URL, nil)
			for where, got := range map[string]FileInfo{"stat": stat, "list": page.Files[0], "file_ready": h.told[0].File, "file_deleted": h.told[1].File} {
				if string(got.Attributes) != attributes || got.ID != f.ID {
					t.Errorf("%s: %+v, want the attributes %s", where, got, attributes)
				}
			}
			h.decode(h.upload("", formOf(field{"f", "a.txt", "x"})))
			if file, _ := asked["file"].(map[string]any); file["name"] != "a.txt" || len(file) != 2 {
				t.Errorf("asked about %v", file)
			}
		})
	}
}

func attributesOf(n int) string {
	return `{"attributes":{"x":"` + strings.Repeat("x", n-len(`{"x":""}`)) + `"}}`
}

// TestUploadWebhookAnswers has the backend say good and bad things; what
// cannot be used counts as no answer.
func TestUploadWebhookAnswers(t *testing.T) {
	const unusable = "upload_webhook_unavailable"
	for _, tt := range []struct {
		name    string
		backend http.Handler
		code    string // where an answer is required
		message string // of a refusal
	}{
		{"nothing to say", says(204, ""), "", ""},
		{"empty object", says(200, "{}"), "", ""},
		{"allow", says(200, `{"allow":true,"attributes":null}`), "", ""},
		{"empty attributes", says(200, `{"attributes":{ }}`), "", ""},
		{"as many attributes as may be", says(200, attributesOf(maxAttributes)), "", ""},
		{"refused", says(200, `{"allow":false,"reason":"Not \u001b[2Jhere.\n"}`), "upload_refused", "Not [2Jhere."},
		{"refused without a reason", says(200, `{"allow":false}`), "upload_refused", errUploadRefused.Msg},
		{"refused at length", says(200, `{"allow":false,"reason":"`+strings.Repeat("好", 300)+`"}`), "upload_refused", strings.Repeat("好", 200)},
		{"refused with attributes", says(200, `{"allow":false,"attributes":5}`), "upload_refused", errUploadRefused.Msg},

		{"too many attributes", says(200, attributesOf(maxAttributes+1)), unusable, ""},
		{"attributes no object", says(200, `{"attributes":["x"]}`), unusable, ""},
		{"attributes a string", says(200, `{"attributes":"{}"}`), unusable, ""},
		{"allow is no bool", says(200, `{"allow":"false"}`), unusable, ""},
		{"reason is no string", says(200, `{"allow":false,"reason":5}`), unusable, ""},
		{"garbage", says(200, `<html>`), unusable, ""},
		{"empty", says(200, ``), unusable, ""},
		{"too long", says(200, strings.Repeat(" ", 70<<10)+"{}"), unusable, ""},
		{"HTTP 500", says(500, `{"allow":true}`), unusable, ""},
		{"HTTP 403", says(403, `{"allow":false}`), unusable, ""},
		{"redirect", http.RedirectHandler("/elsewhere", http.StatusTemporaryRedirect), unusable, ""},
		{"reset", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), unusable, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting for the disk
			mux := http.NewServeMux()
			mux.Handle("/hook", tt.backend)
			mux.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was asked", r.URL) })
			for _, required := range []bool{true, false} {
				h := askingAlone(t, mux, func(s *WebhookSettings) { s.Required = required })
				h.policy(t, tt.code, tt.message, required)
			}
		})
	}
}

// policy uploads once and checks what comes of it, where code is that of an
// upload that needs an answer.
func (h *house) policy(t *testing.T, code, message string, required bool) {
	t.Helper()
	status, unchecked := http.StatusCreated, 0.0
	switch {
	case code == "upload_refused":
		status = http.StatusForbidden
	case code != "" && required:
		status = http.StatusServiceUnavailable
	case code != "":
		code, unchecked = "", 1
	}
	a := h.upload("", formOf(field{"f", "a.txt", "hello"}))
	if a.StatusCode != status || a.code() != code {
		t.Fatalf("required %v: %v, want %d %s", required, a, status, code)
	}
	if n := testutil.ToFloat64(h.metrics.unchecked); n != unchecked {
		t.Errorf("required %v: %v counted as unchecked, want %v", required, n, unchecked)
	}
	var e struct{ Error struct{ Message string } }
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || message != "" && e.Error.Message != message {
		t.Errorf("required %v: %q is said, want %q", required, e.Error.Message, message)
	}
	if strings.Contains(a.body, "hush") {
		t.Errorf("the endpoint is told: %v", a)
	}
	if status != http.StatusCreated {
		h.wantEmpty()
		h.wantEvents("nothing was kept")
	}
}

// A backend that never answers is not waited for.
func TestUploadWebhookSlow(t *testing.T) {
	for _, required := range []bool{true, false} {
		done := make(chan struct{})
		h := askingAlone(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-done }),
			func(s *WebhookSettings) { s.Required, s.Timeout = required, 50*time.Millisecond })
		t.Cleanup(func() { close(done) }) // before the backend is closed
		h.policy(t, "upload_webhook_unavailable", "", required)
	}
}

// A client that leaves while the backend thinks leaves nothing behind.
func TestUploadWebhookClientLeaves(t *testing.T) {
	asked, gone := make(chan struct{}), make(chan struct{})
	var calls atomic.Int32
	h := askingAlone(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // only then a hang-up is noticed
		close(asked)
		<-r.Context().Done()
		close(gone)
	}))
	form := formOf(field{"f", "a.txt", "hello"})
	conn := h.dial(uploadHead + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(form)) + form)
	<-asked
	_ = conn.Close()
	<-gone // the question ended with the request
	h.server.Close()
	h.wantEmpty()
	if calls.Load() != 1 || testutil.ToFloat64(h.metrics.unchecked) != 0 {
		t.Errorf("asked %d times, %v counted as unchecked", calls.Load(), testutil.ToFloat64(h.metrics.unchecked))
	}
}

// What is refused anyway is not asked about.
func TestUploadWebhookAsksOnlyWhatIsTaken(t *testing.T) {
	h := askingAlone(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked") }))
	h.settings.AllowedTypes = []string{"image/*"}
	for _, a := range []answer{
		h.upload("", formOf(field{"f", "a.txt", "hello"})),
		h.upload("?size=1000000000000", formOf(field{"f", "a.png", png})),
		h.upload("", formOf(field{"name", "", "x"})),
	} {
		if a.StatusCode < 400 || a.StatusCode >= 500 {
			t.Errorf("%v", a)
		}
	}
}

func TestWebhookSettings(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*WebhookSettings)
		want   string
	}{
		"off":      {func(*WebhookSettings) {}, ""},
		"on":       {func(s *WebhookSettings) { s.Endpoint = "https://b.example/hook" }, ""},
		"no url":   {func(s *WebhookSettings) { s.Endpoint = "b.example" }, "endpoint"},
		"too fast": {func(s *WebhookSettings) { s.Timeout = time.Millisecond }, "timeout"},
		"too slow": {func(s *WebhookSettings) { s.Timeout = time.Minute }, "timeout"},
	} {
		var s WebhookSettings
		settings.Defaults(&s)
		tt.change(&s)
		got := ""
		s.Check(func(path, _ string) { got += path })
		if got != tt.want {
			t.Errorf("%s: reported %q, want %q", name, got, tt.want)
		}
	}
}

func FuzzCompactObject(f *testing.F) {
	for _, seed := range []string{`{"a":[1,{"b":"你\u0000"}]}`, ` { } `, `null`, ``, `"x"`, `{"a":"` + "\xff" + `"}`, strings.Repeat(`{"a":`, 900) + `1` + strings.Repeat(`}`, 900)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		text, err := compactObject(object)
		if err != nil || text == "" {
			return
		}
		var v map[string]any
		if err := json.Unmarshal([]byte(text), &v); err != nil || len(text) > maxAttributes {
			t.Errorf("%d bytes, %v", len(text), err)
		}
		record, err := json.Marshal(File{Attributes: text})
		var back File
		if err == nil {
			err = json.Unmarshal(record, &back)
		}
		if err != nil || back.Attributes != text {
			t.Errorf("%q became %q: %v", text, back.Attributes, err)
		}
	})
}
