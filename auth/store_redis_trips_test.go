package auth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/redis/go-redis/v9"
)

// slowTrips is a client whose round trips wait to be let go.
type slowTrips struct {
	begun chan int // commands in it
	gate  chan error
	most  atomic.Int64
	now   atomic.Int64
}

func (s *slowTrips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *slowTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (s *slowTrips) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error {
		s.most.Store(max(s.most.Load(), s.now.Add(1)))
		defer s.now.Add(-1)
		s.begun <- len(cmds)
		err := <-s.gate
		for _, cmd := range cmds {
			cmd.SetErr(err)
			if get, ok := cmd.(*redis.StringCmd); ok && err == nil {
				get.SetVal("value of " + get.Args()[1].(string))
			}
		}
		return err
	}
}

func (s *slowTrips) client(t *testing.T) redis.UniversalClient {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", Dialer: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("there is no network")
	}})
	t.Cleanup(func() { _ = client.Close() })
	client.AddHook(s)
	return client
}

// Very many callers share a few round trips, each gets its own answer, and who
// goes away holds up nobody.
func TestTripsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowTrips{begun: make(chan int, 100), gate: make(chan error)}
		client := slow.client(t)
		trips := trips{client: client}
		var callers sync.WaitGroup
		ask := func(ctx context.Context, i int) {
			callers.Go(func() {
				cmd := redis.NewStringCmd(ctx, "get", fmt.Sprint("k", i))
				err := trips.do(ctx, cmd)
				switch {
				case ctx.Err() != nil:
					if err == nil {
						t.Error("who left was answered")
					}
				case err != nil || cmd.Err() != nil || cmd.Val() != fmt.Sprint("value of k", i):
					t.Errorf("%d: %q, %v, %v", i, cmd.Val(), err, cmd.Err())
				}
			})
		}
		for i := range tripsAtOnce {
			ask(t.Context(), i)
			synctest.Wait()
		}
		gone, leave := context.WithCancel(t.Context())
		for i := range 3 * tripSize {
			ask(t.Context(), 1000+i)
			if i%3 == 0 {
				ask(gone, 5000+i)
			}
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		total := 0
		for trip := range tripsAtOnce + 3 {
			slow.gate <- nil
			synctest.Wait()
			n := <-slow.begun
			if total += n; trip < tripsAtOnce && n != 1 || n > tripSize {
				t.Errorf("trip %d was for %d", trip, n)
			}
		}
		callers.Wait()
		if want := tripsAtOnce + 3*tripSize; total != want || slow.most.Load() != tripsAtOnce || trips.under != 0 || len(trips.waiting) != 0 {
			t.Errorf("%d of %d in trips, %d at once, %d under way, %d wait", total, want, slow.most.Load(), trips.under, len(trips.waiting))
		}
		down := redis.NewStringCmd(t.Context(), "get", "k")
		callers.Go(func() {
			if err := trips.do(t.Context(), down); err != nil {
				t.Error(err)
			}
		})
		slow.gate <- errors.New("Redis is away")
		callers.Wait()
		if failure(down) == nil {
			t.Error("a failure was lost")
		}
	})
}

// Who was called to make the next round trip and goes away instead has another
// one called.
func TestTripsGoOnWithoutWhoLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowTrips{begun: make(chan int, 100), gate: make(chan error)}
		client := slow.client(t)
		trips := trips{client: client, under: tripsAtOnce}
		left := &trip{turn: make(chan bool, 2), called: true} // and does not know yet
		left.turn <- true
		trips.waiting = []*trip{left}
		var callers sync.WaitGroup
		callers.Go(func() {
			if err := trips.do(t.Context(), redis.NewStringCmd(t.Context(), "get", "b")); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		trips.leave(left)
		slow.gate <- nil
		callers.Wait()
		if n := <-slow.begun; n != 1 || trips.under != tripsAtOnce-1 {
			t.Errorf("a trip for %d, %d under way", n, trips.under)
		}
	})
}
