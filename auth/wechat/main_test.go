package wechat

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/wxsim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	appID  = "wx00000000000000aa"
	secret = "appsecret/of+the&app="
)

// memory is Claims for tests. The stores that ship are tested in package auth.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	until  map[string]time.Time
	away   error
}

func newMemory() *memory {
	return &memory{values: make(map[string][]byte), until: make(map[string]time.Time)}
}

func (m *memory) Claim(_ context.Context, name string, life time.Duration) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away != nil {
		return nil, false, m.away
	}
	if time.Now().Before(m.until[name]) {
		return m.values[name], false, nil
	}
	m.values[name], m.until[name] = nil, time.Now().Add(life)
	return nil, true, nil
}

func (m *memory) Settle(_ context.Context, name string, value []byte, life time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[name], m.until[name] = value, time.Now().Add(life)
	return m.away
}

func (m *memory) Release(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.until, name)
	return m.away
}

// network is the way to WeChat, without sockets. A handler that hangs up is a
// connection that breaks.
type network struct{ http.Handler }

func (n network) RoundTrip(r *http.Request) (res *http.Response, err error) {
	defer func() {
		if recover() != nil {
			err = &url.Error{Op: r.Method, URL: r.URL.String(), Err: http.ErrAbortHandler}
		}
	}()
	w := httptest.NewRecorder()
	n.ServeHTTP(w, r)
	return w.Result(), r.Context().Err()
}

// bench is a Client with the simulator behind it.
type bench struct {
	*Client
	t      *testing.T
	sim    *wxsim.Server
	claims *memory
	openID string // of ann, who has logged in
	key    string // ann's session_key
}

func newBench(t *testing.T, change ...func(*Options)) *bench {
	t.Helper()
	b := &bench{t: t, sim: wxsim.New(wxsim.Options{Apps: []wxsim.App{{AppID: appID, Secret: secret}}}), claims: newMemory()}
	b.Client = b.another(change...)
	id, err := b.Code2Session(t.Context(), "sim:ann")
	if err != nil {
		t.Fatal(err)
	}
	b.openID, b.key = id.OpenID, id.SessionKey
	return b
}

// another makes one more client, as another node has it.
func (b *bench) another(change ...func(*Options)) *Client {
	o := Options{
		AppID: appID, Secret: secret, BaseURL: &url.URL{Scheme: "https", Host: "api.weixin.qq.com"},
		Timeout: 5 * time.Second, Transport: network{b.sim}, Claims: b.claims,
	}
	for _, f := range change {
		f(&o)
	}
	return NewClient(o)
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
