package engine

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/protocol"
)

// TestContract is what both engines promise, Redis in each of its forms.
func TestContract(t *testing.T) {
	s := newSuite(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, suite)
	}{
		{"Publish", contractPublish},
		{"PublicationWhole", contractPublicationWhole},
		{"OrderAndOffsetsUnderLoad", contractOrderAndOffsetsUnderLoad},
		{"History", contractHistory},
		{"EpochOfEmptyChannel", contractEpochOfEmptyChannel},
		{"RemoveHistory", contractRemoveHistory},
		{"HistoryExpires", contractHistoryExpires},
		{"Idempotency", contractIdempotency},
		{"Versions", contractVersions},
		{"EpochWhileHeard", contractEpochWhileHeard},
		{"EpochKept", contractEpochKept},
		{"EpochEnds", contractEpochEnds},
		{"Users", contractUsers},
		{"SubscribeAndUnsubscribe", contractSubscribeAndUnsubscribe},
		{"ChannelNames", contractChannelNames},
		{"Presence", contractPresence},
		{"PresenceStats", contractPresenceStats},
		{"JoinAndLeave", contractJoinAndLeave},
		{"SurveyAndNodes", contractSurveyAndNodes},
		{"EndedContext", contractEndedContext},
		{"AfterRun", contractAfterRun},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, s) })
	}
}

// kept is a publication that goes into history.
func kept(size int) PublishOptions { return PublishOptions{HistorySize: size, HistoryTTL: time.Minute} }

func contractPublish(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		if res := n.publish("elsewhere", "nobody hears", PublishOptions{Count: true}); res != (PublishResult{}) {
			t.Fatalf("without subscribers: %+v", res)
		}
		n.subscribe("room")
		res := n.publish("room", "a", PublishOptions{Count: true})
		if res != (PublishResult{Sockets: 3}) {
			t.Fatalf("without history: %+v", res)
		}
		n.want(event{"pub", "room", "a", 0, ""})

		first := n.publish("room", "b", kept(10))
		second := n.publish("room", "c", kept(10))
		epoch := first.Position.Epoch
		if len(epoch) != 8 || first.Position.Offset != 1 || second.Position != (Position{2, epoch}) {
			t.Fatalf("positions %+v, %+v", first, second)
		}
		n.want(event{"pub", "room", "b", 1, epoch})
		n.want(event{"pub", "room", "c", 2, epoch})

		if res := n.publish("room", "d", PublishOptions{}); res.Position != (Position{}) {
			t.Fatalf("a publication without history moved the position: %+v", res)
		}
		n.want(event{"pub", "room", "d", 0, ""})
		if _, pos := n.history("room", HistoryQuery{}); pos != second.Position {
			t.Fatalf("top is %+v, want %+v", pos, second.Position)
		}
	})
}

// Everything a publication carries arrives, live and from history.
func contractPublicationWhole(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		pub := &protocol.Publication{
			Data: protocol.Raw("{\"a\":\n\"\x00\xff\"}"),
			Info: &protocol.ClientInfo{User: "u", Client: "c", ChanInfo: protocol.Raw(`1`)},
			Tags: map[string]string{"k": "v"}, Delta: true,
		}
		if _, err := n.Publish(t.Context(), "room", pub, kept(1)); err != nil {
			t.Fatal(err)
		}
		pubs, _, err := n.History(t.Context(), "room", HistoryQuery{Limit: -1})
		if err != nil || len(pubs) != 1 {
			t.Fatal(pubs, err)
		}
		got := pubs[0]
		if string(got.Data) != string(pub.Data) || got.Info.GetUser() != "u" || got.Info.GetClient() != "c" ||
			string(got.Info.GetChanInfo()) != "1" || got.Tags["k"] != "v" || !got.Delta || got.Offset != 1 {
			t.Fatalf("got %+v", got)
		}
	})
}

