package auth

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestLinkDetails(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	ann := User{AppID: "wx1", OpenID: "ann"}
	seen := map[string]bool{}
	for _, want := range []Link{
		{File: "f", Expires: expires},
		{File: "f", Expires: expires, User: ann},
		{File: "f", Expires: expires, User: User{AppID: "wx", OpenID: "1ann"}},
		{File: "f", Expires: expires, User: User{AppID: strings.Repeat("a", maxLinkUser), OpenID: strings.Repeat("o", maxLinkUser)}},
		{File: "f", Expires: expires, Downloads: 1},
		{File: "f", Expires: expires, Downloads: MaxLinkDownloads, User: ann},
	} {
		text := e.SignLink(want)
		if seen[text] {
			t.Errorf("%+v has the link of another", want)
		}
		seen[text] = true
		got, err := e.VerifyLink(text, "f")
		if got.Count == 0 == (want.Downloads > 0) {
			t.Errorf("%+v is counted by %d", want, got.Count)
		}
		want.Count = got.Count
		if err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		if again := e.SignLink(want); (again == text) != (want.Downloads == 0) {
			t.Errorf("%+v twice: the same is %v", want, again == text)
		}
		e.wantLink(text, "g", "link_invalid")
		for i := range text {
			e.wantLink(text[:i], "f", "link_invalid")
		}
		for _, bad := range []string{text + "A", text + "\n", text[:30] + "\n" + text[30:]} {
			e.wantLink(bad, "f", "link_invalid")
		}
	}
}

func TestLinkDetailsFormat(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)), withTicketKeys(ticketKey("k1", 7)))
	key, err := hkdf.Key(sha256.New, []byte(strings.Repeat("\x07", 32)), nil, "minigate file links", 32)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(raw string) string {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(raw + "\x02k1x"))
		return "mgl_k1." + base64.RawURLEncoding.EncodeToString(mac.Sum([]byte(raw)))
	}
	soon := time.Now().Add(time.Minute)
	head := string(binary.BigEndian.AppendUint64([]byte{2}, uint64(soon.Unix())))
	const none = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	if got, want := e.SignLink(Link{File: "x", Expires: soon, User: User{AppID: "wx1", OpenID: "ann"}}), signed(head+none+"\x03wx1\x03ann"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// Signed by us, but nothing that we sign.
	for _, tail := range []string{"", none, none + "\x03wx1", none + "\x03wx1\x04ann", none + "\x03wx1\x03annx", none + "\xff\x03ann", none[1:]} {
		e.wantLink(signed(head+tail), "x", "link_invalid")
	}
	e.wantLink(signed("\x01"+head[1:]+"\x00"), "x", "link_invalid")
	e.wantLink(signed("\x04"+head[1:]+none+"\x00\x00"), "x", "link_invalid")

	early := signed("\x03" + head[1:] + none + "\x00\x00")
	if got := e.SignLink(Link{File: "x", Expires: soon, Unchecked: true}); got != early {
		t.Errorf("good before the checks: %s, want %s", got, early)
	}
	if l, err := e.VerifyLink(early, "x"); err != nil || !l.Unchecked {
		t.Errorf("good before the checks: %+v, %v", l, err)
	}
}

// A link that stands for a user ends with what the user may.
func TestLinkOfBlockedUser(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	soon := time.Now().Add(time.Minute)
	anns := e.SignLink(Link{File: "a", Expires: soon, User: User{AppID: "wx1", OpenID: "ann"}})
	plain := e.SignLink(Link{File: "a", Expires: soon})
	h := e.RequireLinkOr(func(*http.Request) string { return "a" },
		func(http.ResponseWriter, *http.Request) error { return nil },
		func(http.ResponseWriter, *http.Request) error { t.Error("no link"); return nil })
	follow := func(link, code string) {
		t.Helper()
		err := h(httptest.NewRecorder(), httptest.NewRequest("GET", "/a?link="+link, nil))
		wantFault(t, err, code)
	}
	follow(anns, "")
	if _, err := e.Block(t.Context(), "ann", "", time.Time{}); err != nil {
		t.Fatal(err)
	}
	follow(anns, "user_blocked")
	follow(plain, "")
}

// FuzzDecodeLink reads what stands before the MAC: what it takes is what encode
// makes.
func FuzzDecodeLink(f *testing.F) {
	for _, l := range []Link{
		{Expires: time.Unix(1_700_000_000, 0)},
		{Expires: time.Unix(1_700_000_000, 0), User: User{AppID: "wx1", OpenID: "ann"}, Downloads: 3, Count: 7},
		{Expires: time.Unix(1_700_000_000, 0), Unchecked: true},
	} {
		f.Add(l.encode())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, ok := decodeLink(raw, "f")
		if ok && (l.User.OpenID != "" || l.Downloads > 0 || raw[0] != linkDetailed) && string(l.encode()) != string(raw) {
			t.Errorf("%x is %+v, which is %x", raw, l, l.encode())
		}
	})
}

func TestTicketOrNone(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	token, ses := e.mustLogin("alice")
	ticket := e.NewTicket(t.Context(), ses, FileScope("a"), 0)
	by := ""
	h := e.TicketOrNone(func(*http.Request) Scope { return FileScope("a") }, func(_ http.ResponseWriter, r *http.Request) error {
		if by = "nobody"; SessionFrom(r.Context()) != nil {
			by = "login"
		}
		return nil
	})
	for name, tc := range map[string]struct{ target, authorization, by, code string }{
		"nothing":         {"/a", "", "nobody", ""},
		"something":       {"/a?x=1", "", "nobody", ""},
		"a token":         {"/a", "Bearer " + token, "login", ""},
		"a bad token":     {"/a", "Bearer x", "", "token_invalid"}, // the phone has to learn of it
		"not a token":     {"/a", "Basic eA==", "", "token_invalid"},
		"a ticket":        {"/a?ticket=" + ticket, "", "login", ""},
		"a bad ticket":    {"/a?ticket=x", "", "", "ticket_invalid"},
		"an empty ticket": {"/a?ticket=", "", "", "ticket_invalid"},
		"two tickets":     {"/a?ticket=" + ticket + "&ticket=" + ticket, "", "", "ticket_invalid"},
		"an escaped name": {"/a?%74icket=" + ticket, "", "", "token_missing"},
	} {
		r := httptest.NewRequest("GET", tc.target, nil)
		if tc.authorization != "" {
			r.Header.Set("Authorization", tc.authorization)
		}
		by = ""
		if err := h(httptest.NewRecorder(), r); err != nil || tc.code != "" {
			wantFault(t, err, tc.code)
		}
		if by != tc.by {
			t.Errorf("%s: let through by %q, want %q", name, by, tc.by)
		}
	}
}
