package wechat

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/wxsim"
)

const callsInParallel = 50

// everybody calls from several nodes at once.
func (b *bench) everybody(nodes ...*Client) {
	b.t.Helper()
	var group sync.WaitGroup
	for range callsInParallel {
		for _, node := range nodes {
			group.Go(func() { wantFault(b.t, node.CheckSession(b.t.Context(), b.openID, b.key), "") })
		}
	}
	group.Wait()
}

// tokenCalls is how often a token was fetched since before.
func (b *bench) tokenCalls(before *int) int {
	n := b.sim.Calls(apiStableToken.path)
	defer func() { *before = n }()
	return n - *before
}

func TestOneNodeFetchesTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fetched := newBench(t), 0
		nodes := []*Client{b.Client, b.another(), b.another()}
		b.everybody(nodes...)
		if n := b.tokenCalls(&fetched); n != 1 {
			t.Errorf("the first token was fetched %d times", n)
		}
		time.Sleep(114 * time.Minute)
		b.everybody(nodes...)
		if n := b.tokenCalls(&fetched); n != 0 {
			t.Errorf("fetched %d times while the token is good", n)
		}
		time.Sleep(time.Minute + time.Second) // five minutes are left
		b.everybody(nodes...)
		if n := b.tokenCalls(&fetched); n != 1 {
			t.Errorf("renewed %d times", n)
		}
		time.Sleep(5 * time.Minute) // the old one is over
		b.everybody(nodes...)
		if n := b.tokenCalls(&fetched); n != 0 {
			t.Errorf("fetched %d times after that", n)
		}
	})
}

// While the token is renewed nobody waits for that.
func TestOldTokenServesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.everybody(b.Client)
		time.Sleep(116 * time.Minute)
		b.sim.Script(apiStableToken.path, wxsim.Trouble{Hang: true}, wxsim.Trouble{Code: -1}, wxsim.Trouble{Code: -1}, wxsim.Trouble{Code: -1})
		renewing := make(chan error, 1)
		go func() { renewing <- b.CheckSession(t.Context(), b.openID, b.key) }()
		synctest.Wait()
		start := time.Now()
		wantFault(t, b.CheckSession(t.Context(), b.openID, b.key), "")
		if took := time.Since(start); took != 0 {
			t.Errorf("a call waited %v for the token", took)
		}
		wantFault(t, <-renewing, "") // gave up on it, with half of its time left
		if took := time.Since(start); took != b.Timeout()/2 {
			t.Errorf("the one who renews waited %v", took)
		}
		time.Sleep(tokenLook)
		wantFault(t, b.CheckSession(t.Context(), b.openID, b.key), "") // WeChat is busy: still the old one
	})
}

// What WeChat refuses is dropped and fetched anew, once, on one node.
func TestRefusedToken(t *testing.T) {
	for _, code := range []int{40001, 40014, 42001} {
		synctest.Test(t, func(t *testing.T) {
			b, fetched := newBench(t), 0
			nodes := []*Client{b.Client, b.another()}
			b.everybody(nodes...)
			b.killToken()
			b.tokenCalls(&fetched)
			b.everybody(nodes...)
			if n := b.tokenCalls(&fetched); n != 1 {
				t.Errorf("%d: fetched %d times", code, n)
			}
			refused := wxsim.Trouble{Code: code, Msg: "invalid credential"}
			b.sim.Script(apiCheckSession.path, refused)
			wantFault(t, b.CheckSession(t.Context(), b.openID, b.key), "")
			before := b.sim.Calls(apiCheckSession.path)
			b.sim.Script(apiCheckSession.path, refused, refused)
			wantFault(t, b.CheckSession(t.Context(), b.openID, b.key), "wechat_error")
			if n := b.sim.Calls(apiCheckSession.path) - before; n != 2 {
				t.Errorf("%d: asked %d times", code, n)
			}
		})
	}
}

// killToken has somebody else force a refresh.
func (b *bench) killToken() {
	b.t.Helper()
	var a struct{}
	err := b.persist(b.t.Context(), apiStableToken, nil, map[string]any{
		"grant_type": "client_credential", "appid": appID, "secret": secret, "force_refresh": true,
	}, &a)
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestTokenWithoutClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fetched := newBench(t), 0
		b.claims.away = errors.New("away")
		b.everybody(b.Client)
		if n := b.tokenCalls(&fetched); n != 1 {
			t.Errorf("a node alone fetched %d times", n)
		}
	})
}

// A node that died with the lease does not hold up the others for long.
func TestLeaseOfADeadNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		if _, claimed, _ := b.claims.Claim(t.Context(), "access_token/"+appID, leaseLife); !claimed {
			t.Fatal("not claimed")
		}
		start := time.Now()
		b.everybody(b.Client)
		if took := time.Since(start); took > leaseWait+leasePoll {
			t.Errorf("waited %v", took)
		}
	})
}

// The one who fetches may hang up: the others still get their token.
func TestFirstCallerHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.sim.Script(apiStableToken.path, wxsim.Trouble{Code: -1})
		ctx, hangUp := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- b.CheckSession(ctx, b.openID, b.key) }()
		synctest.Wait()
		go func() { second <- b.CheckSession(t.Context(), b.openID, b.key) }()
		synctest.Wait()
		hangUp()
		wantFault(t, <-second, "")
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("who hung up got %v", err)
		}
	})
}

func TestOddTokens(t *testing.T) {
	b := newBench(t)
	for _, body := range []string{`{}`, `{"access_token":"","expires_in":7200}`, `{"access_token":"x","expires_in":0}`, `{"access_token":"x","expires_in":"many"}`} {
		b.sim.Script(apiStableToken.path, wxsim.Trouble{Body: body})
		wantFault(t, b.CheckSession(t.Context(), b.openID, b.key), "wechat_error")
	}
	b.sim.Script(apiStableToken.path, wxsim.Trouble{Code: 40001, Msg: "invalid credential"})
	wantFault(t, b.CheckSession(t.Context(), b.openID, b.key), "wechat_config") // here it means the secret
}
