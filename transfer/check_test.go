package transfer

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/internal/settings"
)

// stub is a checker that says what it is told to.
type stub struct {
	called string
	mu     sync.Mutex
	found  finding
	err    error
	asked  []string // ids of files
}

func (c *stub) name() string { return c.called }

func (c *stub) check(_ context.Context, f File) (finding, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, f.ID)
	return c.found, c.err
}

func (c *stub) say(o outcome, label string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found, c.err = finding{o, label}, err
}

func (c *stub) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

// checkedBy has the files of h checked by some who let pass.
func (h *house) checkedBy(names ...string) (list []*stub) {
	h.checks.checkers = nil
	for _, name := range names {
		c := &stub{called: name, found: finding{outcome: passed}}
		h.checks.checkers = append(h.checks.checkers, c)
		list = append(list, c)
	}
	return list
}

// check has everything done that is due.
func (h *house) check() {
	h.t.Helper()
	if err := h.sweepChecks(h.t.Context()); err != nil {
		h.t.Error(err)
	}
}

// age makes a file that is being checked older, and what was to come due.
func (h *house) age(id string, by time.Duration) {
	h.t.Helper()
	_, err := h.ledger.Amend(h.t.Context(), id, func(f *File) error {
		f.Check.Began, f.Check.AskedAt, f.Check.Due = f.Check.Began.Add(-by), f.Check.AskedAt.Add(-by), f.Check.Due.Add(-by)
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) record(id string) File {
	h.t.Helper()
	f, err := h.ledger.Get(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return f
}

func (h *house) wantState(when, id string, want State) {
	h.t.Helper()
	if f := h.record(id); f.State != want {
		h.t.Errorf("%s: %s, want %s: %+v", when, f.State, want, f.Check)
	}
}

func TestCheckPasses(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		h.checkedBy(nameClamd, nameWebhook)
		h.settings.UserPublic, h.thumbs.Enabled = true, true
		picture := photo(t, 40, 20)
		f := h.decode(h.upload("?public=true", formOf(field{"f", "a.jpg", picture})))
		if f.State != Checking {
			t.Errorf("answered %+v", f)
		}
		h.wantRead(f, picture, map[string]string{"alice": "", "bob": "file_checking", "nobody": "file_checking"})
		mine := h.do("GET", f.URL, nil)
		if mine.Header.Get("Cache-Control") != "private, no-store" || mine.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("the owner: %v", mine.Header)
		}
		if a := h.do("GET", f.URL, nil, "User", "bob"); a.StatusCode != http.StatusConflict || a.Header.Get("Retry-After") == "" {
			t.Errorf("another: %v %v", a, a.Header)
		}
		if a := h.do("GET", f.URL, nil, "User", "bob", "Link", f.ID); a.code() != "file_checking" {
			t.Errorf("by a link: %v", a)
		}
		if a := h.do("GET", f.URL+"?w=10", nil); a.code() != "file_checking" {
			t.Errorf("a thumbnail for the owner: %v", a)
		}
		if a := h.do("POST", f.URL+"/link", strings.NewReader(`{}`), "Content-Type", "application/json"); a.code() != "file_checking" {
			t.Errorf("a link by the owner: %v", a)
		}
		if a := h.api("/link", `{"file":"`+f.ID+`"}`, nil); a.code() != "file_checking" {
			t.Errorf("a link by the backend: %v", a)
		}
		h.wantEvents("while it is checked")
		h.check()
		h.wantState("checked", f.ID, Ready)
		h.wantEvents("checked", "file_ready-"+f.ID)
		h.wantOwed("checked")
		h.wantRead(f, picture, map[string]string{"alice": "", "bob": "", "nobody": ""})
		h.wantThumb(f, "?w=10", "10 x 5")
		got := h.do("GET", f.URL, nil, "User", "nobody")
		if got.Header.Get("Cache-Control") != "public, max-age=60" || got.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("public: %v", got.Header)
		}
		if n := testutil.ToFloat64(h.metrics.checked.WithLabelValues(nameClamd, "pass")); n != 1 {
			t.Errorf("%v counted", n)
		}
	})
}