func contractOrderAndOffsetsUnderLoad(t *testing.T, s suite) {
	const publishers, each1 = 8, 100
	s.each(t, func(t *testing.T, n *node) {
		n.subscribe("room")
		var wg sync.WaitGroup
		for p := range publishers {
			wg.Go(func() {
				for i := range each1 {
					pub := &protocol.Publication{Data: protocol.Raw(fmt.Sprintf("%d.%d", p, i))}
					if _, err := n.Publish(t.Context(), "room", pub, kept(publishers*each1)); err != nil {
						t.Errorf("publish: %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
		var live strings.Builder
		last := make(map[string]int)
		for i := range publishers * each1 {
			e := n.next()
			if e.offset != uint64(i+1) {
				t.Fatalf("delivery %d has offset %d", i, e.offset)
			}
			p, number, _ := strings.Cut(e.data, ".")
			if fmt.Sprint(last[p]) != number {
				t.Fatalf("publisher %s: got its %s, want %d", p, number, last[p])
			}
			last[p]++
			fmt.Fprintf(&live, "%d=%s ", e.offset, e.data)
		}
		if stored, _ := n.history("room", HistoryQuery{Limit: -1}); stored != live.String() {
			t.Fatal("history is not what was delivered")
		}
	})
}

func contractHistory(t *testing.T, s suite) {
	at := func(offset uint64) *Position { return &Position{Offset: offset} }
	tests := []struct {
		name  string
		query HistoryQuery
		want  string
	}{
		{"position only", HistoryQuery{}, ""},
		{"all", HistoryQuery{Limit: -1}, "4=d 5=e 6=f 7=g "},
		{"limit", HistoryQuery{Limit: 2}, "4=d 5=e "},
		{"limit above size", HistoryQuery{Limit: 100}, "4=d 5=e 6=f 7=g "},
		{"since", HistoryQuery{Limit: -1, Since: at(5)}, "6=f 7=g "},
		{"since with limit", HistoryQuery{Limit: 1, Since: at(5)}, "6=f "},
		{"since just before the oldest", HistoryQuery{Limit: -1, Since: at(3)}, "4=d 5=e 6=f 7=g "},
		{"since long gone", HistoryQuery{Limit: -1, Since: at(1)}, "4=d 5=e 6=f 7=g "},
		{"since zero", HistoryQuery{Limit: -1, Since: at(0)}, "4=d 5=e 6=f 7=g "},
		{"since top", HistoryQuery{Limit: -1, Since: at(7)}, ""},
		{"since the future", HistoryQuery{Limit: -1, Since: at(100)}, ""},
		{"since the end of time", HistoryQuery{Limit: -1, Since: at(1<<64 - 1)}, ""},
		{"reverse", HistoryQuery{Limit: -1, Reverse: true}, "7=g 6=f 5=e 4=d "},
		{"reverse limit", HistoryQuery{Limit: 2, Reverse: true}, "7=g 6=f "},
		{"reverse since", HistoryQuery{Limit: -1, Since: at(6), Reverse: true}, "5=e 4=d "},
		{"reverse since with limit", HistoryQuery{Limit: 1, Since: at(6), Reverse: true}, "5=e "},
		{"reverse since oldest", HistoryQuery{Limit: -1, Since: at(4), Reverse: true}, ""},
		{"reverse since long gone", HistoryQuery{Limit: -1, Since: at(1), Reverse: true}, ""},
		{"reverse since zero", HistoryQuery{Limit: -1, Since: at(0), Reverse: true}, ""},
		{"reverse since the future", HistoryQuery{Limit: 1, Since: at(100), Reverse: true}, "7=g "},
		{"reverse position only", HistoryQuery{Reverse: true}, ""},
	}
	s.each(t, func(t *testing.T, n *node) {
		var top Position
		for _, data := range strings.Split("abcdefg", "") {
			top = n.publish("room", data, kept(4)).Position
		}
		for _, tt := range tests {
			got, pos := n.history("room", tt.query)
			if got != tt.want {
				t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			}
			if pos != top {
				t.Errorf("%s: position %+v, want %+v", tt.name, pos, top)
			}
		}
		n.publish("room", "h", kept(2))
		if got, _ := n.history("room", HistoryQuery{Limit: -1}); got != "7=g 8=h " {
			t.Errorf("after the size shrank: %q", got)
		}
	})
}

func contractRemoveHistory(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		if upTo, err := n.RemoveHistory(t.Context(), "nothing there"); err != nil || upTo != (Position{}) {
			t.Fatal(upTo, err)
		}
		n.publish("room", "a", kept(5))
		top := n.publish("room", "b", kept(5)).Position
		if upTo, err := n.RemoveHistory(t.Context(), "room"); err != nil || upTo != top {
			t.Fatal(upTo, err)
		}
		if got, pos := n.history("room", HistoryQuery{Limit: -1}); got != "" || pos != top {
			t.Fatalf("got %q at %+v, want nothing at %+v", got, pos, top)
		}
		n.publish("room", "c", kept(5))
		if got, _ := n.history("room", HistoryQuery{Limit: -1}); got != "3=c " {
			t.Fatalf("got %q", got)
		}
	})
}

func contractHistoryExpires(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		top := n.publish("room", "a", PublishOptions{HistorySize: 5, HistoryTTL: 30 * time.Millisecond}).Position
		eventually(t, "the history expires", func() bool {
			got, pos := n.history("room", HistoryQuery{Limit: -1})
			if pos != top {
				t.Fatalf("position went from %+v to %+v", top, pos)
			}
			return got == ""
		})
		short := PublishOptions{HistorySize: 5, HistoryTTL: time.Millisecond, MetaTTL: time.Millisecond}
		n.subscribe("brief")
		first := n.publish("brief", "a", short).Position
		n.want(event{"pub", "brief", "a", 1, first.Epoch})
		eventually(t, "the epoch expires", func() bool {
			pos := n.publish("brief", "b", short).Position
			n.want(event{"pub", "brief", "b", pos.Offset, pos.Epoch}) // it is heard all the same
			return pos.Epoch != first.Epoch
		})
	})
}

func contractIdempotency(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		n.subscribe("room")
		o := kept(5)
		o.IdempotencyKey = "k"
		first := n.publish("room", "a", o)
		n.want(event{"pub", "room", "a", 1, first.Position.Epoch})
		n.publish("room", "b", kept(5))
		n.next()
		again := n.publish("room", "a", o)
		if !again.Repeated || first.Repeated || again.Position != first.Position {
			t.Fatalf("first %+v, again %+v", first, again)
		}
		n.quiet("room")

		o.IdempotencyKey = "other"
		if res := n.publish("room", "c", o); res.Repeated || res.Position.Offset != 3 {
			t.Fatalf("another key: %+v", res)
		}
		o.IdempotencyKey = "k"
		if res := n.publish("other", "a", o); res.Repeated {
			t.Fatal("a key counts for its own channel only")
		}
		n.next()

		bare := PublishOptions{IdempotencyKey: "bare", IdempotencyTTL: 30 * time.Millisecond}
		if n.publish("room", "d", bare).Repeated {
			t.Fatal("a new key is taken for a repeat")
		}
		n.want(event{"pub", "room", "d", 0, ""})
		eventually(t, "the key expires", func() bool { return !n.publish("room", "d", bare).Repeated })
	})
}

