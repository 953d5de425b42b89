package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/settings"
)

func ticketKey(id string, fill byte) TicketKey {
	raw := make([]byte, 32)
	for i := range raw {
		raw[i] = fill
	}
	return TicketKey{id, settings.Secret(base64.StdEncoding.EncodeToString(raw))}
}

func withTicketKeys(keys ...TicketKey) func(*Options) {
	return func(o *Options) { o.TicketKeys = keys }
}

func (e *env) wantTicket(ticket string, scope Scope, code string) {
	e.t.Helper()
	ses, err := e.VerifyTicket(e.t.Context(), ticket, scope)
	wantFault(e.t, err, code)
	if (ses == nil) != (code != "") {
		e.t.Errorf("session %v with code %q", ses, code)
	}
}

func TestTicketScopes(t *testing.T) {
	store, _ := newFileStore(t)
	e := newEnv(t, store)
	_, ses := e.mustLogin("alice")
	scopes := []Scope{ScopeSocket, ScopeUpload, FileScope("f1"), FileScope("f2"), UploadScope("f1")}
	for _, scope := range scopes {
		ticket := e.NewTicket(t.Context(), ses, scope, time.Minute)
		for _, other := range scopes {
			if other != scope {
				e.wantTicket(ticket, other, "ticket_invalid")
			}
		}
		e.wantTicket(ticket, scope, "")
		again := ""
		if scope == ScopeSocket {
			again = "ticket_used"
		}
		e.wantTicket(ticket, scope, again)
		if strings.ContainsAny(ticket, "+/=&?%# ") || len(ticket) > 140 {
			t.Errorf("not compact or not for URLs: %s", ticket)
		}
	}
}

// The format is written down at ticketPrefix; a signer that knows only that
// makes the same tickets.
func TestTicketFormat(t *testing.T) {
	store, _ := newFileStore(t)
	e := newEnv(t, store, withTicketKeys(ticketKey("k1", 7)))
	_, ses := e.mustLogin("alice")
	make := func(expires time.Time, scope string) string {
		raw := binary.BigEndian.AppendUint64(nil, uint64(expires.UnixMilli()))
		raw = append(raw, "twelve bytes"...)
		raw = append(raw, ses.Fingerprint[:]...)
		mac := hmac.New(sha256.New, []byte(strings.Repeat("\x07", 32)))
		mac.Write([]byte("\x02k1"))
		mac.Write(raw)
		mac.Write([]byte(scope))
		return "mgt_k1." + base64.RawURLEncoding.EncodeToString(mac.Sum(raw))
	}
	now := time.Now()
	e.wantTicket(make(now.Add(time.Minute), "file:x:read"), FileScope("x"), "")
	e.wantTicket(make(now, "file:x:read"), FileScope("x"), "ticket_expired")
	e.wantTicket(make(now.Add(-time.Hour), "file:y:read"), FileScope("x"), "ticket_invalid")
}

func TestTicketTampered(t *testing.T) {
	store, _ := newFileStore(t)
	e := newEnv(t, store)
	token, ses := e.mustLogin("alice")
	ticket := e.NewTicket(t.Context(), ses, ScopeUpload, 0)
	for i := range ticket {
		flipped := []byte(ticket)
		if flipped[i]++; flipped[i] == '{' {
			flipped[i] = 'a'
		}
		e.wantTicket(string(flipped), ScopeUpload, "ticket_invalid")
		e.wantTicket(ticket[:i], ScopeUpload, "ticket_invalid")
	}
	for _, bad := range []string{token, ticket + "A", ticket + "\n", ticket[:60] + "\n" + ticket[60:], strings.Repeat("A", 1<<20)} {
		e.wantTicket(bad, ScopeUpload, "ticket_invalid")
	}
	e.wantTicket(ticket, ScopeUpload, "")
	e.wantVerify(ticket, "token_invalid")
}

