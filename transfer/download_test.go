package transfer

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestDownload(t *testing.T) {
	h := newTestHouse(t)
	f := h.keep("照片 1.png", png)
	for _, method := range []string{"GET", "HEAD"} {
		for _, path := range []string{f.URL, f.URL + "/any.png"} {
			a := h.do(method, path, nil)
			for name, want := range map[string]string{
				"Content-Type":            "image/png",
				"Content-Length":          fmt.Sprint(len(png)),
				"Content-Disposition":     `inline; filename="__ 1.png"; filename*=UTF-8''%E7%85%A7%E7%89%87%201.png`,
				"ETag":                    `"` + sum(png) + `"`,
				"Accept-Ranges":           "bytes",
				"Cache-Control":           "private, no-cache",
				"X-Content-Type-Options":  "nosniff",
				"Content-Security-Policy": "default-src 'none'; sandbox",
			} {
				if got := a.Header.Get(name); got != want {
					t.Errorf("%s %s: %s is %q, want %q", method, path, name, got, want)
				}
			}
			if modified, err := http.ParseTime(a.Header.Get("Last-Modified")); err != nil || time.Since(modified) > time.Hour {
				t.Errorf("Last-Modified: %v, %v", modified, err)
			}
			if a.StatusCode != http.StatusOK || method == "GET" && a.body != png || method == "HEAD" && a.body != "" {
				t.Errorf("%s %s: %v", method, path, a)
			}
		}
	}
}

func TestDownloadOnlyShowsWhatIsHarmless(t *testing.T) {
	h := newTestHouse(t)
	for content, want := range map[string]string{
		png: "inline", "\xff\xd8\xff\xe0": "inline", "hello": "attachment", "%PDF-1.7": "attachment",
		"<!DOCTYPE html><script>": "attachment", `<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">`: "attachment",
	} {
		f := h.keep("a.png", content)
		if got := h.do("GET", f.URL, nil).Header.Get("Content-Disposition"); !strings.HasPrefix(got, want+";") {
			t.Errorf("%s: %s", f.Type, got)
		}
	}
}

func TestDownloadOthers(t *testing.T) {
	h := newTestHouse(t)
	f := h.keep("a.txt", "hello")
	pending := reserved(t, h.ledger, 0)
	unknown := newFile(alice).ID
	want := h.do("GET", "/files/"+unknown, nil)
	for _, a := range []answer{
		want,
		h.do("GET", f.URL, nil, "User", "bob"),
		h.do("GET", f.URL, nil, "User", "bob", "If-None-Match", "*"),
		h.do("GET", "/files/"+pending.ID, nil),
		h.do("GET", "/files/x", nil),
		h.do("GET", "/files/"+strings.ToLower(f.ID), nil),
		h.do("GET", "/files/..%2F"+f.ID, nil),
	} {
		if a.StatusCode != http.StatusNotFound || a.body != want.body || len(a.Header) != len(want.Header) {
			t.Errorf("%s: %v", a.Request.URL.Path, a)
		}
	}
}

// date is replaced by the file's own in requests, etag as well.
const (
	date = "DATE"
	etag = "ETAG"
)

