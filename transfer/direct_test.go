package transfer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

// wantDirect lets phones upload to the storage.
func wantDirect(s *Settings) { s.S3.Direct = true }

// directHouse is one whose storage was found able to take direct uploads.
func directHouse(t *testing.T, srv testdeps.S3, ledger Ledger, change ...func(*Settings)) *house {
	t.Helper()
	h := newHouse(t, newTestS3(t, srv), ledger, append(change, wantDirect)...)
	if err := h.direct.try(t.Context()); err != nil || !h.direct.form.Load() || !h.direct.parts.Load() {
		t.Fatalf("the storage: form %v, parts %v, %v", h.direct.form.Load(), h.direct.parts.Load(), err)
	}
	return h
}

// reserve begins a direct upload that must be taken.
func (h *house) reserve(body string, header ...string) (d directAnswer) {
	h.t.Helper()
	a := h.do("POST", "/files/direct", strings.NewReader(body), append([]string{"Content-Type", "application/json"}, header...)...)
	if err := json.Unmarshal([]byte(a.body), &d); err != nil || a.StatusCode != http.StatusCreated || !isID(d.ID) {
		h.t.Fatalf("reserve %s: %v, %v", body, a, err)
	}
	return d
}

func (h *house) confirm(id string, header ...string) answer {
	h.t.Helper()
	return h.do("POST", "/files/"+id+"/confirm", nil, header...)
}

func (h *house) readdress(id, query string) (d directAnswer) {
	h.t.Helper()
	a := h.do("GET", "/files/direct/"+id+query, nil)
	if err := json.Unmarshal([]byte(a.body), &d); err != nil || a.StatusCode != http.StatusOK {
		h.t.Fatalf("readdress: %v, %v", a, err)
	}
	return d
}

// wxUpload sends a form as wx.uploadFile does: it knows nothing but what it was
// told. It returns the status.
func wxUpload(t *testing.T, h *house, u *Form, data string) int {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, value := range u.Fields {
		_ = w.WriteField(name, value) // into memory
	}
	file, _ := w.CreateFormFile(u.Name, "tmp_1.jpg") // into memory
	_, _ = io.WriteString(file, data)                // into memory
	_ = w.Close()                                    // into memory
	return h.send(http.MethodPost, u.URL, &b, w.FormDataContentType())
}

// send makes a request without any header of ours; paths are the gateway's.
func (h *house) send(method, url string, body io.Reader, contentType string) int {
	h.t.Helper()
	if strings.HasPrefix(url, "/") {
		url = h.server.URL + url
	}
	req, err := http.NewRequestWithContext(h.t.Context(), method, url, body)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	res, err := h.server.Client().Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }() // only read
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

func (h *house) put(a Address, data string) int {
	h.t.Helper()
	return h.send(http.MethodPut, a.URL, strings.NewReader(data), "application/octet-stream")
}

// The client's code is the same whether the storage takes uploads or not.
func TestDirect(t *testing.T) {
	for name, test := range map[string]struct {
		house  func(t *testing.T) *house
		target string
	}{
		"storage, redis": {func(t *testing.T) *house { return directHouse(t, testdeps.MinIO(t), newTestRedisLedger(t)) }, "storage"},
		"storage, file":  {func(t *testing.T) *house { return directHouse(t, testdeps.MinIO(t), newTestFileLedger(t)) }, "storage"},
		"folder":         {func(t *testing.T) *house { return newTestHouse(t, wantDirect) }, "gateway"},
		"s3 behind us":   {func(t *testing.T) *house { return newHouse(t, newTestS3(t, testdeps.MinIO(t)), newTestFileLedger(t)) }, "gateway"},
		"s3 not yet tried": {func(t *testing.T) *house {
			return newHouse(t, newTestS3(t, testdeps.MinIO(t)), newTestFileLedger(t), wantDirect)
		}, "gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			h := test.house(t)
			t.Run("form", func(t *testing.T) { testDirectForm(t, h, test.target) })
			t.Run("parts", func(t *testing.T) { testDirectParts(t, h, test.target) })
			t.Run("nothing", func(t *testing.T) { testDirectNothing(t, h) })
			h.wantNothingLeft()
		})
	}
}

