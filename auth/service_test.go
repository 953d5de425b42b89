package auth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/wxsim"
)

func TestLogin(t *testing.T) {
	store, _ := newFileStore(t)
	e := newEnv(t, store)
	token, s := e.mustLogin("ann")
	want := User{appA, wxsim.OpenID(appA, "ann"), wxsim.UnionID("ann")}
	if s.User != want {
		t.Errorf("logged in as %+v, want %+v", s.User, want)
	}
	if again, _ := e.mustLogin("ann"); again == token {
		t.Error("a sim: login must make a new session each time")
	}
	if got := e.wantVerify(token, ""); got.User != want {
		t.Errorf("verified as %+v", got.User)
	}
	code := e.sim.NewCode(appB, "ann")
	_, s, err := e.Login(t.Context(), appB, code)
	if err != nil || s.User.AppID != appB || s.User.OpenID == want.OpenID || s.User.UnionID != want.UnionID {
		t.Errorf("in the second app: %+v, %v", s, err)
	}
	_, _, err = e.Login(t.Context(), appA, e.sim.NewCode(appB, "ann"))
	wantFault(t, err, "code_invalid")
}

func TestLoginRefusesSimCodes(t *testing.T) {
	store, _ := newFileStore(t)
	e := newEnv(t, store, func(o *Options) {
		o.AllowSim = false
		o.Transport = transportFunc(func(*http.Request) (*http.Response, error) {
			t.Error("WeChat was asked about a sim: code")
			return nil, errors.New("no")
		})
	})
	_, _, err := e.Login(t.Context(), "", "sim:ann")
	wantFault(t, err, "code_invalid")
}

func TestSlidingExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &countingStore{Store: first(newFileStore(t))}
		e := newEnv(t, store, func(o *Options) { o.Settings.Session.TTL = 10 * time.Hour })
		e.writing()
		token, s := e.mustLogin("ann")
		for range 60 { // in use, for six lifetimes
			time.Sleep(time.Hour)
			e.wantVerify(token, "")
		}
		written := func() int64 {
			time.Sleep(touchDelay)
			synctest.Wait()
			return store.touches.Load()
		}
		if n := written(); n != 60 {
			t.Errorf("%d writes for 60 uses an hour apart", n)
		}
		for range 3600 { // the session is as good as new: no write for its hundredth part
			time.Sleep(100 * time.Millisecond)
			e.wantVerify(token, "")
		}
		if n := written(); n != 61 {
			t.Errorf("%d writes for 6 minutes of steady use, want 1", n-60)
		}
		time.Sleep(10 * time.Hour)
		e.wantVerify(token, "token_expired")
		e.wantVerify(token[:len(token)-1], "token_invalid")
		wantSessions(t, store, s.User.OpenID)
	})
}

// touchEnv is fifty sessions that nobody writes anew yet, and last for two hours.
type touchEnv struct {
	*env
	store  *countingStore
	tokens [50]string
}

func newTouchEnv(t *testing.T) *touchEnv {
	t.Helper()
	store := &countingStore{Store: first(newFileStore(t))}
	e := &touchEnv{env: newEnv(t, store, func(o *Options) {
		o.Settings.Session.TTL, o.Settings.Session.VerifyCache = 2*time.Hour, 0
	}), store: store}
	for i := range e.tokens {
		e.tokens[i], _ = e.mustLogin("user" + strconv.Itoa(i))
	}
	return e
}

func (e *touchEnv) use() {
	e.t.Helper()
	for _, token := range e.tokens {
		e.wantVerify(token, "")
	}
}

// want says how many sessions were written, in how many calls, since it was
// called before.
func (e *touchEnv) want(what string, touches, writes int64) {
	e.t.Helper()
	synctest.Wait()
	if n, w := e.store.touches.Swap(0), e.store.writes.Swap(0); n != touches || w != writes {
		e.t.Errorf("%s: %d sessions in %d writes, want %d in %d", what, n, w, touches, writes)
	}
}

// Sessions that are used at about the same time are written together, and those
// that may end before they are used again at once.
func TestTouchedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTouchEnv(t)
		stop := e.writing()
		time.Sleep(30 * time.Minute)
		e.use()
		e.use()
		e.want("at first", 0, 0)
		time.Sleep(2 * touchDelay)
		e.want("after a while", 50, 1)
		time.Sleep(59 * time.Minute)
		e.use()
		time.Sleep(2 * touchDelay)
		e.want("with an hour left", 50, 1)
		time.Sleep(61 * time.Minute)
		e.use()
		e.want("with less than an hour left", 50, 50)
		time.Sleep(30 * time.Minute)
		e.use()
		stop()
		e.want("at the end", 50, 1)
	})
}