func TestDownloadConditions(t *testing.T) {
	h := newTestHouse(t)
	f := h.keep("a.txt", "0123456789")
	first := h.do("GET", f.URL, nil).Header
	filled := strings.NewReplacer(date, first.Get("Last-Modified"), etag, first.Get("ETag"))
	const past, future = "Mon, 01 Jan 2001 00:00:00 GMT", "Wed, 01 Jan 2099 00:00:00 GMT"
	for _, tt := range []struct {
		header string // name: value|name: value
		status int
		body   string
	}{
		{"If-None-Match: ETAG", 304, ""},
		{"If-None-Match: W/ETAG", 304, ""},
		{"If-None-Match: *", 304, ""},
		{`If-None-Match: "a", ETAG`, 304, ""},
		{`If-None-Match: "a"|If-None-Match: ETAG`, 304, ""},
		{`If-None-Match: "a"`, 200, "0123456789"},
		{"If-None-Match: ETAG|Range: bytes=0-0", 304, ""},
		{`If-None-Match: "a"|If-Modified-Since: DATE`, 200, "0123456789"},
		{"If-Modified-Since: DATE", 304, ""},
		{"If-Modified-Since: " + future, 304, ""},
		{"If-Modified-Since: " + past, 200, "0123456789"},
		{"If-Modified-Since: yesterday", 200, "0123456789"},
		{"If-Match: ETAG", 200, "0123456789"},
		{"If-Match: *", 200, "0123456789"},
		{"If-Match: W/ETAG", 412, ""},
		{`If-Match: "a"`, 412, ""},
		{`If-Match: "a"|If-None-Match: ETAG`, 412, ""},
		{"If-Unmodified-Since: DATE", 200, "0123456789"},
		{"If-Unmodified-Since: " + past, 412, ""},
		{"If-Match: ETAG|If-Unmodified-Since: " + past, 200, "0123456789"},
		{"Range: bytes=2-4", 206, "234"},
		{"Range: bytes=2-4|If-Range: ETAG", 206, "234"},
		{"Range: bytes=2-4|If-Range: DATE", 206, "234"},
		{"Range: bytes=2-4|If-Range: W/ETAG", 200, "0123456789"},
		{`Range: bytes=2-4|If-Range: "a"`, 200, "0123456789"},
		{"Range: bytes=2-4|If-Range: " + past, 200, "0123456789"},
		{`Range: bytes=99-|If-Range: "a"`, 200, "0123456789"},
		{"Range: bytes=99-", 416, ""},
		{"Range: bytes=0-1,3-4", 200, "0123456789"},
	} {
		var header []string
		for line := range strings.SplitSeq(filled.Replace(tt.header), "|") {
			name, value, _ := strings.Cut(line, ": ")
			header = append(header, name, value)
		}
		a := h.do("GET", f.URL, nil, header...)
		if a.StatusCode != tt.status || a.StatusCode < 300 && a.body != tt.body || a.StatusCode == 304 && a.body != "" {
			t.Errorf("%s: %v, want %d %q", tt.header, a, tt.status, tt.body)
		}
		switch a.StatusCode {
		case 206:
			if got := a.Header.Get("Content-Range"); got != "bytes 2-4/10" || a.ContentLength != 3 {
				t.Errorf("%s: Content-Range %q, length %d", tt.header, got, a.ContentLength)
			}
		case 304:
			if a.Header.Get("ETag") != first.Get("ETag") || a.Header.Get("Cache-Control") == "" {
				t.Errorf("%s: header %v", tt.header, a.Header)
			}
		case 412:
			if a.code() != "precondition_failed" {
				t.Errorf("%s: %v", tt.header, a)
			}
		case 416:
			if a.code() != "range_not_satisfiable" || a.Header.Get("Content-Range") != "bytes */10" {
				t.Errorf("%s: %v, %v", tt.header, a, a.Header)
			}
		}
		if head := h.do("HEAD", f.URL, nil, header...); a.StatusCode/100 != 2 && a.StatusCode != 416 && head.StatusCode != a.StatusCode {
			t.Errorf("HEAD %s: %d", tt.header, head.StatusCode)
		} else if head.StatusCode == 200 && head.ContentLength != 10 {
			t.Errorf("HEAD %s: length %d", tt.header, head.ContentLength)
		}
	}
}

