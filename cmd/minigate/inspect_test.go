package main

import (
	"strings"
	"testing"
)

// TestInspect: operators look for contradictions in a node at work, by API and
// on the command line; nobody else may.
func TestInspect(t *testing.T) {
	sim, wechatURL := simulator(t)
	config := strings.Replace(baseConfig(t, wechatURL), "  keys:\n", "  keys:\n    - {name: reader, key: a-key-that-may-read, scope: read}\n", 1)
	p := startServe(t, config)
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	connect(t, p.Public, me.Token)
	var a inspectAnswer
	call(t, "POST", p.Ops+"/api/inspect", withKey, map[string]any{}, &a)
	if a.Connections != 1 || a.ConnectionsChecked != 1 || a.ChannelsChecked != a.Channels || a.Channels < 1 || !a.Complete || a.Looks < 1 || a.Problems == nil || len(a.Problems) != 0 || a.Node == "" {
		t.Errorf("%+v", a)
	}
	for body, want := range map[string]int{`{"limit":0}`: 400, `{"limit":1000000}`: 400, `{"limit":"x"}`: 400, ``: 400, `{"limit":1}`: 200} {
		if status, raw := callRaw(t, "POST", p.Ops+"/api/inspect", withKey, body); status != want {
			t.Errorf("%s: %d %s, want %d", body, status, raw, want)
		}
	}
	for name, header := range map[string]map[string]string{"no key": nil, "a key to read": {"X-API-Key": "a-key-that-may-read"}} {
		if status, _ := callRaw(t, "POST", p.Ops+"/api/inspect", header, `{}`); status != map[string]int{"no key": 401, "a key to read": 403}[name] {
			t.Errorf("%s: %d", name, status)
		}
	}
	p.expect(t, map[string]expectation{
		"as text":     {[]string{"inspect"}, 0, "looked at 1 connections and"},
		"all is well": {[]string{"inspect", "--limit", "1"}, 0, "no contradictions"},
		"as JSON":     {[]string{"inspect", "--json"}, 0, `"problems":[]`},
		"too much":    {[]string{"inspect", "--limit", "1000000"}, 1, "limit must be between"},
	})
}

// What is found is printed, fit for a terminal.
func TestPrintInspection(t *testing.T) {
	var out strings.Builder
	a := inspectAnswer{Node: "n"}
	a.Connections, a.ConnectionsChecked, a.Problems, a.More = 7, 3, []string{"client \x1b[2J is gone"}, 5
	printInspection(&out, a)
	if want := "n: looked at 3 of 7 connections and 0 channels in 0 ms\n  client \ufffd[2J is gone\n  and 5 more\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}
