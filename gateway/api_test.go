package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/fault"
)

func TestPublishErrors(t *testing.T) {
	h := startHub(t, nil)
	for _, tc := range []struct {
		channel, data string
		want          uint32
	}{
		{"feed:a", `{"x":1}`, 0},
		{"anything", `"text"`, 0},
		{"feed:a", ``, 107},
		{"feed:a", `{`, 107},
		{"feed:a", `1 2`, 107},
		{"feed:a", "\"\xff\"", 107},
		{"", `1`, 107},
		{strings.Repeat("x", 256), `1`, 107},
		{"nope:a", `1`, 102},
	} {
		_, err := h.Publish(t.Context(), tc.channel, json.RawMessage(tc.data), PublishOptions{})
		if (err == nil) != (tc.want == 0) || err != nil && CodeOf(err).Code != tc.want {
			t.Errorf("%q to %q: %v", tc.data, tc.channel, err)
		}
	}
}

// What travels with a publication is bounded, on every way in.
func TestPublishOptionLimits(t *testing.T) {
	h := startHub(t, nil)
	long := strings.Repeat("x", 256)
	tags := map[string]string{long: long}
	for i := range 31 {
		tags[fmt.Sprint(i)] = ""
	}
	if _, err := h.Publish(t.Context(), "feed:a", json.RawMessage(`1`), PublishOptions{IdempotencyKey: long, Version: 1, VersionEpoch: long, Tags: tags}); err != nil {
		t.Errorf("the most: %v", err)
	}
	more := map[string]string{"one too many": ""}
	for k, v := range tags {
		more[k] = v
	}
	for name, o := range map[string]PublishOptions{
		"idempotency_key": {IdempotencyKey: long + "x"},
		"version_epoch":   {Version: 1, VersionEpoch: long + "x"},
		"32 tags":         {Tags: more},
		"Names":           {Tags: map[string]string{long + "x": ""}},
		"values":          {Tags: map[string]string{"": long + "x"}},
	} {
		_, err := h.Publish(t.Context(), "feed:a", json.RawMessage(`1`), o)
		if f := fault.Of(err); f.Kind != fault.Invalid || CodeOf(err).Code != 107 || !strings.Contains(f.Msg, name) {
			t.Errorf("%s: %v", name, err)
		}
		if res := h.Broadcast(t.Context(), []string{"feed:a"}, json.RawMessage(`1`), o); res[0].Err == nil {
			t.Errorf("%s is broadcast", name)
		}
	}
	if top := h.top("feed:a"); top.Offset != 1 {
		t.Errorf("%d publications", top.Offset)
	}
}

// Payloads come out as they went in, but for line breaks between tokens.
func TestPayloads(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	for _, tc := range [][2]string{
		{`"text"`, `"text"`},
		{`0`, `0`},
		{`false`, `false`},
		{`[1, 2]`, `[1, 2]`},
		{"{\n \"a\": \"x\\ny\",\r\n \"b\": 1.0}\n", "{ \"a\": \"x\\ny\",\r \"b\": 1.0}"},
		{`"房间 \u0000 </script>"`, `"房间 \u0000 </script>"`},
	} {
		h.publish("#alice", tc[0])
		w.want(`{"push":{"channel":"#alice","pub":{"data":` + tc[1] + `,"offset":*`)
	}
}

func TestPublishOnce(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	o := PublishOptions{IdempotencyKey: "k", Count: true, Tags: map[string]string{"a": "b"}}
	first, err := h.Publish(t.Context(), "#alice", json.RawMessage(`1`), o)
	if err != nil || first.Sockets != 1 {
		t.Fatal(first, err)
	}
	again, err := h.Publish(t.Context(), "#alice", json.RawMessage(`2`), o)
	if err != nil || again.Position != first.Position {
		t.Errorf("repeated: %+v, %v", again, err)
	}
	w.want(`{"push":{"channel":"#alice","pub":{"data":1,"offset":1,"tags":{"a":"b"},"epoch":"*"}}}`)
	w.sync()
}