func TestCheckBlocks(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		clamd := h.checkedBy(nameClamd, nameWeChat)[0]
		clamd.say(objected, "Eicar", nil)
		h.settings.UserPublic = true
		f := h.decode(h.upload("?public=true", formOf(field{"f", "a.txt", "hello"})))
		h.check()
		h.wantState("checked", f.ID, Blocked)
		if _, err := h.store.Stat(t.Context(), h.record(f.ID).Key); !errors.Is(err, errNoObject) {
			t.Errorf("its bytes: %v", err)
		}
		h.wantRead(f, "", map[string]string{"alice": "file_blocked", "bob": "file_blocked", "nobody": "file_blocked"})
		if a := h.do("GET", f.URL, nil); a.StatusCode != http.StatusGone || !strings.Contains(a.body, "clamd: Eicar") {
			t.Errorf("the owner learns %v", a)
		}
		if a := h.do("GET", f.URL, nil, "User", "bob"); strings.Contains(a.body, "Eicar") {
			t.Errorf("another learns %v", a)
		}
		h.wantEvents("blocked", "file_blocked-"+f.ID)
		if got := h.told[0].File; got.State != Blocked || got.Reason != (Reason{nameClamd, "Eicar"}) {
			t.Errorf("told %+v", got)
		}
		if u, err := h.ledger.Usage(t.Context(), alice); err != nil || u.Stored != 0 || u.Daily != 5 {
			t.Errorf("usage %+v, %v", u, err)
		}
		for path, body := range map[string]string{"/link": `{"file":"` + f.ID + `"}`, "/access": `{"file":"` + f.ID + `","public":true}`} {
			if a := h.api(path, body, nil); a.code() != "file_blocked" {
				t.Errorf("%s: %v", path, a)
			}
		}
		if found := h.verify(10); len(found) > 0 {
			t.Errorf("verify finds %v", found)
		}
		if files, all := due(t, h.ledger, now().Add(time.Hour), 1); all != 0 {
			t.Errorf("still due: %d, %v", all, files)
		}
		if _, err := h.ledger.Amend(t.Context(), f.ID, func(f *File) error { f.Expires = now().Add(-time.Second); return nil }); err != nil {
			t.Fatal(err)
		}
		if err := h.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := h.ledger.Get(t.Context(), f.ID); !errors.Is(err, errNoFile) {
			t.Errorf("its record: %v", err)
		}
		h.wantEvents("swept", "file_blocked-"+f.ID)
	})
}

// Files of others that are checked or blocked do not exist, as all others.
func TestCheckedTellsNothing(t *testing.T) {
	h := newTestHouse(t)
	c := h.checkedBy(nameClamd)[0]
	f := h.keep("a.txt", "hello")
	h.wantRead(f, "hello", map[string]string{"alice": "", "bob": "file_not_found", "nobody": "token_missing"})
	c.say(objected, "x", nil)
	h.check()
	h.wantRead(f, "", map[string]string{"alice": "file_blocked", "bob": "file_not_found", "nobody": "token_missing"})
}

// Whichever way a file comes in, it is checked.
func TestEveryWayIsChecked(t *testing.T) {
	h := newTestHouse(t)
	h.checkedBy(nameClamd)
	u := h.begin(`{"size":5,"name":"a.txt"}`)
	u.mustPart(1, "hello")
	h.wantState("in parts", h.decode(u.complete()).ID, Checking)
	if s := u.status(); s.File == nil || s.File.State != Checking {
		t.Errorf("status: %+v", s)
	}
	tus := h.tusCreate(5, "filename "+b64("a.txt"))
	if a := tus.patch(0, "hello"); a.StatusCode != http.StatusNoContent || a.Header.Get(FileHeader) != tus.id() {
		t.Errorf("tus: %v %v", a, a.Header)
	}
	h.wantState("over tus", tus.id(), Checking)
	up := &uploader{house: h, identifier: "x", name: "a.txt", data: "hello", chunk: 5}
	up.mustSend(0)
	h.wantState("by the uploader", up.mustMerge().ID, Checking)
	d := h.reserve(`{"name":"a.txt","size":5}`)
	if status := wxUpload(t, h, d.Upload, "hello"); status/100 != 2 {
		t.Errorf("direct: %d", status)
	}
	h.confirm(d.ID)
	h.wantState("direct", d.ID, Checking)
	a := h.do("POST", "/api/files/upload?user=bob&appid=wx1", strings.NewReader(formOf(field{"f", "a.txt", "hello"})), "Content-Type", formType)
	h.wantState("on behalf", h.decode(a).ID, Checking)
	h.check()
	for _, id := range []string{u.ID, tus.id(), d.ID} {
		h.wantState("checked", id, Ready)
	}
	if n := len(h.events()); n != 5 {
		t.Errorf("told %q", h.events())
	}
	if a := u.complete(); h.decode(a).State != "" {
		t.Errorf("completed again: %v", a)
	}
}

