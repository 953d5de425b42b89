package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

const jwtSecret = "a secret of more than thirty-two bytes"

type object = map[string]any

// jwt signs claims with HS256.
func jwt(claims object) string {
	raw, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc.EncodeToString(raw)
	mac := hmac.New(sha256.New, []byte(jwtSecret))
	mac.Write([]byte(text))
	return text + "." + enc.EncodeToString(mac.Sum(nil))
}

func in(d time.Duration) int64 { return time.Now().Add(d).Unix() }

func withJWT(s *Settings) {
	s.Client.Token.HMACSecretKey = jwtSecret
	s.Channel.WithoutNamespace.AllowSubscribeForClient = true
	s.Client.UserConnectionLimit = 1
}

// verifyTicket takes "ticket-user" for a ticket of that user.
func (th *testHub) verifyTicket(ctx context.Context, ticket string) (*auth.Session, error) {
	user := strings.TrimPrefix(ticket, "ticket-")
	if user == "used" || user == "expired" {
		return nil, fault.New(fault.Unauthenticated, "ticket_"+user, "Get a new one.")
	}
	if user == ticket {
		return nil, fault.New(fault.Unauthenticated, "ticket_invalid", "This is no ticket.")
	}
	return th.verifyToken(ctx, user)
}

// alive knows the sessions of logins and tickets; of those of tickets what
// setToken says of "alive".
func (th *testHub) alive(ctx context.Context, fp auth.Fingerprint) (*auth.Session, error) {
	th.mu.Lock()
	token, login := th.logins[fp]
	th.mu.Unlock()
	if login {
		return th.verifyToken(ctx, token)
	}
	s, err := th.verifyToken(ctx, "alive")
	if err != nil {
		return nil, err
	}
	s.Fingerprint = fp
	s.User.OpenID = "alice"
	return s, nil
}

func TestTicketConnect(t *testing.T) {
	welcome := `{"id":1,"connect":{"client":*}`
	expired := `{"id":1,"error":{"code":109,"message":"token expired"}}`
	for name, tc := range map[string]struct {
		query, token string
		want         string
		wantEnd      *Disconnect
	}{
		"alone":          {"ticket-alice", "", welcome, nil},
		"same user":      {"ticket-alice", "alice", welcome, nil},
		"other user":     {"ticket-alice", "bob", "", DisconnectInvalidToken},
		"with a JWT":     {"ticket-alice", jwt(object{"sub": "malformed"}), "", DisconnectInvalidToken},
		"used":           {"ticket-used", "", expired, nil},
		"expired":        {"ticket-expired", "", expired, nil},
		"no ticket":      {"alice", "", "", DisconnectInvalidToken},
		"store is away":  {"ticket-away", "", `{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}`, nil},
		"empty and none": {"", "", "", DisconnectBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, withJWT)
			if strings.Count(tc.token, ".") == 2 {
				h.setToken(tc.token, fault.New(fault.Unauthenticated, "token_invalid", "No login."))
			}
			w := h.dial(dialOptions{query: "?ticket=" + tc.query})
			w.send(`{"id":1,"connect":{"token":"` + tc.token + `"}}`)
			if tc.wantEnd != nil {
				w.wantEnd(tc.wantEnd)
			} else {
				w.want(tc.want)
			}
		})
	}
}

// A connection made with a ticket ends with its session, as any other.
func TestTicketSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.PingInterval = 0 })
		w := h.dial(dialOptions{query: "?ticket=ticket-alice"})
		w.send(`{"id":1,"connect":{}}`)
		w.want(`{"id":1,"connect":{"client":*}`)
		time.Sleep(time.Hour)
		w.sync()
		h.setToken("alive", fault.New(fault.Unauthenticated, "token_expired", "Expired."))
		w.wantEnd(DisconnectExpired)
	})
}

