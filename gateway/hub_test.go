package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/auth/connjwt"
	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/apidoc/apidoctest"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/settings"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testSettings are the defaults with the namespaces that the tests use.
func testSettings() Settings {
	var s Settings
	settings.Defaults(&s)
	s.Client.ShutdownSpread, s.Client.OverloadDelay = 0, 0
	kept := History{HistorySize: 10, HistoryTTL: time.Minute, ForceRecovery: true}
	all := Access{
		Presence: true, JoinLeave: true, ForcePushJoinLeave: true, AllowSubscribeForClient: true,
		AllowPublishForClient: true, AllowPresenceForSubscriber: true, AllowHistoryForSubscriber: true,
	}
	s.Channel.Namespaces = []Namespace{
		{Name: "room", Access: all, History: kept},
		{Name: "feed", Access: Access{AllowSubscribeForClient: true}, History: kept},
		{Name: "live", Access: Access{AllowSubscribeForClient: true, AllowPublishForSubscriber: true}},
		{Name: "dialog", Access: Access{AllowUserLimitedChannels: true, AllowHistoryForClient: true}, History: kept},
		{Name: "named", Access: Access{AllowSubscribeForClient: true, ChannelRegex: `^[a-z]+$`}},
		{Name: "delta", Access: Access{AllowSubscribeForClient: true, AllowPublishForClient: true, AllowHistoryForClient: true, AllowedDeltaTypes: []string{"fossil"}, DeltaPublish: true, AllowTagsFilter: true}, History: kept},
		{Name: "ticker", Access: Access{AllowSubscribeForClient: true, AllowedDeltaTypes: []string{"fossil"}}},
		{Name: "tags", Access: Access{AllowSubscribeForClient: true, AllowPublishForClient: true, AllowTagsFilter: true}, History: kept},
		{Name: "asked", Access: Access{AllowSubscribeForClient: true, AllowHistoryForClient: true}, History: History{HistorySize: 10, HistoryTTL: time.Minute, AllowRecovery: true, AllowPositioning: true}},
	}
	return s
}

// testHub is a running hub over a Memory engine.
type testHub struct {
	*Hub
	t        testing.TB
	engine   *flakyEngine
	listener testListener
	registry *prometheus.Registry

	mu       sync.Mutex
	sessions map[string]error            // by token, where it is not simply good
	groups   map[string][]string         // by user: what login names
	logins   map[auth.Fingerprint]string // tokens that were verified
	verified int
}

func startHub(t testing.TB, change func(*Settings), more ...func(*Options)) *testHub {
	t.Helper()
	return startPrepared(t, func(*Hub) {}, change, more...)
}

// startPrepared is startHub for a hub that is changed before it runs.
func startPrepared(t testing.TB, prepare func(*Hub), change func(*Settings), more ...func(*Options)) *testHub {
	t.Helper()
	s := testSettings()
	if change != nil {
		change(&s)
	}
	s.Check(func(path, problem string) { t.Errorf("settings: %s %s", path, problem) })
	th := &testHub{t: t, engine: &flakyEngine{Memory: engine.NewMemory()}, sessions: map[string]error{}, groups: map[string][]string{}, registry: prometheus.NewRegistry()}
	tokens, err := connjwt.New(s.Client.Token, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Settings: s, Engine: th.engine, Verify: th.verifyLogin, VerifyTicket: th.verifyTicket, Alive: th.alive,
		ConnectTokens: tokens, SubscribeTokens: tokens, Blocked: th.blockOf,
		Metrics: NewMetrics(th.registry), Node: engine.Node{UID: "n1", Name: "node", Version: "test"},
	}
	for _, f := range more {
		f(&o)
	}
	th.Hub = New(o)
	th.memory.measures, th.overload.runs.read = nil, nil // what else runs on the machine is none of the tests' business
	prepare(th.Hub)
	th.listener = listen(t)
	srv := &http.Server{Handler: http.HandlerFunc(th.ServeWebSocket)}
	served, ran := make(chan struct{}), make(chan error, 1)
	go func() { _ = srv.Serve(th.listener); close(served) }()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ran <- th.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		_ = srv.Close()
		<-served
		th.wantHolder()
	})
	return th
}

// flakyEngine is a Memory engine whose history can be away, or something may
// happen between reading and returning it, or before a channel is left.
type flakyEngine struct {
	*engine.Memory
	away           atomic.Bool
	after, leaving atomic.Pointer[func()]

	users             userIndex
	before            atomic.Pointer[engine.Position] // the end of the epoch before
	reads, subscribes atomic.Int64                    // calls of History and Subscribe
	joining           atomic.Pointer[func()]
	broken            atomic.Pointer[func(channel string) bool]             // history away for some channels
	top               atomic.Pointer[func(engine.Position) engine.Position] // what History says instead
}

