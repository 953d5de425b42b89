package transfer

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/testdeps"
)

// uploading is an upload in parts as its client sees it.
type uploading struct {
	*house
	uploadAnswer
	path string
}

// begin begins an upload that must be taken.
func (h *house) begin(body string) *uploading {
	h.t.Helper()
	a := h.do("POST", "/files/uploads", strings.NewReader(body), "Content-Type", "application/json")
	u := &uploading{house: h}
	if err := json.Unmarshal([]byte(a.body), &u.uploadAnswer); err != nil || a.StatusCode != http.StatusCreated || !isID(u.ID) {
		h.t.Fatalf("begin: %v, %v", a, err)
	}
	u.path = "/files/uploads/" + u.ID
	return u
}

func (u *uploading) part(n int, data string, header ...string) answer {
	u.t.Helper()
	return u.do("PUT", fmt.Sprintf("%s/parts/%d", u.path, n), strings.NewReader(data), header...)
}

func (u *uploading) mustPart(n int, data string) {
	u.t.Helper()
	want := fmt.Sprintf(`{"n":%d,"size":%d}`, n, len(data))
	if a := u.part(n, data); a.StatusCode != http.StatusOK || a.body != want {
		u.t.Fatalf("part %d: %v, want %s", n, a, want)
	}
}

func (u *uploading) status() (s uploadAnswer) {
	u.t.Helper()
	a := u.do("GET", u.path, nil)
	if err := json.Unmarshal([]byte(a.body), &s); err != nil || a.StatusCode != http.StatusOK {
		u.t.Fatalf("status: %v", a)
	}
	return s
}

func (u *uploading) complete() answer {
	u.t.Helper()
	return u.do("POST", u.path+"/complete", nil)
}

// oneKiB wishes for parts as small as only the folder allows.
const oneKiB = `"part_size":1024`

func TestPartsOverHTTP(t *testing.T) {
	for name, house := range map[string]func(*testing.T) *house{
		"alone": func(t *testing.T) *house { return newTestHouse(t) },
		"s3 and redis": func(t *testing.T) *house {
			return newHouse(t, newTestS3(t, testdeps.MinIO(t)), newTestRedisLedger(t))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := house(t)
			data := png + string(random(2*minPart+100))
			u := h.begin(fmt.Sprintf(`{"name":"照片.png","size":%d,"type":"image/png","sha256":%q}`, len(data), sum(data)))
			if u.PartSize != minPart || *u.Size != int64(len(data)) || u.Name != "照片.png" || u.Type != "image/png" ||
				!slices.Equal(u.Missing, []int{1, 2, 3}) || time.Until(u.Expires) < 23*time.Hour {
				t.Errorf("begun: %+v", u.uploadAnswer)
			}
			var wg sync.WaitGroup
			for n := 3; n >= 1; n-- {
				piece := data[(n-1)*minPart : min(n*minPart, len(data))]
				wg.Go(func() {
					raw := sha256.Sum256([]byte(piece))
					header := []string{"Content-Digest", "sha-256=:" + base64.StdEncoding.EncodeToString(raw[:]) + ":"}
					if a := u.part(n, piece, header...); a.StatusCode != http.StatusOK {
						t.Errorf("part %d: %v", n, a)
					}
				})
				if n == 3 {
					wg.Wait()
					if s := u.status(); s.Received != int64(len(piece)) || !slices.Equal(s.Missing, []int{1, 2}) || len(s.Parts) != 1 || s.Parts[0] != (partAnswer{3, int64(len(piece))}) {
						t.Errorf("after one part: %+v", s)
					}
					if a := u.complete(); a.StatusCode != http.StatusConflict || a.code() != "parts_missing" || !strings.Contains(a.body, "1-2") {
						t.Errorf("complete with one part: %v", a)
					}
				}
			}
			wg.Wait()
			u.mustPart(2, data[minPart:2*minPart]) // again
			var answers [3]answer
			for i := range answers {
				wg.Go(func() { answers[i] = u.complete() })
			}
			wg.Wait()
			got := h.decode(answers[0])
			want := uploaded{u.ID, "照片.png", int64(len(data)), "image/png", sum(data), "/files/" + u.ID, ""}
			if got != want || answers[1].body != answers[0].body || answers[2].body != answers[0].body {
				t.Errorf("%v\nwant %+v", answers, want)
			}
			if a := u.complete(); a.body != answers[0].body || a.StatusCode != http.StatusCreated {
				t.Errorf("once more: %v", a)
			}
			if a := h.do("GET", got.URL, nil); a.body != data || a.Header.Get("ETag") != `"`+sum(data)+`"` {
				t.Errorf("%d other bytes came back", len(a.body))
			}
			if s := u.status(); s.File == nil || *s.File != want || s.Received != want.Size || len(s.Missing) != 0 {
				t.Errorf("status in the end: %+v", s)
			}
			for name, a := range map[string]answer{"part": u.part(1, "x"), "abort": u.do("DELETE", u.path, nil)} {
				if a.StatusCode != http.StatusConflict || a.code() != "upload_completed" {
					t.Errorf("%s of a completed upload: %v", name, a)
				}
			}
			h.wantEvents("one upload", FileReady+"-"+u.ID)
			if a := h.do("DELETE", got.URL, nil); a.StatusCode != http.StatusNoContent {
				t.Errorf("%v", a)
			}
			if a := u.complete(); a.code() != "upload_not_found" {
				t.Errorf("complete of a deleted file: %v", a)
			}
			h.wantNothingLeft()
		})
	}
}

