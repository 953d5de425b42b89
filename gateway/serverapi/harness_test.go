package serverapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/apidoc/apidoctest"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/settings"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const adminKey, publishKey, readKey = "admin-key-0123456789", "publish-key-0123456789", "read-key-0123456789"

var testKeys = []apikey.Key{
	{Name: "ops", Key: adminKey, Scope: apikey.Admin},
	{Name: "backend", Key: publishKey, Scope: apikey.Publish},
	{Name: "grafana", Key: readKey, Scope: apikey.Read},
}

// world is a real hub on the memory engine, its server API and its socket.
type world struct {
	*httptest.Server
	t       testing.TB
	metrics *prometheus.Registry
	api     *API
}

func newWorld(t testing.TB) *world {
	t.Helper()
	reg := prometheus.NewRegistry()
	hub := newHub(reg)
	runHub(t, hub)
	keys, err := apikey.New(testKeys, false)
	if err != nil {
		t.Fatal(err)
	}
	keys.Count(apikey.NewMetrics(reg))
	var s Settings
	settings.Defaults(&s)
	api := New(hub, keys, s, NewMetrics(reg))
	mux := http.NewServeMux()
	mux.Handle("/api", api)
	mux.Handle("/api/", api)
	mux.HandleFunc("/connection/websocket", hub.ServeWebSocket)
	w := &world{httptest.NewServer(apidoctest.Wrap(t, mux)), t, reg, api}
	t.Cleanup(w.Close)
	return w
}

// newHub makes a hub that does not run yet.
func newHub(reg *prometheus.Registry) *gateway.Hub {
	var s gateway.Settings
	settings.Defaults(&s)
	s.Channel.Namespaces = []gateway.Namespace{
		{
			Name: "room", Access: gateway.Access{Presence: true, AllowSubscribeForClient: true},
			History: gateway.History{HistorySize: 10, HistoryTTL: time.Minute},
		},
		{Name: "plain", Access: gateway.Access{AllowSubscribeForClient: true}},
	}
	return gateway.New(gateway.Options{
		Settings: s,
		Engine:   engine.NewMemory(),
		Metrics:  gateway.NewMetrics(reg),
		Node:     engine.Node{UID: "n1", Name: "node-1", Version: "1.2.3"},
		Verify: func(_ context.Context, token string) (*auth.Session, error) {
			return sessionOf(auth.Fingerprint([]byte(token + strings.Repeat("0", 32))[:32])), nil
		},
		Alive: func(_ context.Context, fp auth.Fingerprint) (*auth.Session, error) { return sessionOf(fp), nil },
	})
}

// sessionOf is the login whose token begins the fingerprint.
func sessionOf(fp auth.Fingerprint) *auth.Session {
	token := strings.TrimRight(string(fp[:]), "0")
	return &auth.Session{
		Fingerprint: fp,
		User:        auth.User{AppID: "wx1", OpenID: "o-" + token, UnionID: "u-" + token},
		Expires:     time.Now().Add(time.Hour),
	}
}

func runHub(t testing.TB, hub *gateway.Hub) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("hub: %v", err)
		}
	})
}

// post calls a method with the admin key; header pairs may change that.
func (w *world) post(method, body string, header ...string) (int, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), "POST", w.URL+"/api/"+method, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("X-Api-Key", adminKey)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return w.do(r)
}

func (w *world) do(r *http.Request) (int, string) {
	w.t.Helper()
	res, err := w.Client().Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// must calls a method that works and returns the answer.
func (w *world) must(method, body string) string {
	w.t.Helper()
	status, answer := w.post(method, body)
	if status != 200 || strings.Contains(answer, `"error"`) {
		w.t.Fatalf("%s %s: %d %s", method, body, status, answer)
	}
	return answer
}

// socket is a connected client.
type socket struct {
	t     testing.TB
	conn  *websocket.Conn
	lines []string // read and not looked at, see nextPub
}

func (w *world) connect(user string, commands ...string) *socket {
	w.t.Helper()
	conn, _, err := websocket.Dial(w.t.Context(), strings.Replace(w.URL, "http", "ws", 1)+"/connection/websocket", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.CloseNow() })
	s := &socket{t: w.t, conn: conn}
	s.send(`{"id":1,"connect":{"token":"` + user + `"}}`)
	s.wait(`"id":1`)
	for _, c := range commands {
		s.send(c)
		s.wait(`"id":2`)
	}
	return s
}

func (s *socket) send(text string) {
	s.t.Helper()
	if err := apidoctest.CheckCommand([]byte(text)); err != nil {
		s.t.Error(err)
	}
	if err := s.conn.Write(s.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// wait reads until a message contains part.
func (s *socket) wait(part string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute) // so that a hang shows as a failure
	defer cancel()
	for {
		_, data, err := s.conn.Read(ctx)
		if err != nil {
			s.t.Fatalf("waiting for %s: %v", part, err)
		}
		for line := range strings.Lines(string(data)) {
			if err := apidoctest.CheckReply([]byte(line)); err != nil {
				s.t.Error(err)
			}
		}
		if strings.Contains(string(data), part) {
			return string(data)
		}
	}
}

// nextPub returns the data of the next publication.
func (s *socket) nextPub() string {
	s.t.Helper()
	for {
		if len(s.lines) == 0 {
			s.lines = strings.Split(s.wait(`"pub"`), "\n")
		}
		line := s.lines[0]
		s.lines = s.lines[1:]
		var m struct {
			Push struct {
				Pub *struct{ Data json.RawMessage }
			}
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		if m.Push.Pub != nil {
			return string(m.Push.Pub.Data)
		}
	}
}

// logs collects what the default logger says during one test.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func captureLogs(t testing.TB) *logs {
	l, old := &logs{}, slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() { slog.SetDefault(old) })
	return l
}
