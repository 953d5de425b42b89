package transfer

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/auth"
)

func TestLedgerSessionsOfUser(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		list := func(who auth.User, limit int) string {
			t.Helper()
			files, err := l.Sessions(t.Context(), who, limit)
			if err != nil {
				t.Fatal(err)
			}
			return idsOf(files)
		}
		bob, elsewhere := alice, alice
		bob.OpenID, elsewhere.AppID = "bob", "wx2"
		later, first := session(t, l, 2*time.Hour), session(t, l, time.Hour)
		session(t, l, -time.Second)
		reserved(t, l, 0)
		both := first.ID + " " + later.ID
		for who, want := range map[auth.User]string{alice: both, bob: "", elsewhere: ""} {
			if got := list(who, 10); got != want {
				t.Errorf("of %v: %s, want %s", who, got, want)
			}
		}
		if got := list(alice, 1); got != first.ID {
			t.Errorf("one: %s, want %s", got, first.ID)
		}
		renewed := first
		renewed.Session.Expires = later.Session.Expires.Add(time.Hour)
		if err := l.Update(t.Context(), renewed, Quota{}); err != nil {
			t.Fatal(err)
		}
		if got := list(alice, 10); got != later.ID+" "+first.ID {
			t.Errorf("renewed: %s", got)
		}
		if err := l.Commit(t.Context(), renewed, Quota{}); err != nil {
			t.Fatal(err)
		}
		if got := list(alice, 10); got != later.ID {
			t.Errorf("committed: %s", got)
		}
		if _, err := l.Retire(t.Context(), later.ID, Pending); err != nil {
			t.Fatal(err)
		}
		if got := list(alice, 10); got != "" {
			t.Errorf("retired: %s", got)
		}
	})
}

// TestBeginOnce is a client that did not hear the answer to its first request.
func TestBeginOnce(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		body := `{"name":"a.txt","size":5}`
		try := func(key, body string, header ...string) (u uploadAnswer, code string) {
			t.Helper()
			a := h.do("POST", "/files/uploads", strings.NewReader(body), append(header, "Idempotency-Key", key)...)
			if a.StatusCode != http.StatusCreated {
				return u, a.code()
			}
			if err := json.Unmarshal([]byte(a.body), &u); err != nil {
				t.Fatal(err)
			}
			return u, ""
		}
		first, code := try("k1", body)
		if code != "" {
			t.Fatal(code)
		}
		(&uploading{house: h, path: "/files/uploads/" + first.ID}).mustPart(1, "hello")
		again, code := try(`"k1"`, body)
		if code != "" || again.ID != first.ID || again.Received != 5 || len(again.Missing) != 0 {
			t.Errorf("again: %+v, %s", again, code)
		}
		for what, want := range map[string]string{`{"name":"a.txt","size":6}`: "idempotency_key_reused", `{"name":"b.txt","size":5}`: "idempotency_key_reused"} {
			if _, code := try("k1", what); code != want {
				t.Errorf("%s: %q, want %s", what, code, want)
			}
		}
		for _, key := range []string{`"`, `""`, `"open`, "a\"b", `a\b`, strings.Repeat("x", 256), "schlüssel"} {
			if _, code := try(key, body); code != "idempotency_key_invalid" {
				t.Errorf("key %q: %q", key, code)
			}
		}
		if other, code := try("k2", body); code != "" || other.ID == first.ID {
			t.Errorf("another key: %+v, %s", other, code)
		}
		if other, code := try("k1", body, "User", "bob"); code != "" || other.ID == first.ID {
			t.Errorf("another user: %+v, %s", other, code)
		}
		want := fmt.Sprintf(`{"uploads":[{"id":%q,"way":"parts","key":"k1","name":"a.txt","size":5,`, first.ID)
		if a := h.do("GET", "/files/uploads", nil); a.StatusCode != http.StatusOK || !strings.HasPrefix(a.body, want) || strings.Count(a.body, `"id"`) != 2 {
			t.Errorf("open: %v, want %s…", a, want)
		}
		if a := h.do("POST", "/files/uploads/"+first.ID+"/complete", nil); a.StatusCode != http.StatusCreated {
			t.Fatal(a)
		}
		if next, code := try("k1", body); code != "" || next.ID == first.ID {
			t.Errorf("after it was completed: %+v, %s", next, code)
		}
	})
}

// However often a client asks at the same time, there is one upload.
func TestBeginOnceTogether(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		ids := make([]string, 8)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				u, err := h.Begin(t.Context(), alice, NewUpload{Way: WayParts, Key: "k", Size: 1})
				if err != nil {
					t.Error(err)
				}
				ids[i] = u.ID
			})
		}
		wg.Wait()
		for _, id := range ids {
			if id != ids[0] {
				t.Errorf("uploads %v", ids)
				break
			}
		}
	})
}

// A node that died after it had entered a session, and before the storage knew
// of it: who asks again can go on.
func TestBeginOnceCutShort(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		f, err := h.newSession(alice, NewUpload{Way: WayParts, Key: "k", Size: 5})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.ledger.Reserve(t.Context(), f, Quota{}); err != nil {
			t.Fatal(err)
		}
		before, err := h.store.Begin(t.Context(), f.Key, f.Session.PartSize) // it came as far as this
		if err != nil {
			t.Fatal(err)
		}
		u, err := h.Begin(t.Context(), alice, NewUpload{Way: WayParts, Key: "k", Size: 5})
		if err != nil || u.ID != f.ID {
			t.Fatalf("%+v, %v; want %s", u, err, f.ID)
		}
		if _, err := h.PutPart(t.Context(), alice, u.ID, 1, strings.NewReader("hello"), NewPart{Size: 5}); err != nil {
			t.Fatal(err)
		}
		if file, err := h.Complete(t.Context(), alice, u.ID); err != nil || file.Size != 5 {
			t.Errorf("%+v, %v", file, err)
		}
		if parts, err := h.store.Parts(t.Context(), f.Key, before); !errors.Is(err, errNoUpload) {
			t.Errorf("the upload that was lost is there: %v, %v", parts, err)
		}
		wantUsage(t, h.ledger, "in the end", Usage{Stored: 5, Daily: 5})
	})
}
