package auth

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

// blockStore counts questions about blocks, and may hold an answer back.
type blockStore struct {
	Store
	asked atomic.Int64
	hold  func()
}

func (b *blockStore) Blocked(ctx context.Context, openID string) (*Block, error) {
	b.asked.Add(1)
	block, err := b.Store.Blocked(ctx, openID)
	if b.hold != nil {
		b.hold()
	}
	return block, err
}

func (e *env) wantBlocked(openID string, want bool) *Block {
	e.t.Helper()
	b, err := e.Blocked(e.t.Context(), openID)
	if err != nil || (b != nil) != want {
		e.t.Errorf("blocked %+v, %v, want %v", b, err, want)
	}
	return b
}

// The answer is remembered for as long as Verify remembers, and no longer than
// the block lasts; block and unblock count at once.
func TestBlockedIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &blockStore{Store: first(newFileStore(t))}
		e := newEnv(t, store, func(o *Options) { o.Settings.Session.VerifyCache = time.Minute })
		wantAsked := func(n int64) {
			t.Helper()
			if got := store.asked.Swap(0); got != n {
				t.Errorf("the store was asked %d times, want %d", got, n)
			}
		}
		for range 10 {
			e.wantBlocked("u1", false)
			e.wantBlocked("u2", false)
		}
		wantAsked(2)
		if _, err := e.Block(t.Context(), "u1", "spam", time.Now().Add(90*time.Second)); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			wantFault(t, e.wantBlocked("u1", true).Fault(), "user_blocked")
			e.wantBlocked("u2", false)
		}
		wantAsked(1)
		if err := e.Unblock(t.Context(), "u1"); err != nil {
			t.Fatal(err)
		}
		e.wantBlocked("u1", false)
		wantAsked(1)
		if _, err := e.Block(t.Context(), "u1", "", time.Now().Add(30*time.Second)); err != nil {
			t.Fatal(err)
		}
		e.wantBlocked("u1", true)
		time.Sleep(30 * time.Second)
		e.wantBlocked("u1", false)
		time.Sleep(time.Minute)
		e.wantBlocked("u1", false)
		wantAsked(3)
		for _, odd := range []string{"", "user@example.com", "a{b}", "a b"} {
			e.wantBlocked(odd, false)
		}
		wantAsked(0)
	})
}

// An answer from before a block is not given to who asks after it.
func TestBlockedAskedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &blockStore{Store: first(newFileStore(t))}
		e := newEnv(t, store)
		answer := make(chan struct{})
		store.hold = func() { store.hold = nil; <-answer }
		early := make(chan *Block)
		go func() {
			b, _ := e.Blocked(t.Context(), "u")
			early <- b
		}()
		synctest.Wait()
		if _, err := e.Block(t.Context(), "u", "", time.Time{}); err != nil {
			t.Fatal(err)
		}
		late := make(chan *Block, 1)
		go func() {
			b, _ := e.Blocked(t.Context(), "u")
			late <- b
		}()
		synctest.Wait()
		select {
		case b := <-late:
			if b == nil {
				t.Error("not blocked")
			}
		default:
			t.Error("who asks after the block waits for an answer from before")
		}
		close(answer)
		if b := <-early; b != nil {
			t.Errorf("asked before, answered %+v", b)
		}
		e.wantBlocked("u", true)
	})
}

// A block is heard of on every node, also that of a user who has no session
// at all, and so is its end; what a node remembers is forgotten.
func TestBlockReachesTheOtherNode(t *testing.T) {
	server := testdeps.StartRedis(t)
	var both []*env
	var heard []chan BlockChange
	for range 2 {
		e := newEnv(t, NewRedisStore(newRedisClient(t, server.Addr), "test"), func(o *Options) { o.Settings.Session.VerifyCache = time.Minute })
		changes := make(chan BlockChange, 16)
		e.OnBlock(func(c BlockChange) { changes <- c })
		e.OnEnd(func(end SessionEnd) { t.Errorf("ended %+v", end) })
		run(t, e.Run)
		both, heard = append(both, e), append(heard, changes)
	}
	awaitListeners(t, both[0].store.(*RedisStore), 2)
	for _, e := range both {
		e.wantBlocked("nobody", false)
	}
	for i, want := range []bool{true, false, true, true, false, false} {
		start := time.Now()
		var err error
		if want {
			_, err = both[i%2].Block(t.Context(), "nobody", "", time.Time{})
		} else {
			err = both[i%2].Unblock(t.Context(), "nobody")
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, changes := range heard {
			if c := <-changes; c != (BlockChange{"nobody", want}) {
				t.Errorf("heard %+v, want blocked %v", c, want)
			}
		}
		t.Logf("the other node knew after %v", time.Since(start))
		for _, e := range both {
			e.wantBlocked("nobody", want)
		}
	}
	if n := len(heard[0]) + len(heard[1]); n != 0 {
		t.Errorf("%d changes were told twice", n)
	}
	server.Kill()
	for _, e := range both {
		e.wantBlocked("nobody", false) // remembered
		_, err := e.Blocked(t.Context(), "somebody")
		wantFault(t, err, "sessions_unavailable")
		if _, err := e.Block(t.Context(), "nobody", "", time.Time{}); err == nil {
			t.Error("blocked without a store")
		}
		_, err = e.Blocked(t.Context(), "nobody")
		wantFault(t, err, "sessions_unavailable") // nobody knows what came of it
	}
	if n := len(heard[0]) + len(heard[1]); n != 0 {
		t.Errorf("%d changes were told that did not come about", n)
	}
}

// Where there are sessions, both are told.
func TestBlockTellsOfUserAndSessions(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	var told []string
	e.OnBlock(func(c BlockChange) { told = append(told, c.OpenID) })
	e.OnEnd(func(end SessionEnd) { told = append(told, string(end.Reason)) })
	_, s := e.mustLogin("ann")
	if _, err := e.Block(t.Context(), s.User.OpenID, "", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"blocked", s.User.OpenID}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