// wantNothingLeft checks that neither store nor ledger keep anything.
func (h *house) wantNothingLeft() {
	h.t.Helper()
	if s, ok := h.store.(*S3); ok {
		for object := range s.core.ListObjectsIter(h.t.Context(), s.settings.Bucket, listAll) {
			h.t.Errorf("left: %s", object.Key)
		}
		if l, ok := h.ledger.(*RedisLedger); ok {
			wantNothingInRedis(h.t.(*testing.T), l)
			return
		}
		if left := unfinished(h.t.(*testing.T), h.ledger, time.Now().Add(time.Hour), 10); len(left) > 0 {
			h.t.Errorf("unfinished: %v", left)
		}
	} else {
		h.wantEmpty()
	}
	if ids := expired(h.t.(*testing.T), h.ledger, time.Now().Add(1000*time.Hour), 10); len(ids) > 0 {
		h.t.Errorf("sessions: %v", ids)
	}
}

// What nobody has seen in order has no SHA-256, and then the id is the tag.
func TestPartsUnknownSum(t *testing.T) {
	eachStore(t, func(t *testing.T, s Store) { testPartsUnknownSum(t, newHouse(t, s, newTestFileLedger(t))) })
}

func testPartsUnknownSum(t *testing.T, h *house) {
	u := h.begin(`{"size":5}`)
	u.mustPart(1, "hello")
	a := u.complete()
	if f := h.decode(a); f.SHA256 != "" || f.Name != "file.txt" || strings.Contains(a.body, "sha256") {
		t.Errorf("%v", a)
	}
	back := h.do("GET", "/files/"+u.ID, nil)
	if back.body != "hello" || back.Header.Get("ETag") != `"`+u.ID+`"` {
		t.Errorf("%v %v", back, back.Header)
	}
	if a := h.do("GET", "/files/"+u.ID, nil, "If-None-Match", `"`+u.ID+`"`); a.StatusCode != http.StatusNotModified {
		t.Errorf("%v", a)
	}
	if a := h.do("DELETE", "/files/"+u.ID, nil); a.StatusCode != http.StatusNoContent {
		t.Errorf("%v", a)
	}
	h.wantEvents("a file without a sum is told of, too", FileReady+"-"+u.ID, FileDeleted+"-"+u.ID)
}

func TestPartsWithoutSize(t *testing.T) {
	h := newTestHouse(t)
	u := h.begin(`{"name":"a.txt",` + oneKiB + `}`)
	data := strings.Repeat("0123456789abcdef", 130) // 2080 bytes
	if u.Size != nil || u.PartSize != 1024 || !slices.Equal(u.Missing, []int{1}) {
		t.Errorf("begun: %+v", u.uploadAnswer)
	}
	u.mustPart(3, data[2048:])
	u.mustPart(1, data[:1000]) // too short, so far
	if a := u.complete(); a.code() != "parts_missing" || !strings.Contains(a.body, "1-2") {
		t.Errorf("%v", a)
	}
	u.mustPart(1, data[:1024])
	u.mustPart(2, data[1024:2048])
	if f := h.decode(u.complete()); f.Size != int64(len(data)) || h.do("GET", f.URL, nil).body != data {
		t.Errorf("%+v", f)
	}
}

