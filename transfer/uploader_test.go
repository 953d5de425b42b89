package transfer

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/testdeps"
)

// uploader does what miniprogram-file-uploader does.
type uploader struct {
	*house
	identifier, name string
	data             string
	chunk            int // bytes
}

func (u *uploader) chunks() int { return (len(u.data) + u.chunk - 1) / u.chunk }

func (u *uploader) piece(i int) string {
	return u.data[i*u.chunk : min((i+1)*u.chunk, len(u.data))]
}

func (u *uploader) send(i int) answer {
	u.t.Helper()
	piece := u.piece(i)
	query := fmt.Sprintf("identifier=%s&index=%d&chunkSize=%d&fileName=%s&totalChunks=%d&totalSize=%d", u.identifier, i, len(piece), strings.ReplaceAll(u.name, " ", "%20"), u.chunks(), len(u.data))
	return u.do("POST", "/files/uploader/chunk?"+query, strings.NewReader(piece), "Content-Type", "application/octet-stream")
}

func (u *uploader) mustSend(i int) {
	u.t.Helper()
	if a := u.send(i); a.StatusCode != http.StatusOK {
		u.t.Errorf("chunk %d: %v", i, a)
	}
}

func (u *uploader) verify(header ...string) (v struct {
	NeedUpload     bool
	UploadedChunks []int
	ID, URL        string
},
) {
	u.t.Helper()
	a := u.do("GET", "/files/uploader/verify?"+url.Values{"identifier": {u.identifier}, "fileName": {u.name}}.Encode(), nil, header...)
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || a.StatusCode != http.StatusOK || v.UploadedChunks == nil {
		u.t.Fatalf("verify: %v, %v", a, err)
	}
	return v
}

func (u *uploader) merge(header ...string) answer {
	u.t.Helper()
	return u.do("GET", "/files/uploader/merge?"+url.Values{"identifier": {u.identifier}, "fileName": {u.name}}.Encode(), nil, header...)
}

func (u *uploader) mustMerge() (f uploaded) {
	u.t.Helper()
	a := u.merge()
	if err := json.Unmarshal([]byte(a.body), &f); err != nil || a.StatusCode != http.StatusOK {
		u.t.Fatalf("merge: %v, %v", a, err)
	}
	return f
}

func TestUploader(t *testing.T) {
	tusHouses(t, func(t *testing.T, h *house) {
		u := &uploader{h, "0123456789abcdef", "照片 & co.png", png + string(random(3*minPart+77)), minPart}
		if v := u.verify(); !v.NeedUpload || len(v.UploadedChunks) != 0 {
			t.Errorf("before: %+v", v)
		}
		if a := u.merge(); a.code() != "upload_not_found" {
			t.Errorf("merge of nothing: %v", a)
		}
		u.mustSend(3) // the last one comes first
		u.mustSend(1)
		if v := u.verify(); !v.NeedUpload || !slices.Equal(v.UploadedChunks, []int{1, 3}) {
			t.Errorf("half way: %+v", v)
		}
		if v := u.verify("User", "bob"); len(v.UploadedChunks) != 0 {
			t.Errorf("somebody else sees %+v", v)
		}
		if a := u.merge(); a.code() != "parts_missing" {
			t.Errorf("merge of half: %v", a)
		}
		for _, i := range []int{0, 2, 1} {
			u.mustSend(i)
		}
		f := u.mustMerge()
		if f.Name != u.name || f.Size != int64(len(u.data)) || f.Type != "image/png" {
			t.Errorf("%+v", f)
		}
		if again := u.mustMerge(); again != f {
			t.Errorf("merged again: %+v", again)
		}
		if v := u.verify(); v.NeedUpload || v.ID != f.ID || v.URL != f.URL {
			t.Errorf("after: %+v", v)
		}
		if a := u.send(0); a.code() != "upload_completed" {
			t.Errorf("a chunk of a file: %v", a)
		}
		if a := h.do("GET", f.URL, nil); a.body != u.data {
			t.Errorf("%d other bytes came back", len(a.body))
		}
		h.wantEvents("one upload", FileReady+"-"+f.ID)
		if a := h.do("DELETE", f.URL, nil); a.StatusCode != http.StatusNoContent {
			t.Errorf("%v", a)
		}
		if v := u.verify(); !v.NeedUpload {
			t.Errorf("after it was deleted: %+v", v)
		}
		for i := range u.chunks() {
			u.mustSend(i)
		}
		if f2 := u.mustMerge(); f2.ID == f.ID {
			t.Error("an id came twice")
		}
	})
}

