package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key = webhook.Key{ID: "k", Secret: settings.Secret("a-webhook-secret-for-tests")}

func newBackend(t *testing.T, address string, timeout time.Duration, change func(*Hook)) (*Backend, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	client := webhook.NewClient(webhook.Options{
		Settings: webhook.Settings{Keys: []webhook.Key{key}, MaxConcurrent: 2}, Metrics: webhook.NewMetrics(reg),
	})
	t.Cleanup(client.Close)
	h := Hook{Kind: RPC, Name: Default, At: "rpc.proxy"}
	settings.Defaults(&h.Proxy)
	h.Proxy.Endpoint, h.Proxy.Timeout = address, timeout
	if change != nil {
		change(&h)
	}
	h.Proxy.Check(func(path, problem string) { t.Errorf("%s %s", path, problem) })
	b, err := New(client, []Hook{h})
	if err != nil {
		t.Fatal(err)
	}
	return b, reg
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// slow says nothing until the caller leaves, which a server sees only once it
// has read the question.
func slow(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// hijack answers with bytes of its own, or with none.
func hijack(t *testing.T, answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if tcp, ok := conn.(*net.TCPConn); ok && answer == "" {
			_ = tcp.SetLinger(0) // a reset
		}
		_, _ = conn.Write([]byte(answer))
		_ = conn.Close()
	}
}

// Every way in which a backend may fail is counted by what it was, and is
// nothing that a client is told in other words.
func TestFaults(t *testing.T) {
	says := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for name, tc := range map[string]struct {
		backend http.HandlerFunc // nil: nobody is there
		address string
		want    string
	}{
		"refused":       {nil, "http://127.0.0.1:1", "webhook_unavailable"},
		"no such host":  {nil, "http://minigate.invalid/rpc", "webhook_unavailable"},
		"slow":          {slow, "", "webhook_timeout"},
		"reset":         {hijack(t, ""), "", "webhook_unavailable"},
		"cut":           {hijack(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), "", "webhook_unavailable"},
		"no HTTP":       {hijack(t, "hello"), "", "webhook_unavailable"},
		"redirect":      {says(307, ""), "", "webhook_redirect"},
		"204":           {says(204, ""), "", "webhook_status"},
		"400":           {says(400, `{"result":{}}`), "", "webhook_status"},
		"500":           {says(500, `{"result":{}}`), "", "webhook_unavailable"},
		"429":           {says(429, `{"result":{}}`), "", "webhook_unavailable"},
		"huge":          {says(200, `{"result":{"data":"`+strings.Repeat("x", maxAnswer)+`"}}`), "", "webhook_answer_too_long"},
		"huge 400":      {says(400, strings.Repeat("x", maxAnswer+1)), "", "webhook_status"},
		"no JSON":       {says(200, `<html>`), "", "webhook_answer_invalid"},
		"nothing":       {says(200, ``), "", "webhook_answer_invalid"},
		"a list":        {says(200, `[]`), "", "webhook_answer_invalid"},
		"bad payload":   {says(200, "{\"result\":{\"data\":\"\xff\"}}"), "", "webhook_answer_invalid"},
		"bad base64":    {says(200, `{"result":{"b64data":"?"}}`), "", "webhook_answer_invalid"},
		"in its words":  {says(200, `{"error":{"code":1000,"message":"m"}}`), "", "ok"},
		"goodbye":       {says(200, `{"disconnect":{"code":4000,"reason":"r"}}`), "", "ok"},
		"in the config": {says(418, `tea`), "", "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.backend != nil {
				tc.address = serve(t, tc.backend)
			}
			timeout := 30 * time.Second
			if name == "slow" {
				timeout = 50 * time.Millisecond
			}
			b, reg := newBackend(t, tc.address+"?secret=s3cret", timeout, func(h *Hook) {
				h.Proxy.HTTP.Transforms = []Transform{{Status: 418, ToError: TransformToError{Code: 1418, Message: "teapot"}}}
			})
			_, err := b.RPC(t.Context(), "", &Caller{}, "m", nil)
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Fatalf("got %v", err)
			}
			if tc.want != "ok" && fault.Of(err).Code != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			want := fmt.Sprintf("# HELP minigate_webhook_requests_total Calls to the business backend by hook and result: ok, or the code of the error.\n"+
				"# TYPE minigate_webhook_requests_total counter\nminigate_webhook_requests_total{hook=\"rpc\",result=%q} 1\n", tc.want)
			if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "minigate_webhook_requests_total"); err != nil {
				t.Error(err)
			}
		})
	}
}

