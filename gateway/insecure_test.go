package gateway

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func anonymous(s *Settings) { s.Client.AllowAnonymous = true }

func insecure(s *Settings) {
	withJWT(s)
	s.Client.Insecure = true
	s.Channel.WithoutNamespace.AllowSubscribeForClient = false
	s.Channel.Namespaces = append(s.Channel.Namespaces, Namespace{
		Name: "shut", Access: Access{Presence: true, JoinLeave: true}, History: History{HistorySize: 10, HistoryTTL: time.Minute},
	})
}

// nobodyConnects connects without a token.
func (th *testHub) nobodyConnects() (*wire, string) {
	th.t.Helper()
	w := th.dial(dialOptions{})
	w.send(`{"id":1,"connect":{}}`)
	return w, w.next()
}

// Without a token one is nobody, has no channels, and may do what channels
// allow for anonymous.
func TestAnonymousConnect(t *testing.T) {
	h := startHub(t, func(s *Settings) {
		anonymous(s)
		s.Channel.Namespaces = append(s.Channel.Namespaces, Namespace{
			Name: "open", Access: Access{AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true},
		})
	})
	w, reply := h.nobodyConnects()
	if !strings.HasPrefix(reply, `{"id":1,"connect":{"client":"`) || strings.Contains(reply, "subs") || strings.Contains(reply, "expires") {
		t.Fatal(reply)
	}
	w.send(`{"id":2,"subscribe":{"channel":"live:a"}}`, `{"id":3,"subscribe":{"channel":"open:a"}}`, `{"id":4,"publish":{"channel":"room:a","data":1}}`)
	w.want(`{"id":2,"error":{"code":103,"message":"permission denied"}}`, `{"id":3,"subscribe":{}}`, `{"id":4,"error":{"code":103,"message":"permission denied"}}`)
	w.send(`{"id":5,"refresh":{"token":"alice"}}`)
	w.wantEnd(DisconnectInvalidToken)
}

// An anonymous connection has nothing to verify again.
func TestAnonymousStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { anonymous(s); s.Client.PingInterval = 0 })
		w, _ := h.nobodyConnects()
		time.Sleep(24 * time.Hour)
		w.sync()
	})
}

// A token that is sent is verified, whoever else may come without one.
func TestAnonymousBesideTokens(t *testing.T) {
	for name, change := range map[string]func(*Settings){"anonymous": anonymous, "insecure": insecure} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, change)
			w := h.dial(dialOptions{})
			w.send(`{"id":1,"connect":{"token":"malformed"}}`)
			if name == "insecure" { // takes JWTs, too
				w.wantEnd(DisconnectInvalidToken)
				expired := h.dial(dialOptions{})
				expired.send(`{"id":1,"connect":{"token":"` + jwt(object{"sub": "u", "exp": in(-time.Minute)}) + `"}}`)
				expired.want(`{"id":1,"error":{"code":109,"message":"token expired"}}`)
				return
			}
			w.wantEnd(DisconnectInvalidToken)
		})
	}
}

func TestDisallowAnonymousTokens(t *testing.T) {
	h := startHub(t, func(s *Settings) { withJWT(s); s.Client.DisallowAnonTokens = true })
	w := h.dial(dialOptions{})
	w.send(`{"id":1,"connect":{"token":"` + jwt(object{}) + `"}}`)
	w.wantEnd(DisconnectPermissionDenied)
}

