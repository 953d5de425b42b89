package serverapi

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/minigate/minigate/gateway"
)

var epochs = regexp.MustCompile(`"epoch":"[^"]+"`)

func noEpochs(answer string) string { return epochs.ReplaceAllString(answer, `"epoch":"EPOCH"`) }

// TestPushOnce: a repeat is delivered to nobody and answers the first places,
// target by target.
func TestPushOnce(t *testing.T) {
	w := newWorld(t)
	ann := w.connect("ann", `{"id":2,"subscribe":{"channel":"plain:a"}}`)
	bob := w.connect("bob")
	const body = `{"users":["o-ann"],"unionids":["u-bob"],"channels":["plain:a"],"data":"once","idempotency_key":"order-1"}`
	first := w.must("push", body)
	if got := noEpochs(first); got != `{"result":{"sockets":3,"users":{"o-ann":{"sockets":1,"stored":true,"offset":1,"epoch":"EPOCH"}},`+
		`"unionids":{"u-bob":{"sockets":1,"stored":true,"offset":1,"epoch":"EPOCH"}},"channels":{"plain:a":{"sockets":1,"stored":false}}}}` {
		t.Errorf("first %s", got)
	}
	for name, got := range map[string]string{"ann": ann.nextPub() + ann.nextPub(), "bob": bob.nextPub()} {
		if strings.ReplaceAll(got, `"once"`, "") != "" {
			t.Errorf("%s was delivered %s", name, got)
		}
	}
	again := w.must("push", body)
	if want := strings.NewReplacer(`{"sockets":3`, `{"sockets":0`, `"sockets":1`, `"sockets":0`, `"stored":false`, `"stored":false,"repeated":true`).Replace(first); again != regexp.MustCompile(`("epoch":"[^"]+")`).ReplaceAllString(want, `$1,"repeated":true`) {
		t.Errorf("again %s\nfirst %s", again, first)
	}
	more := w.must("push", `{"users":["o-ann","o-new"],"data":"twice","idempotency_key":"order-1"}`)
	if got := noEpochs(more); !strings.Contains(got, `"o-ann":{"sockets":0,"stored":true,"offset":1,"epoch":"EPOCH","repeated":true}`) || !strings.Contains(got, `"o-new":{"sockets":0,"stored":true,"offset":1,"epoch":"EPOCH"}`) {
		t.Errorf("with one more target %s", got)
	}
	w.must("push", `{"users":["o-ann"],"unionids":["u-bob"],"data":"the next"}`)
	for name, s := range map[string]*socket{"ann": ann, "bob": bob} {
		if got := s.nextPub(); got != `"the next"` {
			t.Errorf("%s was delivered %s", name, got)
		}
	}
}

func TestPushReachesEverybodyItNames(t *testing.T) {
	w := newWorld(t)
	ann := w.connect("ann", `{"id":2,"subscribe":{"channel":"room:a"}}`)
	bob := w.connect("bob")

	answer := w.must("push", `{"users":["o-ann","o-nobody"],"unionids":["u-bob"],"channels":["room:a"],"all":true,"data":{"n":1}}`)
	want := `{"result":{"sockets":5,"users":{"o-ann":{"sockets":1,"stored":true,"offset":1,"epoch":"EPOCH"},"o-nobody":{"sockets":0,"stored":true,"offset":1,"epoch":"EPOCH"}},` +
		`"unionids":{"u-bob":{"sockets":1,"stored":true,"offset":1,"epoch":"EPOCH"}},"channels":{"room:a":{"sockets":1,"stored":true,"offset":1,"epoch":"EPOCH"}},"all":2}}`
	if answer = noEpochs(answer); answer != want {
		t.Errorf("got  %s\nwant %s", answer, want)
	}
	ann.wait(`{"n":1}`)
	bob.wait(`{"n":1}`)

	for body, want := range map[string]string{
		`{"users":["o-ann"],"data":1}`:      `{"result":{"sockets":1,"users":{"o-ann":{"sockets":1,"stored":true,"offset":2,"epoch":"EPOCH"}}}}`,
		`{"channels":["plain:a"],"data":1}`: `{"result":{"sockets":0,"channels":{"plain:a":{"sockets":0,"stored":false}}}}`,
	} {
		if answer := noEpochs(w.must("push", body)); answer != want {
			t.Errorf("%s:\n got %s\nwant %s", body, answer, want)
		}
	}
}

