package gateway

import (
	"context"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/minigate/minigate/auth"
)

// userIndex sees what the hub tells its engine about users.
type userIndex struct {
	mu    sync.Mutex
	count map[string]int
	asked []string
	news  sync.Cond
	away  atomic.Bool
}

func (e *flakyEngine) AddUser(_ context.Context, user string) error {
	e.users.add(user, 1)
	if e.users.away.Load() {
		return errEngineAway
	}
	return nil
}

func (e *flakyEngine) RemoveUser(user string) { e.users.add(user, -1) }

func (e *flakyEngine) SurveyUser(ctx context.Context, user, op string, payload []byte) ([][]byte, error) {
	e.users.mu.Lock()
	e.users.asked = append(e.users.asked, user)
	e.users.mu.Unlock()
	return e.Memory.SurveyUser(ctx, user, op, payload)
}

func (i *userIndex) add(user string, n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.count == nil {
		i.count = make(map[string]int)
	}
	i.count[user] += n
	i.news.L = &i.mu
	i.news.Broadcast()
}

// await waits until user has n connections.
func (i *userIndex) await(user string, n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.news.L = &i.mu
	for i.count[user] != n {
		i.news.Wait()
	}
}

// The engine knows where a user is for as long as a connection is there, and a
// connection does not depend on that.
func TestWhereUsersAre(t *testing.T) {
	h := startHub(t, nil)
	users := &h.engine.users
	w, _ := h.login("alice/1")
	v, _ := h.login("alice/2")
	users.await("alice", 2)
	users.away.Store(true)
	h.login("bob") // while Redis is away
	users.await("bob", 1)
	users.away.Store(false)
	_ = w.conn.CloseNow()
	users.await("alice", 1)
	if err := h.Disconnect(t.Context(), "alice", DisconnectOptions{}); err != nil {
		t.Fatal(err)
	}
	v.wantEnd(DisconnectForced)
	users.await("alice", 0)
	if err := h.Unsubscribe(t.Context(), "bob", "", Selection{}); err != nil {
		t.Fatal(err)
	}
	users.mu.Lock()
	defer users.mu.Unlock()
	if got := strings.Join(users.asked, " "); got != "alice bob" {
		t.Fatalf("asked for %q", got)
	}
}

// attendance is what a hub tells of users: connections of each, and their
// appids.
type attendance struct {
	mu    sync.Mutex
	count map[string]int
	calls int
}

func (a *attendance) listen(o *Options) {
	a.count = map[string]int{}
	o.Arrived = func(u auth.User) { a.add(u, 1) }
	o.Left = func(u auth.User) { a.add(u, -1) }
}

func (a *attendance) add(u auth.User, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count[u.AppID+"/"+u.OpenID] += n
	a.calls++
}

func (a *attendance) want(t *testing.T, calls int, want map[string]int) {
	t.Helper()
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !maps.Equal(a.count, want) || a.calls != calls {
		t.Errorf("told %v by %d calls, want %v by %d", a.count, a.calls, want, calls)
	}
}

// Who was let in is told of once, and once more when he is gone, however that
// comes; nobody is not.
func TestArrivedAndLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var there attendance
		h := startHub(t, func(s *Settings) {
			withJWT(s)
			anonymous(s)
			s.Client.UserConnectionLimit = 2
		}, there.listen)
		h.nobodyConnects()
		h.dial(dialOptions{}) // and says nothing
		bad := h.dial(dialOptions{})
		bad.send(`{"id":1,"connect":{"token":"malformed"}}`)
		bad.wantEnd(DisconnectInvalidToken)
		one, _ := h.login("mg_alice/1")
		h.login("mg_alice/2")
		third := h.dial(dialOptions{})
		third.send(`{"id":1,"connect":{"token":"mg_alice/3"}}`)
		third.wantEnd(DisconnectConnectionLimit)
		h.loginJWT(object{"sub": "jwt"})
		there.want(t, 3, map[string]int{"wx1/mg_alice": 2, "/jwt": 1})
		one.send(`{"id":2,"refresh":{"token":"mg_alice/9"}}`)
		one.want(`{"id":2,"refresh":{}}`)
		_ = one.conn.CloseNow()
		there.want(t, 4, map[string]int{"wx1/mg_alice": 1, "/jwt": 1})
		h.EndUser("jwt", DisconnectForced)
		there.want(t, 5, map[string]int{"wx1/mg_alice": 1, "/jwt": 0})
		if err := h.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		there.want(t, 6, map[string]int{"wx1/mg_alice": 0, "/jwt": 0})
	})
}