func TestTicketDiesWithSession(t *testing.T) {
	store, _ := newFileStore(t)
	e := newEnv(t, store)
	token, ses := e.mustLogin("alice")
	ticket := e.NewTicket(t.Context(), ses, ScopeUpload, 0)
	upload := e.NewTicket(t.Context(), ses, UploadScope("u"), time.Hour)
	if err := e.Logout(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	e.wantTicket(ticket, ScopeUpload, "ticket_expired")
	e.wantTicket(upload, UploadScope("u"), "ticket_expired")
}

func TestTicketLifetime(t *testing.T) {
	store, _ := newFileStore(t)
	e := newEnv(t, store)
	_, ses := e.mustLogin("alice")
	for name, tc := range map[string]struct {
		scope     Scope
		ttl, want time.Duration
	}{
		"default":         {ScopeSocket, 0, 5 * time.Minute},
		"short":           {ScopeSocket, time.Second, time.Second},
		"at most ten":     {FileScope("a"), time.Hour, 10 * time.Minute},
		"as its upload":   {UploadScope("a"), time.Hour, time.Hour},
		"at most a week":  {UploadScope("a"), 1000 * time.Hour, 168 * time.Hour},
		"any upload":      {ScopeUpload, time.Hour, 10 * time.Minute},
		"file not upload": {FileScope("upload:a"), time.Hour, 10 * time.Minute},
	} {
		before := time.Now()
		got, ok := e.tickets.open(e.NewTicket(t.Context(), ses, tc.scope, tc.ttl), tc.scope)
		if earliest := before.Add(tc.want).Truncate(time.Millisecond); !ok || got.expires.Before(earliest) || got.expires.After(time.Now().Add(tc.want)) {
			t.Errorf("%s: expires %v after it was made, want %v", name, got.expires.Sub(before), tc.want)
		}
	}
}

// A ticket for one upload lasts as long as is asked for, well beyond the ten
// minutes of all others, and not a moment longer than its session.
func TestUploadTicketLastsAsItsUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)))
		token, ses := e.mustLogin("alice")
		_, other := e.mustLogin("alice")
		life := 24 * time.Hour
		upload := e.NewTicket(t.Context(), ses, UploadScope("u"), life)
		killed := e.NewTicket(t.Context(), other, UploadScope("u"), life)
		rest := map[Scope]string{}
		for _, scope := range []Scope{ScopeSocket, ScopeUpload, FileScope("u")} {
			rest[scope] = e.NewTicket(t.Context(), ses, scope, life)
		}
		time.Sleep(10*time.Minute - time.Millisecond)
		e.wantTicket(rest[FileScope("u")], FileScope("u"), "")
		time.Sleep(time.Millisecond)
		for scope, ticket := range rest {
			e.wantTicket(ticket, scope, "ticket_expired")
		}
		for range 23 {
			time.Sleep(time.Hour)
			e.wantTicket(upload, UploadScope("u"), "")
		}
		e.wantTicket(upload, UploadScope("v"), "ticket_invalid")
		if err := e.RevokeSession(t.Context(), ses.User.OpenID, other.Fingerprint.ID()); err != nil {
			t.Fatal(err)
		}
		e.wantTicket(killed, UploadScope("u"), "ticket_expired")
		e.wantTicket(upload, UploadScope("u"), "")
		time.Sleep(time.Hour)
		e.wantTicket(upload, UploadScope("u"), "ticket_expired")
		e.wantVerify(token, "")
	})
}

func TestTicketKeyRotation(t *testing.T) {
	store, _ := newFileStore(t)
	old, current := ticketKey("old", 1), ticketKey("new", 2)
	before := newEnv(t, store, withTicketKeys(old))
	_, ses := before.mustLogin("alice")
	ticket := before.NewTicket(t.Context(), ses, ScopeUpload, 0)
	during := newEnv(t, store, withTicketKeys(current, old))
	during.wantTicket(ticket, ScopeUpload, "")
	fresh := during.NewTicket(t.Context(), ses, ScopeUpload, 0)
	after := newEnv(t, store, withTicketKeys(current))
	after.wantTicket(ticket, ScopeUpload, "ticket_invalid")
	after.wantTicket(fresh, ScopeUpload, "")
	renamed := newEnv(t, store, withTicketKeys(TicketKey{"new", old.Secret}))
	renamed.wantTicket(fresh, ScopeUpload, "ticket_invalid")
}