// TestDataPassesAsGiven: nothing is reformatted on the way but line breaks,
// which would cut the message in two.
func TestDataPassesAsGiven(t *testing.T) {
	w := newWorld(t)
	ann := w.connect("ann", `{"id":2,"subscribe":{"channel":"room:a"}}`)
	for given, want := range map[string]string{
		`{"b":1, "a" : 1.50, "a":2}`:                `{"b":1, "a" : 1.50, "a":2}`,
		`"<&>\u4f60 你 \/ \n"`:                       `"<&>\u4f60 你 \/ \n"`,
		"{\n  \"x\": [1,\r\n  2]\n}":                `{  "x": [1,  2]}`,
		`123456789012345678901234567890.00e-0`:      `123456789012345678901234567890.00e-0`,
		"[\"line\u2028separators\u2029 pass\"]":     "[\"line\u2028separators\u2029 pass\"]",
		`{"deep":[[[{"x":{}}]]],"empty":"","0":-0}`: `{"deep":[[[{"x":{}}]]],"empty":"","0":-0}`,
	} {
		w.must("publish", `{"channel":"room:a","data":`+given+`}`)
		if got := ann.wait(`"pub"`); !strings.Contains(got, `"data":`+want) {
			t.Errorf("data %q arrived in %q", given, got)
		}
	}
}

func TestPushMistakes(t *testing.T) {
	w := newWorld(t)
	for name, body := range map[string]string{
		"no target":        `{"data":1}`,
		"all false":        `{"all":false,"users":[],"data":1}`,
		"no data":          `{"all":true}`,
		"empty user":       `{"users":[""],"data":1}`,
		"empty unionid":    `{"unionids":["u",""],"data":1}`,
		"empty channel":    `{"channels":[""],"data":1}`,
		"too many":         `{"users":["a"` + strings.Repeat(`,"a"`, 5000) + `],"unionids":["a"` + strings.Repeat(`,"a"`, 5000) + `],"data":1}`,
		"too much data":    `{"all":true,"data":"` + strings.Repeat("x", 64<<10) + `"}`,
		"b64data not JSON": `{"all":true,"b64data":"eA=="}`,
		"a long key":       `{"users":["o-ann"],"data":1,"idempotency_key":"` + strings.Repeat("k", 257) + `"}`,
		"all, once":        `{"all":true,"users":["o-ann"],"data":1,"idempotency_key":"k"}`,
	} {
		if status, answer := w.post("push", body); status != 200 || !strings.HasPrefix(answer, `{"error":{"code":107,"message":"bad request: `) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	for name, body := range map[string]string{
		"users no list": `{"users":"o-ann","data":1}`,
		"all no bool":   `{"all":"yes","data":1}`,
	} {
		if status, answer := w.post("push", body); status != 400 {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
}

func TestPushSaysWhichTargetFailed(t *testing.T) {
	w := newWorld(t)
	_, answer := w.post("push", `{"users":["o-ann"],"channels":["nope:x","room:a"],"data":1}`)
	want := `{"result":{"sockets":0,"users":{"o-ann":{"sockets":0,"stored":true,"offset":1,"epoch":"EPOCH"}},"channels":{"nope:x":{"sockets":0,"stored":false,"error":{"code":102,"message":"unknown channel"}},"room:a":{"sockets":0,"stored":true,"offset":1,"epoch":"EPOCH"}}}}`
	if answer = noEpochs(answer); answer != want {
		t.Errorf("got  %s\nwant %s", answer, want)
	}
	broken := errors.New("secret detail")
	got := pushResultOf(pushRequest{All: true}, gateway.PushResult{Errors: []gateway.PushError{
		{Kind: "all", Err: broken}, {Kind: "user", Target: "a", Err: broken}, {Kind: "unionid", Target: "b", Err: broken},
	}})
	if got.All != nil || got.AllError.Code != 100 || got.Users["a"].Error.Code != 100 || got.UnionIDs["b"].Error.Code != 100 {
		t.Errorf("got %+v", got)
	}
}

func TestLookingAtAndEndingConnections(t *testing.T) {
	w := newWorld(t)
	ann := w.connect("ann", `{"id":2,"subscribe":{"channel":"room:a"}}`)
	w.connect("bob", `{"id":2,"subscribe":{"channel":"room:a"}}`)

	presence := w.must("presence", `{"channel":"room:a"}`)
	for _, part := range []string{`"user":"o-ann"`, `"user":"o-bob"`, `"client":"`} {
		if !strings.Contains(presence, part) {
			t.Errorf("%s lacks %s", presence, part)
		}
	}
	if got := w.must("presence_stats", `{"channel":"room:a"}`); got != `{"result":{"num_clients":2,"num_users":2}}` {
		t.Errorf("got %s", got)
	}
	if got := w.must("info", `{}`); !strings.Contains(got, `"num_clients":2,"num_users":2`) {
		t.Errorf("got %s", got)
	}
	w.must("unsubscribe", `{"user":"o-ann","channel":"room:a"}`)
	ann.wait(`"code":2000`)
	w.must("disconnect", `{"user":"o-ann","disconnect":{"code":4501,"reason":"banned"}}`)
	if got := ann.wait(`"disconnect"`); !strings.Contains(got, `"code":4501`) || !strings.Contains(got, `"reason":"banned"`) {
		t.Errorf("got %s", got)
	}
}
