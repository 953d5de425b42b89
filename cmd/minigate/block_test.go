package main

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/minigate/minigate/internal/testdeps"
)

const testJWTSecret = "a secret of more than thirty-two bytes"

// userJWT is a token with which a backend lets a user connect.
func userJWT(t testing.TB, user string) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": user}).SignedString([]byte(testJWTSecret))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// jwtConfig makes a node that takes such tokens; with a Redis, one of several.
func jwtConfig(t testing.TB, wechatURL, redis string) string {
	config := strings.Replace(baseConfig(t, wechatURL), "client:\n", "client:\n  token: {hmac_secret_key: "+testJWTSecret+"}\n", 1)
	if redis == "" {
		return config
	}
	return config + fmt.Sprintf(`
keys:
  sealing: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
  signing: [MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDM=]
  tickets: [{id: t1, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDI=}]
redis:
  addresses: [%s]
`, redis)
}

// users calls one of /api/users/… on a node.
func (p *program) users(t testing.TB, what, user string) {
	t.Helper()
	status, raw := callRaw(t, "POST", p.Ops+"/api/users/"+what, map[string]string{"X-API-Key": testAPIKey}, `{"user":"`+user+`"}`)
	if status != 200 {
		t.Fatalf("%s %s: status %d: %s", what, user, status, raw)
	}
}

// wantGoodbye reads on to the disconnect push; pings do not make it wait on.
func (s *testSocket) wantGoodbye(what string, code uint32, reason string) {
	s.t.Helper()
	limit := time.AfterFunc(20*time.Second, func() { _ = s.conn.CloseNow() })
	defer limit.Stop()
	if gotCode, got := s.goodbye(); gotCode != code || got != reason {
		s.t.Errorf("%s: told %d %q, want %d %q", what, gotCode, got, code, reason)
	}
}

// wantAlive fails unless the socket answers.
func (s *testSocket) wantAlive(what string) {
	s.t.Helper()
	s.send(`{"id":99,"rpc":{"method":"x"}}`)
	for {
		switch f := s.read(); {
		case f.ID == 99:
			return
		case f.Push != nil && f.Push.Disconnect != nil:
			s.t.Fatalf("%s: was told %+v", what, f.Push.Disconnect)
		}
	}
}

// TestBlockReachesEveryConnection blocks a user whose sockets were made with a
// login and with JWTs, on every node, and one who has only a JWT.
func TestBlockReachesEveryConnection(t *testing.T) {
	sim, wechatURL := simulator(t)
	for name, open := range map[string]func() []*program{
		"one node": func() []*program { return []*program{startServe(t, jwtConfig(t, wechatURL, ""))} },
		"two nodes": func() []*program {
			redis := testdeps.Redis(t)
			return []*program{startServe(t, jwtConfig(t, wechatURL, redis)), startServe(t, jwtConfig(t, wechatURL, redis))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := open()
			last := nodes[len(nodes)-1]
			me := login(t, nodes[0].Public, sim.NewCode(testAppID, "alice"))
			for _, user := range []string{me.User.OpenID, "jwt-only"} {
				token := userJWT(t, user)
				sockets := map[string]*testSocket{}
				for i, p := range nodes {
					sockets[fmt.Sprintf("JWT on node %d", i)] = connect(t, p.Public, token)
				}
				if user == me.User.OpenID {
					sockets["login"] = connect(t, last.Public, me.Token)
				}
				other := connect(t, last.Public, userJWT(t, "somebody"))
				for _, p := range nodes { // so that none is closed by the look that follows connecting
					p.awaitLooks(t, login(t, p.Public, sim.NewCode(testAppID, "bob")).Token)
				}
				begin := time.Now()
				nodes[0].users(t, "block", user)
				for name, s := range sockets {
					s.wantGoodbye(name, 3503, "blocked")
					t.Logf("%s of %s: closed at most %v after the call began", name, user, time.Since(begin))
				}
				other.wantAlive("another user")
				for _, p := range nodes {
					s := dial(t, p.Public)
					s.send(`{"id":1,"connect":{"token":"` + token + `"}}`)
					s.wantGoodbye("connecting while blocked", 3503, "blocked")
				}
				last.users(t, "unblock", user)
				eventually(t, "the user may connect everywhere", func() bool {
					return !slices.ContainsFunc(nodes, func(p *program) bool {
						s := dial(t, p.Public)
						s.send(`{"id":1,"connect":{"token":"` + token + `"}}`)
						return s.read().Connect == nil
					})
				})
			}
			for _, p := range nodes {
				noSecrets(t, p, me.Token, testJWTSecret)
			}
		})
	}
}

