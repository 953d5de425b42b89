package serverapi

import (
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/fault"
)

func TestCall(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name, method, body, code, why string
		kind                          fault.Kind
	}{
		{"publish", "publish", `{"channel":"room:1","data":1}`, "", "", 0},
		{"push", "push", `{"channels":["room:1"],"data":1}`, "", "", 0},
		{"broadcast", "broadcast", `{"channels":["room:1","plain:1"],"data":1}`, "", "", 0},
		{"disconnect", "disconnect", `{"user":"o-1"}`, "", "", 0},
		{"batch", "batch", `{"commands":[{"publish":{"channel":"room:1","data":1}}]}`, "", "", 0},
		{"unknown", "nosuch", `{}`, "method_not_found", "", fault.NotFound},
		{"reads only", "history", `{"channel":"room:1"}`, "method_not_found", "", fault.NotFound},
		{"no object", "publish", `[]`, "bad_request", "not a JSON object", fault.Invalid},
		{"cut", "publish", `{"channel":"room:1"`, "bad_request", "not a JSON object", fault.Invalid},
		{"other types", "publish", `{"channel":1}`, "bad_request", "not the JSON", fault.Invalid},
		{"not UTF-8", "publish", "{\"channel\":\"room:\xff\",\"data\":1}", "bad_request", "UTF-8", fault.Invalid},
		{"too large", "publish", `{"x":"` + strings.Repeat("x", 4<<20) + `"}`, "bad_request", "too large", fault.Invalid},
		{"no channel", "publish", `{"data":1}`, "bad_request", "no channel", fault.Invalid},
		{"unknown namespace", "publish", `{"channel":"nosuch:1","data":1}`, "unknown_channel", "", fault.NotFound},
		{"one of two", "broadcast", `{"channels":["room:1","nosuch:1"],"data":1}`, "partly_refused", "102 unknown channel", fault.Invalid},
		{"one target", "push", `{"users":["o-1"],"channels":["nosuch:1"],"data":1}`, "partly_refused", "102 unknown channel", fault.Invalid},
		{"one command", "batch", `{"commands":[{"publish":{"channel":"room:1","data":1}},{"publish":{"channel":"room:1"}}]}`, "partly_refused", "107 bad request", fault.Invalid},
		{"within a command", "batch", `{"commands":[{"broadcast":{"channels":["nosuch:1"],"data":1}}]}`, "partly_refused", "102", fault.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := w.api.Call(t.Context(), tt.method, []byte(tt.body), "")
			if tt.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("it was carried out")
			}
			if e := fault.Of(err); e.Code != tt.code || e.Kind != tt.kind || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("kind %d: %v", e.Kind, err)
			}
		})
	}
}

// TestCallOnce repeats calls under one key: what they publish is there once,
// unless it has a key of its own.
func TestCallOnce(t *testing.T) {
	w := newWorld(t)
	for _, call := range [][2]string{
		{"publish", `{"channel":"room:once","data":{"n":1} } `},
		{"broadcast", `{"channels":["room:once"],"data":"<2>"}`},
		{"publish", `{"channel":"room:once","data":3,"idempotency_key":"theirs"}`},
		{"push", `{"channels":["room:once"],"data":6}`},
		{"batch", `{"commands":[{"publish":{"channel":"room:once","data":"<4>"}},{"publish":{"channel":"room:once","data":5}},{"disconnect":{"user":"o-1"}}]}`},
	} {
		for _, once := range []string{"first-" + call[0], "first-" + call[0]} {
			if err := w.api.Call(t.Context(), call[0], []byte(call[1]), once+call[1][:9]); err != nil {
				t.Fatalf("%s: %v", call, err)
			}
		}
	}
	got := w.must("history", `{"channel":"room:once","limit":-1}`)
	if strings.Count(got, `"offset"`) != 6+1 {
		t.Errorf("history: %s", got)
	}
	for _, want := range []string{`"data":{"n":1}`, `"data":"<2>"`, `"data":3`, `"data":"<4>"`, `"data":5`, `"data":6`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if got := string(withKey("publish", []byte(" { }"), "k")); got != ` {"idempotency_key":"k"}` {
		t.Errorf("an empty object became %s", got)
	}
}

// TestFailedWithin puts what a repeat may mend before what it cannot.
func TestFailedWithin(t *testing.T) {
	refused, away := &apiError{102, "unknown channel"}, &apiError{100, "internal server error"}
	for _, result := range []any{
		broadcastResult{[]reply{{Error: refused}, {Error: away}, {Result: position{}}}},
		pushResult{Users: map[string]target{"a": {Error: refused}}, AllError: away},
		batchReply{[]map[string]any{{"error": refused}, {"broadcast": broadcastResult{[]reply{{Error: away}}}}}},
	} {
		if e := fault.Of(failedWithin(result)); e.Code != "partly_failed" || e.Kind != fault.Unavailable {
			t.Errorf("%T: %v", result, e)
		}
	}
	if err := failedWithin(pushResult{}); err != nil {
		t.Error(err)
	}
}