func TestCheckTicketKeys(t *testing.T) {
	for name, tc := range map[string]struct {
		keys []TicketKey
		want string
	}{
		"none":      {nil, ""},
		"good":      {[]TicketKey{ticketKey("a", 1), ticketKey("b", 2)}, ""},
		"twice":     {[]TicketKey{ticketKey("a", 1), ticketKey("a", 2)}, "[1].id"},
		"no id":     {[]TicketKey{ticketKey("", 1)}, "[0].id"},
		"dot in id": {[]TicketKey{ticketKey("a.b", 1)}, "[0].id"},
		"short":     {[]TicketKey{{"a", "aGVsbG8="}}, "[0].secret"},
		"no base64": {[]TicketKey{{"a", "hello!"}}, "[0].secret"},
	} {
		got := ""
		CheckTicketKeys(tc.keys, func(path, _ string) { got += path })
		if got != tc.want {
			t.Errorf("%s: reported %q, want %q", name, got, tc.want)
		}
		if _, err := newTicketKeys(tc.keys); err != nil && tc.want == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServeTicket(t *testing.T) {
	store, _ := newFileStore(t)
	e := newEnv(t, store)
	token, ses := e.mustLogin("alice")
	ticket := e.NewTicket(t.Context(), ses, ScopeSocket, 0)
	h := rest.Handler(e.ServeTicket)
	for body, want := range map[string]string{
		`{"scope":"socket"}`: "", `{"scope":"upload"}`: "", `{"scope":"upload:abc"}`: "", `{"scope":"file:a-_Z9:read"}`: "",
		`{"scope":""}`: "scope_invalid", `{"scope":"file:a:write"}`: "scope_invalid", `{"scope":"file::read"}`: "scope_invalid",
		`{"scope":"socket\n"}`: "scope_invalid", `{"scope":"file:a/b:read"}`: "scope_invalid", `{}`: "scope_invalid",
	} {
		w, answer := call(h, "POST", token, body)
		if got := errorCode(answer); got != want {
			t.Errorf("%s: error %q, want %q", body, got, want)
		}
		if want != "" {
			continue
		}
		var req struct{ Scope Scope }
		if err := json.Unmarshal([]byte(body), &req); err != nil {
			t.Fatal(err)
		}
		made, _ := answer["ticket"].(string)
		e.wantTicket(made, req.Scope, "")
		if w.Code != http.StatusOK || answer["expires_in"] != 300.0 || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v %v", body, w.Code, answer, w.Header())
		}
	}
	for name, credential := range map[string]string{"a ticket": ticket, "nothing": ""} {
		if w, _ := call(h, "POST", credential, `{"scope":"socket"}`); w.Code != http.StatusUnauthorized {
			t.Errorf("%s made a ticket: %d", name, w.Code)
		}
	}
	r := httptest.NewRequest("POST", "/auth/ticket?ticket="+ticket, strings.NewReader(`{"scope":"socket"}`))
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
		t.Errorf("a ticket in the query made a ticket: %d", w.Code)
	}
}

