package serverapi

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// TestNothingOfABodyIsKept: the memory that a body was read into belongs to the
// next request. Nothing of a call that was answered changes with it.
func TestNothingOfABodyIsKept(t *testing.T) {
	w := newWorld(t)
	call := func(method, body string) string {
		r := httptest.NewRequest("POST", "/api/"+method, strings.NewReader(body))
		r.Header.Set("X-Api-Key", adminKey)
		rec := httptest.NewRecorder()
		w.api.ServeHTTP(rec, r)
		if strings.Contains(rec.Body.String(), "error") {
			t.Fatalf("%s: %s", method, rec.Body)
		}
		return rec.Body.String()
	}
	call("publish", `{"channel":"room:publish","data":{"a":"first"},"tags":{"k":"first"},"idempotency_key":"first","version":7,"version_epoch":"first"}`)
	call("broadcast", `{"channels":["room:broadcast"],"data":{"a":"first"}}`)
	call("push", `{"channels":["room:push"],"data":{"a":"first"}}`)
	call("batch", `{"commands":[{"publish":{"channel":"room:batch","data":{"a":"first"}}}]}`)
	looks := []string{"room:publish", "room:broadcast", "room:push", "room:batch"}
	history := func() (all []string) {
		for _, ch := range looks {
			all = append(all, call("history", `{"channel":"`+ch+`","limit":10}`))
		}
		return all
	}
	before := history()
	for i, h := range before {
		if !strings.Contains(h, `"data":{"a":"first"},"offset":1`) {
			t.Fatalf("%s: %s", looks[i], h)
		}
	}
	for range 8 { // more buffers than were in use
		call("presence", `{"channel":"room:other","x":"`+strings.Repeat("#", 4096)+`"}`)
	}
	if again := call("publish", `{"channel":"room:publish","data":{"a":"second"},"idempotency_key":"first"}`); !strings.Contains(again, `"offset":1,`) {
		t.Errorf("the idempotency key is lost: %s", again)
	}
	if old := call("publish", `{"channel":"room:publish","data":{"a":"second"},"version":7,"version_epoch":"first"}`); !strings.Contains(old, `"offset":1,`) {
		t.Errorf("the version's epoch is lost: %s", old)
	}
	for i, h := range history() {
		if h != before[i] {
			t.Errorf("%s: %s became %s", looks[i], before[i], h)
		}
	}
}

// TestLargeBuffersAreNotKept: what one large request took is given back.
func TestLargeBuffersAreNotKept(t *testing.T) {
	w := newWorld(t)
	large := strings.Repeat("x", maxPooled)
	for range 20 { // the pool of each processor
		if status, answer := w.post("publish", `{"channel":"room:a","data":1,"x":"`+large+`"}`); status != 200 {
			t.Fatal(status, answer)
		}
	}
	for range 20 {
		b := buffers.Get().(interface{ Cap() int })
		if b.Cap() > maxPooled {
			t.Fatalf("%d bytes are kept", b.Cap())
		}
	}
}
