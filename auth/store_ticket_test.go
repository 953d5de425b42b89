package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/testdeps"
)

func newTicketID() (id TicketID) {
	_, _ = rand.Read(id[:])
	return id
}

func wantUse(t *testing.T, s Store, id TicketID, expires time.Time, want bool) {
	t.Helper()
	if first, err := s.UseTicket(t.Context(), id, expires); err != nil || first != want {
		t.Errorf("first %v, %v; want %v", first, err, want)
	}
}

// TestUseTicketContract runs one suite over both stores.
func TestUseTicketContract(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) Store{
		"file":  func(t *testing.T) Store { s, _ := newFileStore(t); return s },
		"redis": func(t *testing.T) Store { return newRedisStore(t) },
	} {
		t.Run(name, func(t *testing.T) {
			s, expires := open(t), time.Now().Add(time.Minute)
			one, two := newTicketID(), newTicketID()
			wantUse(t, s, one, expires, true)
			wantUse(t, s, one, expires, false)
			wantUse(t, s, two, expires, true)
			wantUse(t, s, one, expires.Add(time.Hour), false)
			cancelled, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := s.UseTicket(cancelled, newTicketID(), expires); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want the cancellation", err)
			}
		})
	}
}

// What one node lets in no other does; and nothing stays in Redis for ever.
func TestUseTicketOnTwoNodes(t *testing.T) {
	server := testdeps.StartRedis(t)
	client := newRedisClient(t, server.Addr)
	a, b := NewRedisStore(client, "test"), NewRedisStore(newRedisClient(t, server.Addr), "test")
	id := newTicketID()
	wantUse(t, a, id, time.Now().Add(time.Minute), true)
	wantUse(t, b, id, time.Now().Add(time.Minute), false)
	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("keys %v, %v", keys, err)
	}
	if ttl := client.PTTL(t.Context(), keys[0]).Val(); ttl < time.Minute || ttl > time.Minute+nodeSkew {
		t.Errorf("a used ticket is kept for %v", ttl)
	}
	server.Kill()
	if _, err := a.UseTicket(t.Context(), newTicketID(), time.Now().Add(time.Minute)); fault.Of(err).Code != "sessions_unavailable" {
		t.Errorf("without Redis: %v", err)
	}
}

func TestUsedTicketsAreBounded(t *testing.T) {
	var u usedTickets
	now := time.Now()
	add := func(i int, at time.Time) (bool, error) {
		return u.add(TicketID{byte(i), byte(i >> 8), byte(i >> 16)}, now.Add(time.Minute), at)
	}
	for i := range maxUsedTickets {
		if first, err := add(i, now); !first || err != nil {
			t.Fatal(i, first, err)
		}
	}
	if _, err := add(maxUsedTickets, now); fault.Of(err).Code != "tickets_busy" {
		t.Errorf("a full set answers %v", err)
	}
	if first, err := add(0, now); first || err != nil {
		t.Errorf("a member of a full set: %v, %v", first, err)
	}
	later := now.Add(time.Minute)
	if first, err := add(maxUsedTickets, later); !first || err != nil || len(u.until) != 1 {
		t.Errorf("after all have expired: %v, %v, %d members", first, err, len(u.until))
	}
}