func contractVersions(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		n.subscribe("room")
		versioned := func(version uint64, epoch string) PublishOptions {
			o := kept(5)
			o.Version, o.VersionEpoch = version, epoch
			return o
		}
		const high = 1<<64 - 1
		for i, tt := range []struct {
			version    uint64
			epoch      string
			suppressed bool
		}{
			{9, "", false},
			{9, "", true},
			{10, "", false}, // not compared as text
			{9, "", true},
			{9, "x", false}, // versions of another epoch
			{8, "x", true},
			{9, "", true}, // compares with any
			{10, "y", false},
			{high - 1, "y", false},
			{high, "y", false}, // beyond what doubles can tell apart
			{high - 1, "y", true},
			{high, "y", true},
			{0, "", false}, // has none, and keeps the one there is
			{high, "y", true},
		} {
			_, before := n.history("room", HistoryQuery{})
			data := fmt.Sprint("p", i)
			res := n.publish("room", data, versioned(tt.version, tt.epoch))
			if res.Suppressed != tt.suppressed || res.Repeated {
				t.Fatalf("%d, version %d of %q: %+v", i, tt.version, tt.epoch, res)
			}
			if tt.suppressed {
				if res.Position != before {
					t.Fatalf("%d: suppressed at %+v, the top is %+v", i, res.Position, before)
				}
				continue
			}
			n.want(event{"pub", "room", data, before.Offset + 1, before.Epoch})
		}
		n.quiet("room")
		o := versioned(1, "y")
		o.HistorySize = 0
		if n.publish("room", "live", o).Suppressed {
			t.Fatal("a version counts without history")
		}
		n.next()

		// The key is looked at first, and a suppressed publication leaves none.
		o = versioned(1, "z")
		o.IdempotencyKey = "k"
		first := n.publish("room", "once", o)
		if again := n.publish("room", "once", o); !again.Repeated || again.Suppressed || again.Position != first.Position {
			t.Fatalf("%+v after %+v", again, first)
		}
		o.IdempotencyKey = "other"
		if res := n.publish("room", "late", o); !res.Suppressed {
			t.Fatalf("%+v", res)
		}
		if res := n.publish("room", "late", o); !res.Suppressed || res.Repeated {
			t.Fatalf("%+v", res)
		}
		n.publish("other", "v", versioned(1, "")) // each channel has its own
	})
}