func TestPartsOfNothing(t *testing.T) {
	h := newTestHouse(t)
	u := h.begin(`{"name":"empty.txt","size":0,"sha256":"` + sum("") + `","crc32c":"AAAAAA=="}`)
	if len(u.Missing) != 0 {
		t.Errorf("missing: %v", u.Missing)
	}
	for range 2 {
		if f := h.decode(u.complete()); f.Size != 0 || f.SHA256 != sum("") || f.Name != "empty.txt" {
			t.Errorf("%+v", f)
		}
	}
	if a := h.do("GET", "/files/"+u.ID, nil); a.StatusCode != http.StatusOK || a.body != "" {
		t.Errorf("%v", a)
	}
}

func TestPartsRefused(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.MaxSize, s.AllowedTypes = 10_000, []string{"image/*", "text/plain"} })
	for body, code := range map[string]string{
		`{"size":-1}`: "size_invalid", `{"size":10001}`: "file_too_large", `{"type":"text/html"}`: "type_not_allowed", `{"type":"nonsense"}`: "type_invalid",
		`{"sha256":"abc"}`: "sha256_invalid", `{"crc32c":"abc"}`: "crc32c_invalid", `{"size":1.5}`: "json_invalid", `[]`: "json_invalid", ``: "body_missing",
		`{"name":"` + strings.Repeat("x", maxBeginBody) + `"}`: "body_too_large",
	} {
		if a := h.do("POST", "/files/uploads", strings.NewReader(body)); a.code() != code {
			t.Errorf("%.40s: %v, want %s", body, a, code)
		}
	}
	u, open := h.begin(`{"size":2048,`+oneKiB+`}`), h.begin(`{`+oneKiB+`}`)
	kib := strings.Repeat("x", 1024)
	for name, tt := range map[string]struct {
		got  answer
		code string
	}{
		"part 0":             {u.part(0, kib), "part_invalid"},
		"part 3 of 2":        {u.part(3, kib), "part_invalid"},
		"part 10001":         {open.part(10001, kib), "part_invalid"},
		"part x":             {u.do("PUT", u.path+"/parts/x", nil), "part_invalid"},
		"short":              {u.part(1, kib[:1023]), "part_size_invalid"},
		"long":               {u.part(2, kib+"x"), "part_size_invalid"},
		"long, size unknown": {open.part(1, kib+"x"), "part_size_invalid"},
		"beyond max_size":    {open.part(11, kib), "file_too_large"},
		"html":               {u.part(1, "<!DOCTYPE html>"+kib[15:]), "type_not_allowed"},
		"another sum":        {u.part(1, kib, "X-Checksum-Sha256", sum("x")), "checksum_mismatch"},
		"another crc":        {u.part(1, kib, "X-Checksum-Crc32c", "00000000"), "checksum_mismatch"},
		"two sums":           {u.part(1, kib, "X-Checksum-Sha256", sum(kib), "Content-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"), "checksum_mismatch"},
		"no sum":             {u.part(1, kib, "X-Checksum-Sha256", "abc"), "sha256_invalid"},
		"no digest":          {u.part(1, kib, "Content-Digest", "sha-256=abc"), "digest_invalid"},
		"of bob":             {u.part(1, kib, "User", "bob"), "upload_not_found"},
		"of nobody":          {u.part(1, kib, "User", "nobody"), "token_missing"},
		"begin of nobody":    {h.do("POST", "/files/uploads", strings.NewReader("{}"), "User", "nobody"), "token_missing"},
		"status of bob":      {u.do("GET", u.path, nil, "User", "bob"), "upload_not_found"},
		"complete of bob":    {u.do("POST", u.path+"/complete", nil, "User", "bob"), "upload_not_found"},
		"abort of bob":       {u.do("DELETE", u.path, nil, "User", "bob"), "upload_not_found"},
		"another id":         {u.do("GET", "/files/uploads/"+newFile(alice).ID, nil), "upload_not_found"},
		"no id":              {u.do("GET", "/files/uploads/x", nil), "upload_not_found"},
	} {
		if tt.got.code() != tt.code {
			t.Errorf("%s: %v, want %s", name, tt.got, tt.code)
		}
	}
	if s := u.status(); s.Received != 0 || len(s.Parts) != 0 {
		t.Errorf("kept: %+v", s)
	}
	if a := h.do("GET", "/files/"+u.ID, nil); a.code() != "file_not_found" {
		t.Errorf("an upload as a file: %v", a)
	}
	for i, want := range []string{"", "upload_not_found"} {
		if a := u.do("DELETE", u.path, nil); a.code() != want {
			t.Errorf("abort %d: %v", i, a)
		}
		if a := open.do("DELETE", open.path, nil); a.code() != want {
			t.Errorf("abort %d: %v", i, a)
		}
	}
	h.wantNothingLeft()
}