func (e *flakyEngine) Subscribe(ctx context.Context, channel string) error {
	e.subscribes.Add(1)
	return e.Memory.Subscribe(ctx, channel)
}

func (e *flakyEngine) PublishJoin(ctx context.Context, channel string, info *protocol.ClientInfo) error {
	if f := e.joining.Swap(nil); f != nil {
		(*f)()
	}
	return e.Memory.PublishJoin(ctx, channel, info)
}

var errEngineAway = fault.New(fault.Unavailable, "redis_unavailable", "Redis is away.")

func (e *flakyEngine) Unsubscribe(ctx context.Context, channel string) error {
	if f := e.leaving.Swap(nil); f != nil {
		(*f)()
	}
	return e.Memory.Unsubscribe(ctx, channel)
}

func (e *flakyEngine) History(ctx context.Context, channel string, q engine.HistoryQuery) ([]*protocol.Publication, engine.Position, error) {
	e.reads.Add(1)
	if f := e.broken.Load(); e.away.Load() || ctx.Err() != nil || f != nil && (*f)(channel) { // as one over a network
		return nil, engine.Position{}, errEngineAway
	}
	pubs, top, err := e.Memory.History(ctx, channel, q)
	if f := e.after.Swap(nil); f != nil {
		(*f)()
	}
	if f := e.top.Load(); f != nil {
		top = (*f)(top)
	}
	if before := e.before.Load(); before != nil {
		if q.Since != nil {
			*q.Since = q.Since.Under(top, *before)
		}
		if q.Before != nil {
			*q.Before = *before
		}
	}
	return pubs, top, err
}

// verifyLogin is verifyToken of what alive is asked about later.
func (th *testHub) verifyLogin(ctx context.Context, token string) (*auth.Session, error) {
	s, err := th.verifyToken(ctx, token)
	if err == nil {
		th.mu.Lock()
		defer th.mu.Unlock()
		if th.logins == nil {
			th.logins = map[auth.Fingerprint]string{}
		}
		th.logins[s.Fingerprint] = strings.Clone(token)
	}
	return s, err
}

// verifyToken takes "user" or "user/anything" for a login of that user, and
// "user/on:phone" for one on a phone.
func (th *testHub) verifyToken(ctx context.Context, token string) (*auth.Session, error) {
	th.mu.Lock()
	defer th.mu.Unlock()
	th.verified++
	if err := th.sessions[token]; err != nil {
		return nil, err
	}
	user, which, _ := strings.Cut(token, "/")
	var claims json.RawMessage
	if which == "vip" {
		claims = json.RawMessage(`{"vip":true}`)
	}
	switch user {
	case "malformed":
		return nil, fault.New(fault.Unauthenticated, "token_invalid", "This is no token.")
	case "expired":
		return nil, fault.New(fault.Unauthenticated, "token_expired", "The login has expired.")
	case "away":
		return nil, fault.New(fault.Unavailable, "sessions_unavailable", "Logins cannot be checked now.")
	}
	device, onDevice := strings.CutPrefix(which, "on:")
	if device, _, _ = strings.Cut(device, "#"); !onDevice { // what follows makes another login of it
		device = ""
	}
	return &auth.Session{
		Device: device, Channels: th.groups[user],
		Fingerprint: sha256.Sum256([]byte(token)),
		User:        auth.User{AppID: "wx1", OpenID: user, UnionID: "union-" + user},
		Expires:     time.Now().Add(time.Hour),
		Claims:      claims,
	}, nil
}

func (th *testHub) setToken(token string, err error) {
	th.mu.Lock()
	defer th.mu.Unlock()
	th.sessions[token] = err
}

func (th *testHub) publish(channel, data string) engine.PublishResult {
	th.t.Helper()
	res, err := th.Publish(context.Background(), channel, json.RawMessage(data), PublishOptions{})
	if err != nil {
		th.t.Fatalf("publish to %s: %v", channel, err)
	}
	return res
}

// wire is a client that speaks the protocol by hand: in JSON, or in Protobuf,
// to and from which the official codec translates what is sent and received.
type wire struct {
	t       testing.TB
	binary  bool
	conn    *websocket.Conn
	lines   chan string          // closed at the end, after err is set
	ended   bool                 // next has said so
	replies chan *protocol.Reply // instead of lines, if not nil
	err     error
	checked int // lines
}

type dialOptions struct {
	query        string
	header       http.Header
	subprotocols []string
	deaf         bool // never reads
	protobuf     bool // offers Protobuf as subprotocol and speaks it; see wire
	binary       bool // speaks it without offering it
	decoded      bool // wants replies instead of lines
}