func TestJWTConnect(t *testing.T) {
	bad := jwt(object{"sub": "u"}) + "x"
	for name, tc := range map[string]struct {
		token   string
		want    string // parts of the reply, split at spaces
		wantEnd *Disconnect
	}{
		"user":            {jwt(object{"sub": "u"}), `"#u":{`, nil},
		"anonymous":       {jwt(object{}), `"client":`, nil},
		"expires":         {jwt(object{"exp": in(time.Minute)}), `"expires":true,"ttl":`, nil},
		"for long":        {jwt(object{"exp": in(1000 * time.Hour)}), `"expires":true,"ttl":2147483`, nil},
		"expire_at 0":     {jwt(object{"sub": "u", "exp": in(time.Minute), "expire_at": 0}), `"#u":{`, nil},
		"channels":        {jwt(object{"channels": []string{"news", "$vip", "dialog:#x"}}), `"news":{ "$vip":{ "dialog:#x":{`, nil},
		"subs":            {jwt(object{"subs": object{"live:a": object{"data": object{"k": 1}}}}), `"live:a":{"data":{"k":1}}`, nil},
		"override":        {jwt(object{"subs": object{"feed:a": object{"override": object{"force_recovery": object{"value": false}}}}}), `"feed:a":{}`, nil},
		"no history":      {jwt(object{"subs": object{"live:a": object{"override": object{"force_recovery": object{"value": true}}}}}), `"live:a":{}`, nil},
		"expired":         {jwt(object{"exp": in(-time.Second)}), `"error":{"code":109,`, nil},
		"expire_at past":  {jwt(object{"exp": in(time.Minute), "expire_at": in(-time.Second)}), `"error":{"code":110,`, nil},
		"channel claim":   {jwt(object{"channel": "a"}), "", DisconnectInvalidToken},
		"bad signature":   {bad, "", DisconnectInvalidToken},
		"no token at all": {"x", "", DisconnectInvalidToken},
		"unknown channel": {jwt(object{"channels": []string{"nowhere:a"}}), "", DisconnectBadRequest},
		"login token":     {"mg_malformed", "", DisconnectInvalidToken},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, withJWT)
			h.setToken("mg_malformed", fault.New(fault.Unauthenticated, "token_invalid", "No login."))
			w := h.dial(dialOptions{})
			w.send(`{"id":1,"connect":{"token":"` + tc.token + `"}}`)
			if tc.wantEnd != nil {
				w.wantEnd(tc.wantEnd)
				return
			}
			reply := w.next()
			for part := range strings.FieldsSeq(tc.want) {
				if !strings.Contains(reply, part) {
					t.Errorf("no %s in %s", part, reply)
				}
			}
			if !strings.Contains(tc.want, "expire") && strings.Contains(reply, "expires") {
				t.Errorf("expires: %s", reply)
			}
		})
	}
	t.Run("off", func(t *testing.T) {
		h := startHub(t, nil)
		h.setToken(bad, fault.New(fault.Unauthenticated, "token_invalid", "No login."))
		w := h.dial(dialOptions{})
		w.send(`{"id":1,"connect":{"token":"` + bad + `"}}`)
		w.wantEnd(DisconnectInvalidToken)
	})
}

// loginJWT connects with a JWT and drops the reply.
func (th *testHub) loginJWT(claims object) *wire {
	th.t.Helper()
	w, _ := th.login(jwt(claims))
	return w
}

// Without a user a connection may do what the namespace allows to such, and is
// not limited to one.
func TestAnonymous(t *testing.T) {
	denied := `"error":{"code":103,"message":"permission denied"}}`
	h := startHub(t, func(s *Settings) {
		withJWT(s)
		s.Channel.Namespaces = append(s.Channel.Namespaces, Namespace{Name: "open", Access: Access{
			AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true, AllowPublishForClient: true, AllowPublishForAnonymous: true,
		}}, Namespace{Name: "half", Access: Access{AllowSubscribeForClient: true, AllowPublishForClient: true, Presence: true, AllowPresenceForClient: true}})
	})
	h.loginJWT(object{})
	w := h.loginJWT(object{})
	w.send(`{"id":2,"subscribe":{"channel":"half:a"}}`, `{"id":3,"publish":{"channel":"half:a","data":1}}`, `{"id":4,"presence":{"channel":"half:a"}}`)
	w.want(`{"id":2,`+denied, `{"id":3,`+denied, `{"id":4,`+denied)
	w.send(`{"id":5,"subscribe":{"channel":"open:a"}}`, `{"id":6,"publish":{"channel":"open:a","data":1}}`)
	w.want(`{"id":5,"subscribe":{}}`)
	got := w.next() + w.next()
	if !strings.Contains(got, `{"id":6,"publish":{}}`) || !strings.Contains(got, `"info":{"user":"","client":"`) {
		t.Errorf("got %s", got)
	}
}