// A caller that leaves is no failure of the backend.
func TestCallerLeaves(t *testing.T) {
	asked := make(chan struct{})
	b, _ := newBackend(t, serve(t, func(w http.ResponseWriter, r *http.Request) { close(asked); slow(w, r) }), 30*time.Second, nil)
	ctx, leave := context.WithCancel(t.Context())
	go func() { <-asked; leave() }()
	if _, err := b.RPC(ctx, "", &Caller{}, "m", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// What a question looks like on the wire, in whole.
func TestRequest(t *testing.T) {
	type request struct {
		body   string
		header http.Header
	}
	got := make(chan request, 1)
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if err := webhook.Verify(r.Header, body, []webhook.Key{key}, time.Now()); err != nil {
			t.Error(err)
		}
		got <- request{string(body), r.Header}
		_, _ = w.Write([]byte(`{"result":{"data":1}}`))
	})
	b, _ := newBackend(t, address, 20*time.Second, func(h *Hook) {
		h.Name, h.Proxy.IncludeMeta = "orders", true
		h.Proxy.HTTPHeaders = []string{"User-Agent"}
		h.Proxy.HTTP.StaticHeaders = map[string]settings.Secret{"X-Key": "secret"}
	})
	c := &Caller{Client: "c1", Protocol: "protobuf", User: "u", Meta: json.RawMessage(`{"m":1}`), Headers: http.Header{"User-Agent": {"phone"}}}
	data, err := b.RPC(t.Context(), "orders", c, "m", []byte(`{"a":1}`))
	if err != nil || string(data) != "1" {
		t.Errorf("answered %s, %v", data, err)
	}
	r := <-got
	if want := `{"client":"c1","transport":"websocket","protocol":"protobuf","encoding":"json","user":"u","method":"m","meta":{"m":1},"data":{"a":1}}`; r.body != want {
		t.Errorf("asked %s\nwant  %s", r.body, want)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "X-Key": "secret", "User-Agent": "phone", webhook.HeaderEvent: "rpc"} {
		if r.header.Get(name) != want {
			t.Errorf("%s is %q", name, r.header.Get(name))
		}
	}
	if _, err := b.RPC(t.Context(), "", c, "m", nil); fault.Of(err).Code != "not_available" {
		t.Errorf("asked nobody: %v", err)
	}
}

// What may be a header is what net/http sends: anything else would look like a
// failure of the backend.
func TestValidHeaders(t *testing.T) {
	sends := func(name, value string) bool {
		req := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:1/", nil)
		req.RequestURI, req.Header = "", http.Header{name: {value}}
		_, err := http.DefaultTransport.RoundTrip(req)
		return err != nil && !strings.Contains(err.Error(), "invalid header")
	}
	for i := range 256 {
		text := "a" + string([]byte{byte(i)}) + "b"
		if got, want := validName(text), sends(text, ""); got != want {
			t.Errorf("name %q: %v, want %v", text, got, want)
		}
		if got, want := validValue(text), sends("a", text); got != want {
			t.Errorf("value %q: %v, want %v", text, got, want)
		}
	}
	if validName("") {
		t.Error("nothing is a name")
	}
}

// FuzzAnswer: whatever a backend says, it is either used within the limits, or
// an error that says why not.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"result":{}}`, `{"result":null}`, `{"error":{"code":1000,"message":"m","temporary":true}}`, `{"disconnect":{"code":4000,"reason":"r"}}`,
		`{"result":{"user":"u","expire_at":1900000000,"info":{"a":1},"b64info":"eyJhIjoxfQ==","data":1,"channels":["a"],"subs":{"b":{"info":1,"data":2,"override":{"presence":{"value":true}},"expire_at":5,"cache_recover":true},"c":null},"meta":{}}}`,
		`{"result":{"data":{"x":1},"b64data":"/w==","skip_history":true,"tags":{"a":"b"},"idempotency_key":"k","delta":true,"version":18446744073709551615,"version_epoch":"e"}}`,
		`{"result":{"expired":true,"expire_at":-1}}`, `{"error":{"code":1e3}}`, `[]`, "", "{\"result\":{\"info\":\"\xff\"}}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := decode(body)
		if err != nil {
			checkError(t, err)
			return
		}
		if a, err := r.connect(); err != nil {
			checkError(t, err)
		} else if a != nil {
			if len(a.User) > maxUser || len(a.Subs) > maxChannels || len(a.Meta) > maxInfo {
				t.Error("beyond the limits")
			}
			checkPayload(t, a.Info, maxInfo)
			checkPayload(t, a.Data, maxAnswer)
		}
		if s, err := r.subscribe(); err != nil {
			checkError(t, err)
		} else {
			checkPayload(t, s.Info, maxInfo)
		}
		if p, err := r.publish(); err != nil {
			checkError(t, err)
		} else if len(p.Tags) > maxTags || len(p.IdempotencyKey) > maxKey {
			t.Error("beyond the limits")
		}
		if a, err := r.refresh(); err != nil {
			checkError(t, err)
		} else {
			checkPayload(t, a.Info, maxInfo)
		}
		if _, err := r.rpc(); err != nil {
			checkError(t, err)
		}
	})
}

func checkError(t *testing.T, err error) {
	t.Helper()
	if e, ok := errors.AsType[*Error](err); ok {
		if !goodErrorCode(int(e.Code)) || len(e.Message) > maxMessage {
			t.Errorf("odd error %+v", e)
		}
		return
	}
	if d, ok := errors.AsType[*Disconnect](err); ok {
		if !goodDisconnectCode(int(d.Code)) || len(d.Reason) > maxReason {
			t.Errorf("odd disconnect %+v", d)
		}
		return
	}
	if fault.Of(err).Code != errAnswer.Code {
		t.Errorf("an error of no kind: %v", err)
	}
}

func checkPayload(t *testing.T, p json.RawMessage, limit int) {
	t.Helper()
	if len(p) > limit || p != nil && !json.Valid(p) || strings.ContainsAny(string(p), "\n\r") {
		t.Errorf("odd payload %q", p)
	}
}
