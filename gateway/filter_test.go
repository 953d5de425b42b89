package gateway

import (
	"strings"
	"testing"

	"github.com/centrifugal/protocol"
)

func leaf(key, cmp, val string, vals ...string) *protocol.FilterNode {
	return &protocol.FilterNode{Key: key, Cmp: cmp, Val: val, Vals: vals}
}

func node(op string, nodes ...*protocol.FilterNode) *protocol.FilterNode {
	return &protocol.FilterNode{Op: op, Nodes: nodes}
}

func TestFilter(t *testing.T) {
	tags := map[string]string{"env": "prod", "n": "42.5", "empty": ""}
	yes, no := leaf("env", "eq", "prod"), leaf("env", "eq", "test")
	for _, tc := range []struct {
		f    *protocol.FilterNode
		want bool
	}{
		{yes, true},
		{no, false},
		{leaf("gone", "eq", "prod"), false},
		{leaf("env", "neq", "prod"), false},
		{leaf("env", "neq", "x"), true},
		{leaf("gone", "neq", "x"), true},
		{leaf("env", "in", "", "a", "prod"), true},
		{leaf("env", "in", "", "a"), false},
		{leaf("gone", "in", "", "a"), false},
		{leaf("gone", "in", "", ""), true},
		{leaf("env", "nin", "", "a"), true},
		{leaf("env", "nin", "", "prod"), false},
		{leaf("gone", "nin", "", "a"), true},
		{leaf("env", "ex", ""), true},
		{leaf("gone", "ex", ""), false},
		{leaf("empty", "ex", ""), true},
		{leaf("env", "nex", ""), false},
		{leaf("gone", "nex", ""), true},
		{leaf("env", "sw", "pr"), true},
		{leaf("env", "sw", "ro"), false},
		{leaf("env", "ew", "od"), true},
		{leaf("env", "ew", "ro"), false},
		{leaf("env", "ct", "ro"), true},
		{leaf("env", "ct", "x"), false},
		{leaf("gone", "ct", "x"), false},
		{leaf("n", "gt", "42"), true},
		{leaf("n", "gt", "42.5"), false},
		{leaf("n", "gt", "100"), false},
		{leaf("n", "gte", "42.50"), true},
		{leaf("n", "gte", "43"), false},
		{leaf("n", "lt", "100"), true},
		{leaf("n", "lt", "42.5"), false},
		{leaf("n", "lt", "-1"), false},
		{leaf("n", "lte", "42.5"), true},
		{leaf("n", "lte", "42.4999999999"), false},
		{leaf("n", "gt", "x"), false},
		{leaf("n", "lt", "x"), false},
		{leaf("env", "lt", "1"), false},
		{leaf("gone", "lt", "1"), false},
		{node("and", yes, yes), true},
		{node("and", yes, no), false},
		{node("or", no, yes), true},
		{node("or", no, no), false},
		{node("not", no), true},
		{node("not", yes), false},
		{node("or", node("and", yes, no), node("not", leaf("gone", "ex", ""))), true},
	} {
		f, err := newFilter(tc.f)
		if err != nil {
			t.Errorf("%v: %v", tc.f, err)
		} else if f.matches(tags) != tc.want {
			t.Errorf("%v: not %v", tc.f, tc.want)
		}
	}
}