func testDirectForm(t *testing.T, h *house, target string) {
	data := png + "and more"
	d := h.reserve(fmt.Sprintf(`{"name":"照片.png","size":%d,"type":"image/png"}`, len(data)))
	if d.Mode != ModeForm || d.Target != target || d.Upload == nil || d.Put != nil || time.Until(d.Expires) > time.Hour || len(d.Missing) != 0 {
		t.Fatalf("reserved: %+v", d)
	}
	for range 2 {
		if a := h.confirm(d.ID); a.StatusCode != http.StatusConflict || a.code() != map[string]string{"storage": "not_uploaded", "gateway": "parts_missing"}[target] {
			t.Errorf("confirm before the upload: %v", a)
		}
	}
	again := h.readdress(d.ID, "")
	if again.Upload == nil || again.ID != d.ID {
		t.Fatalf("addressed again: %+v", again)
	}
	if status := wxUpload(t, h, again.Upload, data); status != map[string]int{"storage": http.StatusOK, "gateway": http.StatusCreated}[target] {
		t.Fatalf("upload: %d", status)
	}
	if a := h.confirm(d.ID, "User", "mallory"); a.StatusCode != http.StatusNotFound || a.code() != "upload_not_found" {
		t.Errorf("confirm by somebody else: %v", a)
	}
	wantConfirmed(t, h, d.ID, uploaded{ID: d.ID, Name: "照片.png", Size: int64(len(data)), Type: "image/png", URL: "/files/" + d.ID}, data)
}

// wantConfirmed confirms an upload from many sides, and removes it again.
func wantConfirmed(t *testing.T, h *house, id string, want uploaded, data string) {
	t.Helper()
	var answers [4]answer
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = h.confirm(id) })
	}
	wg.Wait()
	for _, a := range append(answers[:], h.confirm(id)) {
		got := h.decode(a)
		if got != want {
			t.Errorf("confirmed: %v\nwant %+v", a, want)
		}
	}
	if a := h.do("GET", want.URL, nil); a.body != data {
		t.Errorf("%d bytes came back, of %d", len(a.body), len(data))
	}
	f, err := h.ledger.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.Stat(t.Context(), f.postKey()); !errors.Is(err, errNoObject) {
		t.Errorf("what was posted is still there: %v", err)
	}
	if d := h.readdress(id, ""); d.File == nil || d.Upload != nil || d.Put != nil {
		t.Errorf("addressed when it was confirmed: %+v", d)
	}
	if a := h.do("DELETE", want.URL, nil); a.StatusCode != http.StatusNoContent {
		t.Errorf("%v", a)
	}
	if a := h.confirm(id); a.code() != "upload_not_found" {
		t.Errorf("confirm of what was deleted: %v", a)
	}
	h.wantEvents("confirmed, and deleted", FileReady+"-"+id, FileDeleted+"-"+id)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = nil
}

func testDirectParts(t *testing.T, h *house, target string) {
	data := png + string(random(2*minPart+100))
	d := h.reserve(fmt.Sprintf(`{"name":"film.png","size":%d,"type":"image/png","mode":"parts","sha256":%q}`, len(data), sum(data)))
	if d.Mode != ModeParts || d.Target != target || d.Upload != nil || len(d.Put) != 3 || d.PartSize != minPart || time.Until(d.Expires) < 23*time.Hour {
		t.Fatalf("reserved: %+v", d)
	}
	piece := func(a Address) string { return data[(a.N-1)*minPart:][:a.Size] }
	for _, i := range []int{2, 0} {
		if status := h.put(d.Put[i], piece(d.Put[i])); status != http.StatusOK {
			t.Fatalf("part %d: %d", d.Put[i].N, status)
		}
	}
	if status := h.put(d.Put[1], "short"); status < 400 || status >= 500 {
		t.Errorf("a part of another size: %d", status)
	}
	if a := h.confirm(d.ID); a.code() != "parts_missing" || !strings.Contains(a.body, " 2.") {
		t.Errorf("confirm with a part missing: %v", a)
	}
	left := h.readdress(d.ID, "?from=2")
	if len(left.Put) != 1 || left.Put[0].N != 2 || !slices.Equal(left.Missing, []int{2}) || left.Received != int64(len(data)-minPart) {
		t.Fatalf("addressed again: %+v", left)
	}
	if none := h.readdress(d.ID, "?from=3"); len(none.Put) != 0 {
		t.Errorf("from 3 on: %+v", none.Put)
	}
	if status := h.put(left.Put[0], piece(left.Put[0])); status != http.StatusOK {
		t.Fatalf("part 2: %d", status)
	}
	wantConfirmed(t, h, d.ID, uploaded{d.ID, "film.png", int64(len(data)), "image/png", sum(data), "/files/" + d.ID, ""}, data)
	if status := h.put(d.Put[0], piece(d.Put[0])); status < 400 || status >= 500 {
		t.Errorf("a part of what was completed: %d", status)
	}
}

