package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"unique"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway/engine"
)

// pair is an engine of two nodes of which the other one may be silent.
type pair struct {
	engine.Engine
	other   *Hub
	silent  atomic.Bool
	failing error // what SurveyUser answers
}

func (p *pair) Survey(ctx context.Context, op string, payload []byte) ([][]byte, error) {
	answers, err := p.Engine.Survey(ctx, op, payload)
	if !p.silent.Load() {
		answers = append(answers, p.other.Survey(op, payload))
	}
	return answers, err
}

func (p *pair) SurveyUser(ctx context.Context, _, op string, payload []byte) ([][]byte, error) {
	if p.failing != nil {
		return nil, p.failing
	}
	return p.Survey(ctx, op, payload)
}

func (p *pair) Nodes(ctx context.Context) ([]engine.Node, error) {
	nodes, err := p.Engine.Nodes(ctx)
	return append(nodes, p.other.Self()), err
}

// twoNodes are two hubs, of which the first asks both.
func twoNodes(t testing.TB) (a, b *testHub, p *pair) {
	b = startHub(t, nil, func(o *Options) { o.Node.UID, o.Node.Name = "n2", "node two" })
	p = &pair{other: b.Hub}
	a = startHub(t, nil, func(o *Options) { p.Engine, o.Engine = o.Engine, p })
	return a, b, p
}

func (th *testHub) enter(token string, channels ...string) *wire {
	th.t.Helper()
	w, _ := th.login(token)
	for i, ch := range channels {
		w.send(fmt.Sprintf(`{"id":%d,"subscribe":{"channel":"%s"}}`, i+2, ch))
		for line := w.next(); !strings.HasPrefix(line, fmt.Sprintf(`{"id":%d,`, i+2)); line = w.next() {
			if strings.HasPrefix(line, "closed") {
				th.t.Fatal(line)
			}
		}
	}
	return w
}

func TestChannelsOfTwoNodes(t *testing.T) {
	a, b, p := twoNodes(t)
	a.enter("alice", "feed:a", "feed:b")
	b.enter("bob", "feed:a")
	b.enter("carl", "feed:c")
	for pattern, want := range map[string]string{
		"feed:*": "map[feed:a:2 feed:b:1 feed:c:1]",
		"#*":     "map[#alice:1 #bob:1 #carl:1]",
		"x*":     "map[]",
	} {
		if got, err := a.Channels(t.Context(), pattern); err != nil || fmt.Sprint(got.Subscribers) != want || got.Truncated {
			t.Errorf("%s: %v, %v", pattern, got, err)
		}
	}
	p.silent.Store(true)
	if _, err := a.Channels(t.Context(), ""); !errors.Is(err, ErrSilent) {
		t.Errorf("with a silent node: %v", err)
	}
}

// TestManyChannels: an answer is bounded, and what is in it is whole.
func TestManyChannels(t *testing.T) {
	all := map[string]int{}
	for i := range MaxChannels + 5 {
		all[fmt.Sprintf("c%06d", i)] = 1
	}
	if !first(all) || len(all) != MaxChannels || all["c000000"] != 1 || all[fmt.Sprintf("c%06d", MaxChannels)] != 0 {
		t.Errorf("%d are left", len(all))
	}
	if first(all) {
		t.Error("cut twice")
	}
}

func clientsOf(list []Connection) (ids []string) {
	for _, c := range list {
		ids = append(ids, c.User+"@"+c.Node)
	}
	slices.Sort(ids)
	return ids
}