// What a token says about its connection and subscription the others see.
func TestInfo(t *testing.T) {
	h := startHub(t, withJWT)
	w := h.loginJWT(object{"sub": "u", "info": object{"name": "Ann"}})
	token := jwt(object{"sub": "u", "channel": "$room:a", "info": object{"role": 1}})
	w.send(`{"id":2,"subscribe":{"channel":"$room:a","token":"` + token + `"}}`)
	info := `{"user":"u","client":"*","conn_info":{"name":"Ann"},"chan_info":{"role":1}}`
	w.want(`{"id":2,"subscribe":{*`, `{"push":{"channel":"$room:a","join":{"info":`+info+`}}}`)
	w.send(`{"id":3,"presence":{"channel":"$room:a"}}`)
	w.want(`{"id":3,"presence":{"presence":{"*":` + info + `}}}`)
	w.send(`{"id":4,"publish":{"channel":"$room:a","data":1}}`)
	for range 2 {
		if got := w.next(); strings.Contains(got, `"pub"`) && !match(`*"info":`+info+`*`, got) {
			t.Errorf("got %s", got)
		}
	}
}

// Connections expire with their tokens, some time after the SDK was due to
// bring another one.
func TestJWTExpires(t *testing.T) {
	for name, ping := range map[string]time.Duration{"pings": 25 * time.Second, "no pings": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startHub(t, func(s *Settings) { withJWT(s); s.Client.PingInterval = ping })
				w := h.loginJWT(object{"sub": "u", "exp": in(time.Minute)})
				begin := time.Now()
				for got := w.next(); ; got = w.next() {
					if got != "{}" {
						if want := `{"push":{"disconnect":{"code":3005,"reason":"connection expired"}}}`; got != want {
							t.Errorf("got %s", got)
						}
						break
					}
					w.send("{}")
				}
				if took := time.Since(begin); took < 85*time.Second || took > 86*time.Second {
					t.Errorf("closed after %v", took)
				}
			})
		})
	}
}

func TestJWTRefresh(t *testing.T) {
	for name, tc := range map[string]struct {
		token   string
		want    string
		wantEnd *Disconnect
	}{
		"later":          {jwt(object{"sub": "u", "exp": in(time.Hour)}), `{"id":2,"refresh":{"expires":true,"ttl":*}}`, nil},
		"for ever":       {jwt(object{"sub": "u"}), `{"id":2,"refresh":{}}`, nil},
		"other user":     {jwt(object{"sub": "v"}), "", DisconnectInvalidToken},
		"login":          {"mg_u", "", DisconnectInvalidToken},
		"bad":            {jwt(object{"sub": "u"}) + "x", "", DisconnectInvalidToken},
		"empty":          {"", "", DisconnectBadRequest},
		"expired":        {jwt(object{"sub": "u", "exp": in(-time.Second)}), "", DisconnectExpired},
		"expire_at past": {jwt(object{"sub": "u", "expire_at": in(-time.Second)}), "", DisconnectExpired},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, withJWT)
			w := h.loginJWT(object{"sub": "u", "exp": in(time.Minute)})
			w.send(`{"id":2,"refresh":{"token":"` + tc.token + `"}}`)
			if tc.wantEnd != nil {
				w.wantEnd(tc.wantEnd)
			} else {
				w.want(tc.want)
			}
		})
	}
	t.Run("a login is not refreshed by a JWT", func(t *testing.T) {
		h := startHub(t, withJWT)
		token := jwt(object{"sub": "alice"})
		h.setToken(token, fault.New(fault.Unauthenticated, "token_invalid", "No login."))
		h.setToken("mg_alice", nil)
		w, _ := h.login("mg_alice")
		w.send(`{"id":2,"refresh":{"token":"` + token + `"}}`)
		w.wantEnd(DisconnectInvalidToken)
	})
	t.Run("puts the end off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := startHub(t, func(s *Settings) { withJWT(s); s.Client.PingInterval = 0 })
			w := h.loginJWT(object{"sub": "u", "exp": in(time.Minute)})
			time.Sleep(80 * time.Second)
			w.send(`{"id":2,"refresh":{"token":"` + jwt(object{"sub": "u", "exp": in(time.Minute)}) + `"}}`)
			w.want(`{"id":2,"refresh":{"expires":true,"ttl":60}}`)
			time.Sleep(80 * time.Second)
			w.sync()
			w.wantEnd(DisconnectExpired)
		})
	})
}

