package auth

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func (e *env) wantLink(link, file, code string) {
	e.t.Helper()
	l, err := e.VerifyLink(link, file)
	wantFault(e.t, err, code)
	if code == "" && l.File != file {
		e.t.Errorf("a link to %q, want %q", l.File, file)
	}
}

func TestLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t, first(newFileStore(t)))
		expires := time.Now().Add(time.Hour).Truncate(time.Second)
		link := e.SignLink(Link{File: "f1", Expires: expires})
		if e.SignLink(Link{File: "f1", Expires: expires}) != link {
			t.Error("the same link is not the same")
		}
		if strings.ContainsAny(link, "+/=&?%# ") || len(link) > 90 {
			t.Errorf("not compact or not for URLs: %s", link)
		}
		e.wantLink(link, "f1", "")
		for _, other := range []string{"f2", "f", "f11", "", "F1"} {
			e.wantLink(link, other, "link_invalid")
		}
		if l, err := e.VerifyLink(link, "f1"); err != nil || !l.Expires.Equal(expires) {
			t.Errorf("%+v, %v", l, err)
		}
		time.Sleep(time.Until(expires) - time.Nanosecond)
		e.wantLink(link, "f1", "")
		time.Sleep(time.Nanosecond)
		e.wantLink(link, "f1", "link_expired")
		e.wantLink(link, "f2", "link_invalid") // and says nothing about time
	})
}

// The format is written down at linkPrefix; a signer that knows only that
// makes the same links.
func TestLinkFormat(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)), withTicketKeys(ticketKey("k1", 7)))
	key, err := hkdf.Key(sha256.New, []byte(strings.Repeat("\x07", 32)), nil, "minigate file links", 32)
	if err != nil {
		t.Fatal(err)
	}
	make := func(version byte, expires time.Time, key []byte, after string) string {
		raw := binary.BigEndian.AppendUint64([]byte{version}, uint64(expires.Unix()))
		mac := hmac.New(sha256.New, key)
		mac.Write(raw)
		mac.Write([]byte(after))
		return "mgl_k1." + base64.RawURLEncoding.EncodeToString(mac.Sum(raw))
	}
	soon := time.Now().Add(time.Minute)
	if got, want := e.SignLink(Link{File: "x", Expires: soon}), make(1, soon, key, "\x02k1x"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	e.wantLink(make(1, soon, key, "\x02k1x"), "x", "")
	e.wantLink(make(1, time.Now().Add(-time.Minute), key, "\x02k1x"), "x", "link_expired")
	e.wantLink(make(0, soon, key, "\x02k1x"), "x", "link_invalid")
	e.wantLink(make(2, soon, key, "\x02k1x"), "x", "link_invalid")
	e.wantLink(make(1, soon, key, "\x02k1y"), "x", "link_invalid")
	e.wantLink(make(1, soon, key, "\x01kx"), "x", "link_invalid")
	e.wantLink(make(1, soon, []byte(strings.Repeat("\x07", 32)), "\x02k1x"), "x", "link_invalid") // the ticket key itself
	e.wantLink(make(1, time.Unix(-1, 0), key, "\x02k1x"), "x", "link_expired")
}

func TestLinkTampered(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	token, ses := e.mustLogin("alice")
	link := e.SignLink(Link{File: "a", Expires: time.Now().Add(time.Minute)})
	for i := range link {
		flipped := []byte(link)
		if flipped[i]++; flipped[i] == '{' {
			flipped[i] = 'a'
		}
		e.wantLink(string(flipped), "a", "link_invalid")
		e.wantLink(link[:i], "a", "link_invalid")
	}
	ticket := e.NewTicket(t.Context(), ses, FileScope("a"), 0)
	for _, bad := range []string{
		token, ticket, link + "A", link + "\n", link[:40] + "\n" + link[40:], strings.Repeat("A", 1<<20),
		strings.Replace(ticket, "mgt_", "mgl_", 1), strings.Replace(link, "mgl_", "mgt_", 1), strings.ToUpper(link), link + "=", "mgl_", "mgl_.", "",
	} {
		e.wantLink(bad, "a", "link_invalid")
	}
	e.wantLink(link, "a", "")
	// Nor is it anything else.
	for _, scope := range []Scope{ScopeSocket, ScopeUpload, FileScope("a")} {
		e.wantTicket(link, scope, "ticket_invalid")
		e.wantTicket(strings.Replace(link, "mgl_", "mgt_", 1), scope, "ticket_invalid")
	}
	e.wantVerify(link, "token_invalid")
}

func TestLinkKeyRotation(t *testing.T) {
	store := first(newFileStore(t))
	old, current := ticketKey("old", 1), ticketKey("new", 2)
	expires := time.Now().Add(time.Hour)
	before := newEnv(t, store, withTicketKeys(old))
	link := before.SignLink(Link{File: "a", Expires: expires})
	during := newEnv(t, store, withTicketKeys(current, old))
	during.wantLink(link, "a", "")
	fresh := during.SignLink(Link{File: "a", Expires: expires})
	after := newEnv(t, store, withTicketKeys(current))
	after.wantLink(link, "a", "link_invalid")
	after.wantLink(fresh, "a", "")
	renamed := newEnv(t, store, withTicketKeys(TicketKey{"new", old.Secret}))
	renamed.wantLink(fresh, "a", "link_invalid")
	newEnv(t, store).wantLink(fresh, "a", "link_invalid")
}

