package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway/ask"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/webhook"
)

var webhookKey = webhook.Key{ID: "k", Secret: settings.Secret("a-webhook-secret-for-tests")}

// asked is a question as the backend got it.
type asked struct {
	path, body string
	header     http.Header
}

// hookBackend is the business backend behind all webhooks. It answers by path,
// in order, the last answer again and again; without one it says {}. It is
// reached without a network, so that it works inside synctest too.
type hookBackend struct {
	t     testing.TB
	calls chan asked
	hold  chan struct{} // where set, every call waits for it to close
	ended chan error    // of calls that were broken off

	mu      sync.Mutex
	answers map[string][]string
}

func newHookBackend(t testing.TB) *hookBackend {
	return &hookBackend{t: t, calls: make(chan asked, 1000), ended: make(chan error, 1000), answers: map[string][]string{}}
}

// says makes the backend answer a path; one that begins with a number answers
// with that status.
func (o *hookBackend) says(path string, answers ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answers[path] = answers
}

func (o *hookBackend) next(path string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.answers[path]
	if len(list) == 0 {
		return "{}"
	}
	if len(list) > 1 {
		o.answers[path] = list[1:]
	}
	return list[0]
}

func (o *hookBackend) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if err := webhook.Verify(r.Header, body, []webhook.Key{webhookKey}, time.Now()); err != nil {
		o.t.Errorf("a question is not signed: %v", err)
	}
	o.calls <- asked{r.URL.Path, string(body), r.Header}
	if o.hold != nil {
		select {
		case <-o.hold:
		case <-r.Context().Done():
			o.ended <- r.Context().Err()
			return nil, r.Context().Err()
		}
	}
	w := httptest.NewRecorder()
	text := o.next(r.URL.Path)
	if status, rest, ok := strings.Cut(text, " "); ok && len(status) == 3 {
		var n int
		_ = json.Unmarshal([]byte(status), &n)
		w.WriteHeader(n)
		text = rest
	}
	_, _ = w.WriteString(text)
	return w.Result(), nil
}

// into gives a hub the webhooks that its settings name.
func (o *hookBackend) into(opts *Options) {
	client := webhook.NewClient(webhook.Options{
		Settings: webhook.Settings{Keys: []webhook.Key{webhookKey}, MaxConcurrent: 64}, Transport: o, Metrics: webhook.NewMetrics(prometheus.NewRegistry()),
	})
	b, err := ask.New(client, opts.Settings.Hooks())
	if err != nil {
		o.t.Fatal(err)
	}
	opts.Ask = b
}

// wantCall takes the next question and compares it.
func (o *hookBackend) wantCall(path, body string) asked {
	o.t.Helper()
	got := <-o.calls
	if got.path != path || !match(body, got.body) {
		o.t.Errorf("asked %s %s\nwant  %s %s", got.path, got.body, path, body)
	}
	return got
}

func (o *hookBackend) wantNoCall() {
	o.t.Helper()
	select {
	case got := <-o.calls:
		o.t.Errorf("asked %s %s", got.path, got.body)
	default:
	}
}

// withHooks switches all webhooks on; channels of the namespace "hook" are
// decided by them.
func withHooks(s *Settings) {
	p := &s.Client.Proxy
	p.Connect.Enabled, p.Connect.Endpoint = true, "http://backend/connect"
	p.Refresh.Enabled, p.Refresh.Endpoint = true, "http://backend/refresh"
	c := &s.Channel.Proxy
	c.Subscribe.Endpoint, c.Publish.Endpoint, c.SubRefresh.Endpoint = "http://backend/subscribe", "http://backend/publish", "http://backend/sub_refresh"
	s.Channel.Namespaces = append(s.Channel.Namespaces, Namespace{Name: "hook", Access: Access{
		SubscribeProxyEnabled: true, PublishProxyEnabled: true, SubRefreshProxyEnabled: true, Presence: true, AllowPresenceForSubscriber: true,
		AllowHistoryForSubscriber: true, AllowUserLimitedChannels: true, AllowedDeltaTypes: []string{"fossil"},
	}, History: History{HistorySize: 10, HistoryTTL: time.Minute, AllowRecovery: true}})
	s.RPC.Proxy.Endpoint = "http://backend/rpc"
	s.RPC.Namespaces = []ask.RPCNamespace{{Name: "shop", RPCRules: ask.RPCRules{ProxyEnabled: true}}, {Name: "off"}}
	for _, p := range []*ask.Proxy{&p.Connect.Proxy, &p.Refresh.Proxy, &c.Subscribe, &c.Publish, &c.SubRefresh, &s.RPC.Proxy} {
		p.HTTP.Transforms = []ask.Transform{
			{Status: 404, ToDisconnect: ask.TransformToGoAway{Code: 4504, Reason: "no such user"}},
			{Status: 418, ToError: ask.TransformToError{Code: 1418, Message: "teapot", Temporary: true}},
			{Status: 503, ToError: ask.TransformToError{Code: 1503, Message: "closed today"}},
		}
	}
}

