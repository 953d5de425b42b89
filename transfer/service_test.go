package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/settings"
)

// house is a Service on a real HTTP server. Requests are of the user that the
// header User names, alice where there is none.
type house struct {
	*Service
	t      testing.TB
	server *httptest.Server
	reg    *prometheus.Registry
	opened time.Time

	mu    sync.Mutex
	told  []News
	deaf  error // what Tell answers
	calls int   // of Tell

	members map[string]bool // "bob in room"
	unsure  error           // what Member answers
	signed  auth.Link       // the last one
	links   sync.Map        // auth.Link of those that a check was given, by text
	follow  auth.Link       // what requests with the header Link come with, apart from its file
}

func newHouse(t testing.TB, store Store, ledger Ledger, change ...func(*Settings)) *house {
	t.Helper()
	return openHouse(t, Options{Store: store, Ledger: ledger}, change...)
}

func openHouse(t testing.TB, o Options, change ...func(*Settings)) *house {
	t.Helper()
	settings.Defaults(&o.Settings)
	for _, f := range change {
		f(&o.Settings)
	}
	h := &house{t: t, opened: time.Now(), reg: prometheus.NewPedanticRegistry()}
	o.Metrics = NewMetrics(h.reg)
	o.SignLink = func(l auth.Link) string {
		if text := fmt.Sprint(l.File, "-", l.Expires.Unix(), "-early"); l.Unchecked {
			h.links.Store(text, l)
			return text
		}
		h.signed = l
		return fmt.Sprint(l.File, "-", l.Expires.Unix())
	}
	o.Member = func(_ context.Context, user auth.User, channel string) (bool, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.members[user.OpenID+" in "+channel], h.unsure
	}
	o.Tell = func(_ context.Context, n News) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.calls++; h.deaf == nil {
			h.told = append(h.told, n)
		}
		return h.deaf
	}
	var err error
	if h.Service, err = New(o); err != nil {
		t.Fatal(err)
	}
	if h.settings.PublicURL == "self" {
		defer func() { h.settings.PublicURL = h.server.URL }()
	}
	mux := http.NewServeMux()
	mux.Handle("POST /files", rest.Handler(h.ServeUpload))
	mux.Handle("GET /files/usage", rest.Handler(h.ServeUsage))
	mux.Handle("POST /files/uploads", rest.Handler(h.ServeBegin))
	mux.Handle("GET /files/uploads", rest.Handler(h.ServeUploads))
	mux.Handle("PUT /files/uploads/{id}/parts/{n}", rest.Handler(h.ServePart))
	mux.Handle("GET /files/uploads/{id}", rest.Handler(h.ServeUploadStatus))
	mux.Handle("POST /files/uploads/{id}/complete", rest.Handler(h.ServeComplete))
	mux.Handle("DELETE /files/uploads/{id}", rest.Handler(h.ServeAbort))
	mux.Handle("POST /files/direct", rest.Handler(h.ServeReserve))
	mux.Handle("GET /files/direct/{id}", rest.Handler(h.ServeReaddress))
	mux.Handle("DELETE /files/direct/{id}", rest.Handler(h.ServeAbort))
	mux.Handle("POST /files/uploads/{id}/form", rest.Handler(h.ServeForm))
	mux.Handle("POST /files/{id}/confirm", rest.Handler(h.ServeConfirm))
	mux.Handle("POST "+TusPath+"{$}", rest.Handler(h.ServeTus))
	for _, method := range []string{"OPTIONS", "PATCH", "DELETE"} {
		mux.Handle(method+" "+TusPath, rest.Handler(h.ServeTus))
	}
	mux.Handle("HEAD "+TusPath+"{id}", rest.Handler(h.ServeTus))
	mux.Handle("GET /files/uploader/verify", rest.Handler(h.ServeUploaderVerify))
	mux.Handle("POST /files/uploader/chunk", rest.Handler(h.ServeUploaderChunk))
	mux.Handle("GET /files/uploader/merge", rest.Handler(h.ServeUploaderMerge))
	mux.Handle("GET /files/{id}", rest.Handler(h.ServeDownload))
	mux.Handle("GET /files/{id}/{name}", rest.Handler(h.ServeDownload))
	mux.Handle("DELETE /files/{id}", rest.Handler(h.ServeDelete))
	mux.Handle("POST /api/files", rest.Handler(h.ServeList))
	mux.Handle("POST /api/files/stat", rest.Handler(h.ServeStat))
	mux.Handle("POST /api/files/delete", rest.Handler(h.ServeRemove))
	mux.Handle("POST /api/files/link", rest.Handler(h.ServeLink))
	mux.Handle("POST /api/files/access", rest.Handler(h.ServeAccess))
	mux.Handle("POST /api/files/owner", rest.Handler(h.ServeOwner))
	mux.Handle("POST /api/files/upload", rest.Handler(h.ServeUploadFor))
	mux.Handle("POST /api/files/verify", rest.Handler(h.ServeVerify))
	mux.Handle("POST /files/{id}/{action}", rest.Handler(func(w http.ResponseWriter, r *http.Request) error {
		if r.PathValue("id") == "tus" {
			return h.ServeTus(w, r)
		}
		return h.ServeOwnLink(w, r)
	}))
	h.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user := alice
		if name := r.Header.Get("User"); name != "" {
			user.OpenID = name
		}
		if user.OpenID != "nobody" {
			r = r.WithContext(auth.WithSession(r.Context(), &auth.Session{User: user}))
		}
		if file := r.Header.Get("Link"); file != "" {
			l := h.follow
			l.File, l.Expires = file, h.opened.Add(time.Minute)
			r = r.WithContext(auth.WithLink(r.Context(), l))
		}
		if l, ok := h.links.Load(r.URL.Query().Get("link")); ok {
			r = r.WithContext(auth.WithLink(r.Context(), l.(auth.Link)))
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		h.server.Close()
		h.server.Client().CloseIdleConnections()
	})
	return h
}