func TestFindConnections(t *testing.T) {
	a, b, p := twoNodes(t)
	a.enter("alice/on:phone", "feed:a")
	a.enter("alice/2")
	b.enter("alice/on:pad", "feed:a", "feed:b")
	b.enter("bob", "feed:b")
	a.dial(dialOptions{}) // not logged in: not listed
	for name, c := range map[string]struct {
		q    ConnectionQuery
		want string
	}{
		"all":            {ConnectionQuery{}, "[alice@n1 alice@n1 alice@n2 bob@n2]"},
		"user":           {ConnectionQuery{User: "alice"}, "[alice@n1 alice@n1 alice@n2]"},
		"nobody":         {ConnectionQuery{User: "carl"}, "[]"},
		"channel":        {ConnectionQuery{Channel: "feed:a"}, "[alice@n1 alice@n2]"},
		"two filters":    {ConnectionQuery{Channel: "feed:b", User: "bob"}, "[bob@n2]"},
		"other channel":  {ConnectionQuery{Channel: "feed:x"}, "[]"},
		"appid":          {ConnectionQuery{AppID: "wx1", Node: "n1"}, "[alice@n1 alice@n1]"},
		"other appid":    {ConnectionQuery{AppID: "wx2"}, "[]"},
		"unionid":        {ConnectionQuery{UnionID: "union-bob"}, "[bob@n2]"},
		"node by name":   {ConnectionQuery{Node: "node two"}, "[alice@n2 bob@n2]"},
		"unknown node":   {ConnectionQuery{Node: "n3"}, "[]"},
		"protocol":       {ConnectionQuery{Protocol: "protobuf"}, "[]"},
		"session by id":  {ConnectionQuery{Session: auth.Fingerprint(sha256.Sum256([]byte("bob"))).ID()}, "[bob@n2]"},
		"session":        {ConnectionQuery{Session: auth.Fingerprint(sha256.Sum256([]byte("bob"))).String()}, "[bob@n2]"},
		"other session":  {ConnectionQuery{Session: "0123456789abcdef"}, "[]"},
		"half an id":     {ConnectionQuery{Session: auth.Fingerprint(sha256.Sum256([]byte("bob"))).ID()[:15]}, "[]"},
		"unknown client": {ConnectionQuery{Client: "x"}, "[]"},
	} {
		c.q.Limit = 100
		page, err := a.FindConnections(t.Context(), c.q)
		if got := fmt.Sprint(clientsOf(page.Connections)); err != nil || got != c.want || page.Next != "" || page.Missing != nil {
			t.Errorf("%s: %s %q %v %v, want %s", name, got, page.Next, page.Missing, err, c.want)
		}
	}
	for name, q := range map[string]ConnectionQuery{
		"no limit": {}, "large limit": {Limit: MaxConnections + 1}, "negative": {Limit: -1}, "ip": {Limit: 1, IP: "::zz"}, "long cursor": {Limit: 1, After: strings.Repeat("x", 65)},
	} {
		if _, err := a.FindConnections(t.Context(), q); err == nil || CodeOf(err).Code != 107 {
			t.Errorf("%s: %v", name, err)
		}
	}

	p.silent.Store(true)
	page, err := a.FindConnections(t.Context(), ConnectionQuery{Limit: 10})
	if err != nil || fmt.Sprint(page.Missing) != "[n2]" || len(page.Connections) != 2 {
		t.Errorf("with a silent node: %+v %v", page, err)
	}
}

// TestPages: page by page everybody comes once, whoever comes and goes.
func TestPages(t *testing.T) {
	a, b, _ := twoNodes(t)
	for i := range 12 {
		a.enter(fmt.Sprintf("a%d", i))
		b.enter(fmt.Sprintf("b%d", i))
	}
	for _, limit := range []int{1, 5, 24, 25} {
		seen, after := map[string]int{}, ""
		for pages := 0; ; pages++ {
			page, err := a.FindConnections(t.Context(), ConnectionQuery{After: after, Limit: limit})
			if err != nil || pages > 30 || len(page.Connections) > limit {
				t.Fatalf("page %d of %d: %d connections, %v", pages, limit, len(page.Connections), err)
			}
			for _, c := range page.Connections {
				seen[c.User]++
			}
			if after = page.Next; after == "" {
				break
			}
			if pages == 2 {
				w := b.enter("late" + fmt.Sprint(limit))
				_ = w.conn.CloseNow()
			}
		}
		for i := range 12 {
			if seen[fmt.Sprintf("a%d", i)] != 1 || seen[fmt.Sprintf("b%d", i)] != 1 {
				t.Errorf("limit %d: seen %v", limit, seen)
				break
			}
		}
	}
}