func TestSubscribeToken(t *testing.T) {
	h := startHub(t, withJWT)
	w := h.loginJWT(object{"sub": "u"})
	var reply struct{ ID int }
	id := 1
	for _, tc := range []struct{ name, channel, token, want string }{
		{"unknown namespace first", "$nowhere:a", "x", `"error":{"code":102,"message":"unknown channel"}}`},
		{"name second", "$室", "x", `"error":{"code":107,"message":"bad request"}}`},
		{"private without a token", "$a", "", `"error":{"code":103,"message":"permission denied"}}`},
		{"bad signature", "$a", jwt(object{"sub": "u", "channel": "$a"}) + "x", `"error":{"code":103,"message":"permission denied"}}`},
		{"connection token", "$a", jwt(object{"sub": "u"}), `"error":{"code":103,"message":"permission denied"}}`},
		{"expired", "$a", jwt(object{"sub": "u", "channel": "$a", "exp": in(-time.Second)}), `"error":{"code":109,"message":"token expired"}}`},
		{"expire_at past", "$a", jwt(object{"sub": "u", "channel": "$a", "expire_at": in(-time.Second)}), `"error":{"code":110,"message":"expired"}}`},
		{"private", "$a", jwt(object{"sub": "u", "channel": "$a"}), `"subscribe":{*}}`},
		{"what rules forbid", "dialog:b", jwt(object{"sub": "u", "channel": "dialog:b"}), `"subscribe":{*}}`},
		{"somebody's dialog", "dialog:#x,y", jwt(object{"sub": "u", "channel": "dialog:#x,y"}), `"subscribe":{*}}`},
		{"not without a token", "dialog:#x,z", "", `"error":{"code":103,"message":"permission denied"}}`},
		{"own dialog", "dialog:#u,y", "", `"subscribe":{*}}`},
		{"expiring, with data", "live:c", jwt(object{"sub": "u", "channel": "live:c", "exp": in(time.Minute), "data": object{"k": 1}}), `"subscribe":{"expires":true,"ttl":*,"data":{"k":1}}}`},
	} {
		id++
		w.send(`{"id":` + itoa(id) + `,"subscribe":{"channel":"` + tc.channel + `","token":"` + tc.token + `"}}`)
		got := w.next()
		if err := json.Unmarshal([]byte(got), &reply); err != nil || reply.ID != id || !match("*"+tc.want, got) {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
	for name, claims := range map[string]object{
		"other user":    {"sub": "v", "channel": "$b"},
		"no user":       {"channel": "$b"},
		"other channel": {"sub": "u", "channel": "$c"},
		"other client":  {"sub": "u", "channel": "$b", "client": "x"},
	} {
		h := startHub(t, withJWT)
		w := h.loginJWT(object{"sub": "u"})
		w.send(`{"id":2,"subscribe":{"channel":"$b","token":"` + jwt(claims) + `"}}`)
		t.Run(name, func(*testing.T) { w.wantEnd(DisconnectInvalidToken) })
	}
}

// Subscription tokens are also for users who logged in, and for one connection
// where they name it.
func TestSubscribeTokenOfLogin(t *testing.T) {
	h := startHub(t, withJWT)
	w := h.dial(dialOptions{header: bearer("alice")})
	w.send(`{"id":1,"connect":{}}`)
	reply := w.next()
	_, client, _ := strings.Cut(reply, `"client":"`)
	client, _, _ = strings.Cut(client, `"`)
	w.send(`{"id":2,"subscribe":{"channel":"$a","token":"` + jwt(object{"sub": "alice", "channel": "$a", "client": client}) + `"}}`)
	w.want(`{"id":2,"subscribe":{*`)
	off := startHub(t, nil)
	w, _ = off.login("alice")
	w.send(`{"id":2,"subscribe":{"channel":"live:a","token":"` + jwt(object{"sub": "alice", "channel": "live:a"}) + `"}}`)
	w.want(`{"id":2,"error":{"code":103,"message":"permission denied"}}`)
}

func TestSubRefresh(t *testing.T) {
	tok := func(claims object) string {
		c := object{"sub": "u", "channel": "live:a"}
		for k, v := range claims {
			c[k] = v
		}
		return jwt(c)
	}
	for name, tc := range map[string]struct {
		channel, token string
		want           string
		wantEnd        *Disconnect
	}{
		"later":            {"live:a", tok(object{"exp": in(time.Hour)}), `{"id":3,"sub_refresh":{"expires":true,"ttl":*}}`, nil},
		"for ever":         {"live:a", tok(nil), `{"id":3,"sub_refresh":{}}`, nil},
		"not subscribed":   {"live:b", tok(nil), `{"id":3,"error":{"code":103,"message":"permission denied"}}`, nil},
		"unknown":          {"nowhere:b", tok(nil), `{"id":3,"error":{"code":102,"message":"unknown channel"}}`, nil},
		"empty":            {"live:a", "", `{"id":3,"error":{"code":107,"message":"bad request"}}`, nil},
		"bad":              {"live:a", tok(nil) + "x", "", DisconnectInvalidToken},
		"other channel":    {"live:a", tok(object{"channel": "live:b"}), "", DisconnectInvalidToken},
		"other user":       {"live:a", tok(object{"sub": "v"}), "", DisconnectInvalidToken},
		"other client":     {"live:a", tok(object{"client": "x"}), "", DisconnectInvalidToken},
		"connection token": {"live:a", jwt(object{"sub": "u"}), "", DisconnectInvalidToken},
		"expired":          {"live:a", tok(object{"exp": in(-time.Second)}), "", DisconnectSubscriptionExpired},
		"expire_at past":   {"live:a", tok(object{"expire_at": in(-time.Second)}), "", DisconnectSubscriptionExpired},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, withJWT)
			w := h.loginJWT(object{"sub": "u"})
			w.send(`{"id":2,"subscribe":{"channel":"live:a","token":"` + tok(object{"exp": in(time.Minute)}) + `"}}`)
			w.want(`{"id":2,"subscribe":{"expires":true,"ttl":*}}`)
			w.send(`{"id":3,"sub_refresh":{"channel":"` + tc.channel + `","token":"` + tc.token + `"}}`)
			if tc.wantEnd != nil {
				w.wantEnd(tc.wantEnd)
			} else {
				w.want(tc.want)
			}
		})
	}
}

// A subscription whose token was not replaced ends, the connection goes on.
func TestSubscriptionExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { withJWT(s); s.Client.PingInterval = 0 })
		w := h.loginJWT(object{"sub": "u"})
		token := func() string { return jwt(object{"sub": "u", "channel": "live:a", "exp": in(time.Minute)}) }
		w.send(`{"id":2,"subscribe":{"channel":"live:a","token":"` + token() + `"}}`)
		w.want(`{"id":2,"subscribe":{"expires":true,"ttl":60}}`)
		time.Sleep(80 * time.Second)
		w.send(`{"id":3,"sub_refresh":{"channel":"live:a","token":"` + token() + `"}}`)
		w.want(`{"id":3,"sub_refresh":{"expires":true,"ttl":60}}`)
		begin := time.Now()
		w.want(`{"push":{"channel":"live:a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}`)
		if took := time.Since(begin); took < 85*time.Second || took > 86*time.Second {
			t.Errorf("ended after %v", took)
		}
		w.sync()
	})
}
