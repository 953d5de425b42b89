package auth

import (
	"context"
	"errors"
	"regexp"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

// listener is a store of another node that has subscribed.
func listener(t *testing.T, addr string) (*RedisStore, <-chan SessionEnd) {
	t.Helper()
	s := NewRedisStore(newRedisClient(t, addr), "test")
	ends, _ := listen(t, s)
	return s, ends
}

func listen(t *testing.T, s *RedisStore) (<-chan SessionEnd, <-chan BlockChange) {
	ends, blocks := make(chan SessionEnd, 16), make(chan BlockChange, 16)
	hear := Hear{Ended: func(e SessionEnd) { ends <- e }, Blocked: func(c BlockChange) { blocks <- c }}
	run(t, func(ctx context.Context) error { return s.Run(ctx, hear) })
	return ends, blocks
}

// await waits until ok; the limit is for a test that would never end.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// awaitListeners waits until Redis has n subscribers.
func awaitListeners(t *testing.T, s *RedisStore, n int64) {
	t.Helper()
	await(t, "all nodes listen", func() bool {
		counts, err := s.client.PubSubNumSub(t.Context(), s.endedChannel()).Result()
		return err == nil && counts[s.endedChannel()] == n
	})
}

func TestRedisStoreTellsOtherNodes(t *testing.T) {
	server := testdeps.StartRedis(t)
	here, hereEnds := listener(t, server.Addr)
	_, thereEnds := listener(t, server.Addr)
	end := func() SessionEnd {
		r := mustOpen(t, here, newSession("ann", time.Hour))
		end := SessionEnd{r.Fingerprint, r.User, EndLogout}
		if err := here.Delete(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		return end
	}

	awaitListeners(t, here, 2)
	if want, got := end(), <-thereEnds; got != want {
		t.Errorf("the other node heard %+v, want %+v", got, want)
	}
	r := mustOpen(t, here, newSession("ann", time.Hour))
	if _, err := here.DeleteByUser(t.Context(), "ann", EndRevoked); err != nil {
		t.Fatal(err)
	}
	if got := <-thereEnds; got.Fingerprint != r.Fingerprint || got.Reason != EndRevoked {
		t.Errorf("the other node heard %+v", got)
	}

	server.Kill()
	server.Restart()
	awaitListeners(t, here, 2) // both came back by themselves
	if want, got := end(), <-thereEnds; got != want {
		t.Errorf("after a restart the other node heard %+v, want %+v", got, want)
	}
	if len(hereEnds) > 0 {
		t.Errorf("a node heard its own: %+v", <-hereEnds)
	}
}

func TestRedisStoreIgnoresNonsense(t *testing.T) {
	s, ends := listener(t, testdeps.Redis(t))
	awaitListeners(t, s, 1)
	for _, payload := range []string{"", "{", `[]`, `{"session":"short"}`, `{}`, `{"block":{}}`, `{"block":{"blocked":true}}`, `{"block":7}`} {
		if err := s.client.Publish(t.Context(), s.endedChannel(), payload).Err(); err != nil {
			t.Fatal(err)
		}
	}
	r := newSession("ann", time.Hour)
	other := NewRedisStore(s.client, "test")
	if err := other.Delete(t.Context(), SessionEnd{r.Fingerprint, r.User, EndLogout}); err != nil {
		t.Fatal(err)
	}
	if got := <-ends; got.Fingerprint != r.Fingerprint {
		t.Errorf("heard %+v", got)
	}
}

// A session that cannot be written anew does not keep others from it.
func TestRedisStoreTouchesEachByItself(t *testing.T) {
	s := newRedisStore(t)
	ctx := t.Context()
	bad, good := mustOpen(t, s, newSession("bad", time.Minute)), mustOpen(t, s, newSession("good", time.Minute))
	bad.Expires, good.Expires = bad.Expires.Add(time.Hour), good.Expires.Add(time.Hour)
	if err := s.client.Set(ctx, s.userKeys("bad").expiry, "not a set", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Touch(ctx, []*Session{bad, good}); fault.Of(err).Code != "sessions_unavailable" {
		t.Errorf("got %v", err)
	}
	if got, err := s.Get(ctx, good.Fingerprint); err != nil || !got.Expires.Equal(good.Expires) {
		t.Errorf("the good one ends at %+v, %v", got, err)
	}
	if got, err := s.Get(ctx, bad.Fingerprint); err != nil || got.Expires.Equal(bad.Expires) {
		t.Errorf("the bad one, which is not listed for longer, was extended: %+v, %v", got, err)
	}
}

// Every key must have a TTL that is neither shorter nor much longer than what
// it is for.
func TestRedisStoreLeaksNothing(t *testing.T) {
	s := newRedisStore(t)
	ctx := t.Context()
	mustOpen(t, s, newSession("ann", 2*time.Hour))
	short := mustOpen(t, s, newSession("ann", time.Minute)) // must not shorten the list's life
	short.Expires = time.Now().Add(time.Hour)
	if err := s.Touch(ctx, []*Session{short}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		last := mustOpen(t, s, newSession("bob", 2*time.Millisecond))
		for err := error(nil); !errors.Is(err, ErrNoSession); _, err = s.Get(ctx, last.Fingerprint) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	mustOpen(t, s, newSession("bob", time.Hour))
	_, _, err1 := s.Claim(ctx, "claimed", time.Hour)
	_, err2 := s.Block(ctx, "cat", Block{Until: time.Now().Add(time.Hour)})
	_, err3 := s.UseTicket(ctx, newTicketID(), time.Now().Add(time.Hour))
	if err := errors.Join(err1, err2, err3, s.Settle(ctx, "settled", []byte{1}, time.Hour),
		s.ReplaceKeys(ctx, "ann", SealedKey{Tag: [8]byte{9}, Issued: time.Now(), Sealed: []byte("k")})); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]time.Duration{
		s.userKeys("ann").logins: 2*time.Hour + expiryGrace, s.userKeys("ann").expiry: 2*time.Hour + expiryGrace,
		s.userKeys("ann").ring: sessionKeyLife, s.userKeys("bob").ring: sessionKeyLife, s.userKeys("ann").ended: endedKeyLife,
		s.userKeys("bob").logins: time.Hour + expiryGrace, s.sessionKey(short.Fingerprint): time.Hour + expiryGrace,
		s.userKeys("cat").block: time.Hour, s.claimKey("claimed"): time.Hour, s.claimKey("settled"): time.Hour,
	} {
		if ttl := s.client.PTTL(ctx, key).Val(); ttl > want || ttl < want-time.Minute {
			t.Errorf("%s lives %v, want %v", key, ttl, want)
		}
	}
	if n := s.client.ZCard(ctx, s.userKeys("bob").logins).Val(); n != 1 {
		t.Errorf("bob's list holds %d entries of expired sessions", n-1)
	}
	keys, err := s.client.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if ttl := s.client.PTTL(ctx, key).Val(); ttl < 0 && s.client.Exists(ctx, key).Val() == 1 {
			t.Errorf("%s never expires", key)
		}
	}
}

func TestRedisStoreDamagedRecord(t *testing.T) {
	s := newRedisStore(t)
	r := mustOpen(t, s, newSession("ann", time.Hour))
	s.client.Set(t.Context(), s.sessionKey(r.Fingerprint), "not JSON", time.Hour)
	_, err := s.Get(t.Context(), r.Fingerprint)
	wantFault(t, err, "token_expired")
	s.client.Set(t.Context(), s.sessionKey(r.Fingerprint), "{}", 0) // and without a TTL
	_, err = s.Get(t.Context(), r.Fingerprint)
	wantFault(t, err, "token_expired")
	wantSessions(t, s, "ann")
}

// A subscription without news is pinged and, as long as that is answered, kept.
func TestRedisStoreQuietSubscription(t *testing.T) {
	s := newRedisStore(t)
	s.quiet = 250 * time.Millisecond // also how long a loaded machine may take to answer
	ends, _ := listen(t, s)
	awaitListeners(t, s, 1)
	pings := regexp.MustCompile(`cmdstat_ping:calls=[3-9]`)
	await(t, "three pings came", func() bool {
		return pings.MatchString(s.client.Info(t.Context(), "commandstats").Val())
	})
	m := regexp.MustCompile(`cmdstat_subscribe:calls=1,`)
	if !m.MatchString(s.client.Info(t.Context(), "commandstats").Val()) {
		t.Error("a quiet subscription was made anew although its pings are answered")
	}
	r := newSession("ann", time.Hour)
	other := NewRedisStore(s.client, "test")
	if err := other.Delete(t.Context(), SessionEnd{r.Fingerprint, r.User, EndLogout}); err != nil {
		t.Fatal(err)
	}
	if got := <-ends; got.Fingerprint != r.Fingerprint {
		t.Errorf("heard %+v", got)
	}
}

// When a sentinel makes the replica the master, users stay logged in and
// nodes hear of one another again.
func TestRedisStoreFailsOver(t *testing.T) {
	t.Parallel()
	s := testdeps.StartRedisSentinel(t)
	store := NewRedisStore(openRedis(t, redisclient.Settings{Addresses: s.Addrs, SentinelMaster: s.Name}), "test")
	e := newEnv(t, store, func(o *Options) { o.Settings.Session.VerifyCache = 0 })
	run(t, e.Run)
	token, ses := e.mustLogin("ann")
	replica := NewRedisStore(newRedisClient(t, s.Replica.Addr), "test")
	await(t, "the replica has the session", func() bool {
		_, err := replica.Get(t.Context(), ses.Fingerprint)
		return err == nil
	})
	s.Master.Kill()
	e.wantVerify(token, "sessions_unavailable")
	await(t, "the replica took over", func() bool {
		_, err := e.Verify(t.Context(), token)
		if err != nil {
			wantFault(t, err, "sessions_unavailable")
		}
		return err == nil
	})
	awaitListeners(t, replica, 1)
	await(t, "logins work", func() bool { // the new master may have to find that out first
		_, _, err := e.Login(t.Context(), "", "sim:bob")
		return err == nil
	})
}