func newTestHouse(t testing.TB, change ...func(*Settings)) *house {
	t.Helper()
	return newHouse(t, newTestFolder(t), newTestFileLedger(t), change...)
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body string
}

// code is the code of an error answer.
func (a answer) code() string {
	var e struct{ Error struct{ Code string } }
	_ = json.Unmarshal([]byte(a.body), &e) // "" where there is none
	return e.Error.Code
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.StatusCode, a.body) }

// do sends a request; header is name, value, name, value.
func (h *house) do(method, path string, body io.Reader, header ...string) answer {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.server.URL+path, body)
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := h.server.Client().Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer{resp, string(text)}
}

// field is a part of a form; a file where it has a file name.
type field struct{ name, fileName, value string }

// formOf makes a form with the boundary "b".
func formOf(fields ...field) string {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	_ = w.SetBoundary("b") // is valid
	for _, f := range fields {
		cd := fmt.Sprintf(`form-data; name="%s"`, f.name)
		if f.fileName != "" {
			cd += fmt.Sprintf(`; filename="%s"`, f.fileName)
		}
		part, _ := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {cd}}) // into memory
		_, _ = io.WriteString(part, f.value)
	}
	_ = w.Close() // into memory
	return b.String()
}

const formType = "multipart/form-data; boundary=b"

func (h *house) upload(query, form string, header ...string) answer {
	h.t.Helper()
	return h.do("POST", "/files"+query, strings.NewReader(form), append([]string{"Content-Type", formType}, header...)...)
}

// keep uploads a file that must be taken.
func (h *house) keep(fileName, content string) uploaded {
	h.t.Helper()
	a := h.upload("", formOf(field{"file", fileName, content}))
	return h.decode(a)
}

func (h *house) decode(a answer) (u uploaded) {
	h.t.Helper()
	if a.StatusCode != http.StatusCreated {
		h.t.Fatalf("upload: %v", a)
	}
	if err := json.Unmarshal([]byte(a.body), &u); err != nil {
		h.t.Fatal(err)
	}
	return u
}

