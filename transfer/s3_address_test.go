package transfer

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/testdeps"
)

// redirecting opens the store of srv with addresses for phones.
func redirecting(t *testing.T, srv testdeps.S3, public string) *S3 {
	t.Helper()
	s, err := NewS3(S3Settings{
		Endpoint: srv.Endpoint, Region: srv.Region, Bucket: srv.Bucket, AccessKey: srv.AccessKey,
		SecretKey: settings.Secret(srv.SecretKey), ConditionalWrites: true, Redirect: true, PublicURL: public,
	}, 3*partSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestS3Address(t *testing.T) {
	srv := testdeps.MinIO(t)
	s := redirecting(t, srv, "http://"+srv.Endpoint)
	const key = "2026/01/02/中文"
	if _, err := s.Put(t.Context(), key, strings.NewReader("0123456789"), -1); err != nil {
		t.Fatal(err)
	}
	as := Presented{Type: "text/plain; charset=utf-8", Disposition: disposition("attachment", `照片 "1".txt`), Until: time.Now().Add(time.Minute)}
	address, err := s.Address(t.Context(), key, as)
	if err != nil {
		t.Fatal(err)
	}
	get := func(address, ranges string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ranges != "" {
			req.Header.Set("Range", ranges)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	resp, body := get(address, "")
	if resp.StatusCode != http.StatusOK || body != "0123456789" || resp.Header.Get("Content-Type") != as.Type || resp.Header.Get("Content-Disposition") != as.Disposition {
		t.Errorf("%s %q %v", resp.Status, body, resp.Header)
	}
	if resp, body = get(address, "bytes=2-4"); resp.StatusCode != http.StatusPartialContent || body != "234" {
		t.Errorf("a range: %s %q", resp.Status, body)
	}
	for name, change := range map[string]func(q url.Values){
		"another type": func(q url.Values) { q.Set("response-content-type", "text/html") },
		"more time":    func(q url.Values) { q.Set("X-Amz-Expires", "9999") },
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		change(q)
		u.RawQuery = q.Encode()
		if resp, _ := get(u.String(), ""); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	if strings.Contains(address, srv.SecretKey) {
		t.Error("the address has the secret key in it")
	}

	// Signed for the name that phones use, without a request to anybody.
	s = redirecting(t, srv, "https://files.example.com")
	if address, err = s.Address(t.Context(), key, as); err != nil || !strings.HasPrefix(address, "https://files.example.com/") {
		t.Errorf("%s, %v", address, err)
	}
	if address, err := newTestS3(t, srv).Address(t.Context(), key, as); err != nil || address != "" {
		t.Errorf("not asked for: %q, %v", address, err)
	}
	if address, err := newTestFolder(t).Address(t.Context(), key, as); err != nil || address != "" {
		t.Errorf("a folder: %q, %v", address, err)
	}
}

// Where the storage is to answer itself, everything that can go wrong is still
// answered by minigate, and so are downloads that are counted.
func TestDownloadRedirect(t *testing.T) {
	srv := testdeps.MinIO(t)
	h := newHouse(t, redirecting(t, srv, ""), newTestFileLedger(t))
	h.server.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	f := h.keep("a.html", "<!DOCTYPE html><script>")
	a := h.do("GET", f.URL, nil)
	address := a.Header.Get("Location")
	if a.StatusCode != http.StatusFound || !strings.HasPrefix(address, "http://"+srv.Endpoint+"/") || a.Header.Get("Cache-Control") != "private, no-store" {
		t.Fatalf("%v %v", a, a.Header)
	}
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "<!DOCTYPE html><script>" || resp.Header.Get("Content-Disposition") != `attachment; filename="a.html"` {
		t.Errorf("%s, %v, %v", body, err, resp.Header)
	}
	for header, want := range map[string]int{"If-None-Match: *": 304, `If-Match: "x"`: 412, "Range: bytes=99-": 416, "Range: bytes=1-2": 302, "User: bob": 404} {
		name, value, _ := strings.Cut(header, ": ")
		if a := h.do("GET", f.URL, nil, name, value); a.StatusCode != want || (a.Header.Get("Location") != "") != (want == 302) {
			t.Errorf("%s: %v", header, a)
		}
	}
	if a := h.do("HEAD", f.URL, nil); a.StatusCode != http.StatusOK || a.ContentLength != f.Size {
		t.Errorf("HEAD: %v", a)
	}
	h.follow = auth.Link{Downloads: 1, Count: 7}
	for i, want := range []int{200, 403} {
		a := h.do("GET", f.URL, nil, "User", "nobody", "Link", f.ID)
		if a.StatusCode != want || a.Header.Get("Location") != "" || want == 200 && a.body != "<!DOCTYPE html><script>" {
			t.Errorf("download %d by a link for one: %v", i, a)
		}
	}
	h.follow = auth.Link{} // one that is not counted
	if a := h.do("GET", f.URL, nil, "User", "nobody", "Link", f.ID); a.StatusCode != http.StatusFound {
		t.Errorf("by a link: %v", a)
	}
}

// A storage knows no mark of ours, and clients take theirs along when they are
// sent on.
func TestDownloadRedirectPinned(t *testing.T) {
	h := newHouse(t, redirecting(t, testdeps.MinIO(t), ""), newTestFileLedger(t))
	f := h.keep("a.txt", "0123456789")
	etag := `"` + f.SHA256 + `"`
	for header, want := range map[string]string{
		"If-Match: " + etag:    "234",
		"If-Match: *":          "234",
		"If-Range: " + etag:    "234",
		`If-Range: "an older"`: "0123456789",
		"If-Unmodified-Since: " + time.Now().UTC().Format(http.TimeFormat): "234",
	} {
		name, value, _ := strings.Cut(header, ": ")
		a := h.do("GET", f.URL, nil, name, value, "Range", "bytes=2-4")
		if a.body != want || a.Header.Get("ETag") != etag {
			t.Errorf("%s: %v", header, a)
		}
	}
	if a := h.do("GET", f.URL, nil, "Range", "bytes=2-4"); a.body != "234" || a.Header.Get("ETag") == etag {
		t.Errorf("the storage itself: %v %v", a, a.Header)
	}
}
