package auth

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/testdeps"
)

// TestStoreContract runs one suite over both stores.
func TestStoreContract(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (s Store, breakIt func()){
		"file": func(t *testing.T) (Store, func()) {
			s, db := newFileStore(t)
			return s, func() { _ = db.Close() }
		},
		"redis": func(t *testing.T) (Store, func()) {
			server := testdeps.StartRedis(t)
			return NewRedisStore(newRedisClient(t, server.Addr), "test"), server.Kill
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, breakIt := open(t)
			run(t, func(ctx context.Context) error { return s.Run(ctx, func(SessionEnd) {}) })
			for _, test := range []struct {
				name string
				f    func(*testing.T, Store)
			}{
				{"round trip", contractRoundTrip},
				{"expiry", contractExpiry},
				{"touch", contractTouch},
				{"by user", contractByUser},
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

func newRecord(openID string, ttl time.Duration) *Record {
	_, fp := newToken()
	now := time.UnixMilli(time.Now().UnixMilli())
	return &Record{
		Session:   Session{Fingerprint: fp, User: User{AppID: appA, OpenID: openID, UnionID: "u" + openID}, Created: now, Expires: now.Add(ttl)},
		SealedKey: []byte{1, 0, 255},
	}
}

func mustPut(t *testing.T, s Store, r *Record) *Record {
	t.Helper()
	if err := s.Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func contractRoundTrip(t *testing.T, s Store) {
	ctx := t.Context()
	if err := s.Ping(ctx); err != nil {
		t.Error(err)
	}
	want := mustPut(t, s, newRecord("round", time.Hour))
	got, err := s.Get(ctx, want.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	// Redis counts the time that is left, so the expiry is as exact as the call is quick.
	if drift := got.Expires.Sub(want.Expires).Abs(); drift > time.Second {
		t.Errorf("the expiry moved by %v", drift)
	}
	if got.Fingerprint != want.Fingerprint || got.User != want.User || !got.Created.Equal(want.Created) || !bytes.Equal(got.SealedKey, want.SealedKey) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	other := newRecord("round", time.Hour)
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

// wantSessions checks which sessions a user has.
func wantSessions(t *testing.T, s Store, openID string, want ...*Record) {
	t.Helper()
	list, err := s.ListByUser(t.Context(), openID)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range want {
		if !slices.ContainsFunc(list, func(l *Session) bool { return l.Fingerprint == r.Fingerprint && l.User == r.User }) {
			t.Errorf("%s: session %v is not listed", openID, r.Fingerprint)
		}
	}
	if len(list) != len(want) {
		t.Errorf("%s has %d sessions, want %d", openID, len(list), len(want))
	}
}

func contractExpiry(t *testing.T, s Store) {
	past := mustPut(t, s, newRecord("expiry", -time.Second))
	if _, err := s.Get(t.Context(), past.Fingerprint); !errors.Is(err, ErrNoSession) {
		t.Errorf("an expired session answers %v", err)
	}
	soon := mustPut(t, s, newRecord("expiry", 20*time.Millisecond))
	stays := mustPut(t, s, newRecord("expiry", time.Hour))
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
	r := mustPut(t, s, newRecord("touch", time.Minute))
	later := time.Now().Add(time.Hour)
	if err := s.Touch(ctx, &r.Session, later); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(ctx, r.Fingerprint)
	if err != nil || got.Expires.Sub(later).Abs() > time.Second || !bytes.Equal(got.SealedKey, r.SealedKey) {
		t.Errorf("touched until %v, got %+v, %v", later, got, err)
	}
	gone := newRecord("touch", time.Minute)
	if err := s.Touch(ctx, &gone.Session, later); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, gone.Fingerprint); !errors.Is(err, ErrNoSession) {
		t.Errorf("Touch made a session: %v", err)
	}
	wantSessions(t, s, "touch", r)
}

func contractByUser(t *testing.T, s Store) {
	a1, a2 := mustPut(t, s, newRecord("user-a", time.Hour)), mustPut(t, s, newRecord("user-a", time.Hour))
	near := mustPut(t, s, newRecord("user-ab", time.Hour)) // not a prefix match
	wantSessions(t, s, "user-a", a1, a2)
	wantSessions(t, s, "user", []*Record{}...)
	wantSessions(t, s, "user-a\x00", []*Record{}...)
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
	records := make([]*Record, 64)
	var all sync.WaitGroup
	for i := range records {
		records[i] = newRecord("crowd", time.Hour)
		all.Go(func() {
			if err := s.Put(t.Context(), records[i]); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				if err := s.Touch(t.Context(), &records[i].Session, time.Now().Add(2*time.Hour)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	wantSessions(t, s, "crowd", records...)
}

func contractCancelled(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := newRecord("cancelled", time.Hour)
	for name, err := range callAll(ctx, s, r) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want the cancellation", name, err)
		}
	}
}

func contractAway(t *testing.T, s Store) {
	ctx := t.Context()
	errs := callAll(ctx, s, newRecord("away", time.Hour))
	errs["Ping"] = s.Ping(ctx)
	for name, err := range errs {
		if e := fault.Of(err); e.Kind != fault.Unavailable || e.Code != "sessions_unavailable" {
			t.Errorf("%s: %v, want sessions_unavailable", name, err)
		}
	}
}

func callAll(ctx context.Context, s Store, r *Record) map[string]error {
	_, get := s.Get(ctx, r.Fingerprint)
	_, list := s.ListByUser(ctx, r.User.OpenID)
	_, deleteByUser := s.DeleteByUser(ctx, r.User.OpenID, EndRevoked)
	return map[string]error{
		"Put": s.Put(ctx, r), "Get": get, "Touch": s.Touch(ctx, &r.Session, r.Expires),
		"Delete":     s.Delete(ctx, SessionEnd{r.Fingerprint, r.User, EndLogout}),
		"ListByUser": list, "DeleteByUser": deleteByUser,
	}
}
