package gateway

import (
	"encoding/json"
	"testing"
	"time"
	"unsafe"

	"github.com/minigate/minigate/auth"
)

// What a connection keeps of its session follows it, under the name by which
// the user is known.
func TestLoginRenewed(t *testing.T) {
	session := auth.Session{
		Fingerprint: auth.Fingerprint{1}, User: auth.User{OpenID: "alice", UnionID: "u", AppID: "wx1"},
		Device: "phone", Claims: json.RawMessage(`{"vip":1}`), Expires: time.Unix(100, 0),
	}
	l := newLogin(&session, "alice")
	if got := l.session(); got.User != session.User || got.Fingerprint != session.Fingerprint || got.Device != "phone" || string(got.Claims) != `{"vip":1}` {
		t.Errorf("kept %+v", got)
	}
	session.Expires = time.Unix(200, 0)
	if again := l.renewed(&session); again != l || l.expires != time.Unix(200, 0).UnixNano() {
		t.Errorf("a later end: the same login %v, which ends at %v", again == l, time.Unix(0, l.expires))
	}
	for what, change := range map[string]func(s *auth.Session){
		"claims":    func(s *auth.Session) { s.Claims = json.RawMessage(`{"vip":2}`) },
		"no claims": func(s *auth.Session) { s.Claims = nil },
		"unionid":   func(s *auth.Session) { s.User.UnionID = "v" },
		"device":    func(s *auth.Session) { s.Device = "tablet" },
	} {
		other := session
		change(&other)
		got := l.renewed(&other)
		if got == l || got.user() != other.User || got.device.Value() != other.Device || string(got.said()) != string(other.Claims) {
			t.Errorf("%s: %+v", what, got.session())
		}
		if string(l.said()) != `{"vip":1}` || l.unionID != "u" {
			t.Errorf("%s: what others may be reading has changed", what)
		}
	}
}

// One text serves the name of the user's channel and his openid, also after
// another token of his.
func TestLoginSharesTheChannelsName(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice/1")
	c := h.clients.list()[0]
	same := func(when string) {
		t.Helper()
		c.mu.Lock()
		defer c.mu.Unlock()
		if name := h.channels.get("#alice").name; unsafe.StringData(c.login.openID) != unsafe.StringData(name[1:]) {
			t.Errorf("%s: two texts for %s", when, c.login.openID)
		}
	}
	same("connected")
	w.send(`{"id":2,"refresh":{"token":"alice/vip"}}`)
	w.want(`{"id":2,"refresh":{}}`)
	same("refreshed")
}

func TestTicks(t *testing.T) {
	for d, want := range map[time.Duration][2]ticks{
		0: {0, 0}, 1: {0, 1}, wheelTick: {1, 1}, wheelTick + 1: {1, 2}, time.Hour: {18000, 18000}, 1<<63 - 1 - wheelTick: {1<<31 - 1, 1<<31 - 1},
	} {
		if down, up := ticksDown(d), ticksUp(d); down != want[0] || up != want[1] {
			t.Errorf("%v: %d, %d, want %d", d, down, up, want)
		}
	}
}

// What is used again keeps nothing of who had it before.
func TestDueIsUsedAgain(t *testing.T) {
	var o outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.open()
	d.replies = append(d.replies, nil)
	o.settle()
	if o.due != d {
		t.Fatal("let go of a reply")
	}
	go func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		d.replies = d.replies[:0]
		o.madeRoom()
		o.settle()
	}()
	o.awaitRoom()
	if o.due != nil || d.room != nil {
		t.Errorf("kept %+v", o.pending())
	}
	if o.full(0) {
		t.Error("nothing fills it")
	}
}
