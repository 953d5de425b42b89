package transfer

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

func TestTusLengthLater(t *testing.T) {
	tusHouses(t, func(t *testing.T, h *house) {
		for _, n := range []int{0, 700, minPart, minPart + 700} {
			data := string(random(n))
			c := &tusClient{house: h}
			a := c.ask("POST", TusPath, "", "Upload-Defer-Length", "1")
			c.url = a.Header.Get("Location")
			if a := c.ask("HEAD", c.url, ""); a.Header.Get("Upload-Defer-Length") != "1" || a.Header.Get("Upload-Length") != "" {
				t.Errorf("%v", a.Header)
			}
			if n > 0 {
				c.mustPatch(0, data)
			}
			if a := c.mustPatch(n, "", "Upload-Length", strconv.Itoa(n)); a.Header.Get(FileHeader) != c.id() {
				t.Errorf("%d bytes: %v %v", n, a, a.Header)
			}
			c.wantFile(data)
		}
	})
}

func TestTusTooLongWithoutLength(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.MaxSize = 1000 })
	c := &tusClient{house: h}
	c.url = c.ask("POST", TusPath, "", "Upload-Defer-Length", "1").Header.Get("Location")
	if a := c.patch(0, strings.Repeat("x", 1001)); a.code() != "file_too_large" || c.offset() != 0 {
		t.Errorf("%v, then at %d", a, c.offset())
	}
}

func TestTusCreatesWithUpload(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.AllowedTypes = []string{"text/plain"} })
	c := &tusClient{house: h}
	const octets = "application/offset+octet-stream"
	a := c.ask("POST", TusPath, "hello", "Upload-Length", "5", "Content-Type", octets)
	if c.url = a.Header.Get("Location"); a.StatusCode != http.StatusCreated || a.Header.Get("Upload-Offset") != "5" || a.Header.Get(FileHeader) != c.id() {
		t.Errorf("%v %v", a, a.Header)
	}
	c.wantFile("hello")
	a = c.ask("POST", TusPath, "", "Upload-Length", "0")
	if c.url = a.Header.Get("Location"); a.StatusCode != http.StatusCreated || a.Header.Get(FileHeader) != c.id() {
		t.Errorf("empty: %v %v", a, a.Header)
	}
	c.wantFile("")
	// Created, but the bytes are refused: for a while, and for good.
	bad := "sha1 " + base64.StdEncoding.EncodeToString(make([]byte, 20))
	a = c.ask("POST", TusPath, "hello", "Upload-Length", "5", "Content-Type", octets, "Upload-Checksum", bad)
	if c.url = a.Header.Get("Location"); a.StatusCode != tusMismatch || c.offset() != 0 {
		t.Errorf("%v %v", a, a.Header)
	}
	c.mustPatch(0, "hello")
	a = c.ask("POST", TusPath, png, "Upload-Length", strconv.Itoa(len(png)), "Content-Type", octets)
	if a.code() != "type_not_allowed" || a.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("%v", a)
	}
	if a := c.ask("HEAD", a.Header.Get("Location"), ""); a.StatusCode != http.StatusNotFound {
		t.Errorf("what was refused for good is there: %v", a)
	}
}

