package transfer

import (
	"mime"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"
)

// Names are chosen by users, and types come from a record: whatever is in them,
// the answer has the headers we mean and no other, and is shown by browsers only
// if it is harmless.
func TestDownloadHostile(t *testing.T) {
	h := newTestHouse(t)
	types := map[string]string{
		"image/jpeg": "inline", "image/png": "inline", "image/webp": "inline", "video/mp4": "inline", "audio/mpeg": "inline",
		"text/html": "attachment", "text/html; charset=utf-8": "attachment", "image/svg+xml": "attachment", "text/xml; charset=utf-8": "attachment",
		"application/xhtml+xml": "attachment", "application/javascript": "attachment", "text/javascript": "attachment", "application/pdf": "attachment",
		"application/octet-stream": "attachment", "text/plain; charset=utf-8": "attachment", "": "attachment", "IMAGE/JPEG": "attachment",
		"image/jpegx": "attachment", "image/jpeg,text/html": "attachment",
	}
	names := []string{
		"a.jpg", "照片 1.jpg", `q"u"o.html`, `back\slash.jpg`, "semi;colon=x.jpg", "percent%0d%0aSet-Cookie: a=b.jpg", "a\r\nSet-Cookie: a=b.jpg",
		"nul\x00.jpg", "../../etc/passwd", `..\..\boot.ini`, "photo\u202egpj.exe", "\ufeffbom.jpg", "\u2066iso.jpg", strings.Repeat("长", 200) + ".jpg",
		"emoji👨‍👩‍👧.png", "'single'.jpg", "<script>.html", "comma,a.jpg", ".htaccess", "...", "", "filename*=UTF-8''x.jpg", "é.jpg", "e\u0301.jpg", "\xff\xfe.jpg",
	}
	for media, kind := range types {
		for _, name := range names {
			f := newFile(alice)
			f.Name, f.Size, f.Type, f.SHA256 = cleanName(name), 5, media, sum("hello")
			if err := h.ledger.Reserve(t.Context(), f, Quota{}); err != nil {
				t.Fatal(err)
			}
			h.store1(f.Key, "hello")
			if err := h.ledger.Commit(t.Context(), f, Quota{}); err != nil {
				t.Fatal(err)
			}
			a := h.do("GET", "/files/"+f.ID, nil)
			if a.StatusCode != http.StatusOK || a.body != "hello" || a.ContentLength != 5 || a.Header.Get("Set-Cookie") != "" {
				t.Fatalf("%q as %q: %v %v", name, media, a, a.Header)
			}
			checkDisposition(t, name, f.Name, kind, a.Header.Get("Content-Disposition"))
			if a.Header.Get("X-Content-Type-Options") != "nosniff" || a.Header.Get("Content-Security-Policy") != "default-src 'none'; sandbox" || a.Header.Get("Content-Type") != media {
				t.Errorf("%q as %q: %v", name, media, a.Header)
			}
		}
	}
}

// checkDisposition reads the header as clients do, old ones and new ones.
func checkDisposition(t *testing.T, raw, clean, kind, header string) {
	t.Helper()
	if i := strings.IndexFunc(header, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		t.Errorf("%q: %q is not ASCII", raw, header)
	}
	got, params, err := mime.ParseMediaType(header)
	if err != nil || got != kind {
		t.Errorf("%q: %q is %s, %v; want %s", raw, header, got, err, kind)
	}
	if params["filename"] != clean {
		t.Errorf("%q: %q names %q, want %q", raw, header, params["filename"], clean)
	}
	if strings.ContainsFunc(params["filename"], func(r rune) bool { return unicode.Is(unicode.Cc, r) || r == '/' || r == '\\' || r == '\u202e' }) {
		t.Errorf("%q: %q may not be a name", raw, params["filename"])
	}
	if _, star, ok := strings.Cut(header, "filename*=UTF-8''"); ok && !strings.HasPrefix(clean, "filename") {
		if name, err := url.PathUnescape(star); err != nil || name != clean {
			t.Errorf("%q: filename* is %q, %v", raw, name, err)
		}
	}
}
