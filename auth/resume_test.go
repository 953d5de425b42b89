package auth

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/minigate/minigate/internal/testdeps"
)

// noDial refuses new connections while it is on; those that exist stay.
type noDial struct {
	on    atomic.Bool
	tried atomic.Int64
}

func (d *noDial) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if d.on.Load() {
			d.tried.Add(1)
			return nil, errors.New("refused by the test")
		}
		return next(ctx, network, addr)
	}
}
func (d *noDial) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (d *noDial) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// What other nodes do while this one does not hear of it is looked up as soon
// as it hears again, however long answers are remembered.
func TestResume(t *testing.T) {
	addr := testdeps.Redis(t)
	client, gate := newRedisClient(t, addr), &noDial{}
	client.AddHook(gate)
	store := NewRedisStore(client, "test")
	here := newEnv(t, store, func(o *Options) { o.Settings.Session.VerifyCache = time.Hour })
	resumed := make(chan struct{}, 16)
	here.OnResume(func() { resumed <- struct{}{} })
	run(t, here.Run)
	<-resumed // also before its first messages a node misses some
	there := NewRedisStore(newRedisClient(t, addr), "test")

	token, ses := here.mustLogin("ann")
	kept, _ := here.mustLogin("bob")
	here.wantVerify(token, "")
	wantBlocked(t, here, "carol", false)

	gate.on.Store(true)
	if err := there.client.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	await(t, "the node tries to listen again", func() bool { return gate.tried.Load() > 0 })
	if err := there.Delete(t.Context(), SessionEnd{ses.Fingerprint, ses.User, EndRevoked}); err != nil {
		t.Fatal(err)
	}
	if _, err := there.Block(t.Context(), "carol", Block{}); err != nil {
		t.Fatal(err)
	}
	here.wantVerify(token, "") // it was not told
	wantBlocked(t, here, "carol", false)
	if len(resumed) > 0 {
		t.Fatal("the node says it hears while it cannot")
	}

	gate.on.Store(false)
	<-resumed
	here.wantVerify(token, "token_expired")
	here.wantVerify(kept, "")
	wantBlocked(t, here, "carol", true)
}

func wantBlocked(t *testing.T, e *env, user string, want bool) {
	t.Helper()
	if b, err := e.Blocked(t.Context(), user); err != nil || (b != nil) != want {
		t.Errorf("block of %s: %+v, %v", user, b, err)
	}
}

// heldStore answers Get only when it is let, with what it found before.
type heldStore struct {
	Store
	asked, let chan struct{}
}

func (s heldStore) Get(ctx context.Context, fp Fingerprint) (*Session, error) {
	ses, err := s.Store.Get(ctx, fp)
	s.asked <- struct{}{}
	<-s.let
	return ses, err
}

// Who asks after messages were lost does not get the answer to a question from
// before.
func TestResumeDuringLook(t *testing.T) {
	files, _ := newFileStore(t)
	store := heldStore{files, make(chan struct{}, 2), make(chan struct{})}
	e := newEnv(t, store)
	token, ses := e.mustLogin("ann")
	e.cache.clear()
	before := make(chan error, 1)
	go func() {
		_, err := e.Verify(t.Context(), token)
		before <- err
	}()
	<-store.asked
	if err := files.Delete(t.Context(), SessionEnd{ses.Fingerprint, ses.User, EndRevoked}); err != nil {
		t.Fatal(err)
	}
	e.resumed()
	after := make(chan error, 1)
	go func() {
		_, err := e.Verify(t.Context(), token)
		after <- err
	}()
	select {
	case <-store.asked: // it asks on its own
	case <-time.After(time.Minute):
		t.Error("it waits for the answer from before")
	}
	close(store.let)
	wantFault(t, <-before, "")
	wantFault(t, <-after, "token_expired")
	e.wantVerify(token, "token_expired")
}
