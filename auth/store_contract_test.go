package auth

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

// TestStoreContract runs one suite over both stores.
func TestStoreContract(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) (s Store, breakIt func()){
		"file": func(t *testing.T) (Store, func()) {
			s, db := newFileStore(t)
			return s, func() { _ = db.Close() }
		},
		"redis": func(t *testing.T) (Store, func()) {
			server := testdeps.StartRedis(t)
			return NewRedisStore(newRedisClient(t, server.Addr), "test"), server.Kill
		},
		"redis cluster": func(t *testing.T) (Store, func()) {
			addrs, kill := testdeps.RedisCluster(t)
			return NewRedisStore(openRedis(t, redisclient.Settings{Addresses: addrs}), "test"), kill
		},
		"redis sentinel": func(t *testing.T) (Store, func()) {
			s := testdeps.StartRedisSentinel(t)
			return NewRedisStore(openRedis(t, redisclient.Settings{Addresses: s.Addrs, SentinelMaster: s.Name}), "test"), s.Kill
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each starts servers of its own
			s, breakIt := open(t)
			run(t, func(ctx context.Context) error { return s.Run(ctx, deaf) })
			for _, test := range []struct {
				name string
				f    func(*testing.T, Store)
			}{
				{"round trip", contractRoundTrip},
				{"expiry", contractExpiry},
				{"touch", contractTouch},
				{"by user", contractByUser},
				{"limit", contractLimit},
				{"limit at once", contractLimitAtOnce},
				{"limit and expiry", contractLimitExpiry},
				{"keyring", contractKeys},
				{"block", contractBlock},
				{"block race", contractBlockRace},
				{"claim", contractClaim},
				{"parallel", contractParallel},
				{"cancelled", contractCancelled},
			} {
				t.Run(test.name, func(t *testing.T) { test.f(t, s) })
			}
			breakIt()
			t.Run("away", func(t *testing.T) { contractAway(t, s) })
		})
	}
}

// deaf does nothing about what other nodes do.
var deaf = Hear{Ended: func(SessionEnd) {}, Blocked: func(BlockChange) {}}

func newSession(openID string, ttl time.Duration) *Session {
	_, fp := newToken()
	now := time.UnixMilli(time.Now().UnixMilli())
	return &Session{
		Fingerprint: fp, User: User{AppID: appA, OpenID: openID, UnionID: "u" + openID}, Created: now, Expires: now.Add(ttl),
		LastSeen: now.Add(time.Second), Device: "Android <14>", IP: "2001:db8::1",
		Claims: json.RawMessage(`{"name":"\u4f60\u003c\""}`), Channels: []string{"room:1", "room:2"},
	}
}

// opening is a login without a limit.
func opening(s *Session) *Opening {
	return &Opening{Session: *s, Key: SealedKey{Tag: [8]byte(s.Fingerprint[:8]), Issued: s.Created, Sealed: s.Fingerprint[:]}}
}

func mustOpen(t testing.TB, s Store, ses *Session) *Session {
	t.Helper()
	if _, err := s.Open(t.Context(), opening(ses)); err != nil {
		t.Fatal(err)
	}
	return ses
}

func contractRoundTrip(t *testing.T, s Store) {
	ctx := t.Context()
	if err := s.Ping(ctx); err != nil {
		t.Error(err)
	}
	want := mustOpen(t, s, newSession("round", time.Hour))
	got, err := s.Get(ctx, want.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	other := newSession("round", time.Hour)
	if _, err := s.Get(ctx, other.Fingerprint); !errors.Is(err, ErrNoSession) {
		t.Errorf("an unknown session answers %v", err)
	}
	end := SessionEnd{want.Fingerprint, want.User, EndLogout}
	for range 2 { // the second time it is gone already
		if err := s.Delete(ctx, end); err != nil {
			t.Error(err)
		}
		if _, err := s.Get(ctx, want.Fingerprint); !errors.Is(err, ErrNoSession) {
			t.Errorf("a deleted session answers %v", err)
		}
	}
	wantSessions(t, s, "round")
}

// wantSessions checks which sessions a user has, in order of login.
func wantSessions(t *testing.T, s Store, openID string, want ...*Session) {
	t.Helper()
	list, err := s.ListByUser(t.Context(), openID)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(list, want, func(a, b *Session) bool { return a.Fingerprint == b.Fingerprint && a.User == b.User }) {
		t.Errorf("%s has %v, want %v", openID, fingerprints(list), fingerprints(want))
	}
}

func fingerprints(list []*Session) []string {
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = s.Fingerprint.String()[:8]
	}
	return texts
}