// What cannot be written is written later, for which a session has time.
func TestTouchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTouchEnv(t)
		stop := e.writing()
		e.store.broken.Store(true)
		time.Sleep(30 * time.Minute)
		e.use()
		time.Sleep(2 * touchDelay)
		e.want("while the store is away", 50, 1)
		time.Sleep(touchRetry)
		e.want("still away", 50, 1)
		e.store.broken.Store(false)
		time.Sleep(touchRetry)
		e.want("there again", 50, 1)
		time.Sleep(100 * time.Minute) // without it they have ended
		e.use()
		e.want("extended", 50, 50)

		// It ends in the middle of a write, during which there is another use.
		e.store.onTouch = func() {
			e.store.onTouch = nil
			e.touched.add(&Session{})
			go stop()
			synctest.Wait()
		}
		time.Sleep(30 * time.Minute)
		e.use()
		time.Sleep(2 * touchDelay)
		e.want("at the end", 51, 2)
		stop()
	})
}

// What cannot be written is all that comes back: it holds up nothing behind it.
func TestTouchedByPart(t *testing.T) {
	store := &countingStore{Store: first(newFileStore(t))}
	e := newEnv(t, store)
	list := make([]*Session, touchBatch+5)
	for i := range list {
		list[i] = &Session{Fingerprint: Fingerprint{byte(i), byte(i >> 8)}}
	}
	store.broken.Store(true)
	store.onTouch = func() { store.broken.Store(store.writes.Load() == 1) }
	failed, err := e.touch(t.Context(), list)
	if fault.Of(err).Code != "sessions_unavailable" || !slices.Equal(failed, list[:touchBatch]) {
		t.Errorf("%d are left, %v", len(failed), err)
	}
	if n := store.touches.Load(); n != int64(len(list)) {
		t.Errorf("%d of %d were tried", n, len(list))
	}
}

// Where too many wait, each is written by itself.
func TestTouchedTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTouchEnv(t)
		for i := range maxTouched {
			e.touched.add(&Session{Fingerprint: Fingerprint{byte(i), byte(i >> 8)}})
		}
		time.Sleep(30 * time.Minute)
		e.use()
		e.want("too many", 50, 50)
	})
}

func TestTouchedInBounds(t *testing.T) {
	touched := newTouched()
	ses := &Session{}
	for i := range maxTouched {
		ses = &Session{Fingerprint: Fingerprint{byte(i), byte(i >> 8)}}
		if !touched.add(ses) {
			t.Fatalf("there is room for %d", i)
		}
	}
	if !touched.add(ses) || touched.add(&Session{Fingerprint: Fingerprint{31: 1}}) {
		t.Error("there is room for one that is there already, and for no other")
	}
	list := touched.take()
	inOrder := slices.IsSortedFunc(list, func(a, b *Session) int { return slices.Compare(a.Fingerprint[:], b.Fingerprint[:]) })
	if len(list) != maxTouched || !inOrder || len(touched.take()) != 0 {
		t.Errorf("%d were taken, in order %v", len(list), inOrder)
	}
	now := time.Now()
	old, again := &Session{Expires: now.Add(time.Hour)}, &Session{Expires: now.Add(2 * time.Hour)}
	other, over := &Session{Fingerprint: Fingerprint{1}, Expires: now.Add(time.Hour)}, &Session{Fingerprint: Fingerprint{2}, Expires: now}
	touched.add(again)
	touched.back([]*Session{old, other, over}, now)
	if got := touched.take(); !slices.Equal(got, []*Session{again, other}) {
		t.Errorf("what came back is %v", got)
	}
}

func first(s *FileStore, _ any) *FileStore { return s }

func TestShortSessionsSlideToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)), func(o *Options) { o.Settings.Session.TTL = time.Minute })
		token, _ := e.mustLogin("ann")
		for range 10 {
			time.Sleep(40 * time.Second)
			e.wantVerify(token, "")
		}
	})
}

func TestMaxPerUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)), func(o *Options) { o.Settings.Session.MaxPerUser = 3 })
		var ends []SessionEnd
		e.OnEnd(func(end SessionEnd) { ends = append(ends, end) })
		bob, _ := e.mustLogin("bob")
		var tokens []string
		for range 5 {
			token, _ := e.mustLogin("ann")
			e.wantVerify(token, "")
			tokens = append(tokens, token)
			time.Sleep(time.Millisecond)
		}
		for i, token := range tokens {
			e.wantVerify(token, []string{"token_expired", "token_expired", "", "", ""}[i])
		}
		e.wantVerify(bob, "")
		if len(ends) != 2 || ends[0].Reason != EndReplaced {
			t.Errorf("ended %+v, want the two oldest as replaced", ends)
		}
	})
}

