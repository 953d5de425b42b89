package webhook

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/seal"
	"github.com/minigate/minigate/internal/settings"
)

// TestMain also runs the processes that tests kill: see children.
func TestMain(m *testing.M) {
	if child := children[os.Getenv("WEBHOOK_TEST_CHILD")]; child != nil {
		child(os.Getenv("WEBHOOK_TEST_ARG"))
		os.Exit(3) // it was to be killed
	}
	// A pool of go-redis that could not dial looks only once a second whether
	// it has been closed.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

var (
	keyA = Key{ID: "a", Secret: "first-signing-secret"}
	keyB = Key{ID: "b", Secret: "second-signing-secret"}
)

func testSettings() (s Settings) {
	settings.Defaults(&s)
	s.Keys = []Key{keyA, keyB}
	return s
}

// newSealer seals with the first of the keys.
func newSealer(keys ...byte) *seal.Sealer {
	var list [][32]byte
	for _, k := range keys {
		list = append(list, [32]byte{k})
	}
	s, err := seal.New(list)
	if err != nil {
		panic(err)
	}
	return s
}

// sealed is how the tests open a queue.
func sealed(s QueueSettings) QueueOptions { return QueueOptions{Settings: s, Sealer: newSealer(1)} }

// roundTrip is a backend without a network.
type roundTrip func(r *http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func respond(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// newEndpoint makes an endpoint of a backend without a network, or, where f is
// nil, at address.
func newEndpoint(t testing.TB, hook, address string, timeout time.Duration, f roundTrip, change ...func(*Options)) *Endpoint {
	t.Helper()
	o := Options{Settings: testSettings()}
	if f != nil {
		o.Transport = f
	}
	for _, c := range change {
		c(&o)
	}
	c := NewClient(o)
	t.Cleanup(c.Close)
	e, err := c.Endpoint(hook, address, timeout)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	got := ""
	if err != nil {
		got = fault.Of(err).Code
	}
	if got != code {
		t.Errorf("error %v, want code %q", err, code)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var errTest = errors.New("so it goes")
