package auth

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/wxsim"
)

// counted counts how often WeChat is asked, and lets each call wait for gate.
func counted(n *atomic.Int64, gate <-chan struct{}) func(*Options) {
	return func(o *Options) {
		next := o.Transport
		o.Transport = transportFunc(func(r *http.Request) (*http.Response, error) {
			n.Add(1)
			if gate != nil {
				<-gate
			}
			return next.RoundTrip(r)
		})
	}
}

// nodes are n services over one store each, with one WeChat behind all.
func nodes(t *testing.T, stores []Store, change ...func(*Options)) []*env {
	sim := wxsim.New(wxsim.Options{Apps: []wxsim.App{{AppID: appA, Secret: secretA}, {AppID: appB, Secret: secretB}}})
	list := make([]*env, len(stores))
	for i, store := range stores {
		share := func(o *Options) { o.Transport = handlerTransport{sim} }
		list[i] = newEnv(t, store, append([]func(*Options){share}, change...)...)
		list[i].sim = sim
	}
	return list
}

func TestCodeSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		e := newEnv(t, first(newFileStore(t)), counted(&asked, nil))
		code := e.sim.NewCode(appA, "ann")
		token, s, err := e.Login(t.Context(), appA, code)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		again, same, err := e.Login(t.Context(), "", code) // appA is the first one configured
		if again != token || err != nil || same.Fingerprint != s.Fingerprint || same.User != s.User {
			t.Errorf("sent again it answered another token for %v, %v", same, err)
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("WeChat was asked %d times", n)
		}
		_, _, err = e.Login(t.Context(), appB, code) // belongs to another mini-program
		wantFault(t, err, "code_invalid")
		time.Sleep(time.Second)
		_, _, err = e.Login(t.Context(), appA, code)
		wantFault(t, err, "code_used")
	})
}

func TestCodeSentAgainAfterItsSessionEnded(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	for name, end := range map[string]func(token string, s *Session) error{
		"logout": func(token string, _ *Session) error { return e.Logout(t.Context(), token) },
		"revoke": func(_ string, s *Session) error { _, err := e.Revoke(t.Context(), s.User.OpenID); return err },
		"block": func(_ string, s *Session) error {
			_, err := e.Block(t.Context(), s.User.OpenID, "", time.Time{})
			return err
		},
	} {
		code := e.sim.NewCode(appA, name)
		token, s, err := e.Login(t.Context(), appA, code)
		if err != nil {
			t.Fatal(err)
		}
		if err := end(token, s); err != nil {
			t.Fatal(err)
		}
		_, _, err = e.Login(t.Context(), appA, code)
		wantFault(t, err, "code_used")
	}
}

// The same code sent to two nodes at the same moment, many times, is redeemed
// once and answered with one token.
func TestCodeAtOnceAcrossNodes(t *testing.T) {
	addr := testdeps.Redis(t)
	var asked atomic.Int64
	stores := []Store{NewRedisStore(newRedisClient(t, addr), "test"), NewRedisStore(newRedisClient(t, addr), "test")}
	both := nodes(t, stores, counted(&asked, nil))
	for range 10 {
		asked.Store(0)
		code := both[0].sim.NewCode(appA, "ann")
		var tokens sync.Map
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				token, s, err := both[i%2].Login(t.Context(), appA, code)
				if err != nil || s.User.OpenID != wxsim.OpenID(appA, "ann") {
					t.Errorf("login %d: %+v, %v", i, s, err)
				}
				tokens.Store(token, true)
			})
		}
		all.Wait()
		n := 0
		tokens.Range(func(any, any) bool { n++; return true })
		if n != 1 || asked.Load() != 1 {
			t.Errorf("%d tokens and %d calls to WeChat for one code", n, asked.Load())
		}
	}
}

// A phone that hangs up while WeChat is asked gets its token when it tries
// again: WeChat would not take the code a second time.
func TestHangUpDuringRedemption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		gate := make(chan struct{})
		e := newEnv(t, first(newFileStore(t)), counted(&asked, gate))
		code := e.sim.NewCode(appA, "ann")
		ctx, hangUp := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _, _ = e.Login(ctx, appA, code)
		}()
		synctest.Wait()
		hangUp()
		close(gate)
		<-done
		if _, _, err := e.Login(t.Context(), appA, code); err != nil || asked.Load() != 1 {
			t.Errorf("the second try: %v, WeChat asked %d times", err, asked.Load())
		}
	})
}