// wantEmpty checks that neither store nor ledger keep anything.
func (h *house) wantEmpty() {
	h.t.Helper()
	if left := unfinished(h.t.(*testing.T), h.ledger, time.Now().Add(time.Hour), 10); len(left) > 0 {
		h.t.Errorf("unfinished: %v", left)
	}
	if files := filesIn(h.t.(*testing.T), h.store.(*Folder).dir); len(files) > 0 {
		h.t.Errorf("stored: %v", files)
	}
}

func (h *house) count(direction, result string) float64 {
	return testutil.ToFloat64(h.metrics.transfers.WithLabelValues(direction, result))
}

func TestMetricsAreClean(t *testing.T) {
	h := newTestHouse(t)
	problems, err := testutil.GatherAndLint(h.reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func TestSettings(t *testing.T) {
	var s Settings
	settings.Defaults(&s)
	var got []string
	report := func(path, problem string) { got = append(got, path+" "+problem) }
	s.Check(report)
	if len(got) > 0 {
		t.Errorf("the defaults: %q", got)
	}
	for path, change := range map[string]func(*Settings){
		"store":             func(s *Settings) { s.Store = "tape" },
		"max_size":          func(s *Settings) { s.MaxSize = 0 },
		"allowed_types[0]":  func(s *Settings) { s.AllowedTypes = []string{"image"} },
		"max_concurrent":    func(s *Settings) { s.MaxConcurrent = 0 },
		"pending_ttl":       func(s *Settings) { s.PendingTTL = 0 },
		"link_max_ttl":      func(s *Settings) { s.LinkMaxTTL = time.Second },
		"public_url":        func(s *Settings) { s.PublicURL = "files.example.com" },
		"s3.bucket":         func(s *Settings) { s.Store = "s3" },
		"buffer_budget":     func(s *Settings) { s.Store, s.BufferBudget = "s3", 1<<20 },
		"s3.endpoint":       func(s *Settings) { s.Store, s.S3.Endpoint = "s3", "https://s3.example.com" },
		"max_size with s3":  func(s *Settings) { s.Store, s.MaxSize = "s3", 1<<40 },
		"verify_interval":   func(s *Settings) { s.VerifyInterval = time.Second },
		"orphan_ttl":        func(s *Settings) { s.OrphanTTL = time.Hour },
		"user_link_max_ttl": func(s *Settings) { s.UserLinkMaxTTL = time.Second },
		"ttl.public":        func(s *Settings) { s.TTL.Public = -1 },
		"s3.public_url":     func(s *Settings) { s.Store, s.S3.PublicURL = "s3", "s3.example.com" },
		"direct_ttl":        func(s *Settings) { s.DirectTTL = 25 * time.Hour },
		"stall_timeout":     func(s *Settings) { s.StallTimeout = -1 },
		"allowed_types[1]2": func(s *Settings) { s.AllowedTypes = []string{"image/*", "text/html; charset=utf-8"} },
	} {
		var s Settings
		settings.Defaults(&s)
		change(&s)
		got = nil
		s.Check(report)
		found := false
		for _, g := range got {
			found = found || strings.HasPrefix(g, strings.TrimRight(strings.Fields(path)[0], "2")+" ")
		}
		if !found {
			t.Errorf("%s: reported %q", path, got)
		}
	}
}

func TestNobody(t *testing.T) {
	h := newTestHouse(t)
	f := h.keep("a.txt", "hello")
	for _, a := range []answer{
		h.upload("", formOf(field{"file", "a.txt", "x"}), "User", "nobody"),
		h.do("GET", f.URL, nil, "User", "nobody"),
		h.do("DELETE", f.URL, nil, "User", "nobody"),
	} {
		if a.StatusCode != http.StatusUnauthorized || a.code() != "token_missing" {
			t.Errorf("%s: %v", a.Request.Method, a)
		}
	}
}

func TestDelete(t *testing.T) {
	h := newTestHouse(t)
	f := h.keep("a.txt", "hello")
	if a := h.do("DELETE", f.URL, nil, "User", "bob"); a.StatusCode != http.StatusNotFound {
		t.Errorf("by another: %v", a)
	}
	if a := h.do("DELETE", f.URL, nil); a.StatusCode != http.StatusNoContent || a.body != "" {
		t.Errorf("%v", a)
	}
	for _, method := range []string{"DELETE", "GET"} {
		if a := h.do(method, f.URL, nil); a.code() != "file_not_found" {
			t.Errorf("%s again: %v", method, a)
		}
	}
	h.wantEmpty()
}

// brokenStore is a store that is away while down.
type brokenStore struct {
	Store
	down bool
}

func (s *brokenStore) Delete(ctx context.Context, key string) error {
	if s.down {
		return errStoreAway
	}
	return s.Store.Delete(ctx, key)
}

func (s *brokenStore) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if s.down {
		return nil, errStoreAway
	}
	return s.Store.Open(ctx, key, offset, length)
}

func TestStoreAway(t *testing.T) {
	folder := newTestFolder(t)
	store := &brokenStore{Store: folder}
	h := newHouse(t, store, newTestFileLedger(t))
	f := h.keep("a.txt", "hello")
	store.down = true
	a := h.do("GET", f.URL, nil)
	if a.code() != "storage_unavailable" || a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("GET: %v", a)
	}
	if a := h.do("HEAD", f.URL, nil); a.StatusCode != http.StatusOK {
		t.Errorf("HEAD needs no storage: %v", a)
	}
	if a := h.do("DELETE", f.URL, nil); a.StatusCode != http.StatusNoContent {
		t.Errorf("DELETE: %v", a)
	}
	store.down = false
	if a := h.do("GET", f.URL, nil); a.StatusCode != http.StatusNotFound {
		t.Errorf("GET of a deleted file: %v", a)
	}
	if n := len(filesIn(t, folder.dir)); n != 1 {
		t.Fatalf("%d files are stored", n)
	}
	h.started = now().Add(time.Hour) // another process, later
	if err := h.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(filesIn(t, folder.dir)); n != 0 {
		t.Errorf("%d files are stored after the sweep", n)
	}
}