// gate passes connections on to a server, and while it is shut no new ones.
type gate struct {
	Addr string

	mu       sync.Mutex
	isShut   bool
	refused  int
	listener net.Listener
}

func newGate(t testing.TB, server string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{Addr: l.Addr().String(), listener: l}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			if out := g.pass(server); out == nil {
				_ = in.Close()
			} else {
				running.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
				running.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
			}
		}
	})
	t.Cleanup(func() { // before the programs end, which were started later: they end first
		_ = l.Close()
		running.Wait()
	})
	return g
}

func (g *gate) pass(server string) net.Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isShut {
		g.refused++
		return nil
	}
	out, err := net.Dial("tcp", server)
	if err != nil {
		return nil
	}
	return out
}

func (g *gate) shut(on bool) (refused int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isShut = on
	return g.refused
}

// killPubSub has Redis end all subscriptions.
func killPubSub(t testing.TB, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "CLIENT KILL TYPE pubsub\r\nQUIT\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), ":") {
		t.Fatalf("CLIENT KILL: %q, %v", answer, err)
	}
}

// verified is how often a node has verified a session.
func (p *program) verified(t testing.TB) (n int) {
	t.Helper()
	_, metrics := callRaw(t, "GET", p.Ops+"/metrics", nil, nil)
	for line := range strings.Lines(string(metrics)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(name, "minigate_sessions_verified_total{") {
			times, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			n += times
		}
	}
	return n
}

// awaitLooks returns when the looks that follow connecting are done: a socket
// that connects now is looked at after those before.
func (p *program) awaitLooks(t testing.TB, token string) {
	t.Helper()
	before := p.verified(t)
	connect(t, p.Public, token)
	eventually(t, "connections are looked at", func() bool { return p.verified(t) >= before+2 })
}

// TestUnheardEnds ends a session and blocks a user while a node cannot hear of
// it. When it can again, their sockets do not wait for the next periodic look,
// which is minutes away.
func TestUnheardEnds(t *testing.T) {
	sim, wechatURL := simulator(t)
	redis := testdeps.Redis(t)
	g := newGate(t, redis)
	deaf := startServe(t, jwtConfig(t, wechatURL, g.Addr))
	other := startServe(t, jwtConfig(t, wechatURL, redis))
	ann, bob := login(t, deaf.Public, sim.NewCode(testAppID, "ann")), login(t, deaf.Public, sim.NewCode(testAppID, "bob"))
	carols := connect(t, deaf.Public, userJWT(t, "carol"))
	anns, bobs := connect(t, deaf.Public, ann.Token), connect(t, deaf.Public, bob.Token)
	deaf.awaitLooks(t, bob.Token)

	before := g.shut(true)
	killPubSub(t, redis)
	eventually(t, "the node tries to listen again", func() bool { return g.shut(true) > before })
	callRaw(t, "POST", other.Public+"/auth/logout", bearer(ann.Token), nil)
	other.users(t, "block", "carol")
	anns.wantAlive("a session that ended unheard")
	carols.wantAlive("a user blocked unheard")

	g.shut(false)
	begin := time.Now()
	anns.wantGoodbye("the session", 3005, "connection expired")
	t.Logf("the session that ended: closed %v after Redis could be reached", time.Since(begin))
	carols.wantGoodbye("the user", 3503, "blocked")
	t.Logf("the user who was blocked: closed %v after Redis could be reached", time.Since(begin))
	bobs.wantAlive("another session")
}