func TestTusRefused(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.MaxSize, s.AllowedTypes = 10_000, []string{"text/plain"} })
	c := h.tusCreate(10, "")
	create := func(header ...string) answer { return c.ask("POST", TusPath, "", header...) }
	for _, tt := range []struct {
		want string
		a    answer
	}{
		{"413 file_too_large", create("Upload-Length", "10001")},
		{"400 invalid_upload_length", create("Upload-Length", "-1")},
		{"400 invalid_upload_length", create()},
		{"400 invalid_upload_length", create("Upload-Length", "1", "Upload-Defer-Length", "1")},
		{"400 metadata_invalid", create("Upload-Length", "1", "Upload-Metadata", "name !!")},
		{"413 metadata_too_large", create("Upload-Length", "1", "Upload-Metadata", "name "+b64(strings.Repeat("x", maxTusMeta)))},
		{"400 sha256_invalid", create("Upload-Length", "1", "Upload-Metadata", "sha256 "+b64("abc"))},
		{"415 type_not_allowed", create("Upload-Length", "1", "Upload-Metadata", "type "+b64("image/png"))},
		{"400 checksum_invalid", c.patch(0, "x", "Upload-Checksum", "sha1 abc")},
		{"400 checksum_invalid", c.patch(0, "x", "Upload-Checksum", "sha3 "+b64("abc"))},
		{"412 unsupported_version", h.do("PATCH", c.url, nil, "Upload-Offset", "0")},
		{"400 invalid_offset", c.ask("PATCH", c.url, "x", "Content-Type", "application/offset+octet-stream")},
		{"415 invalid_content_type", c.ask("PATCH", c.url, "x", "Upload-Offset", "0")},
		{"413 upload_size_exceeded", c.patch(0, "more than 10 bytes")},
		{"404 upload_not_found", c.ask("PATCH", TusPath+"a/b", "x", "Content-Type", "application/offset+octet-stream", "Upload-Offset", "0")},
		{"405 method_not_allowed", c.ask("PATCH", TusPath, "x")},
		{"405 method_not_allowed", c.ask("POST", c.url, "x", "X-HTTP-Method-Override", "PUT")},
	} {
		if got := fmt.Sprint(tt.a.StatusCode, " ", tt.a.code()); got != tt.want || tt.a.Header.Get("Tus-Resumable") != "1.0.0" {
			t.Errorf("%v %v, want %s", tt.a, tt.a.Header, tt.want)
		}
	}
	c.mustPatch(0, "0123456789")
}