// After a sum or type that is wrong in the end nothing is left.
func TestPartsWrongInTheEnd(t *testing.T) {
	for name, tt := range map[string]struct{ begin, content, code string }{
		"sha256": {`{"size":5,"sha256":"` + sum("x") + `"}`, "hello", "checksum_mismatch"},
		"crc32c": {`{"size":5,"crc32c":"00000000"}`, "hello", "checksum_mismatch"},
		// Its first part alone is text.
		"type": {`{` + oneKiB + `}`, strings.Repeat(" ", 1024) + "<!DOCTYPE html>", "type_not_allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHouse(t, func(s *Settings) { s.AllowedTypes = []string{"text/plain"} })
			u := h.begin(tt.begin)
			for n := 1; (n-1)*1024 < len(tt.content); n++ {
				u.mustPart(n, tt.content[(n-1)*1024:min(n*1024, len(tt.content))])
			}
			if a := u.complete(); a.code() != tt.code {
				t.Errorf("%v", a)
			}
			if a := u.complete(); a.code() != "upload_not_found" {
				t.Errorf("once more: %v", a)
			}
			h.wantNothingLeft()
			h.wantEvents("nothing became ready")
		})
	}
}

// A right sum is kept where the store has none.
func TestPartsRightSums(t *testing.T) {
	h := newTestHouse(t)
	u := h.begin(`{"size":9,"sha256":"` + sum("123456789") + `","crc32c":"E3069283"}`)
	if a := u.part(1, "123456789", "X-Checksum-Crc32c", "4waSgw==", "X-Checksum-Sha256", strings.ToUpper(sum("123456789"))); a.StatusCode != http.StatusOK {
		t.Errorf("%v", a)
	}
	if f := h.decode(u.complete()); f.SHA256 != sum("123456789") {
		t.Errorf("%+v", f)
	}
}

// An upload that has expired takes nothing more, and is swept.
func TestPartsExpire(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		h := newHouse(t, newTestFolder(t), l)
		u, alive := h.begin(`{"size":5}`), h.begin(`{"size":5}`)
		u.mustPart(1, "hello")
		alive.mustPart(1, "hello")
		f, err := l.Get(t.Context(), u.ID)
		if err != nil {
			t.Fatal(err)
		}
		f.Session.Expires = now().Add(-2 * cleanUp)
		if err := l.Update(t.Context(), f, Quota{}); err != nil {
			t.Fatal(err)
		}
		for name, a := range map[string]answer{"part": u.part(1, "hello"), "status": u.do("GET", u.path, nil), "complete": u.complete()} {
			if a.StatusCode != http.StatusGone || a.code() != "upload_expired" {
				t.Errorf("%s: %v", name, a)
			}
		}
		h.started = now().Add(time.Hour) // as if it had been another process
		if err := h.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if a := u.do("GET", u.path, nil); a.code() != "upload_not_found" {
			t.Errorf("swept: %v", a)
		}
		if f := h.decode(alive.complete()); f.Size != 5 {
			t.Errorf("one that has not expired: %+v", f)
		}
		if files := filesIn(t, h.store.(*Folder).dir); len(files) != 1 {
			t.Errorf("stored: %v", files)
		}
	})
}

