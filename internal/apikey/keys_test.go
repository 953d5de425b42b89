package apikey

import (
	"errors"
	"math"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/internal/fault"
)

func newKeys(t testing.TB, keys ...Key) *Keys {
	t.Helper()
	k, err := New(keys, false)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func admit(k *Keys, key, needed string) (Caller, error) {
	r := httptest.NewRequest("POST", "/api/publish", nil)
	r.Header.Set("X-Api-Key", key)
	return k.Admit(r, needed)
}

func TestReplace(t *testing.T) {
	k := newKeys(t, keys...)
	first, _ := k.Find("backend-key-0123456789")
	ops, _ := k.Find("ops-key-0123456789abc")
	grafana, _ := k.Find("grafana-key-0123456789")
	change, err := k.Replace([]Key{
		{Name: "ops", Key: "ops-key-0123456789abc", Scope: Admin},
		{Name: "backend", Key: "backend-key-of-today", Scope: Publish},
		{Name: "shop", Key: "shop-key-0123456789", Scope: Publish},
	})
	want := Change{Added: []string{"shop"}, Removed: []string{"grafana"}, Changed: []string{"backend"}}
	if err != nil || !reflect.DeepEqual(change, want) {
		t.Errorf("got %+v %v, want %+v", change, err, want)
	}
	for key, name := range map[string]string{
		"backend-key-0123456789": "", "backend-key-of-today": "backend", "ops-key-0123456789abc": "ops",
		"grafana-key-0123456789": "", "shop-key-0123456789": "shop",
	} {
		if c, ok := k.Find(key); c.Name() != name || ok != (name != "") {
			t.Errorf("%s is %q", key, c.Name())
		}
	}
	if first.Present() || grafana.Present() || !ops.Present() || (Caller{}).Present() {
		t.Errorf("present: backend %v, grafana %v, ops %v", first.Present(), grafana.Present(), ops.Present())
	}

	for name, bad := range map[string][]Key{
		"short":  {{Name: "ops", Key: "short", Scope: Admin}},
		"twice":  {keys[0], keys[0]},
		"scope":  {{Name: "ops", Key: "ops-key-0123456789abc", Scope: "root"}},
		"no key": {{Name: "ops", Scope: Admin}},
	} {
		if _, err := k.Replace(bad); err == nil || strings.Contains(err.Error(), "0123456789") {
			t.Errorf("%s: %v", name, err)
		}
		if _, ok := k.Find("shop-key-0123456789"); !ok || !ops.Present() {
			t.Errorf("%s: the old keys are gone", name)
		}
	}
	if _, err := k.Replace(nil); err != nil || ops.Present() {
		t.Errorf("no keys at all: %v", err)
	}
}

// TestReplaceUnderUse: whoever stays is let in all the time.
func TestReplaceUnderUse(t *testing.T) {
	stays := Key{Name: "ops", Key: "ops-key-0123456789abc", Scope: Admin, Rate: maxRate}
	k := newKeys(t, stays)
	k.Count(NewMetrics(prometheus.NewRegistry()))
	done := make(chan struct{})
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if c, err := admit(k, "ops-key-0123456789abc", Publish); err != nil || c.Name() != "ops" || !c.Present() {
					t.Errorf("refused: %v", err)
					return
				}
				if c, err := admit(k, "guest-key-0123456789", Read); err == nil && c.Name() != "guest" {
					t.Errorf("the guest is %q", c.Name())
				}
			}
		})
	}
	for i := range 500 {
		list := []Key{stays}
		if i%2 == 0 {
			list = []Key{{Name: "guest", Key: "guest-key-0123456789", Scope: Read}, stays}
		}
		if _, err := k.Replace(list); err != nil {
			t.Error(err)
		}
	}
	close(done)
	users.Wait()
}

// use makes 50 calls and returns how many were let in, and how long the others
// were told to wait.
func use(t *testing.T, k *Keys, key string) (n int, wait time.Duration) {
	t.Helper()
	for range 50 {
		switch _, err := admit(k, key, Publish); {
		case err == nil:
			n++
		case errors.Is(err, ErrLimited):
			wait = fault.Of(err).RetryAfter
		default:
			t.Fatal(err)
		}
	}
	return n, wait
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		m := NewMetrics(reg)
		slow := Key{Name: "slow", Key: "slow-key-0123456789", Scope: Publish, Rate: 0.5}
		burst := Key{Name: "burst", Key: "burst-key-0123456789", Scope: Publish, Rate: 2, Burst: 5}
		k := newKeys(t, slow, burst, Key{Name: "free", Key: "free-key-0123456789", Scope: Publish})
		k.Count(m)
		use := func(key string) (n int, wait time.Duration) { return use(t, k, key) }
		for _, step := range []struct {
			key  string
			n    int
			wait time.Duration
		}{
			{"slow-key-0123456789", 1, 2 * time.Second},
			{"burst-key-0123456789", 5, time.Second / 2},
			{"free-key-0123456789", 50, 0},
		} {
			if n, wait := use(step.key); n != step.n || wait != step.wait {
				t.Errorf("%s: %d calls, then wait %v; want %d and %v", step.key, n, wait, step.n, step.wait)
			}
		}
		time.Sleep(2 * time.Second)
		if n, _ := use("slow-key-0123456789"); n != 1 {
			t.Errorf("after two seconds %d calls of slow", n)
		}
		if n, _ := use("burst-key-0123456789"); n != 4 {
			t.Errorf("after two seconds %d calls of burst", n)
		}
		// What stays as it is keeps what it has used; a new limit counts at once.
		slow.Burst = 3
		if _, err := k.Replace([]Key{slow, burst}); err != nil {
			t.Fatal(err)
		}
		if n, _ := use("burst-key-0123456789"); n != 0 {
			t.Errorf("after another key changed, %d calls of burst", n)
		}
		if n, _ := use("slow-key-0123456789"); n != 3 {
			t.Errorf("with a new burst %d calls of slow", n)
		}
		if _, err := admit(k, "slow-key-0123456789", Admin); !errors.Is(err, ErrScope) || strings.Contains(err.Error(), "0123456789") {
			t.Errorf("too small a scope: %v", err)
		}
		for labels, want := range map[[2]string]float64{{"burst", "allowed"}: 9, {"burst", "limited"}: 141, {"slow", "refused"}: 1, {"free", "allowed"}: 0} {
			if got := testutil.ToFloat64(m.requests.WithLabelValues(labels[0], labels[1])); got != want {
				t.Errorf("%v: %v, want %v", labels, got, want)
			}
		}
		if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
	})
}

func TestRateMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		rate  float64
		burst int
		want  string
	}{
		"none":             {0, 0, ""},
		"rate":             {0.01, 0, ""},
		"both":             {10, 100, ""},
		"negative":         {-1, 0, "rate"},
		"no number":        {math.NaN(), 0, "rate"},
		"endless":          {math.Inf(1), 0, "rate"},
		"burst alone":      {0, 5, "without rate"},
		"negative burst":   {1, -5, "burst"},
		"enormous burst":   {1, maxRate + 1, "burst"},
		"more than enough": {maxRate + 1, 1, "rate"},
	} {
		_, err := New([]Key{{Name: "a", Key: "0123456789abcdef", Scope: Read, Rate: c.rate, Burst: c.burst}}, false)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
