package gateway

import (
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

// BenchmarkIdleClient tells what an idle client keeps alive: one that has
// logged in, with its personal channel and one that all share. What its socket
// takes is not in it, nor what the runtime adds to each.
func BenchmarkIdleClient(b *testing.B) {
	const clients = 10_000
	var held uint64
	for b.Loop() {
		held = holdClients(b, clients)
	}
	b.ReportMetric(float64(held)/clients, "B/client")
	b.ReportMetric(0, "ns/op")
}

// holdClients returns how many bytes are alive because of n idle clients.
func holdClients(b *testing.B, n int) uint64 {
	h := startHub(b, nil, func(o *Options) { o.Verify, o.Alive = loginOf, notNow })
	before := liveHeap()
	list := make([]*client, n)
	for i := range list {
		if h.clients.admit(0) != nil {
			b.Fatal("the hub takes no clients")
		}
		c := newClient(h.Hub, mute{})
		h.enroll(c)
		c.receive(fmt.Appendf(nil, `{"id":1,"connect":{"token":"user-%024d"}}`+"\n"+`{"id":2,"subscribe":{"channel":"feed:all"}}`, i))
		c.out.writer.Wait()
		if _, ok := c.describe(); !ok {
			b.Fatal("a client was not let in")
		}
		list[i] = c
	}
	held := liveHeap() - before - uint64(8*n)
	for _, c := range list {
		c.gone(cause{})
		h.clients.leave()
	}
	return held
}

func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools keep goes with the second
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// loginOf makes a login as the store gives it: nothing of it is shared.
func loginOf(_ context.Context, token string) (*auth.Session, error) {
	return &auth.Session{
		Fingerprint: sha256.Sum256([]byte(token)),
		User:        auth.User{AppID: "wx1", OpenID: string([]byte(token))},
		Created:     time.Now(), LastSeen: time.Now(), Expires: time.Now().Add(time.Hour),
	}, nil
}

// notNow keeps the session that a client has: another one would be shared with
// the cache of logins.
func notNow(context.Context, auth.Fingerprint) (*auth.Session, error) {
	return nil, fault.New(fault.Unavailable, "sessions_unavailable", "Logins cannot be checked now.")
}

// mute is a socket that takes everything.
type mute struct{}

func (mute) waits() bool                         { return false }
func (mute) write(_ []byte, _ bool) (int, error) { return 0, nil }
func (mute) close(uint32, string)                {}
func (mute) abort()                              {}