func TestRequireLinkOr(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	token, ses := e.mustLogin("alice")
	good := e.SignLink(Link{File: "a", Expires: time.Now().Add(time.Minute)})
	expired := e.SignLink(Link{File: "a", Expires: time.Now().Add(-time.Minute)})
	ticket := e.NewTicket(t.Context(), ses, FileScope("a"), 0)
	by := ""
	h := e.RequireLinkOr(func(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, "/") },
		func(_ http.ResponseWriter, r *http.Request) error {
			by = "link"
			if l, ok := LinkFrom(r.Context()); !ok || l.File != "a" || SessionFrom(r.Context()) != nil {
				t.Errorf("link %+v, %v", l, ok)
			}
			return nil
		},
		e.RequireTicketOr(func(*http.Request) Scope { return FileScope("a") }, func(_ http.ResponseWriter, r *http.Request) error {
			by = "login"
			if l, ok := LinkFrom(r.Context()); ok {
				t.Errorf("link %+v", l)
			}
			return nil
		}))
	for name, tc := range map[string]struct{ target, token, by, code string }{
		"link":                {"/a?link=" + good, "", "link", ""},
		"among others":        {"/a?x=1&link=" + good + "&y=2", "", "link", ""},
		"with a login":        {"/a?link=" + good, token, "link", ""},
		"with a dead login":   {"/a?link=" + good, "x", "link", ""},
		"with a ticket":       {"/a?ticket=x&link=" + good, "", "link", ""},
		"escaped name":        {"/a?%6cink=" + good, "", "", "token_missing"},
		"other file":          {"/b?link=" + good, "", "", "link_invalid"},
		"expired":             {"/a?link=" + expired, "", "", "link_expired"},
		"expired, login":      {"/a?link=" + expired, token, "", "link_expired"},
		"two links":           {"/a?link=" + good + "&link=" + good, "", "", "link_invalid"},
		"empty":               {"/a?link=", "", "", "link_invalid"},
		"a token as link":     {"/a?link=" + token, "", "", "link_invalid"},
		"a ticket as link":    {"/a?link=" + ticket, "", "", "link_invalid"},
		"a link as ticket":    {"/a?ticket=" + good, "", "", "ticket_invalid"},
		"a link as token":     {"/a", good, "", "token_invalid"},
		"not a link":          {"/a?nolink=" + good, token, "login", ""},
		"ticket":              {"/a?ticket=" + ticket, "", "login", ""},
		"a query that breaks": {"/a?link=%zz", "", "", "token_missing"},
		"nothing":             {"/a", "", "", "token_missing"},
	} {
		r, w := httptest.NewRequest("GET", tc.target, nil), httptest.NewRecorder()
		if tc.token != "" {
			r.Header.Set("Authorization", "Bearer "+tc.token)
		}
		by = ""
		if err := h(w, r); err != nil || tc.code != "" {
			wantFault(t, err, tc.code)
		}
		if by != tc.by {
			t.Errorf("%s: let through by %q, want %q", name, by, tc.by)
		}
		if got := w.Header().Get("Referrer-Policy"); tc.by == "link" && got != "no-referrer" {
			t.Errorf("%s: Referrer-Policy %q", name, got)
		}
	}
	r, w := httptest.NewRequest("GET", "/a?link="+expired, nil), httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var answer map[string]any
	_ = json.Unmarshal(w.Body.Bytes(), &answer)
	if w.Code != http.StatusForbidden || errorCode(answer) != "link_expired" || strings.Contains(w.Body.String(), expired) || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("answered %d %v %s", w.Code, w.Header(), w.Body)
	}
}

func FuzzLink(f *testing.F) {
	keys, err := newTicketKeys([]TicketKey{ticketKey("k", 3)})
	if err != nil {
		f.Fatal(err)
	}
	valid := keys.signLink(Link{File: "FILE", Expires: time.Unix(1_700_000_000, 0)})
	detailed := keys.signLink(Link{File: "FILE", Expires: time.Unix(1_700_000_000, 0), User: User{"wx1", "ann", ""}, Downloads: 3, Count: 7})
	for _, seed := range []string{valid, detailed, valid[:20], "", "mgl_", "mgl_k.", "mgl_." + valid[6:], "mgl_k." + strings.Repeat("A", 55), "mgt_k." + strings.Repeat("A", ticketLength)} {
		f.Add(seed, "FILE")
	}
	f.Fuzz(func(t *testing.T, text, file string) {
		if _, ok := keys.openLink(text, file); ok != ((text == valid || text == detailed) && file == "FILE") {
			t.Errorf("%q for %q: %v", text, file, ok)
		}
	})
}