func TestFilterChecks(t *testing.T) {
	deep, wide := leaf("a", "ex", ""), node("and")
	for range maxFilterDepth {
		deep = node("not", deep)
	}
	for range maxFilterNodes {
		wide.Nodes = append(wide.Nodes, leaf("a", "ex", ""))
	}
	for name, f := range map[string]*protocol.FilterNode{
		"nil": nil, "empty": {}, "unknown cmp": leaf("a", "like", "b"), "unknown op": node("xor", leaf("a", "ex", "")),
		"eq without val": leaf("a", "eq", ""), "eq with vals": leaf("a", "eq", "b", "c"), "eq without key": leaf("", "eq", "b"),
		"in without vals": leaf("a", "in", ""), "in with val": leaf("a", "in", "b", "c"), "in without key": leaf("", "in", "", "c"),
		"ex with val": leaf("a", "ex", "b"), "nex with vals": leaf("a", "nex", "", "b"),
		"and without nodes": node("and"), "or without nodes": node("or"), "not without nodes": node("not"),
		"not with two": node("not", leaf("a", "ex", ""), leaf("a", "ex", "")), "nil inside": node("and", nil),
		"too deep": deep, "too many nodes": wide, "too long": leaf("a", "eq", strings.Repeat("x", maxFilterBytes)),
		"too many values": leaf("a", "in", "", strings.Split(strings.Repeat("x,", maxFilterVals), ",")...),
	} {
		if _, err := newFilter(f); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A filtered subscriber gets only what matches, live, recovered and repaired;
// the rest counts for its position.
func TestFilteredSubscription(t *testing.T) {
	bothEncodings(t, func(t *testing.T, o dialOptions) {
		h := startHub(t, nil)
		w, _ := h.loginWith(o, "alice")
		publish := func(data, kind string) {
			if _, err := h.Publish(t.Context(), "tags:a", []byte(data), PublishOptions{Tags: map[string]string{"kind": kind}}); err != nil {
				t.Fatal(err)
			}
		}
		tf := `"tf":{"key":"kind","cmp":"eq","val":"even"}`
		w.send(`{"id":2,"subscribe":{"channel":"room:a",`+tf+`}}`, `{"id":3,"subscribe":{"channel":"tags:a","tf":{"key":"kind"}}}`,
			`{"id":4,"subscribe":{"channel":"tags:a",`+tf+`}}`)
		w.want(`{"id":2,"error":{"code":107,"message":"bad request"}}`, `{"id":3,"error":{"code":107,"message":"bad request"}}`, `{"id":4,"subscribe":{*}}`)
		publish("1", "odd")
		publish("2", "even")
		publish("3", "odd")
		w.want(`{"push":{"channel":"tags:a","pub":{"data":2,"offset":2,"tags":{"kind":"even"}}}}`)
		w.send(`{"id":5,"unsubscribe":{"channel":"tags:a"}}`)
		w.want(`{"id":5,"unsubscribe":{}}`)
		publish("4", "even")
		publish("5", "odd")
		w.send(`{"id":6,"subscribe":{"channel":"tags:a","recover":true,"offset":3,` + tf + `}}`)
		r := decode(t, w.next()).Subscribe
		if !r.Recovered || r.Offset != 3 || len(r.Publications) != 1 || r.Publications[0].Offset != 4 {
			t.Errorf("%v", r)
		}
		publish("6", "even") // its position must have moved past 5
		w.want(`{"push":{"channel":"tags:a","pub":{"data":6,"offset":6,"tags":{"kind":"even"}}}}`)
		w.send(`{"id":7,"subscribe":{"channel":"delta:a","delta":"fossil",` + tf + `}}`)
		w.want(`{"id":7,"subscribe":{"recoverable":true,"epoch":"*","positioned":true}}`) // no deltas beside a filter
	})
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		`{"key":"a","cmp":"eq","val":"b"}`, `{"op":"and","nodes":[{"key":"a","cmp":"gt","val":"1e5"},{"op":"not","nodes":[{"key":"a","cmp":"ex"}]}]}`,
		`{"op":"or","nodes":[null]}`, `{"key":"n","cmp":"lte","val":"-0.5"}`, `{"key":"a","cmp":"in","vals":["","b"]}`,
	} {
		f.Add(seed, "a", "1")
	}
	f.Fuzz(func(t *testing.T, data, key, val string) {
		cmd, _ := protocol.NewJSONCommandDecoder([]byte(`{"subscribe":{"tf":` + data + `}}`)).Decode()
		if cmd == nil || cmd.Subscribe == nil {
			return
		}
		flt, err := newFilter(cmd.Subscribe.Tf)
		if err != nil {
			return
		}
		inverse, err := newFilter(node("not", cmd.Subscribe.Tf))
		tags := map[string]string{key: val}
		if err == nil && flt.matches(tags) == inverse.matches(tags) {
			t.Error("a filter and its opposite agree")
		}
	})
}
