package auth

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/wxsim"
)

func withIP(t *testing.T, ip string) context.Context {
	return rest.WithInfo(t.Context(), &rest.Info{ClientIP: ip})
}

func TestSessionsOfAUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)))
		e.writing()
		token, s, err := e.LoginWith(withIP(t, "192.0.2.1"), LoginRequest{Code: "sim:ann", Device: " iPhone\x00 15\u202e\xff "})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Minute)
		if _, err := e.Verify(withIP(t, "2001:db8::7"), token); err != nil {
			t.Fatal(err)
		}
		e.mustLogin("ann")
		time.Sleep(2 * touchDelay) // the file takes a moment of its own
		list, err := e.Sessions(t.Context(), s.User.OpenID)
		if err != nil || len(list) != 2 {
			t.Fatal(list, err)
		}
		want := SessionInfo{
			ID: fmt.Sprintf("%x", s.Fingerprint[:8]), AppID: appA, OpenID: s.User.OpenID, UnionID: s.User.UnionID,
			Device: "iPhone 15", IP: "2001:db8::7", Created: list[0].Created, LastSeen: list[0].LastSeen, Expires: list[0].Expires,
		}
		if list[0] != want || list[0].LastSeen.Sub(list[0].Created).Round(time.Second) != 20*time.Minute || !list[0].Expires.Equal(list[0].LastSeen.Add(e.settings.TTL)) {
			t.Errorf("listed %+v, want %+v", list[0], want)
		}
		wantFault(t, e.RevokeSession(t.Context(), s.User.OpenID, "0123456789abcdef"), "session_unknown")
		wantFault(t, e.RevokeSession(t.Context(), wxsim.OpenID(appA, "bob"), want.ID), "session_unknown")
		if err := e.RevokeSession(t.Context(), s.User.OpenID, want.ID); err != nil {
			t.Error(err)
		}
		e.wantVerify(token, "token_expired")
		if list, err := e.Sessions(t.Context(), s.User.OpenID); len(list) != 1 || err != nil {
			t.Errorf("after a revocation: %+v, %v", list, err)
		}
		_, err = e.Sessions(t.Context(), "a{b}")
		wantFault(t, err, "openid_invalid")
	})
}

func TestNewestLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)))
		user := User{AppID: appA, OpenID: wxsim.OpenID(appA, "ann")}
		if s, err := e.NewestLogin(t.Context(), user); s != nil || err != nil {
			t.Errorf("before any login: %+v, %v", s, err)
		}
		var newest *Session
		for range 3 {
			time.Sleep(time.Minute)
			var err error
			if _, newest, err = e.LoginWith(t.Context(), LoginRequest{Code: "sim:ann"}); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := e.NewestLogin(t.Context(), user); err != nil || s == nil || s.Fingerprint != newest.Fingerprint {
			t.Errorf("%+v, %v", s, err)
		}
		user.AppID = "another"
		if s, err := e.NewestLogin(t.Context(), user); s != nil || err != nil {
			t.Errorf("with another mini-program: %+v, %v", s, err)
		}
	})
}

func TestAddressesAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := first(newFileStore(t))
		_, s, err := newEnv(t, store).LoginWith(withIP(t, "192.0.2.1"), LoginRequest{Code: "sim:ann"})
		if err != nil || s.IP != "192.0.2.1" {
			t.Fatal(s, err)
		}
		e := newEnv(t, store, func(o *Options) { o.Settings.Session.StoreIP = false })
		token, s, err := e.LoginWith(withIP(t, "192.0.2.2"), LoginRequest{Code: "sim:ann"})
		if err != nil || s.IP != "" {
			t.Fatal(s, err)
		}
		time.Sleep(time.Hour)
		if s, err := e.Verify(withIP(t, "192.0.2.2"), token); err != nil || s.IP != "" {
			t.Error(s, err)
		}
		list, err := e.Sessions(t.Context(), s.User.OpenID)
		if err != nil || len(list) != 2 || list[0].IP != "" || list[1].IP != "" {
			t.Errorf("listed %+v, %v", list, err)
		}
	})
}

func TestMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := first(newFileStore(t))
		e := newEnv(t, store, func(o *Options) {
			o.Settings.Session.TTL, o.Settings.Session.MaxAge = 10*time.Hour, 25*time.Hour
		})
		e.writing()
		token, s := e.mustLogin("ann")
		start := s.Created
		for range 4 {
			time.Sleep(6 * time.Hour)
			s = e.wantVerify(token, "")
		}
		if end := start.Add(25 * time.Hour); !s.Expires.Equal(end) {
			t.Errorf("a session in use expires at %v, want %v", s.Expires, end)
		}
		time.Sleep(time.Hour)
		e.wantVerify(token, "token_expired")

		unlimited := newEnv(t, store, func(o *Options) { o.Settings.Session.MaxAge = 0 })
		token, _ = unlimited.mustLogin("ann")
		time.Sleep(26 * time.Hour)
		unlimited.wantVerify(token, "")
		e.wantVerify(token, "token_expired") // a limit set later counts too
	})
}

func TestBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)))
		var ends []SessionEnd
		e.OnEnd(func(end SessionEnd) { ends = append(ends, end) })
		token, s := e.mustLogin("ann")
		e.wantVerify(token, "")
		until := time.Now().Add(time.Hour)
		if n, err := e.Block(t.Context(), s.User.OpenID, "spam\n in\x1b[2J rooms", until); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if len(ends) != 1 || ends[0] != (SessionEnd{s.Fingerprint, s.User, EndBlocked}) {
			t.Errorf("ended %+v", ends)
		}
		e.wantVerify(token, "token_expired")
		w, v := call(rest.Handler(e.ServeLogin), http.MethodPost, "", `{"code":"sim:ann"}`)
		want := "This user is blocked until " + until.UTC().Format(time.RFC3339) + ": spam in[2J rooms."
		detail, _ := v["error"].(map[string]any)
		if w.Code != http.StatusForbidden || errorCode(v) != "user_blocked" || detail["message"] != want || w.Header().Get("Retry-After") != "3600" {
			t.Errorf("a blocked user's login answered %d %s", w.Code, w.Body)
		}
		if b, err := e.Blocked(t.Context(), s.User.OpenID); err != nil || b == nil || !b.Until.Equal(until) || b.Reason != "spam in[2J rooms" {
			t.Errorf("blocked as %+v, %v", b, err)
		}
		time.Sleep(time.Hour)
		e.mustLogin("ann")
		_, err := e.Block(t.Context(), s.User.OpenID, "", time.Now())
		wantFault(t, err, "until_past")
		_, err = e.Block(t.Context(), "no\x00body", "", time.Time{})
		wantFault(t, err, "openid_invalid")
	})
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"": "", " a b ": "a b", "a\tb\r\n": "ab", "小程序": "小程序", "\xff\xfe": "", "a\u200bb\u2028": "ab",
		strings.Repeat("字", 70): strings.Repeat("字", 64), strings.Repeat("x", 63) + " y": strings.Repeat("x", 63),
	} {
		if got := Printable(text, maxDevice); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("iPhone 15")
	f.Add("\xff\u202e\x00")
	f.Fuzz(func(t *testing.T, text string) {
		got := Printable(text, 8)
		if n := len([]rune(got)); n > 8 || Printable(got, 8) != got {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// What one node revokes or blocks, the other has forgotten within a second,
// although it remembers sessions for a minute: the time is printed.
func TestRevocationReachesTheOtherNode(t *testing.T) {
	addr := testdeps.Redis(t)
	var stores []Store
	for range 2 {
		stores = append(stores, NewRedisStore(newRedisClient(t, addr), "test"))
	}
	both := nodes(t, stores, func(o *Options) { o.Settings.Session.VerifyCache = time.Minute })
	heard := make(chan SessionEnd, 64)
	both[1].OnEnd(func(end SessionEnd) { heard <- end })
	for _, e := range both {
		run(t, e.Run)
	}
	awaitListeners(t, stores[0].(*RedisStore), 2)
	for _, way := range []struct {
		name string
		end  func(openID, id string) error
	}{
		{"revoke one", func(openID, id string) error { return both[0].RevokeSession(t.Context(), openID, id) }},
		{"revoke all", func(openID, _ string) error { _, err := both[0].Revoke(t.Context(), openID); return err }},
		{"block", func(openID, _ string) error {
			_, err := both[0].Block(t.Context(), openID, "", time.Time{})
			return err
		}},
	} {
		token, s := both[0].mustLogin("ann")
		both[1].wantVerify(token, "") // from now on from its cache
		start := time.Now()
		if err := way.end(s.User.OpenID, s.Fingerprint.ID()); err != nil {
			t.Fatal(err)
		}
		if got := <-heard; got.Fingerprint != s.Fingerprint {
			t.Errorf("%s: the other node heard of %+v", way.name, got)
		}
		t.Logf("%s: the other node knew after %v", way.name, time.Since(start))
		both[1].wantVerify(token, "token_expired")
	}
	_, _, err := both[1].Login(t.Context(), "", "sim:ann")
	wantFault(t, err, "user_blocked")
	if err := both[1].Unblock(t.Context(), wxsim.OpenID(appA, "ann")); err != nil {
		t.Error(err)
	}
	both[0].mustLogin("ann")
}

// Redis dies and comes back in the middle of many logins: whoever was told a
// token can use it, and everybody else is told to try again.
func TestRedisRestartDuringLogins(t *testing.T) {
	server := testdeps.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	store := NewRedisStore(newRedisClient(t, server.Addr), "test")
	e := newEnv(t, store, func(o *Options) { o.Settings.Session.MaxPerUser = 0 })
	run(t, e.Run)
	var mu sync.Mutex
	var tokens []string
	failed := 0
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for ctx.Err() == nil {
				token, _, err := e.Login(t.Context(), "", e.sim.NewCode(appA, fmt.Sprintf("user%d", i)))
				mu.Lock()
				if err == nil {
					tokens = append(tokens, token)
				} else {
					wantFault(t, err, "sessions_unavailable")
					failed++
				}
				mu.Unlock()
			}
		})
	}
	count := func(n *int) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return *n > 0 }
	}
	seen := func(n int) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return len(tokens) > n }
	}
	await(t, "some logged in", seen(20))
	server.Kill()
	await(t, "a login failed", count(&failed))
	server.Restart()
	mu.Lock()
	before := len(tokens)
	mu.Unlock()
	await(t, "logins work again", seen(before+20))
	stop()
	all.Wait()
	for _, token := range tokens {
		e.wantVerify(token, "")
	}
}