func testDirectNothing(t *testing.T, h *house) {
	d := h.reserve(`{"name":"empty.txt","size":0,"mode":"parts"}`)
	if d.Mode != ModeForm || d.Target != "gateway" || wxUpload(t, h, d.Upload, "") != http.StatusCreated {
		t.Errorf("reserved: %+v", d)
	}
	wantConfirmed(t, h, d.ID, uploaded{d.ID, "empty.txt", 0, "text/plain", emptySum, "/files/" + d.ID, ""}, "")
}

// What the storage has to refuse, it does: nothing that was not signed comes in.
func TestDirectFormKeptTo(t *testing.T) {
	h := directHouse(t, testdeps.MinIO(t), newTestFileLedger(t))
	d := h.reserve(`{"name":"a.png","size":8,"type":"image/png"}`)
	other := h.reserve(`{"name":"b.png","size":9,"type":"image/png"}`)
	with := func(name, value string) *Form {
		u := Form{d.Upload.URL, d.Upload.Name, maps.Clone(d.Upload.Fields)}
		u.Fields[name] = value
		return &u
	}
	expired, err := h.direct.s3.postForm(t.Context(), "pending/x", "image/png", 8, now().Add(-time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]struct {
		form *Form
		data string
		want int
	}{
		"too large":      {d.Upload, "ninebytes", http.StatusBadRequest},
		"too small":      {d.Upload, "seven b", http.StatusBadRequest},
		"another key":    {with("key", other.Upload.Fields["key"]), "8 bytes!", http.StatusForbidden},
		"another type":   {with("Content-Type", "text/html"), "8 bytes!", http.StatusForbidden},
		"one field more": {with("x-amz-meta-more", "1"), "8 bytes!", http.StatusForbidden},
		"expired":        {expired, "8 bytes!", http.StatusForbidden},
		"another policy": {with("policy", other.Upload.Fields["policy"]), "ninebytes", http.StatusForbidden},
	} {
		if status := wxUpload(t, h, try.form, try.data); status != try.want {
			t.Errorf("%s: %d, want %d", name, status, try.want)
		}
	}
	if a := h.confirm(d.ID); a.code() != "not_uploaded" {
		t.Errorf("%v", a)
	}
	for object := range h.direct.s3.core.ListObjectsIter(t.Context(), h.direct.s3.settings.Bucket, listAll) {
		t.Errorf("stored: %s", object.Key)
	}
}

// A type that is declared cannot add to the policy that it becomes part of.
func TestDirectTypeIsPlain(t *testing.T) {
	h := directHouse(t, testdeps.MinIO(t), newTestFileLedger(t))
	for declared, want := range map[string]string{
		`text/plain; charset=utf-8`:                           "text/plain",
		`text/plain; a="\"],[\"starts-with\",\"$key\",\"\"]"`: "text/plain",
		`a!b/c`:         objectType,
		`IMAGE/SVG+XML`: "image/svg+xml",
	} {
		body, _ := json.Marshal(map[string]any{"size": 3, "type": declared}) // of strings
		d := h.reserve(string(body))
		policy, err := base64.StdEncoding.DecodeString(d.Upload.Fields["policy"])
		if d.Upload.Fields["Content-Type"] != want || err != nil || !json.Valid(policy) || strings.Contains(string(policy), "starts-with") {
			t.Errorf("%s: %v\n%s", declared, d.Upload.Fields, policy)
		}
		if status := wxUpload(t, h, d.Upload, "yes"); status != http.StatusOK {
			t.Errorf("%s: %d", declared, status)
		}
	}
}

// What the bytes are, and how many, only we can say.
func TestDirectInspected(t *testing.T) {
	srv := testdeps.MinIO(t)
	page := "<!DOCTYPE html><script>alert(1)</script>"
	for name, test := range map[string]struct {
		body, data string
		status     int
		code       string
	}{
		"html declared as a picture": {fmt.Sprintf(`{"name":"a.png","size":%d,"type":"image/png"}`, len(page)), page, http.StatusUnsupportedMediaType, "type_not_allowed"},
		"another checksum":           {fmt.Sprintf(`{"size":%d,"sha256":%q}`, len(png), sum("x")), png, http.StatusBadRequest, "checksum_mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			h := directHouse(t, srv, newTestFileLedger(t), func(s *Settings) { s.AllowedTypes = []string{"image/*"} })
			d := h.reserve(test.body)
			if status := wxUpload(t, h, d.Upload, test.data); status != http.StatusOK {
				t.Fatal(status)
			}
			if a := h.confirm(d.ID); a.StatusCode != test.status || a.code() != test.code {
				t.Errorf("%v", a)
			}
			if a := h.confirm(d.ID); a.code() != "upload_not_found" {
				t.Errorf("once more: %v", a)
			}
			h.wantEvents("nobody hears of it")
			wantUsage(t, h.ledger, "refused", Usage{})
			h.wantNothingLeft()
		})
	}
}

// A storage that lets anything in is found out by its size.
func TestDirectSizeMismatch(t *testing.T) {
	h := directHouse(t, testdeps.MinIO(t), newTestFileLedger(t))
	d := h.reserve(`{"size":5}`)
	f, err := h.ledger.Get(t.Context(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.Put(t.Context(), f.postKey(), strings.NewReader("hello, world"), 12); err != nil {
		t.Fatal(err)
	}
	if a := h.confirm(d.ID); a.StatusCode != http.StatusBadRequest || a.code() != "size_mismatch" {
		t.Errorf("%v", a)
	}
	h.wantNothingLeft()
}

// A form can be posted until its signature expires, also when it was
// confirmed: that changes no file, and what it leaves goes with the file.
func TestDirectPostedAgain(t *testing.T) {
	h := directHouse(t, testdeps.MinIO(t), newTestFileLedger(t))
	d := h.reserve(`{"size":5}`)
	for _, data := range []string{"first", "hello"} {
		if status := wxUpload(t, h, d.Upload, data); status != http.StatusOK {
			t.Fatal(status)
		}
	}
	file := h.decode(h.confirm(d.ID))
	if status := wxUpload(t, h, d.Upload, "<b>!!"); status != http.StatusOK {
		t.Fatal(status)
	}
	if a := h.confirm(d.ID); h.decode(a) != file {
		t.Errorf("%v", a)
	}
	if a := h.do("GET", file.URL, nil); a.body != "hello" {
		t.Errorf("%v", a)
	}
	if a := h.do("DELETE", file.URL, nil); a.StatusCode != http.StatusNoContent {
		t.Errorf("%v", a)
	}
	h.wantNothingLeft()
}

// Two nodes that confirm at the same time, while the client posts something
// else, make one file of one of the two.
func TestDirectConfirmedByTwoNodes(t *testing.T) {
	srv := testdeps.MinIO(t)
	l := newTestRedisLedger(t)
	a, b := directHouse(t, srv, l), directHouse(t, srv, l)
	for range 5 {
		d := a.reserve(`{"size":5}`)
		if status := wxUpload(t, a, d.Upload, "hello"); status != http.StatusOK {
			t.Fatal(status)
		}
		var wg sync.WaitGroup
		var answers [2]answer
		for i, h := range []*house{a, b} {
			wg.Go(func() {
				for { // it was posted once more: asked again, as clients do
					answers[i] = h.confirm(d.ID)
					if answers[i].code() != "upload_changed" {
						return
					}
				}
			})
		}
		wg.Go(func() {
			if status := wxUpload(t, a, d.Upload, "other"); status != http.StatusOK {
				t.Errorf("%d", status)
			}
		})
		wg.Wait()
		if a.decode(answers[0]) != b.decode(answers[1]) {
			t.Errorf("%v", answers)
		}
		first := a.do("GET", "/files/"+d.ID, nil)
		if first.body != "hello" && first.body != "other" {
			t.Errorf("%v", first)
		}
		if a := b.confirm(d.ID); a.StatusCode != http.StatusCreated {
			t.Errorf("%v", a)
		}
		if again := b.do("GET", "/files/"+d.ID, nil); again.body != first.body {
			t.Errorf("%v, and then %v", first, again)
		}
		if got := append(a.events(), b.events()...); len(got) == 0 {
			t.Error("nobody was told")
		}
		if x := b.do("DELETE", "/files/"+d.ID, nil); x.StatusCode != http.StatusNoContent {
			t.Errorf("%v", x)
		}
	}
	a.wantNothingLeft()
}

func TestDirectRefused(t *testing.T) {
	h := directHouse(t, testdeps.MinIO(t), newTestFileLedger(t), func(s *Settings) {
		s.AllowedTypes, s.MaxSize, s.UserQuota, s.MaxSessions = []string{"image/*"}, 1000, 1500, 2
	})
	for body, want := range map[string]struct {
		status int
		code   string
	}{
		`{}`:                            {http.StatusBadRequest, "size_invalid"},
		`{"size":-1}`:                   {http.StatusBadRequest, "size_invalid"},
		`{"size":1,"mode":"ftp"}`:       {http.StatusBadRequest, "mode_invalid"},
		`{"size":1001}`:                 {http.StatusRequestEntityTooLarge, "file_too_large"},
		`{"size":1,"type":"text/html"}`: {http.StatusUnsupportedMediaType, "type_not_allowed"},
		`{"size":1,"type":"no type"}`:   {http.StatusBadRequest, "type_invalid"},
		`{"size":1,"sha256":"x"}`:       {http.StatusBadRequest, "sha256_invalid"},
		`{"size":1,"crc32c":"x"}`:       {http.StatusBadRequest, "crc32c_invalid"},
	} {
		a := h.do("POST", "/files/direct", strings.NewReader(body), "Content-Type", "application/json")
		if a.StatusCode != want.status || a.code() != want.code {
			t.Errorf("%s: %v, want %v", body, a, want)
		}
	}
	first := h.reserve(`{"size":1000}`)
	wantUsage(t, h.ledger, "reserved", Usage{Stored: 1000, Daily: 1000, Sessions: 1})
	reserve := func() answer {
		return h.do("POST", "/files/direct", strings.NewReader(`{"size":501}`), "Content-Type", "application/json")
	}
	if a := reserve(); a.code() != "quota_exceeded" {
		t.Errorf("%v", a)
	}
	h.reserve(`{"size":1}`)
	if a := h.do("POST", "/files/direct", strings.NewReader(`{"size":1}`), "Content-Type", "application/json"); a.code() != "too_many_sessions" {
		t.Errorf("%v", a)
	}
	if a := h.do("DELETE", "/files/direct/"+first.ID, nil); a.StatusCode != http.StatusNoContent {
		t.Errorf("%v", a)
	}
	if a := reserve(); a.StatusCode != http.StatusCreated {
		t.Errorf("%v", a)
	}
	for path, want := range map[string]string{
		"/files/direct/" + first.ID: "upload_not_found", "/files/direct/x": "upload_not_found",
	} {
		if a := h.do("GET", path, nil); a.code() != want {
			t.Errorf("%s: %v", path, a)
		}
	}
}