func TestConnectionsByAddress(t *testing.T) {
	c := &client{id: newID(), login: &login{appID: unique.Make("")}, ip: "192.0.2.7"}
	for ip, want := range map[string]bool{
		"192.0.2.7": true, "192.0.2.0/24": true, "0.0.0.0/0": true, "192.0.2.8": false, "198.51.100.0/24": false,
		"::ffff:192.0.2.7": true, "::/0": false,
	} {
		q := ConnectionQuery{IP: ip, Limit: 1}
		if err := q.check(); err != nil {
			t.Errorf("%s: %v", ip, err)
		}
		if got := q.matches(c); got != want {
			t.Errorf("%s matches %v", ip, got)
		}
	}
}

func TestUserInfo(t *testing.T) {
	a, b, _ := twoNodes(t)
	a.enter("alice/on:phone", "feed:a")
	b.enter("alice/on:pad", "feed:b")
	b.enter("alice/on:pad#2")
	info, err := a.User(t.Context(), "alice")
	if err != nil || !info.Online || info.Since != info.Connections[0].Since || info.Since.IsZero() {
		t.Fatalf("%+v %v", info, err)
	}
	got := fmt.Sprint(info.Nodes, info.Devices, info.Channels, clientsOf(info.Connections), info.Truncated)
	if want := "[{n1 node} {n2 node two}] [pad phone] [#alice feed:a feed:b union:#union-alice] [alice@n1 alice@n2 alice@n2] false"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	info, err = a.User(t.Context(), "bob")
	if err != nil || info.Online || !info.Since.IsZero() || len(info.Connections) != 0 || info.Nodes == nil || info.Channels == nil {
		t.Errorf("%+v %v", info, err)
	}
	if _, err := a.User(t.Context(), ""); err == nil {
		t.Error("nobody has no error")
	}
}

func TestKick(t *testing.T) {
	a, b, p := twoNodes(t)
	w1 := a.enter("alice/1")
	w2 := b.enter("alice/2")
	w3 := b.enter("bob")
	page, err := a.FindConnections(t.Context(), ConnectionQuery{User: "bob", Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	n, err := a.Kick(t.Context(), "", DisconnectOptions{Client: page.Connections[0].Client, Code: 4001, Reason: "enough"})
	if err != nil || n != 1 {
		t.Errorf("%d %v", n, err)
	}
	w3.wantEnd(&Disconnect{4001, "enough"})
	second := auth.Fingerprint(sha256.Sum256([]byte("alice/2"))).ID()
	if n, err := a.Kick(t.Context(), "alice", DisconnectOptions{Session: second}); err != nil || n != 1 {
		t.Errorf("a session: %d %v", n, err)
	}
	w2.wantEnd(DisconnectForced)
	w1.sync()
	w2 = b.enter("alice/2")
	if n, err := a.Kick(t.Context(), "alice", DisconnectOptions{}); err != nil || n < 2 { // the one before may still be closing
		t.Errorf("%d %v", n, err)
	}
	w1.wantEnd(DisconnectForced)
	w2.wantEnd(DisconnectForced)
	if n, err := a.Kick(t.Context(), "", DisconnectOptions{Client: "gone"}); err != nil || n != 0 {
		t.Errorf("nobody: %d %v", n, err)
	}
	p.silent.Store(true)
	if _, err := a.Kick(t.Context(), "", DisconnectOptions{Client: "gone"}); !errors.Is(err, ErrSilent) {
		t.Errorf("with a silent node: %v", err)
	}
	if _, err := a.Kick(t.Context(), "", DisconnectOptions{}); err == nil {
		t.Error("nobody at all has no error")
	}
}

// TestPick: those that sort first, whatever the order in which they come.
func TestPick(t *testing.T) {
	for _, n := range []int{0, 1, 3, 50, 500} {
		list, ids := make([]*client, n), make([]string, n)
		for i := range list {
			list[i] = &client{id: newID(), login: &login{appID: unique.Make("")}}
			ids[i] = list[i].id.String()
		}
		slices.Sort(ids)
		for _, limit := range []int{1, 2, 7, 100} {
			q := ConnectionQuery{Limit: limit}
			var got []string
			for _, c := range q.pick(list) {
				got = append(got, c.id.String())
			}
			if want := ids[:min(n, limit)]; !slices.Equal(got, want) {
				t.Errorf("of %d the first %d: %v, want %v", n, limit, got, want)
			}
		}
	}
}
