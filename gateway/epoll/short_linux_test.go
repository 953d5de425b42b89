package epoll

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// What comes alone and is short is offered first, and handed over as usual
// where the owner leaves it. Everything else is not offered at all.
func TestShortMessagesAreOffered(t *testing.T) {
	offered := make(chan string, 10)
	o := testOptions()
	o.Short = func(_ *peer, op Opcode, p []byte) bool {
		offered <- string(rune('0'+op)) + string(p)
		return string(p) == "{}"
	}
	s := startSite(t, o)
	conn, _ := s.dialWith(t, &websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1000})
	echoed := func(want string) {
		t.Helper()
		if _, got, err := conn.Read(t.Context()); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	say(t, conn, "") // taken together with the handshake, or alone
	echoed("")
	for len(offered) > 0 {
		<-offered
	}
	say(t, conn, "{}")
	if got := <-offered; got != "1{}" {
		t.Fatalf("offered %q", got)
	}
	say(t, conn, "12345678")
	echoed("12345678") // what was taken is not echoed
	if got := <-offered; got != "112345678" {
		t.Fatalf("offered %q", got)
	}
	say(t, conn, "123456789")
	echoed("123456789")
	w, err := conn.Writer(t.Context(), websocket.MessageText)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"{", "}"} { // in two frames
		if _, err := w.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	echoed("{}")
	say(t, conn, strings.Repeat("{}", 1000)) // compressed to a few bytes
	echoed(strings.Repeat("{}", 1000))
	if len(offered) > 0 {
		t.Errorf("offered %q", <-offered)
	}
}

// A hang-up can be reported that was another connection's: it must neither end
// this one nor have it read for ever.
func TestHangUpOfAnotherConnection(t *testing.T) {
	s := startSite(t, testOptions())
	conn, p := s.dial(t)
	for range 2 {
		p.conn.state.Or(hungUp)
		say(t, conn, "still here")
		if _, got, err := conn.Read(t.Context()); err != nil || string(got) != "still here" {
			t.Fatalf("got %q, %v", got, err)
		}
		for end := time.Now().Add(10 * time.Second); p.conn.state.Load() != 0; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatal("it is still being read")
			}
		}
	}
}
