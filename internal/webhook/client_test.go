package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/internal/fault"
)

func TestAsk(t *testing.T) {
	var seen *http.Request
	var body []byte
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"answer":42}`)
	}))
	defer backend.Close()
	e := newEndpoint(t, "login", backend.URL+"/hook?token=hush", time.Minute, nil)
	var answer struct{ Answer int }
	must(t, e.Ask(t.Context(), "id1", "login", map[string]string{"q": "<你>"}, &answer))
	if answer.Answer != 42 {
		t.Errorf("answer %+v", answer)
	}
	if seen.Method != "POST" || seen.RequestURI != "/hook?token=hush" || string(body) != `{"q":"\u003c你\u003e"}` ||
		seen.Header.Get("Content-Type") != "application/json" || seen.Header.Get("X-Minigate-Event") != "login" || seen.Header.Get("X-Minigate-Delivery") != "id1" {
		t.Errorf("the backend saw %s %s %v %s", seen.Method, seen.RequestURI, seen.Header, body)
	}
	must(t, Verify(seen.Header, body, []Key{keyA}, time.Now()))
}

// TestBadBackends lets a backend do everything wrong that it can, over real
// connections, and then looks whether an error gave away what was sent.
func TestBadBackends(t *testing.T) {
	const secret = "hush-hush-token"
	var elsewhere atomic.Bool
	backends := map[string]struct {
		serve http.HandlerFunc
		code  string
	}{
		"no content":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, ""},
		"created":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); _, _ = io.WriteString(w, "{}") }, ""},
		"empty":       {func(http.ResponseWriter, *http.Request) {}, "webhook_error"},
		"garbage":     {func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.String()) }, "webhook_error"},
		"wrong type":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"answer":"x"}`) }, "webhook_error"},
		"two answers": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{}{}`) }, "webhook_error"},
		"long":        {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte(" "), maxAnswer+1)) }, "webhook_error"},
		"as long as ok": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(append([]byte("{}"), bytes.Repeat([]byte(" "), maxAnswer-2)...))
		}, ""},
		"endless": {func(w http.ResponseWriter, _ *http.Request) { flood(w) }, "webhook_error"},
		"endless header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 64<<10))
		}, "webhook_unavailable"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				elsewhere.Store(true)
			}
			http.Redirect(w, r, "/elsewhere?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
		}, "webhook_error"},
		"not found":   {http.NotFound, "webhook_error"},
		"HTTP 500":    {func(w http.ResponseWriter, r *http.Request) { http.Error(w, r.URL.String(), 500) }, "webhook_unavailable"},
		"HTTP 429":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, "webhook_unavailable"},
		"reset":       {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "webhook_unavailable"},
		"not HTTP":    {hijack(func(r *http.Request) string { return r.URL.String() + "\r\n\r\n" }), "webhook_unavailable"},
		"cut off":     {hijack(func(*http.Request) string { return "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}" }), "webhook_unavailable"},
		"odd jump":    {hijack(func(r *http.Request) string { return "HTTP/1.1 302 x\r\nLocation: %zz" + r.URL.RawQuery + "\r\n\r\n" }), "webhook_error"},
		"zipped bomb": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "gzip"); flood(w) }, "webhook_error"},
	}
	for name, b := range backends {
		t.Run(name, func(t *testing.T) {
			backend := httptest.NewServer(b.serve)
			defer backend.Close()
			e := newEndpoint(t, "login", backend.URL+"/?token="+secret, time.Minute, nil)
			var answer struct{ Answer int }
			err := e.Ask(t.Context(), "id1", "login", "question", &answer)
			wantCode(t, err, b.code)
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the error gives the URL away: %v", err)
			}
		})
	}
	if elsewhere.Load() {
		t.Error("a redirect was followed")
	}
}

func flood(w io.Writer) {
	for chunk := make([]byte, 32<<10); ; {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func hijack(answer func(*http.Request) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_, _ = io.WriteString(conn, answer(r))
			_ = conn.Close()
		}
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	e := newEndpoint(t, "login", "http://"+l.Addr().String()+"/?token=hush", time.Minute, nil)
	err = e.Post(t.Context(), Call{ID: "id", Event: "x", Body: []byte("{}")})
	wantCode(t, err, "webhook_unavailable")
	if !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "hush") {
		t.Errorf("the error says %v", err)
	}
}

func TestStrangeCertificate(t *testing.T) {
	backend := httptest.NewUnstartedServer(http.NotFoundHandler())
	backend.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	backend.StartTLS()
	defer backend.Close()
	err := newEndpoint(t, "login", backend.URL, time.Minute, nil).Post(t.Context(), Call{ID: "id", Event: "x", Body: []byte("{}")})
	wantCode(t, err, "webhook_unavailable")
	if !strings.Contains(err.Error(), "certificate") {
		t.Errorf("the error says %v", err)
	}
}

// A proxy of the environment is not asked. http.ProxyFromEnvironment never
// applies to loopback, so this looks at the transport itself.
func TestNoProxy(t *testing.T) {
	if tr := newTransport(1); tr.Proxy != nil {
		t.Error("the transport asks for a proxy")
	}
}

func TestSlowBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		e := newEndpoint(t, "login", "http://b.example", 2*time.Second, slow)
		start := time.Now()
		wantCode(t, e.Post(t.Context(), Call{ID: "id", Event: "x", Body: nil}), "webhook_timeout")
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("it took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := e.Post(ctx, Call{ID: "id", Event: "x", Body: nil}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller with less time gets %v", err)
		}
	})
}

// A backend that trickles its answer is cut off, too.
func TestTricklingBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, "login", "http://b.example", 2*time.Second, func(r *http.Request) (*http.Response, error) {
			out, in := io.Pipe()
			context.AfterFunc(r.Context(), func() { _ = in.CloseWithError(r.Context().Err()) })
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: out}, nil
		})
		wantCode(t, e.Post(t.Context(), Call{ID: "id", Event: "x", Body: nil}), "webhook_timeout")
	})
}

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		e := newEndpoint(t, "login", "http://b.example", 10*time.Second, func(*http.Request) (*http.Response, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(4 * time.Second) // the bubble's clock
			return respond(200, "{}"), nil
		}, func(o *Options) { o.Settings.MaxConcurrent = 3 })
		codes := make(chan string, 12)
		var all sync.WaitGroup
		for range 12 {
			all.Go(func() {
				code := "ok"
				if err := e.Post(t.Context(), Call{ID: "id", Event: "x", Body: nil}); err != nil {
					code = fault.Of(err).Code
				}
				codes <- code
			})
		}
		all.Wait()
		close(codes)
		count := map[string]int{}
		for c := range codes {
			count[c]++
		}
		// Two rounds are done in time, the third is cut off, the fourth has no turn.
		if most.Load() != 3 || count["ok"] != 9 || count["webhook_busy"] != 3 {
			t.Errorf("%d at a time; %v", most.Load(), count)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status, calls := 500, 0
		reg := prometheus.NewRegistry()
		e := newEndpoint(t, "login", "http://b.example", time.Second, func(*http.Request) (*http.Response, error) {
			calls++
			return respond(status, "{}"), nil
		}, func(o *Options) { o.Metrics = NewMetrics(reg) })
		post := func(code string, called int) {
			t.Helper()
			before := calls
			wantCode(t, e.Post(t.Context(), Call{ID: "id", Event: "x", Body: nil}), code)
			if calls-before != called {
				t.Errorf("%d calls reached the backend, want %d", calls-before, called)
			}
		}
		for range breakAfter - 1 {
			post("webhook_unavailable", 1)
		}
		status = 404 // wrong, but there
		post("webhook_error", 1)
		status = 500
		for range breakAfter {
			post("webhook_unavailable", 1)
		}
		err := e.Post(t.Context(), Call{ID: "id", Event: "x", Body: nil})
		if wait := fault.Of(err).RetryAfter; wait != breakFor {
			t.Errorf("callers are told to wait %v", wait)
		}
		time.Sleep(breakFor)
		post("webhook_unavailable", 1) // the probe
		post("webhook_paused", 0)
		time.Sleep(breakFor)
		status = 200
		post("", 1)
		post("", 1)
		if n := testutil.ToFloat64(e.client.metrics.requests.WithLabelValues("login", "webhook_paused")); n != 2 {
			t.Errorf("%v paused calls are counted", n)
		}
		if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
			t.Errorf("metrics: %v %v", problems, err)
		}
	})
}

// Whoever leaves during a probe leaves the breaker as it was, for the next one
// to try; meanwhile nobody else is let through.
func TestProbeIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := false
		e := newEndpoint(t, "login", "http://b.example", time.Minute, func(r *http.Request) (*http.Response, error) {
			if hang {
				<-r.Context().Done()
			}
			return nil, errTest
		})
		for range breakAfter {
			wantCode(t, e.Post(t.Context(), Call{ID: "id", Event: "x", Body: nil}), "webhook_unavailable")
		}
		time.Sleep(breakFor)
		hang = true
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- e.Post(ctx, Call{ID: "id", Event: "x", Body: nil}) }()
		synctest.Wait()
		wantCode(t, e.Post(t.Context(), Call{ID: "id", Event: "x", Body: nil}), "webhook_paused")
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
		hang = false
		wantCode(t, e.Post(t.Context(), Call{ID: "id", Event: "x", Body: nil}), "webhook_unavailable")
		wantCode(t, e.Post(t.Context(), Call{ID: "id", Event: "x", Body: nil}), "webhook_paused")
	})
}

func TestRetryAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "99999": maxRetryAfter, "-1": 0, "soon": 0, "99999999999999999999": 0,
	} {
		e := newEndpoint(t, "login", "http://b.example", time.Second, func(*http.Request) (*http.Response, error) {
			res := respond(503, "")
			res.Header.Set("Retry-After", text)
			return res, nil
		})
		if got := fault.Of(e.Post(t.Context(), Call{ID: "id", Event: "x", Body: nil})).RetryAfter; got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestEndpointRefused(t *testing.T) {
	c := NewClient(Options{Settings: testSettings()})
	keyless := NewClient(Options{})
	for name, f := range map[string]func() (*Endpoint, error){
		"name":    func() (*Endpoint, error) { return c.Endpoint("no name", "http://b.example", time.Second) },
		"address": func() (*Endpoint, error) { return c.Endpoint("x", "b.example?token=hush", time.Second) },
		"keys":    func() (*Endpoint, error) { return keyless.Endpoint("x", "http://b.example", time.Second) },
	} {
		if e, err := f(); err == nil || e != nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, %v", name, e, err)
		}
	}
}

func TestURLIsNotShown(t *testing.T) {
	u, err := url.Parse("http://b.example/?token=hush")
	must(t, err)
	err = networkFault(t.Context(), &url.Error{Op: "Post", URL: u.String(), Err: errTest})
	if strings.Contains(err.Error(), "hush") {
		t.Error(err)
	}
}