const internalErrorReply = `{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}`

// known connects the user u, whom the connect proxy names.
func (th *testHub) known(o *hookBackend, opts dialOptions, more string) *wire {
	th.t.Helper()
	o.says("/connect", `{"result":{"user":"u"`+more+`}}`)
	w := th.dial(opts)
	w.send(`{"id":1,"connect":{}}`)
	w.want(`{"id":1,"connect":{"client":"*`)
	<-o.calls
	return w
}

// forBoth runs a test with clients of both encodings.
func forBoth(t *testing.T, f func(t *testing.T, opts dialOptions, protocol string)) {
	t.Run("json", func(t *testing.T) { f(t, dialOptions{}, "json") })
	t.Run("protobuf", func(t *testing.T) { f(t, dialOptions{protobuf: true}, "protobuf") })
}

func TestAskWhoConnects(t *testing.T) {
	forBoth(t, func(t *testing.T, opts dialOptions, protocol string) {
		o := newHookBackend(t)
		h := startHub(t, withHooks, o.into)
		o.says("/connect", `{"result":{"user":"u","info":{"name": "Ann"},"data":{"hello":
			1},"channels":["news"],"subs":{"hook:a":{"data":{"k":1},"info":{"role":2},"override":{"force_recovery":{"value":true}}}},"meta":{"m":1}}}`)
		w := h.dial(opts)
		w.send(`{"id":1,"connect":{"data":{"code":"c"},"name":"js","version":"1.0","subs":{"live:p":{},"feed:b":{}}}}`)
		got := w.next()
		for _, want := range []string{
			`"data":{"hello":1}`, `"#u":{"recoverable":true,"epoch":"`, `"news":{"recoverable":true,"epoch":"`, `"live:p":{}`, `"feed:b":{"recoverable":true`,
			`"hook:a":{"recoverable":true,"epoch":"`, `"data":{"k":1}`,
		} {
			if !strings.Contains(got, want) {
				t.Errorf("no %s in %s", want, got)
			}
		}
		o.wantCall("/connect", `{"client":"*","transport":"websocket","protocol":"`+protocol+`","encoding":"json","name":"js","version":"1.0","channels":["feed:b","live:p"],"data":{"code":"c"}}`)
		w.send(`{"id":2,"presence":{"channel":"hook:a"}}`)
		w.want(`{"id":2,"presence":{"presence":{"*":{"user":"u","client":"*","conn_info":{"name":"Ann"},"chan_info":{"role":2}}}}}`)
		h.EndUser("u", DisconnectForced) // as any other user
		w.wantEnd(DisconnectForced)
	})
}