func TestPush(t *testing.T) {
	h := startHub(t, nil)
	a1, _ := h.login("alice/1")
	a2, _ := h.login("alice/2")
	b, _ := h.login("bob")
	h.dial(dialOptions{}) // not logged in: nobody
	res, err := h.Push(t.Context(), PushRequest{
		Users: []string{"alice", "alice", "nobody", "a,b"}, UnionIDs: []string{"union-bob"}, Channels: []string{"feed:a", "nope:a"},
		All: true, Data: json.RawMessage(`{"n":1}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Sockets != 6 || res.All != 3 || res.Users["alice"].Sockets != 2 || res.Users["nobody"].Sockets != 0 || res.UnionIDs["union-bob"].Sockets != 1 {
		t.Errorf("%+v", res)
	}
	var failed []string
	for _, e := range res.Errors {
		failed = append(failed, fmt.Sprint(e.Kind, " ", e.Target, " ", CodeOf(e.Err).Code))
	}
	if got := strings.Join(failed, "; "); got != "user a,b 107; channel nope:a 102" {
		t.Errorf("errors: %s", got)
	}
	for w, channel := range map[*wire]string{a1: "#alice", a2: "#alice", b: "union:#union-bob"} {
		got := w.next() + "\n" + w.next() // replies and messages pass by publications
		for _, part := range []string{`{"push":{"channel":"` + channel + `","pub":{"data":{"n":1},"offset":1,`, `{"push":{"message":{"data":{"n":1}}}}`} {
			if !strings.Contains(got, part) {
				t.Errorf("no %s in %s", part, got)
			}
		}
	}

	for name, req := range map[string]PushRequest{
		"no target": {Data: json.RawMessage(`1`)},
		"bad data":  {All: true, Data: json.RawMessage(`{`)},
	} {
		if _, err := h.Push(t.Context(), req); err == nil || CodeOf(err).Code != 107 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPushWithoutPersonalChannels(t *testing.T) {
	h := startHub(t, func(s *Settings) {
		s.Client.PersonalChannel.Enabled, s.Client.UnionIDNamespace = false, ""
	})
	_, reply := h.login("alice")
	if strings.Contains(reply, "subs") {
		t.Errorf("subscribed anyway: %s", reply)
	}
	res, err := h.Push(t.Context(), PushRequest{Users: []string{"alice"}, UnionIDs: []string{"u"}, Data: json.RawMessage(`1`)})
	if err != nil || len(res.Errors) != 2 || CodeOf(res.Errors[0].Err).Code != 108 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestPersonalNamespace(t *testing.T) {
	h := startHub(t, func(s *Settings) {
		s.Client.PersonalChannel.Namespace, s.Client.UnionIDNamespace = "dialog", "person"
	})
	_, reply := h.login("alice")
	for _, ch := range []string{`"dialog:#alice":`, `"person:#union-alice":`} {
		if !strings.Contains(reply, ch) {
			t.Errorf("no %s in %s", ch, reply)
		}
	}
	w := h.dial(dialOptions{}) // an SDK asks again for what it was given
	w.send(`{"id":1,"connect":{"token":"alice","subs":{"dialog:#alice":{"recover":true},"person:#union-alice":{"recover":true}}}}`)
	w.want(`{"id":1,"connect":*"dialog:#alice":{*"recovered":true*`)
}

func TestDisconnect(t *testing.T) {
	h := startHub(t, nil)
	a1, reply := h.login("alice/1")
	id := reply[len(`{"id":1,"connect":{"client":"`):][:36]
	a2, _ := h.login("alice/2")
	a3, _ := h.login("alice/3")
	b, _ := h.login("bob")
	session, _ := h.verifyToken(t.Context(), "alice/3")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(h.Disconnect(t.Context(), "nobody", DisconnectOptions{}))
	must(h.Disconnect(t.Context(), "alice", DisconnectOptions{Session: session.Fingerprint.String(), Code: 4500, Reason: "go away"}))
	a3.wantEnd(&Disconnect{4500, "go away"})
	must(h.Disconnect(t.Context(), "alice", DisconnectOptions{Whitelist: []string{id}}))
	a2.wantEnd(DisconnectForced)
	a1.sync()
	must(h.Disconnect(t.Context(), "alice", DisconnectOptions{Client: id, Code: 3000, Reason: `"true"`}))
	a1.wantEnd(&Disconnect{3000, "force disconnect"}) // JSON would be taken for advice
	b.sync()
	for _, err := range []error{
		h.Disconnect(t.Context(), "", DisconnectOptions{}),
		h.Disconnect(t.Context(), "bob", DisconnectOptions{Code: 200}),
		h.Disconnect(t.Context(), "bob", DisconnectOptions{Code: 5000}),
	} {
		if err == nil || CodeOf(err).Code != 107 {
			t.Errorf("%v", err)
		}
	}
}

func TestPlainReason(t *testing.T) {
	for reason, want := range map[string]string{
		"":                         "force disconnect",
		" ":                        "force disconnect",
		"404":                      "force disconnect",
		"null":                     "force disconnect",
		`{"reconnect":true}`:       "force disconnect",
		"too old":                  "too old",
		"bad \xff byte":            "bad  byte",
		strings.Repeat("离开", 30):   strings.Repeat("离开", 20) + "离",
		strings.Repeat("x", 200):   strings.Repeat("x", 123),
		"you were replaced (4501)": "you were replaced (4501)",
	} {
		if got := plainReason(reason); got != want {
			t.Errorf("%q: %q", reason, got)
		}
	}
}

func TestUnsubscribe(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	w.send(`{"id":2,"subscribe":{"channel":"live:a"}}`)
	w.want(`{"id":2,"subscribe":{}}`)
	if err := h.Unsubscribe(t.Context(), "alice", "live:a", Selection{}); err != nil {
		t.Fatal(err)
	}
	w.want(`{"push":{"channel":"live:a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`)
	h.publish("live:a", "1")
	w.sync()
	if err := h.Unsubscribe(t.Context(), "alice", "", Selection{Client: "other-client"}); err != nil {
		t.Fatal(err)
	}
	if err := h.Unsubscribe(t.Context(), "alice", "nope:a", Selection{}); CodeOf(err).Code != 102 {
		t.Error(err)
	}
	w.sync()
}

func TestReading(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	w.send(`{"id":2,"subscribe":{"channel":"room:a"}}`)
	w.want(`{"id":2,*`, `*"join"*`)
	for i := range 12 {
		h.publish("room:a", fmt.Sprint(i))
	}
	clients, users, err := h.PresenceStats(t.Context(), "room:a")
	if err != nil || clients != 1 || users != 1 {
		t.Errorf("presence: %d %d %v", clients, users, err)
	}
	pubs, top, err := h.History(t.Context(), "room:a", engine.HistoryQuery{Limit: -1})
	if err != nil || len(pubs) != 10 || top.Offset != 12 {
		t.Errorf("history: %d %+v %v", len(pubs), top, err)
	}
	for name, err := range map[string]error{
		"presence": third(h.PresenceStats(t.Context(), "feed:a")),
		"history":  third(h.History(t.Context(), "live:a", engine.HistoryQuery{})),
		"removal":  h.HistoryRemove(t.Context(), "live:a"),
	} {
		if CodeOf(err).Code != 108 {
			t.Errorf("%s where it is off: %v", name, err)
		}
	}
	nodes, err := h.Info(t.Context())
	if err != nil || len(nodes) != 1 || nodes[0].Clients != 1 || nodes[0].Users != 1 || nodes[0].Subscribers != 3 || nodes[0].Channels != 3 {
		t.Errorf("info: %+v %v", nodes, err)
	}
	list := h.Connections(10)
	if len(list) != 1 || list[0].User != "alice" || list[0].UnionID != "union-alice" || strings.Join(list[0].Channels, " ") != "#alice room:a union:#union-alice" {
		t.Errorf("connections: %+v", list)
	}
	if len(h.Connections(0)) != 0 {
		t.Error("limit 0")
	}
}

func third[A, B any](_ A, _ B, err error) error { return err }

func TestCodeOf(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want Code
	}{
		{ErrUnknownChannel, Code{102, "unknown channel", false}},
		{ErrTooManyRequests.Because(errors.New("x")), Code{111, "too many requests", true}},
		{errors.New("boom"), internalError},
		{fault.New(fault.Unavailable, "redis_away", "Redis is away."), internalError},
		{fault.New(fault.Invalid, "whatever", "No."), Code{107, "bad request", false}},
		{fault.New(fault.Unauthenticated, "token_invalid", "No."), Code{101, "unauthorized", false}},
	} {
		if got := CodeOf(tc.err); got != tc.want {
			t.Errorf("%v: %+v", tc.err, got)
		}
	}
}

func TestMetrics(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	h.publish("#alice", "1")
	w.want(`*"data":1*`)
	w.send(`{"send":{}}`)
	w.wantEnd(DisconnectNotAvailable)
	problems, err := testutil.GatherAndLint(h.registry)
	if err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
	if n := testutil.ToFloat64(h.metrics.disconnects.WithLabelValues("3508", "not_available")); n != 1 {
		t.Errorf("disconnects: %v", n)
	}
	if n := testutil.ToFloat64(h.metrics.received[cmdConnect]); n != 1 {
		t.Errorf("connects: %v", n)
	}
	if n := testutil.ToFloat64(h.metrics.deliveries); n != 1 {
		t.Errorf("deliveries: %v", n)
	}
}
