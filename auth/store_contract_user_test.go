package auth

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func contractLimit(t *testing.T, s Store) {
	o := opening(newSession("limit", time.Hour))
	o.Limit = 3
	if replaced, err := s.Open(t.Context(), o); len(replaced) != 0 || err != nil {
		t.Fatal(replaced, err)
	}
	first, rest := o.Session, []*Session{}
	for range 3 {
		o := opening(newSession("limit", time.Hour))
		o.Limit = 3
		replaced, err := s.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if rest = append(rest, &o.Session); len(rest) == 3 {
			if want := []SessionEnd{{first.Fingerprint, first.User, EndReplaced}}; !slices.Equal(replaced, want) {
				t.Errorf("replaced %v, want the oldest, %v", replaced, want)
			}
		}
	}
	if _, err := s.Get(t.Context(), first.Fingerprint); !errors.Is(err, ErrNoSession) {
		t.Errorf("a replaced session answers %v", err)
	}
	wantSessions(t, s, "limit", rest...)
}

// A session takes no place from the millisecond on at which it is not found.
func contractLimitExpiry(t *testing.T, s Store) {
	stays := mustOpen(t, s, newSession("brief", time.Hour))
	for range 10 {
		brief := mustOpen(t, s, newSession("brief", 5*time.Millisecond))
		await(t, "a session has expired", func() bool {
			_, err := s.Get(t.Context(), brief.Fingerprint)
			return errors.Is(err, ErrNoSession)
		})
		next := opening(newSession("brief", time.Hour))
		next.Limit = 2
		if replaced, err := s.Open(t.Context(), next); len(replaced) != 0 || err != nil {
			t.Fatalf("an expired session made %v leave, %v", replaced, err)
		}
		wantSessions(t, s, "brief", stays, &next.Session)
		if err := s.Delete(t.Context(), SessionEnd{next.Session.Fingerprint, next.Session.User, EndLogout}); err != nil {
			t.Fatal(err)
		}
	}
}

// However many log in at once, exactly the limit remains, and each session
// that had to go is somebody's.
func contractLimitAtOnce(t *testing.T, s Store) {
	const limit, logins = 5, 40
	var ended atomic.Int64
	var all sync.WaitGroup
	for range logins {
		all.Go(func() {
			o := opening(newSession("rush", time.Hour))
			o.Limit = limit
			replaced, err := s.Open(t.Context(), o)
			if err != nil {
				t.Error(err)
			}
			ended.Add(int64(len(replaced)))
		})
	}
	all.Wait()
	list, err := s.ListByUser(t.Context(), "rush")
	if err != nil || len(list) != limit {
		t.Errorf("%d sessions remain, want %d: %v", len(list), limit, err)
	}
	if n := ended.Load(); n < logins-limit { // two logins may both report the end of one
		t.Errorf("%d ends were reported, want at least %d", n, logins-limit)
	}
}