// The phone's requests may go to any node.
func TestPartsOnTwoNodes(t *testing.T) {
	srv, ledger := testdeps.MinIO(t), newTestRedisLedger(t)
	one := newHouse(t, newTestS3(t, srv), ledger)
	two := newHouse(t, newTestS3(t, srv), NewRedisLedger(ledger.client, ledger.prefix))
	data := string(random(minPart + 7))
	u := one.begin(fmt.Sprintf(`{"size":%d}`, len(data)))
	there := &uploading{house: two, uploadAnswer: u.uploadAnswer, path: u.path}
	u.mustPart(1, data[:minPart])
	there.mustPart(2, data[minPart:])
	var wg sync.WaitGroup
	for range 3 {
		for _, on := range []*uploading{u, there} {
			wg.Go(func() {
				if a := on.complete(); a.StatusCode != http.StatusCreated {
					t.Errorf("%v", a)
				}
			})
		}
	}
	wg.Wait()
	if a := two.do("GET", "/files/"+u.ID, nil); a.body != data {
		t.Errorf("%d other bytes", len(a.body))
	}
	if n := len(one.told) + len(two.told); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// A crash between the object and the commit is made good by completing again.
func TestPartsCompleteAfterCrash(t *testing.T) {
	h := newTestHouse(t)
	u := h.begin(`{"size":5}`)
	u.mustPart(1, "hello")
	f, err := h.ledger.Get(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.Complete(t.Context(), f.Key, f.Session.Upload, partsOf(t, h.store, f.Key, f.Session.Upload)); err != nil {
		t.Fatal(err)
	}
	if s := u.status(); s.Received != 5 || len(s.Missing) != 0 {
		t.Errorf("status: %+v", s)
	}
	if got := h.decode(u.complete()); got.Size != 5 {
		t.Errorf("%+v", got)
	}
	if a := h.do("GET", "/files/"+u.ID, nil); a.body != "hello" {
		t.Errorf("%v", a)
	}
}

// answered reads the answer to a begin.
func (h *house) answered(t *testing.T, body []byte) (u uploadAnswer) {
	t.Helper()
	if err := json.Unmarshal(body, &u); err != nil {
		t.Fatal(err)
	}
	return u
}

// as makes a request one of alice.
func (h *house) as(r *http.Request) *http.Request {
	return r.WithContext(auth.WithSession(r.Context(), &auth.Session{User: alice}))
}

// TestPartsAccess is who may read a file that came in parts, and for how long.
func TestPartsAccess(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		h.settings.UserPublic, h.settings.UserChannel, h.settings.TTL.Public = true, true, time.Hour
		h.members = map[string]bool{"alice in room": true, "bob in room": true}
		begin := func(query string) answer {
			return h.do("POST", "/files/uploads"+query, strings.NewReader(`{"size":5}`))
		}
		for query, want := range map[string]string{
			"?public=yes": "access_invalid", "?public=true&channel=room": "access_invalid",
			"?channel=other": "channel_not_allowed", "?channel=a%20b": "channel_invalid",
		} {
			if a := begin(query); a.code() != want {
				t.Errorf("%s: %v, want %s", query, a, want)
			}
		}
		upload := func(query string) File {
			t.Helper()
			u := &uploading{house: h}
			if err := json.Unmarshal([]byte(begin(query).body), &u.uploadAnswer); err != nil {
				t.Fatal(err)
			}
			u.path = "/files/uploads/" + u.ID
			u.mustPart(1, "hello")
			// The file begins to end when the upload does, however long that took.
			f, err := h.ledger.Get(t.Context(), u.ID)
			if err != nil {
				t.Fatal(err)
			}
			f.Created, f.Expires = f.Created.Add(-2*time.Hour), f.Created.Add(-time.Hour)
			if err := h.ledger.Update(t.Context(), f, Quota{}); err != nil {
				t.Fatal(err)
			}
			if a := u.complete(); a.StatusCode != http.StatusCreated {
				t.Fatalf("%s: %v", query, a)
			}
			if f, err = h.ledger.Get(t.Context(), u.ID); err != nil {
				t.Fatal(err)
			}
			return f
		}
		public, shared, private := upload("?public=true"), upload("?channel=room"), upload("")
		for user, want := range map[string][]int{"nobody": {200, 401, 401}, "bob": {200, 200, 404}, "eve": {200, 404, 404}} {
			for i, f := range []File{public, shared, private} {
				if a := h.do("GET", "/files/"+f.ID, nil, "User", user); a.StatusCode != want[i] || a.StatusCode == 200 && a.body != "hello" {
					t.Errorf("%s, file %d: %v, want %d", user, i, a, want[i])
				}
			}
		}
		if left := public.Expires.Sub(public.Changed); left < time.Hour-time.Second || left > time.Hour || !shared.Expires.IsZero() {
			t.Errorf("the public file ends %v after its upload, the shared one at %v", left, shared.Expires)
		}
		h.settings.UserPublic = false
		if a := begin("?public=true"); a.code() != "access_not_allowed" {
			t.Errorf("not allowed: %v", a)
		}
	})
}