func TestRequireTicketOr(t *testing.T) {
	store, _ := newFileStore(t)
	e := newEnv(t, store)
	token, ses := e.mustLogin("alice")
	ticket := e.NewTicket(t.Context(), ses, FileScope("a"), 0)
	h := e.RequireTicketOr(func(r *http.Request) Scope {
		if r.URL.Path == "/none" {
			return ""
		}
		return FileScope(strings.TrimPrefix(r.URL.Path, "/"))
	}, func(w http.ResponseWriter, r *http.Request) error {
		if got := SessionFrom(r.Context()); got == nil || got.User != ses.User {
			t.Errorf("session %v", got)
		}
		return nil
	})
	for name, tc := range map[string]struct{ target, token, want string }{
		"token":             {"/a", token, ""},
		"ticket":            {"/a?ticket=" + ticket, "", ""},
		"among others":      {"/a?x=1&ticket=" + ticket + "&y=2", "", ""},
		"other file":        {"/b?ticket=" + ticket, "", "ticket_invalid"},
		"no scope":          {"/none?ticket=" + ticket, "", "ticket_invalid"},
		"two tickets":       {"/a?ticket=" + ticket + "&ticket=" + ticket, "", "ticket_invalid"},
		"empty":             {"/a?ticket=", "", "ticket_invalid"},
		"a token as ticket": {"/a?ticket=" + token, "", "ticket_invalid"},
		"a ticket as token": {"/a", ticket, "token_invalid"},
		"bad token, ticket": {"/a?ticket=" + ticket, "x", "token_invalid"},
		"nothing":           {"/a", "", "token_missing"},
	} {
		r, w := httptest.NewRequest("GET", tc.target, nil), httptest.NewRecorder()
		if tc.token != "" {
			r.Header.Set("Authorization", "Bearer "+tc.token)
		}
		h.ServeHTTP(w, r)
		var answer map[string]any
		_ = json.Unmarshal(w.Body.Bytes(), &answer)
		if got := errorCode(answer); got != tc.want {
			t.Errorf("%s: error %q, want %q", name, got, tc.want)
		}
		if strings.Contains(w.Body.String(), ticket) {
			t.Errorf("%s: the answer shows the ticket", name)
		}
	}
}

// Of many who show the same socket ticket at the same moment one is let in.
func TestSocketTicketOnce(t *testing.T) {
	store, _ := newFileStore(t)
	e := newEnv(t, store)
	_, ses := e.mustLogin("alice")
	ticket := e.NewTicket(t.Context(), ses, ScopeSocket, 0)
	var in atomic.Int32
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			_, err := e.VerifyTicket(t.Context(), ticket, ScopeSocket)
			if err == nil {
				in.Add(1)
			} else if code := fault.Of(err).Code; code != "ticket_used" {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Errorf("%d were let in", in.Load())
	}
}

func FuzzTicket(f *testing.F) {
	keys, err := newTicketKeys([]TicketKey{ticketKey("k", 3)})
	if err != nil {
		f.Fatal(err)
	}
	valid := keys.sign(ticket{expires: time.UnixMilli(1700000000000), id: TicketID{1}, session: Fingerprint{2}}, ScopeUpload)
	for _, seed := range []string{valid, valid[:20], "", "mgt_", "mgt_k.", "mgt_." + valid[6:], "mgt_k." + strings.Repeat("A", ticketLength)} {
		f.Add(seed, string(ScopeUpload))
	}
	f.Fuzz(func(t *testing.T, text, scope string) {
		if _, ok := keys.open(text, Scope(scope)); ok != (text == valid && scope == string(ScopeUpload)) {
			t.Errorf("%q for %q: %v", text, scope, ok)
		}
	})
}

func FuzzScope(f *testing.F) {
	for _, seed := range []string{"socket", "upload", "upload:a", "file:a:read", "file:upload:read", "upload:", "socket\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		scope, err := ParseScope(text)
		if err != nil {
			return
		}
		id, isFile := strings.CutPrefix(text, "file:")
		id = strings.TrimSuffix(id, ":read")
		upload, isUpload := strings.CutPrefix(text, "upload:")
		switch {
		case isFile && scope == FileScope(id) && !strings.ContainsAny(id, ":/?"):
		case isUpload && scope == UploadScope(upload) && !strings.ContainsAny(upload, ":/?"):
		case scope == ScopeSocket, scope == ScopeUpload:
		default:
			t.Errorf("%q is no scope", text)
		}
	})
}

func BenchmarkVerifyTicket(b *testing.B) {
	store, _ := newFileStore(b)
	e := newEnv(b, store)
	_, ses := e.mustLogin("alice")
	ticket := e.NewTicket(b.Context(), ses, ScopeUpload, 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.VerifyTicket(b.Context(), ticket, ScopeUpload); err != nil {
			b.Fatal(err)
		}
	}
}