// TestSweep goes on after a process that was killed in the middle of uploads.
func TestSweep(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		store := newTestFolder(t)
		h := newHouse(t, store, l)
		done := h.keep("a.txt", "hello")
		age := h.settings.PendingTTL + time.Hour
		old, stored := reserved(t, l, age), reserved(t, l, age)
		if _, err := store.Put(t.Context(), stored.Key, strings.NewReader("whole, not committed"), -1); err != nil {
			t.Fatal(err)
		}
		young := reserved(t, l, 0) // of another node, or of this one
		if a := h.do("GET", "/files/"+stored.ID, nil); a.StatusCode != http.StatusNotFound {
			t.Errorf("a file that was not committed: %v", a)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop() // Run sweeps once and stops
		if err := h.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if err := h.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, f := range []File{old, stored} {
			if _, err := l.Get(t.Context(), f.ID); err == nil {
				t.Error("old remains are still there")
			}
		}
		if f, err := l.Get(t.Context(), young.ID); err != nil || f.State != Pending {
			t.Errorf("an upload under way: %v, %v", f.State, err)
		}
		if a := h.do("GET", done.URL, nil); a.body != "hello" {
			t.Errorf("a whole file: %v", a)
		}
		if n := len(filesIn(t, store.dir)); n != 1 {
			t.Errorf("%d files are stored, want 1", n)
		}
		if err := l.Commit(t.Context(), stored, Quota{}); err == nil {
			t.Error("a swept upload was committed")
		}
	})
}

// In a ledger of our own nothing can be under way that is older than we are.
func TestSweepAtStart(t *testing.T) {
	l := newTestFileLedger(t)
	f := reserved(t, l, time.Second)
	h := newHouse(t, newTestFolder(t), l)
	young := reserved(t, l, -time.Second)
	if err := h.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Get(t.Context(), f.ID); err == nil {
		t.Error("remains of the process before are still there")
	}
	if _, err := l.Get(t.Context(), young.ID); err != nil {
		t.Errorf("an upload under way: %v", err)
	}
	if n := testutil.ToFloat64(h.metrics.swept); n != 1 {
		t.Errorf("%v counted", n)
	}
}
