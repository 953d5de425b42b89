package gateway

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
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