// countingStore counts and delays calls to a store.
type countingStore struct {
	Store
	gets, touches, writes atomic.Int64 // touches are sessions, and writes calls
	broken                atomic.Bool  // Touch fails
	onTouch               func()
	onGet                 func()
}

func (c *countingStore) Get(ctx context.Context, fp Fingerprint) (*Session, error) {
	c.gets.Add(1)
	r, err := c.Store.Get(ctx, fp)
	if c.onGet != nil {
		c.onGet()
	}
	if ctx.Err() != nil { // as a store over the network would notice
		return nil, ctx.Err()
	}
	return r, err
}

func (c *countingStore) Touch(ctx context.Context, list []*Session) error {
	c.touches.Add(int64(len(list)))
	c.writes.Add(1)
	if c.onTouch != nil {
		c.onTouch()
	}
	if c.broken.Load() {
		return errSessionsUnavailable
	}
	return c.Store.Touch(ctx, list)
}

func TestVerifyCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &countingStore{Store: first(newFileStore(t))}
		e := newEnv(t, store)
		token, _ := e.mustLogin("ann")
		for range 100 {
			e.wantVerify(token, "")
		}
		if n := store.gets.Load(); n != 1 {
			t.Errorf("100 looks at one token asked the store %d times", n)
		}
		time.Sleep(3 * time.Second)
		e.wantVerify(token, "")
		if n := store.gets.Load(); n != 2 {
			t.Errorf("after verify_cache the store was asked %d times in all, want 2", n)
		}
	})
}

// What is remembered is let go when its time is over, also where nobody ever
// asks again, and at once where that is asked for.
func TestVerifyCacheIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)))
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() { _ = e.Run(ctx); close(ran) }()
		remembered := func() int {
			e.cache.mu.Lock()
			defer e.cache.mu.Unlock()
			return len(e.cache.entries.young) + len(e.cache.entries.old)
		}
		token, _ := e.mustLogin("ann")
		e.wantVerify(token, "")
		if n := remembered(); n != 1 {
			t.Fatalf("%d sessions are remembered, want the one", n)
		}
		time.Sleep(2*e.settings.VerifyCache + time.Millisecond)
		if n := remembered(); n != 0 {
			t.Errorf("%d sessions are remembered that are not used any more", n)
		}
		e.wantVerify(token, "")
		e.Unburden()
		if n := remembered(); n != 0 {
			t.Errorf("%d sessions are remembered after Unburden", n)
		}
		stop()
		<-ran
	})
}

func TestVerifySingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &countingStore{Store: first(newFileStore(t)), onGet: func() { time.Sleep(time.Second) }}
		e := newEnv(t, store)
		token, _ := e.mustLogin("ann")
		impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() { _, _ = e.Verify(impatient, token) }) // leads, and gives up
		synctest.Wait()
		for range 50 {
			all.Go(func() { e.wantVerify(token, "") })
		}
		all.Wait()
		if n := store.gets.Load(); n != 1 {
			t.Errorf("51 looks at the same moment asked the store %d times", n)
		}
	})
}

// A session that ends while the store is being asked about it must not be
// remembered from the answer that was on its way.
func TestEndDuringLookup(t *testing.T) {
	store := &countingStore{Store: first(newFileStore(t))}
	e := newEnv(t, store)
	token, s := e.mustLogin("ann")
	store.onGet = func() {
		store.onGet = nil
		if _, err := e.Revoke(t.Context(), s.User.OpenID); err != nil {
			t.Error(err)
		}
	}
	e.wantVerify(token, "") // asked before it ended
	e.wantVerify(token, "token_expired")
}

// A look that began before a logout is not joined by who asks after it, and
// what it finds is not remembered: the logout is final for everybody who comes
// later, although the look is still under way.
func TestLookBegunBeforeLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &countingStore{Store: first(newFileStore(t))}
		e := newEnv(t, store, func(o *Options) { o.Settings.Session.VerifyCache = time.Minute })
		token, s := e.mustLogin("ann")
		answer := make(chan struct{})
		store.onGet = func() { // the answer of the first look is on its way for long
			store.onGet = nil
			<-answer
		}
		early := make(chan error)
		go func() {
			_, err := e.Verify(t.Context(), token)
			early <- err
		}()
		synctest.Wait()
		if err := e.store.Delete(t.Context(), SessionEnd{s.Fingerprint, s.User, EndLogout}); err != nil {
			t.Fatal(err)
		}
		e.forget(SessionEnd{s.Fingerprint, s.User, EndLogout}) // as at a message of another node
		late := make(chan error, 1)
		go func() {
			_, err := e.Verify(t.Context(), token)
			late <- err
		}()
		synctest.Wait()
		select {
		case err := <-late:
			wantFault(t, err, "token_expired")
		default:
			t.Error("who asks after the logout waits for an answer from before")
		}
		close(answer)
		wantFault(t, <-early, "") // it was asked before
		e.wantVerify(token, "token_expired")
	})
}