// All chunks come at once, at two nodes.
func TestUploaderAtOnce(t *testing.T) {
	store, redis := newTestS3(t, testdeps.MinIO(t)), newTestRedisLedger(t)
	nodes := []*house{newHouse(t, store, redis), newHouse(t, store, NewRedisLedger(redis.client, redis.prefix))}
	data := string(random(4*minPart + 5))
	var wg sync.WaitGroup
	for i := range 5 {
		u := &uploader{nodes[i%2], "x", "a.bin", data, minPart}
		wg.Go(func() { u.mustSend(i) })
	}
	wg.Wait()
	u := &uploader{nodes[1], "x", "a.bin", data, minPart}
	f := u.mustMerge()
	if a := nodes[0].do("GET", f.URL, nil); a.body != data {
		t.Errorf("%d other bytes came back", len(a.body))
	}
	if usage, err := redis.Usage(t.Context(), alice); err != nil || usage.Sessions != 0 || usage.Stored != f.Size {
		t.Errorf("%+v, %v", usage, err)
	}
}

// Who comes with other chunks, or another file, begins anew.
func TestUploaderOtherChunks(t *testing.T) {
	h := newTestHouse(t)
	u := &uploader{h, "x", "a.bin", string(random(10_000)), 1000}
	u.mustSend(0)
	u.chunk = 2000
	for i := range u.chunks() {
		u.mustSend(i)
	}
	f := u.mustMerge()
	if a := h.do("GET", f.URL, nil); a.body != u.data {
		t.Errorf("%d other bytes came back", len(a.body))
	}
	if a := h.do("DELETE", f.URL, nil); a.StatusCode != http.StatusNoContent {
		t.Errorf("%v", a)
	}
	h.wantNothingLeft()
}

func TestUploaderExpired(t *testing.T) {
	h := newTestHouse(t)
	u := &uploader{h, "x", "a.bin", string(random(10_000)), 1000}
	u.mustSend(0)
	id, err := h.ledger.Alias(t.Context(), alice, "x", "", "", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := h.ledger.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	f.Session.Expires = now().Add(-time.Hour)
	if err := h.ledger.Update(t.Context(), f, Quota{}); err != nil {
		t.Fatal(err)
	}
	if v := u.verify(); !v.NeedUpload || len(v.UploadedChunks) != 0 {
		t.Errorf("%+v", v)
	}
	for i := range u.chunks() {
		u.mustSend(i)
	}
	if f := u.mustMerge(); f.ID == id || f.Size != 10_000 {
		t.Errorf("%+v", f)
	}
}

func TestUploaderRefused(t *testing.T) {
	h := newHouse(t, newTestS3(t, testdeps.MinIO(t)), newTestFileLedger(t), func(s *Settings) { s.MaxSize = 50 << 20 })
	for query, want := range map[string]string{
		"index=0&chunkSize=5&totalChunks=1&totalSize=5":                                "identifier_invalid",
		"identifier=a%20b&index=0&chunkSize=5&totalChunks=1&totalSize=5":               "identifier_invalid",
		"identifier=a&index=0&chunkSize=5&totalChunks=1":                               "chunk_invalid", // the name had a #
		"identifier=a&index=1&chunkSize=5&totalChunks=1&totalSize=5":                   "chunk_invalid",
		"identifier=a&index=-1&chunkSize=5&totalChunks=1&totalSize=5":                  "chunk_invalid",
		"identifier=a&index=0&chunkSize=5&totalChunks=1&totalSize=6":                   "chunk_invalid",
		"identifier=a&index=0&chunkSize=5&totalChunks=3&totalSize=10":                  "chunk_invalid",
		"identifier=a&index=2&chunkSize=4&totalChunks=3&totalSize=11":                  "chunk_invalid",
		"identifier=a&index=0&chunkSize=5&totalChunks=2&totalSize=10":                  "chunk_size_invalid", // S3
		"identifier=a&index=0&chunkSize=9000000&totalChunks=1&totalSize=9000000":       "chunk_size_invalid",
		"identifier=a&index=0&chunkSize=8000000&totalChunks=7&totalSize=56000000":      "file_too_large",
		"identifier=a&index=9&chunkSize=9999999999999&totalChunks=10000&totalSize=1e9": "chunk_invalid",
	} {
		if a := h.do("POST", "/files/uploader/chunk?"+query, strings.NewReader("hello")); a.code() != want {
			t.Errorf("%s: %v, want %s", query, a, want)
		}
	}
	for _, path := range []string{"verify", "merge"} {
		if a := h.do("GET", "/files/uploader/"+path, nil); a.code() != "identifier_invalid" {
			t.Errorf("%s: %v", path, a)
		}
		if a := h.do("GET", "/files/uploader/"+path+"?identifier=a", nil, "User", "nobody"); a.code() != "token_missing" {
			t.Errorf("%s: %v", path, a)
		}
	}
	if a := h.do("POST", "/files/uploader/chunk?identifier=a&index=0&chunkSize=5&totalChunks=1&totalSize=5", strings.NewReader("hell")); a.code() != "part_size_invalid" {
		t.Errorf("a chunk of another size: %v", a)
	}
}

func TestLedgerAlias(t *testing.T) {
	eachLedger(t, func(t *testing.T, l Ledger) {
		soon := now().Add(time.Hour)
		want := func(when string, owner auth.User, alias, stale, id, want string) {
			t.Helper()
			if got, err := l.Alias(t.Context(), owner, alias, stale, id, soon); err != nil || got != want {
				t.Errorf("%s: %q, %v, want %q", when, got, err, want)
			}
		}
		bob := auth.User{AppID: alice.AppID, OpenID: "bob"}
		want("nothing", alice, "a", "", "", "")
		want("the first", alice, "a", "", "1", "1")
		want("the second", alice, "a", "", "2", "1")
		want("of somebody else", bob, "a", "", "3", "3")
		want("another", alice, "b", "", "4", "4")
		want("in the place of one that is not there", alice, "a", "9", "5", "1")
		want("in the place of the first", alice, "a", "1", "5", "5")
		want("look", alice, "a", "", "", "5")
		soon = now().Add(20 * time.Millisecond)
		want("for a moment", alice, "a", "5", "6", "6")
		for deadline := time.Now().Add(10 * time.Second); ; { // of the ledger's clock
			got, err := l.Alias(t.Context(), alice, "a", "", "", soon)
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("%q, %v", got, err)
			}
			if got == "" {
				break
			}
		}
		soon = now().Add(time.Hour)
		want("after that", alice, "a", "", "7", "7")
	})
}

