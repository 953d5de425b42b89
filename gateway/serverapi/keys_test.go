package serverapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/apikey"
)

// TestRateOfKey: a key that makes too many calls is told so, in a form that
// SDKs take for an error of the API and HTTP clients for a reason to wait.
func TestRateOfKey(t *testing.T) {
	w := newWorld(t)
	slow := apikey.Key{Name: "slow", Key: "slow-key-0123456789", Scope: apikey.Publish, Rate: 0.001, Burst: 3}
	if _, err := w.api.keys.Replace(append([]apikey.Key{slow}, testKeys...)); err != nil {
		t.Fatal(err)
	}
	const publish = `{"channel":"plain:a","data":1}`
	if status, answer := w.post("publish", publish, "X-Api-Key", "slow-key-0123456789"); status != 200 || answer != `{"result":{}}` {
		t.Errorf("%d %s", status, answer)
	}
	// The commands of a batch count, too.
	_, answer := w.post("batch", `{"commands":[{"publish":`+publish+`},{"publish":`+publish+`},{"publish":`+publish+`}],"parallel":true}`, "X-Api-Key", "slow-key-0123456789")
	if answer != `{"replies":[{"publish":{}},{"publish":{}},{"error":{"code":111,"message":"too many requests"}}]}` {
		t.Errorf("batch %s", answer)
	}
	for mode, want := range map[string]string{"": `{"error":{"code":111,"message":"too many requests"}}`, "transport": `{"code":111,"message":"too many requests"}`} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", w.URL+"/api/publish", strings.NewReader(publish))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Api-Key", "slow-key-0123456789")
		r.Header.Set("X-Centrifugo-Error-Mode", mode)
		rec := httptest.NewRecorder()
		w.api.ServeHTTP(rec, r)
		if rec.Code != 429 || rec.Body.String() != want || rec.Header().Get("Retry-After") == "" || rec.Header().Get("Retry-After") == "0" {
			t.Errorf("mode %q: %d %s, Retry-After %q", mode, rec.Code, rec.Body, rec.Header().Get("Retry-After"))
		}
	}
	if status, _ := w.post("publish", publish, "X-Api-Key", publishKey); status != 200 {
		t.Errorf("another key: %d", status)
	}
}

func TestErrorModeOfSettings(t *testing.T) {
	hub := newHub(prometheus.NewRegistry())
	keys, err := apikey.New(testKeys, false)
	if err != nil {
		t.Fatal(err)
	}
	api := New(hub, keys, Settings{MaxData: 1, MaxBody: 1000, ErrorMode: transportErrors}, NewMetrics(prometheus.NewRegistry()))
	r := httptest.NewRequest("POST", "/api/publish", strings.NewReader(`{}`))
	r.Header.Set("X-Api-Key", adminKey)
	rec := httptest.NewRecorder()
	api.ServeHTTP(rec, r)
	if rec.Code != 400 || rec.Body.String() != `{"code":107,"message":"bad request"}` {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	var problems []string
	s := Settings{MaxData: 1, MaxBody: 1, Timeout: 1, ErrorMode: "http"}
	s.Check(func(path, problem string) { problems = append(problems, path+" "+problem) })
	if len(problems) != 1 || problems[0] != "error_mode must be empty or transport" {
		t.Errorf("got %q", problems)
	}
}

// TestAudit: what is changed is written down with who did it, also from within
// a batch, and when the key may not; messages and looks are not.
func TestAudit(t *testing.T) {
	logged := captureLogs(t)
	w := newWorld(t)
	w.must("publish", `{"channel":"room:a","data":"private"}`)
	w.must("presence", `{"channel":"room:a"}`)
	if strings.Contains(logged.String(), "msg=audit") {
		t.Errorf("too much is audited: %s", logged)
	}
	w.must("subscribe", `{"user":"o-ann","channel":"room:a","data":"private"}`)
	w.post("batch", `{"commands":[{"unsubscribe":{"user":"o-bob"}},{"history_remove":{"channel":"nope:a"}}]}`)
	w.post("refresh", `{"user":"o-cid"}`, "X-Api-Key", publishKey)
	w.post("batch", `{"commands":[{"disconnect":{"user":"o-eve"}},{"presence":{"channel":"room:a"}}]}`, "X-Api-Key", publishKey)
	w.postCommands(`{"method":"unsubscribe","params":{"user":"o-eve"}}`, "X-Api-Key", publishKey)
	w.post("unsubscribe", `{"user":1}`)
	w.post("refresh", `{"user":"o-dan"}`, "X-Api-Key", "wrong")
	got := logged.String()
	for _, want := range []string{
		"key=ops method=subscribe target.user=o-ann target.channel=room:a result=ok remote=127.0.0.1:",
		"key=ops method=unsubscribe target.user=o-bob result=ok",
		"key=ops method=history_remove target.channel=nope:a result=unknown_channel",
		"key=backend method=refresh result=scope_too_small",
		"key=backend method=disconnect result=scope_too_small",
		"key=backend method=unsubscribe result=scope_too_small",
		"key=ops method=unsubscribe result=malformed",
	} {
		if !strings.Contains(got, "msg=audit "+want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if strings.Count(got, "msg=audit") != 7 || strings.Contains(got, "private") || strings.Contains(got, "o-dan") {
		t.Errorf("logged %s", got)
	}
}
