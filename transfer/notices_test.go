package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// ears hear notices, unless they are told otherwise.
type ears struct {
	mu      sync.Mutex
	heard   []Notice
	trouble error
}

func (e *ears) notify(_ context.Context, n Notice) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.trouble == nil {
		e.heard = append(e.heard, n)
	}
	return e.trouble
}

// listening opens a house; flush gives the notices that wait.
func listening(t *testing.T, change ...func(*Settings)) (h *house, e *ears, flush func() []string) {
	e = &ears{}
	h = openHouse(t, Options{Store: newTestFolder(t), Ledger: newTestFileLedger(t), Notify: e.notify}, change...)
	return h, e, func() (heard []string) {
		for range len(h.notices) {
			h.giveNotice(t.Context(), <-h.notices)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, n := range e.heard {
			whom := n.Channel
			if whom == "" {
				whom = n.User.OpenID
			}
			heard = append(heard, n.Event+" of "+n.File.Name+" to "+whom)
		}
		e.heard = nil
		return heard
	}
}

func loud(s *Settings) { s.Notify = NotifySettings{Owner: true, Channel: true}; s.UserChannel = true }

func TestNotices(t *testing.T) {
	h, e, flush := listening(t, loud)
	h.join("alice", "room", true)
	want := func(when string, want ...string) {
		t.Helper()
		if got := flush(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	private := h.keep("a.txt", "hello")
	want("a file", "file_ready of a.txt to alice")
	h.upload("?channel=room", formOf(field{"f", "b.txt", "hello"}))
	want("a shared file", "file_ready of b.txt to alice", "file_shared of b.txt to room")
	h.upload("?size=2", formOf(field{"f", "c.txt", "hello"}))
	want("an upload that failed")

	var u struct{ ID string }
	a := h.do("POST", "/files/uploads?channel=room", strings.NewReader(`{"name":"d.txt","size":5}`), "Content-Type", "application/json")
	if err := json.Unmarshal([]byte(a.body), &u); err != nil {
		t.Fatal(a)
	}
	want("an upload that has begun")
	h.do("PUT", "/files/uploads/"+u.ID+"/parts/1", strings.NewReader("hello"))
	for range 2 {
		h.do("POST", "/files/uploads/"+u.ID+"/complete", nil)
	}
	want("an upload in parts", "file_ready of d.txt to alice", "file_shared of d.txt to room")

	var info FileInfo
	for range 2 {
		h.api("/access", `{"file":"`+private.ID+`","channel":"room"}`, &info)
	}
	want("access", "file_shared of a.txt to room")
	h.api("/access", `{"file":"`+private.ID+`"}`, &info)
	h.do("DELETE", private.URL, nil)
	want("no access, and no file")

	e.trouble = errors.New("the engine is away")
	h.keep("e.txt", "hello") // is answered
	want("in trouble")
	e.trouble = nil
	want("after it: lost")
	if given, lost := testutil.ToFloat64(h.metrics.notices.WithLabelValues("given")), testutil.ToFloat64(h.metrics.notices.WithLabelValues("lost")); given != 6 || lost != 1 {
		t.Errorf("%v given, %v lost", given, lost)
	}
}

// Others hear of what they may read, and nobody of what is still on its way.
func TestNoticesByState(t *testing.T) {
	h, _, flush := listening(t, loud)
	for _, state := range []State{Pending, Deleting} {
		h.tellUsers(File{ID: "X", Name: "a.txt", Owner: alice, State: state, Access: Access{Channel: "room"}})
		if got := flush(); len(got) != 0 {
			t.Errorf("%s: %q", state, got)
		}
	}
}

// Nobody hears of what is switched off.
func TestNoticesOff(t *testing.T) {
	for _, c := range []struct {
		owner, channel bool
		want           string
	}{
		{true, false, "[file_ready of a.txt to alice]"},
		{false, true, "[file_shared of a.txt to room]"},
		{false, false, "[]"},
	} {
		h, _, flush := listening(t, loud, func(s *Settings) { s.Notify = NotifySettings{c.owner, c.channel} })
		h.join("alice", "room", true)
		h.upload("?channel=room", formOf(field{"f", "a.txt", "hello"}))
		if got := fmt.Sprint(flush()); got != c.want {
			t.Errorf("%v, %v: %s", c.owner, c.channel, got)
		}
	}
}

// An engine that hangs holds up nobody, and costs no more memory than allowed.
func TestNoticesPileUp(t *testing.T) {
	h, _, flush := listening(t)
	for range maxNotices + 3 {
		h.tellUsers(File{ID: "X", Name: "a.txt", Owner: alice, State: Ready})
	}
	if n := len(flush()); n != maxNotices {
		t.Errorf("%d were given", n)
	}
	if lost := testutil.ToFloat64(h.metrics.notices.WithLabelValues("lost")); lost != 3 {
		t.Errorf("%v are counted as lost", lost)
	}
}

// What the backend attached, and who somebody is elsewhere, is nobody's business.
func TestNoticeTellsLittle(t *testing.T) {
	h, e, flush := listening(t, loud)
	owner := alice
	owner.UnionID = "union-secret"
	h.tellUsers(File{
		ID: "X", Name: "a.txt", Size: 5, Type: "text/plain", SHA256: sum("hello"), Owner: owner, Key: "key-secret",
		Attributes: `{"note":"backend-secret"}`, Access: Access{Channel: "room"}, State: Ready,
	})
	h.giveNotice(t.Context(), <-h.notices)
	text, err := json.Marshal(e.heard[0])
	want := `{"type":"minigate.file","event":"file_ready","file":{"id":"X","name":"a.txt","size":5,"type":"text/plain","sha256":"` +
		sum("hello") + `","url":"/files/X","owner":"alice","channel":"room"}}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
	flush()
	if strings.Contains(string(text), "secret") {
		t.Error("there is a secret in it")
	}
}

// Run gives them, and ends with its context also while one is under way.
func TestNoticesAreRun(t *testing.T) {
	began := make(chan Notice)
	h := openHouse(t, Options{
		Store: newTestFolder(t), Ledger: newTestFileLedger(t),
		Notify: func(ctx context.Context, n Notice) error {
			began <- n
			<-ctx.Done()
			return ctx.Err()
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- h.Run(ctx) }()
	h.keep("a.txt", "hello")
	if n := <-began; n.File.Name != "a.txt" || n.User != alice {
		t.Errorf("%+v", n)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// While a file is being checked nobody hears of it; then its owner does either
// way, and the channel only of one that passed.
func TestNoticesOfChecks(t *testing.T) {
	h, _, flush := listening(t, loud)
	h.join("alice", "room", true)
	says := h.checkedBy(nameClamd)[0]
	for _, c := range []struct {
		name string
		outcome
		want []string
	}{
		{"good.txt", passed, []string{"file_ready of good.txt to alice", "file_shared of good.txt to room"}},
		{"bad.txt", objected, []string{"file_blocked of bad.txt to alice"}},
	} {
		says.say(c.outcome, "", nil)
		h.upload("?channel=room", formOf(field{"f", c.name, "hello"}))
		if heard := flush(); len(heard) > 0 {
			t.Errorf("%s, before it was checked: %q", c.name, heard)
		}
		h.check()
		if heard := flush(); !slices.Equal(heard, c.want) {
			t.Errorf("%s: %q, want %q", c.name, heard, c.want)
		}
	}
}