func TestLedgerForgetsAliases(t *testing.T) {
	l := newTestFileLedger(t)
	for i := range 50 {
		if _, err := l.Alias(t.Context(), alice, fmt.Sprint(i), "", "id", now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Alias(t.Context(), alice, "last", "", "id", now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, bucket := range [][]byte{aliasesBucket, lapsesBucket} {
		if n := countKeys(t, l, bucket); n != 1 {
			t.Errorf("%s has %d keys", bucket, n)
		}
	}
}

func FuzzPiece(f *testing.F) {
	f.Add("identifier=a&index=2&chunkSize=4&totalChunks=3&totalSize=14&fileName=a%b")
	f.Add("identifier=a&index=0&chunkSize=5&totalChunks=1&totalSize=5")
	f.Add("identifier=%00&index=00&chunkSize=+5&totalChunks=1&totalSize=5")
	f.Fuzz(func(t *testing.T, query string) {
		q, _ := url.ParseQuery(query) // as r.URL.Query does
		p, err := parsePiece(q)
		if err != nil {
			return
		}
		if p.index < 0 || p.index >= p.chunks || p.chunkSize < 1 || p.identifier == "" || !p.fits(p.size, p.chunkSize) {
			t.Errorf("%q is %+v", query, p)
		}
		here := Upload{Size: p.size, PartSize: p.chunkSize}.partSizeOf(p.index + 1)
		if fmt.Sprint(here) != strings.TrimLeft(strings.TrimPrefix(q.Get("chunkSize"), "+"), "0") {
			t.Errorf("%q: chunk of %d bytes", query, here)
		}
		other := pieceOf{chunks: p.chunks, size: p.size, chunkSize: p.chunkSize + 1 + rand.Int64N(5)}
		if p.chunks > 1 && other.fits(p.size, p.chunkSize) {
			t.Errorf("%+v fits, too", other)
		}
	})
}

func countKeys(t *testing.T, l *FileLedger, bucket []byte) (n int) {
	t.Helper()
	err := l.db.View(func(tx *bbolt.Tx) error {
		n = tx.Bucket(bucket).Stats().KeyN
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
