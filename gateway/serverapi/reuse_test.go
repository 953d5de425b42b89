package serverapi

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// serve calls a method within the test's own goroutine, so that buffers come
// back to it.
func (w *world) serve(method string, body io.Reader) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequest("POST", "/api/"+method, body)
	r.Header.Set("X-Api-Key", adminKey)
	rec := httptest.NewRecorder()
	w.api.ServeHTTP(rec, r)
	return rec
}

// works is serve for what works, and returns the answer.
func (w *world) works(method, body string) string {
	w.t.Helper()
	rec := w.serve(method, strings.NewReader(body))
	if answer := rec.Body.String(); rec.Code == 200 && !strings.Contains(answer, `"error"`) {
		return answer
	}
	w.t.Fatalf("%s: %d %s", method, rec.Code, rec.Body)
	return ""
}

// TestNothingOfABodyIsKept: the memory that a body was read into belongs to the
// next request. Nothing of a call that was answered changes with it.
func TestNothingOfABodyIsKept(t *testing.T) {
	w := newWorld(t)
	w.works("publish", `{"channel":"room:publish","data":{"a":"first"},"tags":{"k":"first"},"idempotency_key":"first","version":7,"version_epoch":"first"}`)
	w.works("broadcast", `{"channels":["room:broadcast"],"data":{"a":"first"}}`)
	w.works("push", `{"channels":["room:push"],"data":{"a":"first"}}`)
	w.works("batch", `{"commands":[{"publish":{"channel":"room:batch","data":{"a":"first"}}}]}`)
	looks := []string{"room:publish", "room:broadcast", "room:push", "room:batch"}
	history := func() (all []string) {
		for _, ch := range looks {
			all = append(all, w.works("history", `{"channel":"`+ch+`","limit":10}`))
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
		w.works("presence", `{"channel":"room:other","x":"`+strings.Repeat("#", 4096)+`"}`)
	}
	if again := w.works("publish", `{"channel":"room:publish","data":{"a":"second"},"idempotency_key":"first"}`); !strings.Contains(again, `"offset":1,`) {
		t.Errorf("the idempotency key is lost: %s", again)
	}
	if old := w.works("publish", `{"channel":"room:publish","data":{"a":"second"},"version":7,"version_epoch":"first"}`); !strings.Contains(old, `"offset":1,`) {
		t.Errorf("the version's epoch is lost: %s", old)
	}
	for i, h := range history() {
		if h != before[i] {
			t.Errorf("%s: %s became %s", looks[i], before[i], h)
		}
	}
}

// TestLargeBuffersAreNotKept: what one large request or answer took is given
// back.
func TestLargeBuffersAreNotKept(t *testing.T) {
	w := newWorld(t)
	large := strings.Repeat("x", maxPooled*3/4)
	w.works("publish", `{"channel":"room:a","data":"`+large+`"}`)
	w.works("publish", `{"channel":"room:a","data":1,"x":"`+large+large+`"}`)
	w.works("publish", `{"channel":"room:a","data":"`+large+`"}`)
	if n := len(w.works("history", `{"channel":"room:a","limit":10}`)); n <= maxPooled {
		t.Fatalf("a history of %d bytes", n)
	}
	for range 20 {
		if n := buffers.Get().(*bytes.Buffer).Cap(); n > maxPooled {
			t.Fatalf("%d bytes of a body are kept", n)
		}
		if n := encoders.Get().(*encoder).out.Cap(); n > maxPooled {
			t.Fatalf("%d bytes of an answer are kept", n)
		}
	}
}

// TestBodyThatIsCut: what came of it is not a request, even where it looks like
// one.
func TestBodyThatIsCut(t *testing.T) {
	w := newWorld(t)
	cut := io.MultiReader(strings.NewReader(`{"channel":"room:a","data":1}`), iotest.ErrReader(errors.New("the line is dead")))
	if rec := w.serve("publish", cut); rec.Code != 400 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if h := w.works("history", `{"channel":"room:a","limit":1}`); !strings.Contains(h, `"publications":[]`) {
		t.Error(h)
	}
}

// TestHeaderOfAnswers: all answers share what is the same in them, and what
// somebody adds to one is in no other.
func TestHeaderOfAnswers(t *testing.T) {
	w := newWorld(t)
	one, other := w.serve("info", strings.NewReader(`{}`)).Header(), w.serve("info", strings.NewReader(`{}`)).Header()
	for name, want := range map[string]string{"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"} {
		one.Add(name, "one")
		other.Add(name, "other")
		if got := one.Values(name); !slices.Equal(got, []string{want, "one"}) {
			t.Errorf("%s: %q, want %q and what was added", name, got, want)
		}
	}
}