func (th *testHub) tryDial(o dialOptions) (*wire, *http.Response, error) {
	if o.protobuf {
		o.subprotocols = append(o.subprotocols, protobufProtocol)
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return th.listener.dial(ctx) },
		DisableKeepAlives: true,
	}}
	conn, resp, err := websocket.Dial(context.Background(), "ws://minigate/connection/websocket"+o.query, &websocket.DialOptions{
		HTTPClient: client, HTTPHeader: o.header, Subprotocols: o.subprotocols,
	})
	if err != nil {
		return nil, resp, err
	}
	conn.SetReadLimit(-1)
	w := &wire{t: th.t, conn: conn, binary: o.protobuf || o.binary, lines: make(chan string, 1<<16)}
	if o.decoded {
		w.replies = make(chan *protocol.Reply, 1<<16)
	}
	if o.deaf {
		th.t.Cleanup(func() { _ = conn.CloseNow() })
		return w, resp, nil
	}
	go w.pump()
	th.t.Cleanup(func() {
		_ = conn.CloseNow()
		for range w.lines { // until pump has ended
		}
	})
	return w, resp, nil
}

func (th *testHub) dial(o dialOptions) *wire {
	th.t.Helper()
	w, _, err := th.tryDial(o)
	if err != nil {
		th.t.Fatalf("dial: %v", err)
	}
	return w
}

// login dials and connects with a token, and returns the connect reply.
func (th *testHub) login(token string) (*wire, string) {
	th.t.Helper()
	return th.loginWith(dialOptions{}, token)
}

func (th *testHub) loginWith(o dialOptions, token string) (*wire, string) {
	th.t.Helper()
	w := th.dial(o)
	w.send(`{"connect":{"token":"` + token + `"},"id":1}`)
	reply := w.next()
	if !strings.HasPrefix(reply, `{"id":1,"connect":{"client":"`) {
		th.t.Fatalf("connect of %s was answered %s", token, reply)
	}
	return w, reply
}

func (w *wire) pump() {
	defer close(w.lines)
	for {
		typ, data, err := w.conn.Read(context.Background())
		if err != nil {
			w.err = err
			return
		}
		if (typ == websocket.MessageBinary) != w.binary {
			w.t.Errorf("frame of type %v", typ)
		}
		if w.binary {
			w.unpack(data)
			continue
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			w.check(line)
			if w.replies != nil {
				r, _ := protocol.NewJSONReplyDecoder([]byte(line)).Decode()
				w.replies <- r
				continue
			}
			w.lines <- line
		}
	}
}

// check holds the first lines of each connection against their description. The
// rest is as a rule more of the same, and the check slow next to what storms of
// publications bring.
func (w *wire) check(line string) {
	if w.checked++; w.checked > 100 {
		if !json.Valid([]byte(line)) {
			w.t.Errorf("line is not JSON: %q", line)
		}
		return
	}
	if err := apidoctest.CheckReply([]byte(line)); err != nil {
		w.t.Error(err)
	}
}

func (w *wire) send(lines ...string) {
	w.t.Helper()
	typ, frame := websocket.MessageText, []byte(strings.Join(lines, "\n"))
	if w.binary {
		typ, frame = websocket.MessageBinary, pack(w.t, frame)
	}
	if err := w.conn.Write(context.Background(), typ, frame); err != nil {
		w.t.Fatalf("send: %v", err)
	}
}

// next returns the next message, or "closed CODE REASON" at the end. Whoever
// asks for more than that would do so for ever.
func (w *wire) next() string {
	w.t.Helper()
	if w.ended {
		w.t.Fatalf("the connection has ended: %v", w.err)
	}
	patience := time.NewTimer(24 * time.Hour) // in a bubble that is a moment, after which this test fails and not all of them
	defer patience.Stop()
	select {
	case line, ok := <-w.lines:
		if ok {
			return line
		}
	case <-patience.C:
		w.t.Fatal("nothing came")
	}
	w.ended = true
	var ce websocket.CloseError
	if errors.As(w.err, &ce) {
		return "closed " + itoa(int(ce.Code)) + " " + ce.Reason
	}
	return "broken"
}

// want fails unless the next messages are these. "*" stands for any text.
func (w *wire) want(lines ...string) {
	w.t.Helper()
	for _, want := range lines {
		if got := w.next(); !match(want, got) {
			w.t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

// wantEnd fails unless the server says goodbye with d, twice.
func (w *wire) wantEnd(d *Disconnect) {
	w.t.Helper()
	code := itoa(int(d.Code))
	w.want(`{"push":{"disconnect":{"code":`+code+`,"reason":"`+d.Reason+`"}}}`, "closed "+code+" "+d.Reason)
}

// sync returns when everything sent before is answered, and fails if anything
// came in between.
func (w *wire) sync() {
	w.t.Helper()
	w.send(`{"id":99,"rpc":{"method":"x"}}`)
	w.want(`{"id":99,"error":{"code":108,"message":"not available"}}`)
}

func match(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func contextWithTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
