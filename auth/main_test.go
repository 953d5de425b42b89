package auth

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/wxsim"
)

func TestMain(m *testing.M) {
	if !childMain(os.Stderr) {
		// A pool of go-redis that could not dial looks only once a second
		// whether it has been closed.
		goleak.VerifyTestMain(m,
			goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
	}
}

const (
	appA, secretA = "wx00000000000000aa", "appsecret-of-the-first-app"
	appB, secretB = "wx00000000000000bb", "appsecret/of+the&second=app"
)

func newFileStore(t testing.TB) (*FileStore, *bbolt.DB) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "auth.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	store, err := NewFileStore(db)
	if err != nil {
		t.Fatal(err)
	}
	return store, db
}

func newRedisClient(t testing.TB, addr string) redis.UniversalClient {
	return openRedis(t, redisclient.Settings{Addresses: []string{addr}})
}

// openRedis opens a client as the program does.
func openRedis(t testing.TB, s redisclient.Settings) redis.UniversalClient {
	client := redisclient.Open(s)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func newRedisStore(t testing.TB) *RedisStore {
	return NewRedisStore(newRedisClient(t, testdeps.Redis(t)), "test")
}

// handlerTransport is the network between us and WeChat, without sockets.
type handlerTransport struct{ http.Handler }

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), r.Context().Err()
}

type transportFunc func(r *http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// env is a Service with the simulator behind it.
type env struct {
	*Service
	t   testing.TB
	sim *wxsim.Server
}

func newEnv(t testing.TB, store Store, change ...func(*Options)) *env {
	t.Helper()
	sim := wxsim.New(wxsim.Options{Apps: []wxsim.App{{AppID: appA, Secret: secretA}, {AppID: appB, Secret: secretB}}})
	o := Options{Store: store, AllowSim: true, Transport: handlerTransport{sim}, SealKeys: [][32]byte{{1}}}
	settings.Defaults(&o.Settings)
	o.Settings.WeChat.Apps = []AppSettings{{AppID: appA, Secret: secretA}, {AppID: appB, Secret: secretB}}
	for _, f := range change {
		f(&o)
	}
	service, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &env{service, t, sim}
}

// writing has what is left for later written to the store, until the test ends
// or stop is called.
func (e *env) writing() (stop func()) {
	ctx, cancel := context.WithCancel(e.t.Context())
	var writer sync.WaitGroup
	writer.Go(func() { e.writeTouched(ctx) })
	stop = func() { cancel(); writer.Wait() }
	e.t.Cleanup(stop)
	return stop
}

func (e *env) mustLogin(user string) (token string, s *Session) {
	e.t.Helper()
	token, s, err := e.Login(e.t.Context(), "", "sim:"+user)
	if err != nil {
		e.t.Fatal(err)
	}
	return token, s
}

// wantVerify checks that token belongs to a live session, or, where code is
// not "", is refused with it.
func (e *env) wantVerify(token, code string) *Session {
	e.t.Helper()
	s, err := e.Verify(e.t.Context(), token)
	wantFault(e.t, err, code)
	return s
}

func wantFault(t testing.TB, err error, code string) {
	t.Helper()
	got := ""
	if err != nil {
		got = fault.Of(err).Code
	}
	if got != code {
		t.Errorf("error %v, want code %q", err, code)
	}
}

// run starts a store's or service's Run and ends it with the test.
func run(t testing.TB, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// call sends a request to one handler and decodes the answer.
func call(h http.Handler, method, token, body string) (*httptest.ResponseRecorder, map[string]any) {
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var v map[string]any
	_ = json.Unmarshal(w.Body.Bytes(), &v) // 204 has none
	return w, v
}

func errorCode(answer map[string]any) string {
	e, _ := answer["error"].(map[string]any)
	code, _ := e["code"].(string)
	return code
}