func TestTusOptions(t *testing.T) {
	h := newTestHouse(t)
	a := h.do("OPTIONS", TusPath, nil, "User", "nobody")
	got := fmt.Sprint(a.StatusCode, a.Header.Get("Tus-Version"), a.Header.Get("Tus-Max-Size"), a.Header.Get("Tus-Extension"), a.Header.Get("Tus-Checksum-Algorithm"))
	if want := fmt.Sprint(204, "1.0.0", 200<<20, "creation,creation-with-upload,termination,creation-defer-length,checksum,expiration", "sha1,sha256,md5,crc32"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// stubbornStore does not complete while it is down. While it is joining, as for
// a node that died since it asked for that, it lists no parts, or refuses them.
type stubbornStore struct {
	Store
	down    bool
	joining error
}

func (s *stubbornStore) Parts(ctx context.Context, key, upload string) ([]Part, error) {
	if s.joining == errPartsMissing {
		return nil, nil
	}
	return s.Store.Parts(ctx, key, upload)
}

func (s *stubbornStore) Complete(ctx context.Context, key, upload string, parts []Part) (Object, error) {
	switch {
	case s.down:
		return Object{}, errStoreAway
	case s.joining != nil:
		return Object{}, s.joining
	}
	return s.Store.Complete(ctx, key, upload, parts)
}

// joined is what the storage does in the end, for nobody.
func (s *stubbornStore) joined(h *house, id string) {
	h.t.Helper()
	f, err := h.ledger.Get(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	parts, err := s.Store.Parts(h.t.Context(), f.Key, f.Session.Upload)
	if err == nil {
		_, err = s.Store.Complete(h.t.Context(), f.Key, f.Session.Upload, parts)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// What a storage is joining for a node that died is not the client's fault, and
// is the file once it is there.
func TestTusWhileTheStorageJoins(t *testing.T) {
	for _, why := range []error{errPartsMissing, errParts} {
		store := &stubbornStore{Store: newTestFolder(t), joining: why}
		h := newHouse(t, store, newTestFileLedger(t))
		c := h.tusCreate(5, "")
		if a := c.patch(0, "hello"); a.code() != "storage_unavailable" {
			t.Errorf("%v: %v", why, a)
		}
		if a := c.ask("HEAD", c.url, ""); a.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%v: %v %v", why, a, a.Header)
		}
		store.joined(h, c.id())
		if at := c.offset(); at != 5 {
			t.Errorf("%v: at %d", why, at)
		}
		c.wantFile("hello")
	}
}

// A node that dies at any step of a request, or is told that it failed, leaves an
// upload that the next request goes on with.
func TestTusCutShort(t *testing.T) {
	tusHouses(t, func(t *testing.T, h *house) {
		data := string(random(minPart + 200))
		const from, to = 100, minPart + 100 // a request that begins and ends within parts
		cases := 4
		if h.ledger.Shared() {
			cases = 1 // which take long there, and are the same
		}
		for i := range cases {
			steps, header := 0, []string{"Upload-Checksum", sha1Of(data[from:to])}
			for alive := false; !alive; steps++ {
				c := h.tusCreate(len(data), "")
				c.mustPatch(0, data[:from])
				m, store, ledger := &mortal{left: steps, lives: i&1 > 0}, h.store, h.ledger
				h.store, h.ledger = mortalStore{store, m}, mortalLedger{ledger, m}
				c.patch(from, data[from:to], header[:i&2]...)
				h.store, h.ledger = store, ledger
				at := c.offset()
				if at != from && at != minPart && at != to {
					t.Errorf("at %d after %d steps", at, steps)
				}
				c.mustPatch(at, data[at:])
				c.wantFile(data)
				alive = m.left >= 0
			}
			if steps < 2*4 { // a part, a tail and the records of both
				t.Errorf("%d steps", steps)
			}
		}
	})
}

// A client takes an offset at the end for success, so it must be one.
func TestTusCompletedLater(t *testing.T) {
	store := &stubbornStore{Store: newTestFolder(t), down: true}
	h := newHouse(t, store, newTestFileLedger(t))
	c := h.tusCreate(5, "")
	if a := c.patch(0, "hello"); a.code() != "storage_unavailable" {
		t.Errorf("%v", a)
	}
	if a := c.ask("HEAD", c.url, ""); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%v %v", a, a.Header)
	}
	store.down = false
	if at := c.offset(); at != 5 {
		t.Errorf("at %d", at)
	}
	c.wantFile("hello")
}

// The checksum of the whole file, in the metadata, is checked at the end.
func TestTusWholeSum(t *testing.T) {
	h := newTestHouse(t)
	c := h.tusCreate(5, "sha256 "+b64(sum("world")))
	if a := c.patch(0, "hello"); a.code() != "checksum_mismatch" {
		t.Errorf("%v", a)
	}
	if a := c.ask("HEAD", c.url, ""); a.StatusCode != http.StatusNotFound {
		t.Errorf("%v", a)
	}
	h.wantNothingLeft()
}

// failingPart is a store that does not take one part.
type failingPart struct {
	Store
	n int
}

func (f failingPart) PutPart(ctx context.Context, key, upload string, n int, r io.Reader, size int64) (Part, error) {
	if n == f.n {
		return Part{}, errStoreAway
	}
	return f.Store.PutPart(ctx, key, upload, n, r, size)
}

// Parts of a request count although a later one could not be stored.
func TestTusPartFails(t *testing.T) {
	h := newTestHouse(t)
	data := string(random(2*minPart + 5))
	c := h.tusCreate(len(data), "")
	store := h.store
	h.store = failingPart{store, 3}
	if a := c.patch(0, data); a.code() != "storage_unavailable" {
		t.Errorf("%v", a)
	}
	h.store = store
	if at := c.offset(); at != 2*minPart {
		t.Fatalf("at %d", at)
	}
	c.mustPatch(2*minPart, data[2*minPart:])
	c.wantFile(data)
}

func TestTusWebhook(t *testing.T) {
	asked := make(chan string, 10)
	h := askingAlone(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // is compared
		asked <- string(body)
		if strings.Contains(string(body), "bad.txt") {
			_, _ = io.WriteString(w, `{"allow":false,"reason":"not this"}`)
			return
		}
		_, _ = io.WriteString(w, `{"attributes":{"a":1}}`)
	}))
	c := h.tusCreate(5, "filename "+b64("good.txt")+",filetype "+b64("text/plain"))
	if q := <-asked; !strings.Contains(q, `"file":{"name":"good.txt","type":"text/plain","size":5}`) {
		t.Errorf("asked %s", q)
	}
	c.mustPatch(0, "hel")
	c.mustPatch(3, "lo")
	if f, err := h.ledger.Get(t.Context(), c.id()); err != nil || f.Attributes != `{"a":1}` {
		t.Errorf("%+v, %v", f, err)
	}
	if a := c.ask("POST", TusPath, "", "Upload-Length", "5", "Upload-Metadata", "filename "+b64("bad.txt")); a.code() != "upload_refused" || !strings.Contains(a.body, "not this") {
		t.Errorf("%v", a)
	}
	if <-asked; len(asked) != 0 {
		t.Errorf("asked %d times more", len(asked))
	}
}
