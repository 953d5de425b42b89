package serverapi

import (
	"testing"
)

func TestChannels(t *testing.T) {
	w := newWorld(t)
	ann := w.connect("ann", `{"id":2,"subscribe":{"channel":"room:a"}}`)
	w.connect("bob", `{"id":2,"subscribe":{"channel":"room:a"}}`)
	w.connect("cid", `{"id":2,"subscribe":{"channel":"plain:b"}}`)
	for pattern, want := range map[string]string{
		`room:*`:       `"room:a":{"num_clients":2}`,
		`{room,x}:[a]`: `"room:a":{"num_clients":2}`,
		`*:?`:          `"plain:b":{"num_clients":1},"room:a":{"num_clients":2}`,
		`room`:         ``,
		`#o-cid`:       `"#o-cid":{"num_clients":1}`,
	} {
		if got := w.must("channels", `{"pattern":"`+pattern+`"}`); got != `{"result":{"channels":{`+want+`}}}` {
			t.Errorf("%s: %s, want %s", pattern, got, want)
		}
	}
	ann.send(`{"id":3,"unsubscribe":{"channel":"room:a"}}`)
	ann.wait(`"id":3`)
	if got := w.must("channels", `{"pattern":"room:*"}`); got != `{"result":{"channels":{"room:a":{"num_clients":1}}}}` {
		t.Errorf("after an unsubscribe %s", got)
	}
	if status, answer := w.post("channels", `{}`, "X-Api-Key", publishKey); status != 403 {
		t.Errorf("with a key to publish: %d %s", status, answer)
	}
}
