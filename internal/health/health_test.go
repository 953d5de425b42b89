package health

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logged collects the log of one test, a line each, without times.
func logged(t *testing.T) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	t.Cleanup(func() { slog.SetDefault(old) })
	return &b
}

// fake is a dependency that can be switched off.
type fake struct{ err atomic.Pointer[error] }

func (f *fake) fail(err error) { f.err.Store(&err) }

func (f *fake) check(context.Context) error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}

// run runs reg until the test's end.
func run(t *testing.T, reg *Registry) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { reg.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
}

// pass lets fake time pass and what it brings happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func readyz(t *testing.T, reg *Registry) (int, Snapshot) {
	t.Helper()
	w := httptest.NewRecorder()
	rest.Handler(reg.ServeReadyz).ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
	var s Snapshot
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	return w.Code, s
}

func TestAwayAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := logged(t)
		metrics := prometheus.NewRegistry()
		reg := New()
		reg.Metrics = NewMetrics(metrics)
		var redis, s3 fake
		reg.Watch("redis", true, redis.check)
		reg.Watch("s3", false, s3.check)
		if code, s := readyz(t, reg); code != 503 || s.Status != Starting {
			t.Errorf("before Run: %d %+v", code, s)
		}
		started := time.Now()
		run(t, reg)
		if code, s := readyz(t, reg); code != 200 || s.Status != Ready || !s.Dependencies[0].Since.Equal(started) {
			t.Errorf("all up: %d %+v", code, s)
		}

		s3.fail(errors.New("bad key hush"))
		pass(3 * time.Second)
		if code, s := readyz(t, reg); code != 200 || s.Status != Degraded || s.Dependencies[1].Up || s.Dependencies[1].Error == "" {
			t.Errorf("s3 away: %d %+v", code, s)
		}
		redis.fail(fault.New(fault.Unavailable, "x", "Redis does not answer.").Because(errors.New("hush")))
		pass(4 * time.Second) // 7 s
		code, s := readyz(t, reg)
		if d := s.Dependencies[0]; code != 503 || s.Status != Degraded || d.Up || !d.Critical || d.Error != "Redis does not answer." || !d.Since.Equal(started.Add(4*time.Second)) {
			t.Errorf("redis away: %d %+v", code, s)
		}
		want := "# HELP minigate_dependency_up Whether the last check of a dependency succeeded (1) or not (0).\n# TYPE minigate_dependency_up gauge\n" +
			"minigate_dependency_up{dependency=\"redis\"} 0\nminigate_dependency_up{dependency=\"s3\"} 0\n"
		if err := testutil.GatherAndCompare(metrics, strings.NewReader(want)); err != nil {
			t.Error(err)
		}

		redis.fail(nil)
		s3.fail(nil)
		pass(2 * time.Second)
		if code, s := readyz(t, reg); code != 200 || s.Status != Ready || s.Dependencies[0].Error != "" {
			t.Errorf("back: %d %+v", code, s)
		}
		wantLog := "level=WARN msg=\"s3 is away\" critical=false error=\"bad key hush\"\n" +
			"level=WARN msg=\"redis is away\" critical=true error=\"x: Redis does not answer.: hush\"\n"
		got, ok := strings.CutPrefix(log.String(), wantLog)
		if !ok || strings.Count(got, "\n") != 2 || !strings.Contains(got, `level=INFO msg="redis is back" away_for=4s`) || !strings.Contains(got, `msg="s3 is back" away_for=6s`) {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestDownAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := logged(t)
		reg := New()
		hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		reg.Watch("backend", true, hangs)
		reg.Watch("s3", false, new(fake).check)
		run(t, reg)
		if code, s := readyz(t, reg); code != 503 || s.Status != Starting || !s.Dependencies[1].Up {
			t.Errorf("while the first check hangs: %d %+v", code, s)
		}
		pass(6 * time.Second)
		if code, s := readyz(t, reg); code != 503 || s.Status != Degraded || s.Dependencies[0].Error != "It does not answer in time." {
			t.Errorf("after its timeout: %d %+v", code, s)
		}
		pass(time.Minute)
		if got := strings.Count(log.String(), "backend is away"); got != 1 {
			t.Errorf("logged %d times", got)
		}
	})
}

func TestStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := logged(t)
		reg := New()
		reg.Watch("redis", true, func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Second):
				return nil
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { reg.Run(ctx); close(done) }()
		pass(1500 * time.Millisecond)
		reg.SetStopping()
		if code, s := readyz(t, reg); code != 503 || s.Status != Stopping {
			t.Errorf("%d %+v", code, s)
		}
		w := httptest.NewRecorder()
		rest.Handler(reg.ServeHealthz).ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
		if w.Code != 200 || w.Body.String() != `{"status":"ok"}` {
			t.Errorf("healthz: %d %s", w.Code, w.Body)
		}
		pass(time.Second) // in the middle of the second check
		cancel()
		<-done
		if s := reg.Snapshot(); !s.Dependencies[0].Up || log.Len() > 0 {
			t.Errorf("our own end is taken for the dependency's: %+v\n%s", s, log)
		}
	})
}

func TestPublicText(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{fault.New(fault.Unavailable, "c", "Away.").Because(errors.New("hush")), "Away."},
		{fault.New(fault.Unavailable, "c", "Away.").Because(refused), "dial tcp: connection refused"},
		{fmt.Errorf("GET https://u:hush@s3: %w", refused), "dial tcp: connection refused"},
		{fmt.Errorf("hush: %w", context.DeadlineExceeded), "It does not answer in time."},
		{errors.New("hush"), "It cannot be used; the log says why."},
	} {
		if got := publicText(tt.err); got != tt.want {
			t.Errorf("%v: %q", tt.err, got)
		}
	}
}

func TestMetricsLint(t *testing.T) {
	reg := prometheus.NewRegistry()
	NewMetrics(reg).set("redis", true)
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}