// Nothing that works without asking us lives longer than a minute.
func TestCheckedLinksAreShort(t *testing.T) {
	h := newTestHouse(t)
	h.checkedBy(nameClamd)
	f := h.keep("a.txt", "hello")
	h.check()
	for _, body := range []string{`{"file":"` + f.ID + `"}`, `{"file":"` + f.ID + `","expires_in":86400}`} {
		var link LinkAnswer
		h.api("/link", body, &link)
		if life := time.Until(link.ExpiresAt); life > checkedLife || life < checkedLife/2 {
			t.Errorf("%s: %v", body, life)
		}
	}
	at := &addressed{Store: h.store}
	h.store = at
	h.do("GET", f.URL, nil)
	if life := time.Until(at.last.Until); life > checkedLife || life < checkedLife/2 {
		t.Errorf("the storage's own address: %v", life)
	}
	if a := h.do("GET", f.URL, nil, "Link", f.ID); a.Header.Get("Cache-Control") != "private, max-age=59" && a.Header.Get("Cache-Control") != "private, max-age=60" {
		t.Errorf("by a link: %v", a.Header)
	}
}

// addressed is a store that tells which addresses it was asked for.
type addressed struct {
	Store
	last Presented
}

func (s *addressed) Address(ctx context.Context, key string, p Presented) (string, error) {
	s.last = p
	return s.Store.Address(ctx, key, p)
}

// A link for who checks is good early, for nobody else's file, and not when the
// file is blocked.
func TestUncheckedLink(t *testing.T) {
	h := newTestHouse(t)
	c := h.checkedBy(nameClamd)[0]
	f := h.keep("a.txt", "hello")
	var link LinkAnswer
	h.api("/link", `{"file":"`+f.ID+`","unchecked":true}`, &link)
	if a := h.do("GET", link.URL, nil, "User", "nobody"); a.body != "hello" || a.Header.Get("Cache-Control") != "private, no-store" {
		t.Errorf("%v %v", a, a.Header)
	}
	at := &addressed{Store: h.store}
	h.store = at
	if h.do("GET", link.URL, nil, "User", "nobody"); at.last.Type != "" {
		t.Error("it leads to the storage itself, where crawlers may not follow")
	}
	if a := h.do("GET", f.URL, nil); at.last.Type != "" || a.body != "hello" {
		t.Error("its owner is given an address that others could use")
	}
	if a := h.api("/link", `{"file":"`+f.ID+`","unchecked":true,"user":"bob"}`, nil); a.code() != "file_checking" {
		t.Errorf("of a user: %v", a)
	}
	c.say(objected, "x", nil)
	h.check()
	if a := h.do("GET", link.URL, nil, "User", "nobody"); a.code() != "file_blocked" {
		t.Errorf("blocked: %v", a)
	}
}

// A link for who checks is one like all others when the file has passed: the
// backend is asked, however it was made.
func TestUncheckedLinkOfAReadyFile(t *testing.T) {
	backend := newAsked(t, `{}`)
	h := openHouse(t, Options{
		Store: newTestFolder(t), Ledger: newTestFileLedger(t), Webhooks: backend.client,
		DownloadWebhook: DownloadWebhookSettings{Endpoint: backend.URL, Timeout: 5 * time.Second},
	})
	h.checkedBy(nameClamd)
	f := h.keep("a.txt", "hello")
	var early, late LinkAnswer
	h.api("/link", `{"file":"`+f.ID+`","unchecked":true}`, &early)
	h.check()
	h.api("/link", `{"file":"`+f.ID+`","unchecked":true}`, &late)
	backend.set(`{"allow":false}`)
	if a := h.do("GET", early.URL, nil, "User", "nobody"); a.code() != "download_refused" || len(backend.questions()) != 1 {
		t.Errorf("%v, asked %d times", a, len(backend.questions()))
	}
	if h.signed.File != f.ID || h.signed.Unchecked {
		t.Errorf("late: %+v", h.signed)
	}
}

func TestCheckSettings(t *testing.T) {
	for change, want := range map[string]func(*Settings){
		"check.undecided":        func(s *Settings) { s.Inspect.Undecided = "maybe" },
		"check.give_up":          func(s *Settings) { s.Inspect.GiveUp = time.Second },
		"check.workers":          func(s *Settings) { s.Inspect.Workers = 0 },
		"check.keep_blocked":     func(s *Settings) { s.Inspect.KeepBlocked = 0 },
		"check.wechat.scene":     func(s *Settings) { s.Inspect.WeChat.Scene = 5 },
		"check.clamd.address":    func(s *Settings) { s.Inspect.Clamd.Address = "clamav" },
		"check.clamd.max_stream": func(s *Settings) { s.Inspect.Clamd.MaxStream = 0 },
		"public_url":             func(s *Settings) { s.Inspect.WeChat.Enabled = true },
		"":                       func(s *Settings) { s.Inspect.WeChat.Enabled, s.PublicURL = true, "https://files.example.com" },
	} {
		var s Settings
		settings.Defaults(&s)
		want(&s)
		var found []string
		s.Check(func(path, _ string) { found = append(found, path) })
		s.Inspect.Check(func(path, _ string) { found = append(found, "check."+path) })
		if got := strings.Join(found, " "); got != change {
			t.Errorf("reported %q, want %q", got, change)
		}
	}
}