// A code whose redemption fails is not held up for those who try again.
func TestFailedRedemptionReleases(t *testing.T) {
	var broken atomic.Bool
	e := newEnv(t, first(newFileStore(t)), func(o *Options) {
		next := o.Transport
		o.Transport = transportFunc(func(r *http.Request) (*http.Response, error) {
			if broken.Load() {
				return nil, http.ErrHandlerTimeout
			}
			return next.RoundTrip(r)
		})
	})
	code := e.sim.NewCode(appA, "ann")
	broken.Store(true)
	_, _, err := e.Login(t.Context(), appA, code)
	wantFault(t, err, "wechat_unavailable")
	broken.Store(false)
	if _, _, err := e.Login(t.Context(), appA, code); err != nil {
		t.Error(err)
	}
}

// A node that dies in the middle holds a code up only until its claim expires.
func TestClaimOfADeadNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := first(newFileStore(t))
		e := newEnv(t, store)
		code := e.sim.NewCode(appA, "ann")
		r, err := newRedemption(appA, code)
		if err != nil {
			t.Fatal(err)
		}
		if _, claimed, err := store.Claim(t.Context(), r.name, 3*time.Second); !claimed || err != nil {
			t.Fatal(claimed, err)
		}
		start := time.Now()
		if _, _, err := e.Login(t.Context(), appA, code); err != nil {
			t.Error(err)
		}
		if waited := time.Since(start); waited < 3*time.Second || waited > 4*time.Second {
			t.Errorf("waited %v for a claim of 3s", waited)
		}
		if _, _, err := store.Claim(t.Context(), "other", time.Hour); err != nil {
			t.Fatal(err)
		}
		code = e.sim.NewCode(appA, "ann")
		r, _ = newRedemption(appA, code)
		if _, _, err := store.Claim(t.Context(), r.name, time.Hour); err != nil {
			t.Fatal(err)
		}
		_, _, err = e.Login(t.Context(), appA, code)
		wantFault(t, err, "login_busy")
	})
}

// What is kept of an answer opens with the code only.
func TestAnswerIsSealedByItsCode(t *testing.T) {
	const code, token = "0a1b2c3d", "mg_token"
	r, err := newRedemption(appA, code)
	if err != nil {
		t.Fatal(err)
	}
	answer := r.seal(token)
	if strings.Contains(string(answer), token) || strings.Contains(r.name, code) {
		t.Errorf("kept in the clear: %q as %q", r.name, answer)
	}
	if got, err := r.open(answer); got != token || err != nil {
		t.Errorf("opened %q, %v", got, err)
	}
	for _, other := range [][2]string{{appB, code}, {appA, code + "x"}, {"", appA + "\x00" + code}} {
		r, err := newRedemption(other[0], other[1])
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.open(answer); err == nil {
			t.Errorf("%q opened %q", other, got)
		}
	}
}

func TestLoginRatePerApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		e := newEnv(t, first(newFileStore(t)), counted(&asked, nil), func(o *Options) {
			o.Settings.Session.LoginAppRate, o.Settings.Session.LoginAppBurst = 0.5, 2
		})
		login := func(app string) *httptest.ResponseRecorder {
			w, _ := call(rest.Handler(e.ServeLogin), http.MethodPost, "", `{"appid":"`+app+`","code":"`+e.sim.NewCode(app, "ann")+`"}`)
			return w
		}
		for i := range 3 {
			w := login(appA)
			if i < 2 && w.Code != http.StatusOK || i == 2 && (w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "2") {
				t.Errorf("login %d: %d %s, Retry-After %q", i, w.Code, w.Body, w.Header().Get("Retry-After"))
			}
		}
		if asked.Load() != 2 {
			t.Errorf("WeChat was asked %d times", asked.Load())
		}
		if w := login(appB); w.Code != http.StatusOK {
			t.Errorf("another mini-program: %d", w.Code)
		}
		time.Sleep(2 * time.Second)
		if w := login(appA); w.Code != http.StatusOK {
			t.Errorf("after the time to wait: %d", w.Code)
		}
	})
}
