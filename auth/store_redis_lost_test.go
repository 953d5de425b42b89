package auth

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/minigate/minigate/internal/testdeps"
)

// lossy is a way to Redis that loses the answer to one script: it is run, and
// the connection breaks.
type lossy struct {
	armed atomic.Bool
	lost  atomic.Int64
}

type lossyConn struct {
	net.Conn
	way *lossy
}

func (c lossyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && !bytes.HasPrefix(p[:n], []byte("-NOSCRIPT")) && c.way.armed.CompareAndSwap(true, false) {
		c.way.lost.Add(1)
		_ = c.Close()
		return 0, io.EOF
	}
	return n, err
}

// newLossyStore is a store whose client repeats commands as that of the
// program does.
func newLossyStore(t *testing.T) (*RedisStore, *lossy) {
	way, addr := new(lossy), testdeps.Redis(t)
	client := redis.NewClient(&redis.Options{Addr: addr, Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return lossyConn{conn, way}, err
	}})
	t.Cleanup(func() { _ = client.Close() })
	return NewRedisStore(client, "test"), way
}

// A claim whose answer got lost is made once more by the client, and is still
// ours; it is nobody else's.
func TestClaimOutlivesALostAnswer(t *testing.T) {
	s, way := newLossyStore(t)
	ctx := t.Context()
	if _, claimed, err := s.Claim(ctx, "warm", time.Minute); !claimed || err != nil { // the script is known, a connection open
		t.Fatal(claimed, err)
	}
	way.armed.Store(true)
	value, claimed, err := s.Claim(ctx, "code", time.Minute)
	if way.lost.Load() != 1 {
		t.Fatalf("%d answers were lost", way.lost.Load())
	}
	if !claimed || value != nil || err != nil {
		t.Errorf("claimed %v with %q, %v, after the answer got lost", claimed, value, err)
	}
	if value, claimed, err := s.Claim(ctx, "code", time.Minute); claimed || value != nil || err != nil {
		t.Errorf("somebody else claimed %v with %q, %v", claimed, value, err)
	}
}

func TestClaimTwiceByOneOwner(t *testing.T) {
	s := newRedisStore(t)
	want := func(owner, value string, claimed bool) {
		t.Helper()
		v, c, err := s.claim(t.Context(), "code", owner, time.Minute)
		if string(v) != value || c != claimed || err != nil {
			t.Errorf("%s claimed %v with %q, %v, want %v with %q", owner, c, v, err, claimed, value)
		}
	}
	want("a", "", true)
	want("a", "", true)
	want("b", "", false)
	want("a", "", true)
	if err := s.Settle(t.Context(), "code", []byte("ca"), time.Minute); err != nil { // looks like a claim of a
		t.Fatal(err)
	}
	want("a", "ca", false)
	want("b", "ca", false)
}

// A login goes through although the answer to its claim got lost.
func TestLoginOutlivesALostAnswer(t *testing.T) {
	s, way := newLossyStore(t)
	e := newEnv(t, s)
	if _, _, err := s.Claim(t.Context(), "warm", time.Minute); err != nil {
		t.Fatal(err)
	}
	way.armed.Store(true)
	token, _, err := e.Login(t.Context(), "", e.sim.NewCode(appA, "ann"))
	if err != nil || way.lost.Load() != 1 {
		t.Fatalf("%v, after %d answers got lost", err, way.lost.Load())
	}
	e.wantVerify(token, "")
}

// failing is a client's hook that has one kind of command fail.
type failing struct {
	name string
	err  error
	when func()
}

func (f *failing) DialHook(next redis.DialHook) redis.DialHook { return next }

func (f *failing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (f *failing) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !strings.HasPrefix(cmd.Name(), f.name) {
			return next(ctx, cmd)
		}
		f.when()
		cmd.SetErr(f.err)
		return f.err
	}
}

// A login that fails half way leaves no session behind, also where its caller
// has gone.
func TestFailedLoginLeavesNoRecord(t *testing.T) {
	for _, step := range []string{"eval", "set"} {
		addr := testdeps.Redis(t)
		client, plain := newRedisClient(t, addr), newRedisClient(t, addr)
		s, ses := NewRedisStore(client, "test"), newSession("ann", time.Hour)
		ctx, hangUp := context.WithCancel(t.Context())
		key := s.sessionKey(ses.Fingerprint)
		client.AddHook(&failing{step, errors.New("injected"), func() {
			if step == "set" { // it was written, and the answer got lost
				plain.Set(context.Background(), key, "{}", time.Hour)
			}
			if n := plain.Exists(context.Background(), key).Val(); n != 1 {
				t.Errorf("%s: there is no record yet", step)
			}
			hangUp()
		}})
		_, err := s.Open(ctx, opening(ses))
		wantFault(t, err, "sessions_unavailable")
		if keys := plain.Keys(t.Context(), "test:*").Val(); len(keys) != 0 {
			t.Errorf("%s: left behind: %q", step, keys)
		}
	}
}

// List and record name the same end, to the millisecond, and Redis cleans both
// up after it by its own clock.
func TestListAndRecordExpireTogether(t *testing.T) {
	s := newRedisStore(t)
	ctx := t.Context()
	ses := mustOpen(t, s, newSession("ann", time.Hour))
	check := func() {
		t.Helper()
		got, err := s.Get(ctx, ses.Fingerprint)
		listed := s.client.ZScore(ctx, s.userKeys("ann").expiry, ses.Fingerprint.String()).Val()
		if err != nil || int64(listed) != got.Expires.UnixMilli() || !got.Expires.Equal(ses.Expires) {
			t.Errorf("listed until %d, the record says %+v, %v", int64(listed), got, err)
		}
		for _, key := range []string{s.sessionKey(ses.Fingerprint), s.userKeys("ann").expiry, s.userKeys("ann").logins} {
			left := s.client.PTTL(ctx, key).Val()
			if over := left - time.Until(ses.Expires); over < expiryGrace/2 || over > 2*expiryGrace {
				t.Errorf("%s is kept %v longer than the session", key, over)
			}
		}
	}
	check()
	ses.Expires = ses.Expires.Add(time.Hour)
	if err := s.Touch(ctx, []*Session{ses}); err != nil {
		t.Fatal(err)
	}
	check()
}
