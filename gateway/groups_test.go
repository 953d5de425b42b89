package gateway

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/centrifugal/protocol"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/auth"
)

// subsOf decodes what a connect reply says about subscriptions.
func subsOf(t *testing.T, reply string) map[string]*protocol.SubscribeResult {
	t.Helper()
	var r protocol.Reply
	if err := json.Unmarshal([]byte(reply), &r); err != nil || r.Connect == nil {
		t.Fatalf("%v in %s", err, reply)
	}
	return r.Connect.Subs
}

// positions is what an SDK sends along of what it knew: connect.subs.
func positions(subs map[string]*protocol.SubscribeResult) string {
	asked := map[string]object{}
	for ch, s := range subs {
		if s.Recoverable {
			asked[ch] = object{"recover": true, "offset": s.Offset, "epoch": s.Epoch}
		}
	}
	raw, _ := json.Marshal(asked)
	return string(raw)
}

// A member of a group who was away gets what the group was told meanwhile, as
// does one whose groups stand in a JWT; and what he was sent himself.
func TestGroupsAfterAbsence(t *testing.T) {
	for name, token := range map[string]string{
		"login": "alice",
		"jwt":   jwt(object{"sub": "alice", "channels": []string{"feed:team", "live:team"}}),
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, func(s *Settings) {
				if name == "jwt" {
					withJWT(s)
					s.Client.UserConnectionLimit = 0
				}
				s.Client.PersonalChannel.Namespace = "feed"
			})
			h.groups["alice"] = []string{"feed:team", "live:team"}
			w, reply := h.login(token)
			subs := subsOf(t, reply)
			own := "feed:#alice"
			if len(subs) < 3 || !subs["feed:team"].Recoverable || subs["live:team"].Recoverable || !subs[own].Recoverable {
				t.Fatal(reply)
			}
			h.publish("feed:team", `"seen"`)
			w.want(`{"push":{"channel":"feed:team","pub":{"data":"seen","offset":1,*`)
			subs["feed:team"].Offset = 1
			_ = w.conn.CloseNow()

			for i := range 3 {
				h.publish("feed:team", fmt.Sprint(i))
			}
			h.publish(own, `"for you"`)
			h.publish("live:team", `"gone"`)

			back := h.dial(dialOptions{})
			back.send(`{"id":1,"connect":{"token":"` + token + `","subs":` + positions(subs) + `}}`)
			again := subsOf(t, back.next())
			team := again["feed:team"]
			if !team.Recovered || len(team.Publications) != 3 || string(team.Publications[2].Data) != "2" || team.Offset != 1 {
				t.Errorf("team: %+v", team)
			}
			if mine := again[own]; !mine.Recovered || len(mine.Publications) != 1 || string(mine.Publications[0].Data) != `"for you"` {
				t.Errorf("own: %+v", mine)
			}
			h.publish("feed:team", `"live again"`)
			back.want(`{"push":{"channel":"feed:team","pub":{"data":"live again","offset":5}}}`)
		})
	}
}

// Who belongs to a channel is known without a connection, and is subscribed to
// it with one.
func TestBelongs(t *testing.T) {
	h := startHub(t, nil)
	s := &auth.Session{
		User:     auth.User{OpenID: "alice", UnionID: "union-alice"},
		Channels: []string{"feed:team", "nope:a", "", strings.Repeat("x", 256)},
	}
	h.groups["alice"] = s.Channels
	_, reply := h.login("alice")
	subs := subsOf(t, reply)
	for channel, want := range map[string]bool{
		"feed:team": true, "#alice": true, "union:#union-alice": true,
		"feed:other": false, "#bob": false, "union:#union-bob": false, "nope:a": false, "": false, strings.Repeat("x", 256): false,
	} {
		if got := h.Belongs(s, channel); got != want || (subs[channel] != nil) != want {
			t.Errorf("%.10q: %v, and is subscribed: %v", channel, got, subs[channel] != nil)
		}
	}
	if h.Belongs(&auth.Session{}, "#") || h.Belongs(&auth.Session{}, "union:#") {
		t.Error("nobody belongs somewhere")
	}
}

// What the backend names wrongly at login is counted and does not keep the
// user out.
func TestGroupsThatCannotBe(t *testing.T) {
	h := startHub(t, func(s *Settings) { s.Client.ChannelLimit = 4 })
	h.groups["alice"] = []string{
		"nope:a", strings.Repeat("x", 256), "", "live:1", "live:1", "#alice", "live:2", "live:3", "live:4",
	}
	w, reply := h.login("alice")
	subs := subsOf(t, reply)
	for _, ch := range []string{"#alice", "union:#union-alice", "live:1", "live:2"} {
		if subs[ch] == nil {
			t.Errorf("not in %s: %s", ch, reply)
		}
	}
	if len(subs) != 4 {
		t.Error(reply)
	}
	w.sync()
	for reason, want := range map[string]float64{"namespace": 1, "name": 2, "limit": 2} {
		if got := testutil.ToFloat64(h.metrics.skipped.WithLabelValues(reason)); got != want {
			t.Errorf("%s: %v skipped, want %v", reason, got, want)
		}
	}
}

// A JWT is its issuer's word for this connection: a channel that cannot be, or
// too many of them, end it.
func TestJWTGroupsThatCannotBe(t *testing.T) {
	for name, tc := range map[string]struct {
		channels []string
		want     *Disconnect
	}{
		"unknown namespace": {[]string{"nope:a"}, DisconnectBadRequest},
		"too long":          {[]string{strings.Repeat("x", 256)}, DisconnectBadRequest},
		"too many":          {[]string{"live:1", "live:2", "live:3", "live:4"}, DisconnectChannelLimit},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, func(s *Settings) { withJWT(s); s.Client.ChannelLimit = 4 })
			w := h.dial(dialOptions{})
			w.send(`{"id":1,"connect":{"token":"` + jwt(object{"sub": "alice", "channels": tc.channels}) + `"}}`)
			w.wantEnd(tc.want)
		})
	}
}

// A user whose name is too long for a personal channel connects without one.
func TestPersonalChannelTooLong(t *testing.T) {
	h := startHub(t, func(s *Settings) { s.Channel.MaxLength = 10 })
	_, reply := h.login("alice-in-wonderland")
	if len(subsOf(t, reply)) != 0 || testutil.ToFloat64(h.metrics.skipped.WithLabelValues("name")) != 2 {
		t.Error(reply)
	}
}