func TestParseRange(t *testing.T) {
	for header, want := range map[string]string{ // of 10 bytes; "": all, "-": not satisfiable
		"bytes=0-": "0+10", "bytes=0-0": "0+1", "bytes=9-": "9+1", "bytes=5-99": "5+5", "bytes=-3": "7+3", "bytes=-99": "0+10",
		"BYTES=1-2": "1+2", "bytes= 1-2 ": "1+2",
		"bytes=99999999999999999999-": "-", "bytes=0-99999999999999999999": "0+10", "bytes=-99999999999999999999": "0+10",
		"bytes=10-": "-", "bytes=10-20": "-", "bytes=-0": "-",
		"bytes=": "", "bytes": "", "bytes=-": "", "bytes=a-b": "", "bytes=2-1": "", "bytes=1": "", "bytes=--1": "", "bytes=+1-2": "",
		"bytes=0-0,2-2": "", "bytes=1-2-3": "", "lines=1-2": "", "bytes=0x1-2": "", "bytes =1-2": "",
	} {
		got := ""
		if r, ok := parseRange(header, 10); !ok {
			got = "-"
		} else if r.partial {
			got = fmt.Sprintf("%d+%d", r.start, r.length)
		} else if r != (byteRange{length: 10}) {
			t.Errorf("%s: %+v", header, r)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
	if r, ok := parseRange("bytes=-5", 0); !ok || r.partial {
		t.Errorf("the end of nothing: %+v, %v", r, ok)
	}
}

// opened counts and watches what a store opens.
type opened struct {
	Store
	count  int
	closed chan struct{}
	body   func(ctx context.Context) io.Reader
}

func (s *opened) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	s.count++
	if s.body == nil {
		return s.Store.Open(ctx, key, offset, length)
	}
	return section{s.body(ctx), closeFunc(func() error { close(s.closed); return nil })}, nil
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

func TestDownloadAsksStorageOnce(t *testing.T) {
	store := &opened{Store: newTestFolder(t)}
	h := newHouse(t, store, newTestFileLedger(t))
	f := h.keep("a.txt", "0123456789")
	for header, want := range map[string]int{"Range: bytes=1-2": 1, "Range: bytes=1-2,3-4": 1, "X: y": 1, "If-None-Match: *": 0, `If-Match: "x"`: 0, "Range: bytes=99-": 0} {
		name, value, _ := strings.Cut(header, ": ")
		store.count = 0
		if h.do("GET", f.URL, nil, name, value); store.count != want {
			t.Errorf("%s: %d requests to the storage, want %d", header, store.count, want)
		}
	}
	store.count = 0
	if h.do("HEAD", f.URL, nil); store.count != 0 {
		t.Errorf("HEAD: %d requests to the storage", store.count)
	}
}

// When the client leaves, the storage is let go.
func TestDownloadClientLeaves(t *testing.T) {
	store := &opened{Store: newTestFolder(t), closed: make(chan struct{})}
	h := newHouse(t, store, newTestFileLedger(t))
	f := h.keep("a.txt", strings.Repeat("x", 1<<20))
	waiting := make(chan struct{})
	store.body = func(ctx context.Context) io.Reader {
		return readerFunc(func([]byte) (int, error) { close(waiting); <-ctx.Done(); return 0, ctx.Err() })
	}
	conn := h.dial("GET " + f.URL + " HTTP/1.1\r\nHost: x\r\n\r\n")
	<-waiting
	_ = conn.Close()
	<-store.closed
	h.server.Close() // waits for the handler
	if n := h.count("download", "canceled"); n != 1 {
		t.Errorf("%v downloads counted as canceled", n)
	}
}

// A client that takes nothing does not hold the storage for ever.
func TestDownloadStallsAtClient(t *testing.T) {
	store := &opened{Store: newTestFolder(t), closed: make(chan struct{})}
	h := newHouse(t, store, newTestFileLedger(t))
	const size = 16 << 20 // more than the sockets take in
	f := h.keep("a.txt", strings.Repeat("x", size))
	h.settings.StallTimeout = 50 * time.Millisecond // from now on: the upload may take its time
	store.body = func(context.Context) io.Reader { return zeros{} }
	h.dial("GET " + f.URL + " HTTP/1.1\r\nHost: x\r\n\r\n")
	<-store.closed
}

// A file that the storage cannot give whole is never taken for whole.
func TestDownloadCutShort(t *testing.T) {
	store := &opened{Store: newTestFolder(t)}
	h := newHouse(t, store, newTestFileLedger(t))
	f := h.keep("a.txt", strings.Repeat("x", 1<<20))
	for name, end := range map[string]error{"short": io.EOF, "failing": errStoreAway} {
		store.closed = make(chan struct{})
		store.body = func(context.Context) io.Reader { return cutAfter(zeros{}, 1<<19, end) }
		resp, err := h.server.Client().Get(h.server.URL + f.URL)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Errorf("%s: %d bytes and no error", name, n)
		}
		_ = resp.Body.Close()
		<-store.closed
	}
	h.server.Close() // waits for the handlers
	if n := h.count("download", "failed"); n != 2 {
		t.Errorf("%v downloads counted as failed", n)
	}
}

func TestDownloadLost(t *testing.T) {
	h := newTestHouse(t)
	f := h.keep("a.txt", "hello")
	if err := os.Remove(filesIn(t, h.store.(*Folder).dir)[0]); err != nil {
		t.Fatal(err)
	}
	if a := h.do("GET", f.URL, nil); a.StatusCode != http.StatusInternalServerError || a.code() != "file_lost" || a.Header.Get("ETag") != "" {
		t.Errorf("%v", a)
	}
}
