package transfer

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/auth"
)

func withThumbs(s *Settings) { s.Thumbnails.Enabled = true }

func photo(t testing.TB, w, h int) string {
	t.Helper()
	p := image.NewGray(image.Rect(0, 0, w, h))
	for i := range p.Pix {
		p.Pix[i] = byte(i)
	}
	p.SetGray(0, 0, color.Gray{})
	var b bytes.Buffer
	if err := jpeg.Encode(&b, p, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// wantThumb checks that a picture of this size comes back.
func (h *house) wantThumb(f uploaded, query, size string) {
	h.t.Helper()
	a := h.do("GET", f.URL+query, nil)
	config, format, err := image.DecodeConfig(strings.NewReader(a.body))
	if err != nil || fmt.Sprintf("%d x %d", config.Width, config.Height) != size || a.Header.Get("Content-Type") != "image/"+format || a.ContentLength != int64(len(a.body)) {
		h.t.Errorf("%s: %d %s %dx%d, %v; want %s", query, a.StatusCode, format, config.Width, config.Height, err, size)
	}
}

func TestThumbnails(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		h.thumbs.Enabled = true
		store := &opened{Store: h.store}
		h.store = store
		f := h.keep("照片.jpeg", photo(t, 400, 200))
		h.wantThumb(f, "?w=100", "100 x 50")
		h.wantThumb(f, "/any.jpg?w=100&h=100&fit=cover", "100 x 100")
		made := store.count
		h.wantThumb(f, "?w=100", "100 x 50")
		if n := testutil.ToFloat64(h.metrics.thumbs.WithLabelValues("made")); n != 2 || store.count != made+1 {
			t.Errorf("%v made, %d requests for a kept one", n, store.count-made)
		}
		a := h.do("GET", f.URL+"?w=100", nil)
		for name, want := range map[string]string{
			"Content-Type": "image/jpeg", "ETag": `"` + f.SHA256 + `-100x0-contain"`, "Cache-Control": "private, no-cache", "Accept-Ranges": "",
			"Content-Disposition":    `inline; filename="__.jpg"; filename*=UTF-8''%E7%85%A7%E7%89%87.jpg`,
			"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox",
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if head := h.do("HEAD", f.URL+"?w=100", nil); head.StatusCode != 200 || head.ContentLength != a.ContentLength || head.body != "" {
			t.Errorf("HEAD: %v", head)
		}
		if b := h.do("GET", f.URL+"?w=100", nil, "If-None-Match", a.Header.Get("ETag")); b.StatusCode != http.StatusNotModified {
			t.Errorf("condition: %v", b)
		}
		if b := h.do("GET", f.URL+"?w=100", nil, "User", "bob"); b.code() != "file_not_found" {
			t.Errorf("of another: %v", b)
		}
		if found := h.verify(10); len(found) != 0 {
			t.Errorf("thumbnails are different: %v", found)
		}
		if n := len(pagesOf(t, h.store, 100)); n != 3 {
			t.Errorf("%d objects, want a file and two thumbnails", n)
		}
		if a := h.do("DELETE", f.URL, nil); a.StatusCode != http.StatusNoContent {
			t.Errorf("%v", a)
		}
		if left := pagesOf(t, h.store, 100); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestThumbnailsRefused(t *testing.T) {
	h := newTestHouse(t, withThumbs, func(s *Settings) {
		s.Thumbnails.MaxEdge, s.Thumbnails.MaxPixels, s.Thumbnails.MaxSize = 500, 300*200, 100<<10
	})
	f := h.keep("a.jpg", photo(t, 300, 200))
	large, text := h.keep("b.jpg", photo(t, 301, 200)), h.keep("a.txt", "hello")
	damaged, long := h.keep("c.jpg", "\xff\xd8\xff\xe0 and nothing more"), h.keep("d.jpg", photo(t, 1, 1)+strings.Repeat("x", 100<<10))
	for _, tt := range []struct {
		f     uploaded
		query string
		code  string
	}{
		{f, "w=501", "thumbnail_invalid"},
		{f, "w=0", "thumbnail_invalid"},
		{f, "w=-1", "thumbnail_invalid"},
		{f, "w=+1", "thumbnail_invalid"},
		{f, "w=1e2", "thumbnail_invalid"},
		{f, "w=99999999999999999999", "thumbnail_invalid"},
		{f, "w=", "thumbnail_invalid"},
		{f, "fit=contain", "thumbnail_invalid"},
		{f, "w=10&fit=cover", "thumbnail_invalid"},
		{f, "w=10&fit=stretch", "thumbnail_invalid"},
		{f, "w=10&fit=", "thumbnail_invalid"},
		{large, "w=10", "picture_too_large"},
		{long, "w=10", "picture_too_large"},
		{text, "w=10", "thumbnail_unsupported"},
		{damaged, "w=10", "thumbnail_unsupported"},
	} {
		if a := h.do("GET", tt.f.URL+"?"+tt.query, nil); a.code() != tt.code || a.StatusCode >= 500 || a.Header.Get("ETag") != "" {
			t.Errorf("%s of %s: %v, want %s", tt.query, tt.f.Name, a, tt.code)
		}
	}
	h.wantThumb(f, "?w=500", "300 x 200")
	h = newTestHouse(t)
	f = h.keep("a.jpg", photo(t, 30, 20))
	if a := h.do("GET", f.URL+"?w=10", nil); a.code() != "thumbnails_off" {
		t.Errorf("switched off: %v", a)
	}
	if a := h.do("GET", f.URL+"?width=10", nil); a.StatusCode != http.StatusOK {
		t.Errorf("another parameter: %v", a)
	}
}

// Requests for the same thumbnail make it once; more than may wait are told to
// come again.
func TestThumbnailsAtTheSameTime(t *testing.T) {
	store := &slowStore{Store: newTestFolder(t), begun: make(chan struct{}), goOn: make(chan struct{})}
	h := newHouse(t, store, newTestFileLedger(t), withThumbs, func(s *Settings) { s.Thumbnails.Workers, s.Thumbnails.Queue = 1, 0 })
	f := h.keep("a.jpg", photo(t, 40, 20))
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { h.wantThumb(f, "?w=10", "10 x 5") })
	}
	<-store.begun
	if a := h.do("GET", f.URL+"?w=20", nil); a.code() != "thumbnails_busy" || a.Header.Get("Retry-After") == "" {
		t.Errorf("too many: %v", a)
	}
	close(store.goOn)
	wg.Wait()
	for result, want := range map[string]float64{"busy": 1, "made": 1} {
		if n := testutil.ToFloat64(h.metrics.thumbs.WithLabelValues(result)); n != want {
			t.Errorf("%v counted as %s, want %v", n, result, want)
		}
	}
}

// slowStore waits at the first Open.
type slowStore struct {
	Store
	once        sync.Once
	begun, goOn chan struct{}
}

func (s *slowStore) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	s.once.Do(func() { close(s.begun); <-s.goOn })
	return s.Store.Open(ctx, key, offset, length)
}

// A file keeps no more than so many, and counted links count thumbnails.
func TestThumbnailsAreLimited(t *testing.T) {
	h := newTestHouse(t, withThumbs)
	f := h.keep("a.jpg", photo(t, 60, 60))
	for w := range maxThumbs + 3 {
		h.wantThumb(f, fmt.Sprint("?w=", w+1), fmt.Sprint(w+1, " x ", w+1))
	}
	if n := len(filesIn(t, h.store.(*Folder).dir)); n != 1+maxThumbs {
		t.Errorf("%d are stored, want %d", n-1, maxThumbs)
	}
	h.follow = auth.Link{Downloads: 1, Count: 7}
	for i, code := range []string{"", "link_spent"} {
		if a := h.do("GET", f.URL+"?w=5", nil, "User", "nobody", "Link", f.ID); a.code() != code {
			t.Errorf("download %d by a link for one: %v", i, a)
		}
	}
}

// A thumbnail whose bytes are gone is made again.
func TestThumbnailLost(t *testing.T) {
	h := newTestHouse(t, withThumbs)
	f := h.keep("a.jpg", photo(t, 60, 60))
	h.wantThumb(f, "?w=10", "10 x 10")
	record, err := h.ledger.Get(t.Context(), f.ID)
	if err != nil || record.Thumbs != "10x0-contain" {
		t.Fatalf("%q, %v", record.Thumbs, err)
	}
	if err := h.store.Delete(t.Context(), record.Key+"~10x0-contain"); err != nil {
		t.Fatal(err)
	}
	h.wantThumb(f, "?w=10", "10 x 10")
	if n := len(filesIn(t, h.store.(*Folder).dir)); n != 2 {
		t.Errorf("%d files are stored, want 2", n)
	}
	if err := h.store.Delete(t.Context(), record.Key); err != nil {
		t.Fatal(err)
	}
	if a := h.do("GET", f.URL+"?w=20", nil); a.code() != "file_lost" {
		t.Errorf("without the picture: %v", a)
	}
}