// client.insecure allows everything but private channels without a token.
func TestInsecure(t *testing.T) {
	h := startHub(t, insecure)
	w, reply := h.nobodyConnects()
	if !strings.HasPrefix(reply, `{"id":1,"connect":{"client":"`) {
		t.Fatal(reply)
	}
	w.send(`{"id":2,"subscribe":{"channel":"shut:a","recoverable":true,"positioned":true,"join_leave":true}}`)
	w.want(`{"id":2,"subscribe":{"recoverable":true,"epoch":"*","positioned":true}}`, `{"push":{"channel":"shut:a","join":*`)
	w.send(
		`{"id":3,"subscribe":{"channel":"shut:#somebody"}}`,
		`{"id":4,"subscribe":{"channel":"$shut:a"}}`,
		`{"id":5,"subscribe":{"channel":"nope:a"}}`,
	)
	w.want(
		`{"id":3,"subscribe":{}}`,
		`{"id":4,"error":{"code":103,"message":"permission denied"}}`,
		`{"id":5,"error":{"code":102,"message":"unknown channel"}}`)
	w.send(`{"id":6,"publish":{"channel":"shut:b","data":1}}`, `{"id":7,"presence_stats":{"channel":"shut:b"}}`, `{"id":8,"history":{"channel":"shut:b","limit":1}}`)
	w.want(`{"id":6,"publish":{}}`, `{"id":7,"presence_stats":{"num_clients":0,"num_users":0}}`, `{"id":8,"history":{"publications":[{"data":1,*`)
}

// With client.insecure connections do not expire. connect.subs stay ruled by
// the channels, as in Centrifugo.
func TestInsecureJWT(t *testing.T) {
	h := startHub(t, insecure)
	w := h.dial(dialOptions{})
	w.send(`{"id":1,"connect":{"token":"` + jwt(object{"sub": "u", "exp": in(time.Minute)}) + `","subs":{"shut:a":{},"live:a":{}}}}`)
	reply := w.next()
	for part, want := range map[string]bool{"expires": false, "shut:a": false, "live:a": true, `"#u"`: true} {
		if strings.Contains(reply, part) != want {
			t.Errorf("%s in %s: want %v", part, reply, want)
		}
	}
}

func TestServerTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.IncludeServerTime = true })
		if _, reply := h.login("alice"); !strings.Contains(reply, `"time":`+itoa(int(time.Now().UnixMilli()))) {
			t.Error(reply)
		}
		h = startHub(t, nil)
		if _, reply := h.login("alice"); strings.Contains(reply, `"time"`) {
			t.Error(reply)
		}
	})
}

// What publications may carry holds for clients and for the server.
func TestDataFormat(t *testing.T) {
	h := startHub(t, func(s *Settings) {
		for _, f := range dataFormats[1:] {
			s.Channel.Namespaces = append(s.Channel.Namespaces, Namespace{Name: "as_" + f, Access: Access{AllowPublishForClient: true, AllowSubscribeForClient: true, DataFormat: f}})
		}
	})
	w, _ := h.login("alice")
	for _, tc := range []struct {
		channel, data string
		ok            bool
	}{
		{"room:a", `1`, true},
		{"room:a", ``, false},
		{"as_json:a", `[1]`, true},
		{"as_json:a", ``, false},
		{"as_json_object:a", ` {"a":1}`, true},
		{"as_json_object:a", `[{}]`, false},
		{"as_json_object:a", `"{}"`, false},
		{"as_json_object:a", ``, false},
		{"as_binary:a", `"x"`, true},
		{"as_binary:a", ``, true},
	} {
		member := ""
		if tc.data != "" {
			member = `,"data":` + tc.data
		}
		want := `{"id":5,"publish":{}}`
		if !tc.ok {
			want = `{"id":5,"error":{"code":107,"message":"bad request"}}`
		}
		w.send(`{"id":5,"publish":{"channel":"` + tc.channel + `"` + member + `}}`)
		w.want(want)
		if _, err := h.Publish(t.Context(), tc.channel, []byte(tc.data), PublishOptions{}); (err == nil) != tc.ok || err != nil && CodeOf(err).Code != 107 {
			t.Errorf("publish %q to %s: %v", tc.data, tc.channel, err)
		}
	}
	w.send(`{"id":6,"subscribe":{"channel":"as_binary:a"}}`)
	w.want(`{"id":6,"subscribe":{}}`)
	h.publish("as_binary:a", "")
	w.want(`{"push":{"channel":"as_binary:a","pub":{}}}`)
}