func contractUsers(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		ctx := t.Context()
		for range 2 {
			if err := n.AddUser(ctx, "u"); err != nil {
				t.Fatal(err)
			}
		}
		n.RemoveUser("u")
		for _, user := range []string{"u", "stranger", ""} {
			answers, err := n.askUser(user, "op", "x")
			if err != nil || len(answers) != 1 || string(answers[0]) != "one:op:x" {
				t.Fatalf("%q: %q, %v", user, answers, err)
			}
		}
	})
}

func contractSubscribeAndUnsubscribe(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		ctx := t.Context()
		for i := range 20 { // quick changes must not leave the wrong state behind
			n.subscribe("room")
			in := fmt.Sprint("in", i)
			n.publish("room", in, PublishOptions{})
			for e := n.next(); e.data != in; e = n.next() {
				if e.data != "out" { // this may come late, if it comes at all
					t.Fatalf("unexpected %+v", e)
				}
			}
			if err := n.Unsubscribe(ctx, "room"); err != nil {
				t.Fatal(err)
			}
			n.publish("room", "out", PublishOptions{})
		}
		n.quiet("room")
		if err := n.Unsubscribe(ctx, "never subscribed"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 2000 {
			wg.Go(func() {
				if err := n.Subscribe(ctx, fmt.Sprint("many", i)); err != nil {
					t.Errorf("subscribe: %v", err)
				}
			})
		}
		wg.Wait()
		n.publish("many1999", "x", PublishOptions{})
		n.want(event{"pub", "many1999", "x", 0, ""})
	})
}

// Names may hold anything, and are not mixed up.
func contractChannelNames(t *testing.T, s suite) {
	names := []string{"", "}", "{}", "{", "a}b", "}:x", "a{b}c", "a:b", "a b", "房间", "\x00", "a\nb", strings.Repeat("x", 255)}
	s.each(t, func(t *testing.T, n *node) {
		for _, name := range names {
			n.subscribe(name)
			n.enter(name, "client of "+name)
			n.publish(name, "of "+name, PublishOptions{HistorySize: 1, HistoryTTL: time.Minute, IdempotencyKey: "}:" + name})
		}
		for _, name := range names {
			got, _ := n.history(name, HistoryQuery{Limit: -1})
			if got != "1=of "+name+" " {
				t.Errorf("%q: history %q", name, got)
			}
			if p := n.present(name); len(p) != 1 || p["client of "+name] == nil {
				t.Errorf("%q: presence %v", name, p)
			}
		}
		heard := make(map[string]string)
		for range names {
			e := n.next()
			heard[e.channel] = e.data
		}
		for _, name := range names {
			if heard[name] != "of "+name {
				t.Errorf("%q: heard %q", name, heard[name])
			}
		}
	})
}

func contractPresence(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		if p := n.present("room"); p == nil || len(p) != 0 {
			t.Fatalf("empty channel: %v", p)
		}
		n.enter("room", "a")
		n.enter("room", "b")
		n.enter("room", "a")
		n.enter("other", "c")
		p := n.present("room")
		if len(p) != 2 || p["a"].GetUser() != "user of a" || string(p["b"].GetConnInfo()) != `{"a":1}` {
			t.Fatalf("presence %v", p)
		}
		for _, client := range []string{"a", "a", "never there"} {
			if err := n.RemovePresence(t.Context(), "room", client); err != nil {
				t.Fatal(err)
			}
		}
		if p := n.present("room"); len(p) != 1 || p["b"] == nil {
			t.Fatalf("after removal: %v", p)
		}
	})
}

func contractJoinAndLeave(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		info := &protocol.ClientInfo{Client: "c", User: "u"}
		if err := n.PublishJoin(t.Context(), "room", info); err != nil {
			t.Fatal(err)
		}
		n.subscribe("room")
		if err := n.PublishJoin(t.Context(), "room", info); err != nil {
			t.Fatal(err)
		}
		if err := n.PublishLeave(t.Context(), "room", info); err != nil {
			t.Fatal(err)
		}
		n.want(event{kind: "join", channel: "room", data: "c"})
		n.want(event{kind: "leave", channel: "room", data: "c"})
	})
}

func contractSurveyAndNodes(t *testing.T, s suite) {
	s.each(t, func(t *testing.T, n *node) {
		answers, err := n.ask("op", "x\ny")
		if err != nil || len(answers) != 1 || string(answers[0]) != "one:op:x\ny" {
			t.Fatalf("%q, %v", answers, err)
		}
		nodes, err := n.Nodes(t.Context())
		if err != nil || len(nodes) != 1 || nodes[0] != n.Self() {
			t.Fatalf("%+v, %v", nodes, err)
		}
		if err := n.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
