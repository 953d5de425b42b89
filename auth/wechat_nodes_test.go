package auth

import (
	"strings"
	"sync"
	"testing"

	"github.com/minigate/minigate/internal/testdeps"
)

// Two nodes with one Redis fetch one access token, and what Redis keeps of it
// is sealed.
func TestNodesShareTheAccessToken(t *testing.T) {
	server := testdeps.StartRedis(t)
	client := newRedisClient(t, server.Addr)
	one := newEnv(t, NewRedisStore(client, "test"))
	two := newEnv(t, NewRedisStore(newRedisClient(t, server.Addr), "test"), func(o *Options) { o.Transport = handlerTransport{one.sim} })
	_, s := one.mustLogin("ann")
	keys, err := one.sessionKeys(t.Context(), s.User)
	if err != nil || len(keys) == 0 {
		t.Fatal(keys, err)
	}
	call := func() {
		var group sync.WaitGroup
		for range 25 {
			for _, node := range []*env{one, two} {
				group.Go(func() { wantFault(t, node.WeChat(appA).CheckSession(t.Context(), s.User.OpenID, keys[0]), "") })
			}
		}
		group.Wait()
	}
	call()
	const path = "/cgi-bin/stable_token"
	if n := one.sim.Calls(path); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	names, err := client.Keys(t.Context(), "*access_token/"+appA).Result()
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	kept, err := client.Get(t.Context(), names[0]).Result()
	if err != nil || len(kept) < 136 || strings.Contains(kept, `"v"`) {
		t.Errorf("Redis keeps %q, %v", kept, err)
	}
	if ttl := client.TTL(t.Context(), names[0]).Val(); ttl.Minutes() < 100 || ttl.Minutes() > 115 {
		t.Errorf("for %v", ttl)
	}
	server.Kill() // each has its token, and a node that comes later gets one
	call()
	three := newEnv(t, NewRedisStore(newRedisClient(t, server.Addr), "test"), func(o *Options) { o.Transport = handlerTransport{one.sim} })
	wantFault(t, three.WeChat(appA).CheckSession(t.Context(), s.User.OpenID, keys[0]), "")
}