// What the backend may answer to connect, and what becomes of it.
func TestConnectAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		answer  string
		want    string
		wantEnd *Disconnect
	}{
		"user":         {`{"result":{"user":"u"}}`, `{"id":1,"connect":{"client":"*","subs":{"#u":{*`, nil},
		"anonymous":    {`{"result":{}}`, `{"id":1,"connect":{"client":"*","version":"test","ping":25,"pong":true}}`, nil},
		"nobody":       {`{}`, "", DisconnectBadRequest},
		"null":         {`{"result":null}`, "", DisconnectBadRequest},
		"error":        {`{"error":{"code":1000,"message":"try later","temporary":true}}`, `{"id":1,"error":{"code":1000,"message":"try later","temporary":true}}`, nil},
		"error wins":   {`{"error":{"code":1000,"message":"no"},"result":{"user":"u"}}`, `{"id":1,"error":{"code":1000,"message":"no"}}`, nil},
		"disconnect":   {`{"disconnect":{"code":4501,"reason":"not you"}}`, "", &Disconnect{4501, "not you"}},
		"odd reason":   {`{"disconnect":{"code":4501,"reason":"404"}}`, "", &Disconnect{4501, "force disconnect"}},
		"transform":    {`404 nothing`, "", &Disconnect{4504, "no such user"}},
		"to error":     {`418 {"result":{"user":"u"}}`, `{"id":1,"error":{"code":1418,"message":"teapot","temporary":true}}`, nil},
		"503 to error": {`503 `, `{"id":1,"error":{"code":1503,"message":"closed today"}}`, nil},
		"500":          {`500 {"result":{"user":"u"}}`, internalErrorReply, nil},
		"201":          {`201 {"result":{"user":"u"}}`, internalErrorReply, nil},
		"204":          {`204 `, internalErrorReply, nil},
		"redirect":     {`302 {"result":{"user":"u"}}`, internalErrorReply, nil},
		"no JSON":      {`<html>`, internalErrorReply, nil},
		"empty":        {``, internalErrorReply, nil},
		"other type":   {`{"result":{"user":7}}`, internalErrorReply, nil},
		"long user":    {`{"result":{"user":"` + strings.Repeat("u", 256) + `"}}`, internalErrorReply, nil},
		"big info":     {`{"result":{"info":"` + strings.Repeat("i", 16<<10) + `"}}`, internalErrorReply, nil},
		"bad base64":   {`{"result":{"b64info":"???"}}`, internalErrorReply, nil},
		"odd error":    {`{"error":{"code":3000,"message":"m"}}`, internalErrorReply, nil},
		"odd code":     {`{"disconnect":{"code":1000,"reason":"m"}}`, internalErrorReply, nil},
		"huge":         {`{"result":{"user":"u"},"pad":"` + strings.Repeat("x", 256<<10) + `"}`, internalErrorReply, nil},
		"expired":      {`{"result":{"user":"u","expire_at":1000}}`, `{"id":1,"error":{"code":110,"message":"expired"}}`, nil},
		"sub expired":  {`{"result":{"user":"u","subs":{"news":{"expire_at":1000}}}}`, `{"id":1,"error":{"code":110,"message":"expired"}}`, nil},
		"b64":          {`{"result":{"user":"","b64data":"eyJrIjogMX0="}}`, `{"id":1,"connect":{"client":"*","data":{"k":1},*`, nil},
		"bad channel":  {`{"result":{"channels":["nowhere:a"]}}`, "", DisconnectBadRequest},
		"many":         {`{"result":{"user":"u","channels":["a","b","c","d","e","f"]}}`, "", DisconnectChannelLimit},
		"blocked":      {`{"result":{"user":"blocked"}}`, "", DisconnectBlocked},
	} {
		t.Run(name, func(t *testing.T) {
			o := newHookBackend(t)
			h := startHub(t, func(s *Settings) { withHooks(s); s.Client.ChannelLimit = 5 }, o.into, func(opts *Options) {
				opts.Blocked = func(_ context.Context, user string) (*auth.Block, error) {
					if user == "blocked" {
						return &auth.Block{}, nil
					}
					return nil, nil
				}
			})
			o.says("/connect", tc.answer)
			w := h.dial(dialOptions{})
			w.send(`{"id":1,"connect":{}}`)
			if tc.wantEnd != nil {
				w.wantEnd(tc.wantEnd)
			} else {
				w.want(tc.want)
			}
			o.wantCall("/connect", `{"client":"*","transport":"websocket","protocol":"json","encoding":"json"}`)
		})
	}
}

// A client with a token is not asked about; one of ours may be.
func TestConnectWithTokens(t *testing.T) {
	t.Run("not asked", func(t *testing.T) {
		o := newHookBackend(t)
		h := startHub(t, func(s *Settings) { withJWT(s); withHooks(s) }, o.into)
		h.loginJWT(object{"sub": "u"})
		startHub(t, withHooks, o.into).login("alice")
		o.wantNoCall()
	})
	for name, tc := range map[string]struct{ answer, want string }{
		"more":     {`{"result":{"user":"alice","info":{"a":1},"data":{"d":1},"channels":["room:vip"]}}`, `{"id":1,"connect":{*"data":{"d":1},*"room:vip":{*`},
		"as it is": {`{}`, `{"id":1,"connect":{*"#alice":*`},
		"refused":  {`{"error":{"code":1001,"message":"not today"}}`, `{"id":1,"error":{"code":1001,"message":"not today"}}`},
		"another":  {`{"result":{"user":"bob"}}`, internalErrorReply},
	} {
		t.Run(name, func(t *testing.T) {
			o := newHookBackend(t)
			h := startHub(t, func(s *Settings) { withHooks(s); s.Client.Proxy.Connect.ForLogins = true }, o.into)
			o.says("/connect", tc.answer)
			w := h.dial(dialOptions{})
			w.send(`{"id":1,"connect":{"token":"alice"}}`)
			w.want(tc.want)
			o.wantCall("/connect", `{"client":"*","transport":"websocket","protocol":"json","encoding":"json","user":"alice","login":{"appid":"wx1","unionid":"union-alice"}}`)
			if name == "more" {
				w.want(`{"push":{"channel":"room:vip","join":{"info":{"user":"alice","client":"*","conn_info":{"a":1}}}}}`)
				w.send(`{"id":2,"refresh":{"token":"alice"}}`) // keeps what the backend said
				w.want(`{"id":2,"refresh":{}}`)
				w.send(`{"id":3,"publish":{"channel":"room:vip","data":1}}`)
				if got := w.next() + w.next(); !strings.Contains(got, `"conn_info":{"a":1}`) {
					t.Errorf("got %s", got)
				}
			}
		})
	}
}
