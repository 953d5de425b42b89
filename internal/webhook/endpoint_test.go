package webhook

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// scripted answers with the statuses it is given, the last one again and again.
type scripted []int

func (s *scripted) RoundTrip(*http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	w.WriteHeader((*s)[0])
	if len(*s) > 1 {
		*s = (*s)[1:]
	}
	return w.Result(), nil
}

// The state of the breaker is seen from outside.
func TestBreakerIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		statuses := &scripted{200, 500, 500, 500, 500, 500, 200}
		c := NewClient(Options{
			Settings: Settings{Keys: []Key{{ID: "k", Secret: "0123456789abcdef"}}, MaxConcurrent: 1}, Transport: statuses, Metrics: NewMetrics(reg),
		})
		e, err := c.Endpoint("rpc:orders", "http://backend.example/rpc?key=s3cret", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		call := func() { _ = e.Post(t.Context(), Call{ID: "id", Event: "rpc", Body: []byte("{}")}) }
		want := func(open bool, reason string) {
			t.Helper()
			info := c.Endpoints()[0].Info()
			if info.Hook != "rpc:orders" || info.Host != "backend.example" || info.Open != open || info.Reason != reason {
				t.Errorf("shown %+v", info)
			}
			gauge := 0.0
			if open {
				gauge = 1
			}
			if got := testutil.ToFloat64(c.metrics.open.WithLabelValues("rpc:orders")); got != gauge {
				t.Errorf("the gauge is %v", got)
			}
			if err := e.Check(t.Context()); (err != nil) != open {
				t.Errorf("checked: %v", err)
			}
		}
		want(false, "")
		call()
		want(false, "")
		for range breakAfter {
			call()
		}
		const away = "webhook_unavailable: it answered HTTP 500"
		want(true, away)
		call() // in vain
		want(true, away)
		time.Sleep(breakFor)
		call() // the probe
		want(false, away)
		if info := e.Info(); !info.Worked.After(info.Failed) {
			t.Errorf("shown %+v", info)
		}
	})
}

// Hooks of one address share its turns, those of others do not.
func TestTurnsByAddress(t *testing.T) {
	c := NewClient(Options{Settings: Settings{Keys: []Key{{ID: "k", Secret: "0123456789abcdef"}}, MaxConcurrent: 1}})
	list := map[string]*Endpoint{}
	for hook, address := range map[string]string{"connect": "http://a/x", "refresh": "http://a/x", "rpc": "http://a/y"} {
		e, err := c.Endpoint(hook, address, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		list[hook] = e
	}
	if list["connect"].slots != list["refresh"].slots || list["connect"].slots == list["rpc"].slots {
		t.Error("turns are shared otherwise")
	}
}

func TestHookNames(t *testing.T) {
	c := NewClient(Options{Settings: Settings{Keys: []Key{{ID: "k", Secret: "0123456789abcdef"}}}})
	for name, good := range map[string]bool{"rpc": true, "rpc:a.b": true, "": false, "rpc:": false, ":a": false, "rpc:a:b": false, "a b": false} {
		if _, err := c.Endpoint(name, "http://a/", time.Second); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// What a call says itself nobody replaces.
func TestExtraHeaders(t *testing.T) {
	got := make(chan http.Header, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	defer srv.Close()
	e := newEndpoint(t, "rpc", srv.URL, 30*time.Second, nil)
	extra := http.Header{
		"Content-Type": {"text/html"}, "Accept": {"a"}, HeaderSignature: {"v1=0"}, "X-Minigate-Other": {"o"}, "x-minigate-event": {"e"}, "User-Agent": {"phone"}, "X-A": {"1", "2"},
	}
	if err := e.Post(t.Context(), Call{ID: "id", Event: "rpc", Body: []byte("{}"), Header: extra}); err != nil {
		t.Fatal(err)
	}
	h := <-got
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json", "X-Minigate-Other": "", "X-Minigate-Event": "rpc", "User-Agent": "phone", "X-A": "1|2",
	} {
		if got := strings.Join(h.Values(name), "|"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if strings.Contains(h.Get(HeaderSignature), "v1=0,") || len(h.Values(HeaderSignature)) != 1 {
		t.Error("the signature was replaced")
	}
}