func contractKeys(t *testing.T, s Store) {
	var keys []SealedKey
	add := func(tag byte, issued time.Time) {
		t.Helper()
		o := opening(newSession("keys", time.Hour))
		o.Key = SealedKey{Tag: [8]byte{tag}, Issued: issued, Sealed: fmt.Appendf(nil, "\x00%d", len(keys))}
		if _, err := s.Open(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	want := func(order ...int) {
		t.Helper()
		ring, err := s.Keys(t.Context(), "keys")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(ring, order, func(k SealedKey, i int) bool {
			return k.Tag == keys[i].Tag && k.Issued.Equal(keys[i].Issued) && bytes.Equal(k.Sealed, keys[i].Sealed)
		}) {
			t.Errorf("the ring holds %v, want those of the logins %v", ring, order)
		}
	}
	want()
	now := time.UnixMilli(time.Now().UnixMilli())
	add(1, now)
	add(2, now)
	want(1, 0)
	add(1, now.Add(time.Second)) // the same key again
	want(2, 1)
	add(3, now)
	add(4, now)
	want(4, 3, 2)
	if _, err := s.DeleteByUser(t.Context(), "keys", EndRevoked); err != nil {
		t.Fatal(err)
	}
	want(4, 3, 2) // data that was encrypted before may still arrive
	replace := func(i int) {
		t.Helper()
		if err := s.ReplaceKeys(t.Context(), "keys", keys[i]); err != nil {
			t.Fatal(err)
		}
		want(i)
	}
	replace(0)
	replace(0)
	add(5, now.Add(time.Second))
	want(5, 0)
	add(4, now.Add(time.Second)) // of a login that was under way
	want(5, 0)
	replace(1)
	add(5, now.Add(time.Second))
	want(1)
	add(4, now.Add(time.Second)) // of an earlier replacement
	want(1)
	replace(0) // what is put there lives, whatever was
	add(1, now.Add(2*time.Second))
	want(9)
	for tag := range byte(2 * maxEndedKeys) {
		keys = append(keys, SealedKey{Tag: [8]byte{100 + tag}, Issued: now, Sealed: []byte("x")})
		replace(len(keys) - 1)
	}
	add(100, now) // so many are not kept
	want(len(keys)-1, len(keys)-2)
}

func contractBlock(t *testing.T, s Store) {
	ctx := t.Context()
	a, b := mustOpen(t, s, newSession("bad", time.Hour)), mustOpen(t, s, newSession("bad", time.Hour))
	good := mustOpen(t, s, newSession("badger", time.Hour))
	if got, err := s.Blocked(ctx, "bad"); got != nil || err != nil {
		t.Errorf("nobody blocked: %v, %v", got, err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	block := Block{Reason: "spam", Since: now, Until: now.Add(time.Hour)}
	ends, err := s.Block(ctx, "bad", block)
	want := []SessionEnd{{a.Fingerprint, a.User, EndBlocked}, {b.Fingerprint, b.User, EndBlocked}}
	if !slices.Equal(ends, want) || err != nil {
		t.Errorf("ended %v, %v, want %v", ends, err, want)
	}
	wantSessions(t, s, "bad")
	wantSessions(t, s, "badger", good)
	if got, err := s.Blocked(ctx, "bad"); err != nil || *got != block {
		t.Errorf("blocked as %v, %v, want %v", got, err, block)
	}
	refused := newSession("bad", time.Hour)
	_, err = s.Open(ctx, opening(refused))
	wantFault(t, err, "user_blocked")
	if _, err := s.Get(ctx, refused.Fingerprint); !errors.Is(err, ErrNoSession) {
		t.Errorf("a refused session answers %v", err)
	}
	wantSessions(t, s, "bad")
	for range 2 { // the second time there is none
		if err := s.Unblock(ctx, "bad"); err != nil {
			t.Error(err)
		}
	}
	mustOpen(t, s, newSession("bad", time.Hour))
	contractBlockExpiry(t, s)
}

func contractBlockExpiry(t *testing.T, s Store) {
	ctx, now := t.Context(), time.Now()
	for _, b := range []Block{{Until: now.Add(time.Hour)}, {}, {Until: now.Add(20 * time.Millisecond)}} { // each replaces the one before
		if _, err := s.Block(ctx, "soon", b); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "a block has expired", func() bool {
		b, err := s.Blocked(ctx, "soon")
		if err != nil {
			t.Fatal(err)
		}
		return b == nil
	})
	if early := time.Until(now.Add(20 * time.Millisecond)); early > 5*time.Millisecond {
		t.Errorf("a block was gone %v before its time", early)
	}
	mustOpen(t, s, newSession("soon", time.Hour))
}

// A login and a block at the same moment: whichever comes first, no session
// is left.
func contractBlockRace(t *testing.T, s Store) {
	for i := range 20 {
		openID := fmt.Sprintf("race-%d", i)
		var tokens [4]*Session
		var all sync.WaitGroup
		for j := range tokens {
			tokens[j] = newSession(openID, time.Hour)
			all.Go(func() {
				if _, err := s.Open(t.Context(), opening(tokens[j])); err != nil {
					wantFault(t, err, "user_blocked")
				}
			})
		}
		all.Go(func() {
			if _, err := s.Block(t.Context(), openID, Block{}); err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		for _, ses := range tokens {
			if _, err := s.Get(t.Context(), ses.Fingerprint); !errors.Is(err, ErrNoSession) {
				t.Errorf("a session of a blocked user answers %v", err)
			}
		}
	}
}

func contractClaim(t *testing.T, s Store) {
	ctx := t.Context()
	claim := func(name string, life time.Duration) (string, bool) {
		t.Helper()
		value, claimed, err := s.Claim(ctx, name, life)
		if err != nil {
			t.Fatal(err)
		}
		if (value != nil) == (len(value) == 0) {
			t.Errorf("claim %s answered %#v, want nil or something", name, value)
		}
		return string(value), claimed
	}
	want := func(gotValue string, got bool, wantValue string, want bool) {
		t.Helper()
		if got != want || gotValue != wantValue {
			t.Errorf("claimed %v with %q, want %v with %q", got, gotValue, want, wantValue)
		}
	}
	var winners atomic.Int64
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, claimed, err := s.Claim(ctx, "crowd", time.Hour); err != nil {
				t.Error(err)
			} else if claimed {
				winners.Add(1)
			}
		})
	}
	all.Wait()
	if n := winners.Load(); n != 1 {
		t.Errorf("%d of 20 claimed the same", n)
	}
	if err := s.Settle(ctx, "crowd", []byte("\x00done"), time.Hour); err != nil {
		t.Fatal(err)
	}
	v, ok := claim("crowd", time.Hour)
	want(v, ok, "\x00done", false)
	for range 2 {
		if err := s.Release(ctx, "crowd"); err != nil {
			t.Error(err)
		}
	}
	v, ok = claim("crowd", 20*time.Millisecond)
	want(v, ok, "", true)
	await(t, "a claim has expired", func() bool { _, ok := claim("crowd", time.Hour); return ok })
	if err := s.Settle(ctx, "brief", []byte("x"), 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	await(t, "a settled value has expired", func() bool { _, ok := claim("brief", time.Hour); return ok })
}