func contractExpiry(t *testing.T, s Store) {
	past := mustOpen(t, s, newSession("expiry", -time.Second))
	if _, err := s.Get(t.Context(), past.Fingerprint); !errors.Is(err, ErrNoSession) {
		t.Errorf("an expired session answers %v", err)
	}
	soon := mustOpen(t, s, newSession("expiry", 20*time.Millisecond))
	stays := mustOpen(t, s, newSession("expiry", time.Hour))
	for { // ends when the store says so, or with the test's own deadline
		_, err := s.Get(t.Context(), soon.Fingerprint)
		if errors.Is(err, ErrNoSession) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if early := time.Until(soon.Expires); early > 5*time.Millisecond {
		t.Errorf("a session was gone %v before its time", early)
	}
	wantSessions(t, s, "expiry", stays)
}

func contractTouch(t *testing.T, s Store) {
	ctx := t.Context()
	r := mustOpen(t, s, newSession("touch", time.Minute))
	later := *r
	later.Expires, later.LastSeen, later.IP = r.Expires.Add(time.Hour), r.LastSeen.Add(time.Minute), ""
	if err := s.Touch(ctx, []*Session{&later}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(ctx, r.Fingerprint); err != nil || !reflect.DeepEqual(*got, later) {
		t.Errorf("touched %+v, got %+v, %v", later, got, err)
	}
	gone := newSession("touch", time.Minute)
	list := []*Session{gone}
	for i := range 20 { // of several users, whose keys may lie on several servers
		one := mustOpen(t, s, newSession("touch"+strconv.Itoa(i), time.Minute))
		one.Expires = one.Expires.Add(time.Hour)
		list = append(list, one)
	}
	if err := errors.Join(s.Touch(ctx, list), s.Touch(ctx, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, gone.Fingerprint); !errors.Is(err, ErrNoSession) {
		t.Errorf("Touch made a session: %v", err)
	}
	for _, one := range list[1:] {
		if got, err := s.Get(ctx, one.Fingerprint); err != nil || !got.Expires.Equal(one.Expires) {
			t.Errorf("of several that were touched %v ends at %v, %v, want %v", one.User, got, err, one.Expires)
		}
	}
	wantSessions(t, s, "touch", r)
}

func contractByUser(t *testing.T, s Store) {
	a1, a2 := mustOpen(t, s, newSession("user-a", time.Hour)), mustOpen(t, s, newSession("user-a", time.Hour))
	near := mustOpen(t, s, newSession("user-ab", time.Hour)) // not a prefix match
	wantSessions(t, s, "user-a", a1, a2)
	wantSessions(t, s, "user", []*Session{}...)
	wantSessions(t, s, "user-a\x00", []*Session{}...)
	ends, err := s.DeleteByUser(t.Context(), "user-a", EndRevoked)
	if err != nil || len(ends) != 2 || ends[0].Reason != EndRevoked || ends[0].User != a1.User {
		t.Errorf("ended %+v, %v", ends, err)
	}
	if _, err := s.Get(t.Context(), a1.Fingerprint); !errors.Is(err, ErrNoSession) {
		t.Errorf("a session outlived its user: %v", err)
	}
	wantSessions(t, s, "user-a")
	wantSessions(t, s, "user-ab", near)
	if ends, err := s.DeleteByUser(t.Context(), "nobody", EndRevoked); len(ends) != 0 || err != nil {
		t.Errorf("nobody had %v, %v", ends, err)
	}
}

func contractParallel(t *testing.T, s Store) {
	records := make([]*Session, 64)
	var all sync.WaitGroup
	for i := range records {
		records[i] = newSession("crowd", time.Hour)
		all.Go(func() {
			if _, err := s.Open(t.Context(), opening(records[i])); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				if err := s.Touch(t.Context(), []*Session{records[i]}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	list, err := s.ListByUser(t.Context(), "crowd")
	if err != nil || len(list) != len(records) {
		t.Errorf("%d of %d sessions opened at once are listed, %v", len(list), len(records), err)
	}
}

func contractCancelled(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := newSession("cancelled", time.Hour)
	for name, err := range callAll(ctx, s, r) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want the cancellation", name, err)
		}
	}
}

func contractAway(t *testing.T, s Store) {
	ctx := t.Context()
	errs := callAll(ctx, s, newSession("away", time.Hour))
	errs["Ping"] = s.Ping(ctx)
	for name, err := range errs {
		if e := fault.Of(err); e.Kind != fault.Unavailable || e.Code != "sessions_unavailable" {
			t.Errorf("%s: %v, want sessions_unavailable", name, err)
		}
	}
}

func callAll(ctx context.Context, s Store, ses *Session) map[string]error {
	openID := ses.User.OpenID
	_, open := s.Open(ctx, opening(ses))
	_, get := s.Get(ctx, ses.Fingerprint)
	_, list := s.ListByUser(ctx, openID)
	_, deleteByUser := s.DeleteByUser(ctx, openID, EndRevoked)
	_, keys := s.Keys(ctx, openID)
	replace := s.ReplaceKeys(ctx, openID, opening(ses).Key)
	_, block := s.Block(ctx, openID, Block{})
	_, blocked := s.Blocked(ctx, openID)
	_, _, claim := s.Claim(ctx, openID, time.Minute)
	return map[string]error{
		"Open": open, "Get": get, "Touch": s.Touch(ctx, []*Session{ses}),
		"Delete":     s.Delete(ctx, SessionEnd{ses.Fingerprint, ses.User, EndLogout}),
		"ListByUser": list, "DeleteByUser": deleteByUser, "Keys": keys, "ReplaceKeys": replace,
		"Block": block, "Blocked": blocked, "Unblock": s.Unblock(ctx, openID),
		"Claim": claim, "Settle": s.Settle(ctx, openID, []byte{1}, time.Minute), "Release": s.Release(ctx, openID),
	}
}