func TestLogout(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	var ends []SessionEnd
	e.OnEnd(func(end SessionEnd) { ends = append(ends, end) })
	token, s := e.mustLogin("ann")
	other, _ := e.mustLogin("ann")
	e.wantVerify(token, "") // now it is remembered
	for range 2 {
		if err := e.Logout(t.Context(), token); err != nil {
			t.Error(err)
		}
		e.wantVerify(token, "token_expired")
	}
	if want := []SessionEnd{{s.Fingerprint, s.User, EndLogout}}; !slices.Equal(ends, want) {
		t.Errorf("ended %+v, want %+v", ends, want)
	}
	e.wantVerify(other, "")
	wantFault(t, e.Logout(t.Context(), "mg_"), "token_invalid")
}

// Two nodes over one Redis: what one ends the other forgets at once, although
// it remembers sessions for a minute.
func TestRevocationAcrossNodes(t *testing.T) {
	addr := testdeps.Redis(t)
	node := func() (*env, <-chan SessionEnd) {
		store := NewRedisStore(newRedisClient(t, addr), "test")
		e := newEnv(t, store, func(o *Options) { o.Settings.Session.VerifyCache = time.Minute })
		ends := make(chan SessionEnd, 16)
		e.OnEnd(func(end SessionEnd) { ends <- end })
		run(t, e.Run)
		return e, ends
	}
	here, hereEnds := node()
	there, thereEnds := node()
	awaitListeners(t, here.store.(*RedisStore), 2)

	token, s := here.mustLogin("ann")
	second, _ := here.mustLogin("ann")
	for _, tok := range []string{token, second} {
		here.wantVerify(tok, "")
		there.wantVerify(tok, "")
	}
	if err := here.Logout(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	want := SessionEnd{s.Fingerprint, s.User, EndLogout}
	if a, b := <-hereEnds, <-thereEnds; a != want || b != want {
		t.Errorf("heard %+v here and %+v there", a, b)
	}
	here.wantVerify(token, "token_expired")
	there.wantVerify(token, "token_expired")
	there.wantVerify(second, "")

	if n, err := there.Revoke(t.Context(), s.User.OpenID); n != 1 || err != nil {
		t.Errorf("revoked %d, %v", n, err)
	}
	<-hereEnds
	here.wantVerify(second, "token_expired")
}

func TestRedisAwayAndBack(t *testing.T) {
	server := testdeps.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	e := newEnv(t, NewRedisStore(newRedisClient(t, server.Addr), "test"), func(o *Options) { o.Settings.Session.VerifyCache = 0 })
	run(t, e.Run)
	token, _ := e.mustLogin("ann")
	server.Kill()
	e.wantVerify(token, "sessions_unavailable")
	_, _, err := e.Login(t.Context(), "", "sim:ann")
	wantFault(t, err, "sessions_unavailable")
	wantFault(t, e.Logout(t.Context(), token), "sessions_unavailable")
	wantFault(t, e.Ping(t.Context()), "sessions_unavailable")
	server.Restart()
	e.wantVerify(token, "")
}

func TestNewRefusesBrokenOptions(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("a service without a mini-program was made")
	}
	if _, err := New(Options{Settings: Settings{WeChat: WeChatSettings{BaseURL: "://"}}}); err == nil || strings.Contains(err.Error(), "mini-program") {
		t.Errorf("a bad base URL answers %v", err)
	}
}

func TestRecentIsBounded(t *testing.T) {
	r := newRecent[int, int](10)
	for i := range 1000 {
		r.put(i, i)
		if _, ok := r.get(0); !ok && i < 900 {
			t.Fatalf("what is in use was forgotten after %d others", i)
		}
	}
	if n := len(r.young) + len(r.old); n > 10 {
		t.Errorf("%d entries remembered, at most 10 allowed", n)
	}
	if _, ok := r.get(500); ok {
		t.Error("what nobody used is still remembered")
	}
	r.remove(0)
	if _, ok := r.get(0); ok {
		t.Error("a removed entry is still remembered")
	}
}
