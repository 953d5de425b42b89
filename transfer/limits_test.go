package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gabriel-vasile/mimetype"

	"github.com/minigate/minigate/internal/fault"
)

// A client that sends, but hardly, is given up; the time that our storage
// takes does not count.
func TestUploadPace(t *testing.T) {
	for name, tt := range map[string]struct {
		wait, work time.Duration // before and after each of 2000 chunks
		chunk      int
		rate       int64
		slow       bool
	}{
		"a byte a second":            {time.Second, 0, 1, 1024, true},
		"a byte a second, any rate":  {time.Second, 0, 1, 0, false},
		"fast enough":                {time.Second, 0, 1100, 1024, false},
		"a storage that is slow":     {time.Millisecond, time.Second, 2, 1024, false},
		"nearly fast enough":         {time.Second, 0, 1000, 1024, true},
		"in bursts":                  {20 * time.Second, 0, 30_000, 1024, false},
		"in bursts that are too few": {25 * time.Second, 0, 20_000, 1024, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Service{settings: Settings{StallTimeout: 30 * time.Second}}
				chunks := 2000
				client := readerFunc(func(p []byte) (int, error) {
					time.Sleep(tt.wait) // of synctest's clock
					if chunks--; chunks < 0 {
						return 0, io.EOF
					}
					return min(tt.chunk, len(p)), nil
				})
				r := httptest.NewRequest(http.MethodPut, "/", client)
				b := s.newBody(t.Context(), httptest.NewRecorder(), r, 1<<40)
				b.pace.rate = tt.rate
				defer b.close()
				var err error
				for err == nil {
					_, err = b.Read(make([]byte, 64<<10))
					time.Sleep(tt.work)
				}
				if slow := err == errTooSlow; slow != tt.slow || !slow && err != io.EOF {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func TestTypesThatFit(t *testing.T) {
	docx := "PK\x03\x04" + strings.Repeat("\x00", 26) + "[Content_Types].xml"
	for _, tt := range []struct {
		content, declared string
		fits              bool
	}{
		{png, "image/png", true},
		{png, "", true},
		{png, "nonsense", true},
		{png, "application/x-of-my-own", true},
		{png, "application/octet-stream", true},
		{png, "image/jpeg", false},
		{png, "text/plain", false},
		{"hello", "text/plain", true},
		{"hello", "text/plain; charset=gbk", true},
		{"hello", "text/csv", true},
		{"hello", "image/png", false},
		{"<!DOCTYPE html>", "text/plain", true},
		{"<!DOCTYPE html>", "image/svg+xml", false},
		{docx, "application/zip", true},
		{"PK\x03\x04", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", true},
		{"PK\x03\x04", "application/pdf", false},
		{"\x00\x01\x02", "image/png", false},
		{"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00isommp42", "audio/mp4", true},
		{"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00isommp42", "image/png", false},
		{"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", "image/heic", true},
		{"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "image/heif", true},
		{"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "image/png", false},
	} {
		if found := mimetype.Detect([]byte(tt.content)); fits(found, tt.declared) != tt.fits {
			t.Errorf("%.10q, found to be %s, declared as %s: want %v", tt.content, found, tt.declared, tt.fits)
		}
	}
}

// The table has names that the sniffer gives, and says that of an extension
// which the sniffer says, too.
func TestExtensions(t *testing.T) {
	for ext, media := range extensions {
		m := mimetype.Lookup(media)
		if m == nil || m.Parent() == nil {
			t.Errorf("%s: the sniffer does not know %s", ext, media)
			continue
		}
		if got := typeOfName("a" + m.Extension()); !m.Is(got) {
			t.Errorf("%s is %s, whose extension %s is %q", ext, media, m.Extension(), got)
		}
	}
	for name, want := range map[string]string{"A.PNG": "image/png", "a.tar.gz": "application/gzip", "png": "", "a.": "", "a.unheard-of": "", "a.bin": ""} {
		if got := typeOfName(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestMatchTypes(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.MatchTypes = true })
	for name, a := range map[string]answer{
		"extension":         h.upload("", formOf(field{"f", "a.pdf", png})),
		"extension, later":  h.upload("", formOf(field{"f", "a.png", png}, field{"name", "", "a.pdf"})),
		"declared":          h.begin(`{"size":5,"type":"image/png"}`).part(1, "hello"),
		"extension of part": h.begin(`{"size":5,"name":"a.png"}`).part(1, "hello"),
	} {
		if a.StatusCode != http.StatusUnsupportedMediaType || a.code() != "type_mismatch" {
			t.Errorf("%s: %v", name, a)
		}
	}
	h.keep("a.png", png)
	h.keep("a.unheard-of", png)
}

// typed declares a type of the first part of a form.
func typed(form, declared string) string {
	return strings.Replace(form, "\r\n\r\n", "\r\nContent-Type: "+declared+"\r\n\r\n", 1)
}

// What the part of a file says of its type counts where it says something, and
// where the settings have it count. It never says what the file is.
func TestDeclaredTypeOfPart(t *testing.T) {
	for _, match := range []bool{false, true} {
		h := newTestHouse(t, func(s *Settings) { s.MatchTypes = match })
		for _, tt := range []struct {
			declared, name, content, found string
			mismatch                       bool
		}{
			{"image/png", "a.png", png, "image/png", false},
			{"IMAGE/PNG; q=1", "a", png, "image/png", false},
			{"application/octet-stream", "a.png", png, "image/png", false},
			{"", "a.png", png, "image/png", false},
			{"image/jpeg", "a.png", png, "image/png", true},
			{"image/jpeg", "a", png, "image/png", true},
			{"text/plain", "a", png, "image/png", true},
			{"image/png", "a", "<!DOCTYPE html>", "text/html; charset=utf-8", true},
			{"image/png\r\nContent-Type: text/html", "a", "<!DOCTYPE html>", "text/html; charset=utf-8", true}, // the first counts
			{"text/plain", "a", "<!DOCTYPE html>", "text/html; charset=utf-8", false},
			{"image/svg+xml", "a", "hello", "text/plain; charset=utf-8", false}, // a kind of text
			{"video/mp4", "a", "MZ\x90\x00", "application/vnd.microsoft.portable-executable", true},
			{"image/*", "a", "hello", "text/plain; charset=utf-8", false},
			{"image", "a", "hello", "text/plain; charset=utf-8", false},
			{"image/", "a", "hello", "text/plain; charset=utf-8", false},
			{"image/png; =", "a", "hello", "text/plain; charset=utf-8", false},
			{"image/png, text/html", "a", "hello", "text/plain; charset=utf-8", false},
			{"application/x-of-my-own", "a", "hello", "text/plain; charset=utf-8", false},
			{"multipart/mixed; boundary=b", "a", "hello", "text/plain; charset=utf-8", false},
			{strings.Repeat("x", 1000) + "/y", "a", "hello", "text/plain; charset=utf-8", false},
			{"image/\xffpng", "a", "hello", "text/plain; charset=utf-8", false},
		} {
			a := h.upload("", typed(formOf(field{"f", tt.name, tt.content}), tt.declared))
			switch {
			case match && tt.mismatch:
				if a.StatusCode != http.StatusUnsupportedMediaType || a.code() != "type_mismatch" {
					t.Errorf("%q declared as %q: %v", tt.content, tt.declared, a)
				}
			case a.StatusCode != http.StatusCreated || h.decode(a).Type != tt.found:
				t.Errorf("%q declared as %q, counts %v: %v, want %s", tt.content, tt.declared, match, a, tt.found)
			}
		}
	}
}

// What the backend was told when an upload began has to be true in the end.
func TestPartsTypeThatTheBackendWasTold(t *testing.T) {
	h := askingAlone(t, says(200, `{"attributes":{"a":1}}`))
	u := h.begin(`{"name":"a.png","type":"image/png",` + oneKiB + `}`)
	if a := u.part(1, "<!DOCTYPE html>"); a.code() != "type_mismatch" {
		t.Errorf("%v", a)
	}
	u.mustPart(1, png)
	h.decode(u.complete())
	if string(h.told[0].File.Attributes) != `{"a":1}` {
		t.Errorf("told %+v", h.told)
	}
	h = askingAlone(t, says(200, `{"allow":false,"reason":"No."}`))
	if a := h.do("POST", "/files/uploads", strings.NewReader(`{}`)); a.StatusCode != http.StatusForbidden || a.code() != "upload_refused" {
		t.Errorf("%v", a)
	}
	h.wantNothingLeft()
}

func TestSizesByTypeAndApp(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) {
		s.Limits = []Limit{{Types: []string{"image/*"}, MaxSize: 100}, {AppIDs: []string{"wx2"}, MaxSize: 5}, {AppIDs: []string{"wx1"}, MaxSize: 50}}
	})
	text, image := strings.Repeat("x", 51), png+strings.Repeat("x", 101-len(png))
	for name, a := range map[string]answer{
		"text":            h.upload("", formOf(field{"f", "a.txt", text})),
		"text, announced": h.upload("?size=51", formOf(field{"f", "a.txt", text})),
		"image":           h.upload("", formOf(field{"f", "a.png", image})),
		"any":             h.upload("?size=101", ""),
		"begin":           h.do("POST", "/files/uploads", strings.NewReader(`{"size":101}`)),
		"begin, declared": h.do("POST", "/files/uploads", strings.NewReader(`{"size":51,"type":"text/plain"}`)),
		"part":            h.begin(`{"size":51}`).part(1, text),
	} {
		if a.StatusCode != http.StatusRequestEntityTooLarge || a.code() != "file_too_large" {
			t.Errorf("%s: %v", name, a)
		}
	}
	h.keep("a.txt", text[:50])
	h.keep("a.png", image[:100])
	u := h.begin(`{"size":100}`)
	u.mustPart(1, image[:100])
	h.decode(u.complete())
	u = h.begin(`{` + oneKiB + `}`)
	u.mustPart(1, text)
	if a := u.complete(); a.code() != "file_too_large" {
		t.Errorf("size unknown: %v", a)
	}
}

// POST /files takes checksums in the query and in fields, before and after the
// file.
func TestUploadSums(t *testing.T) {
	h := newTestHouse(t)
	file, wrong := field{"f", "a.txt", "123456789"}, sum("x")
	for name, tt := range map[string]struct{ query, form, code string }{
		"crc32c in the query":    {"?crc32c=e3069283", formOf(file), ""},
		"base64":                 {"?crc32c=4waSgw%3D%3D", formOf(file), ""},
		"field before":           {"", formOf(field{"crc32c", "", "e3069283"}, field{"sha256", "", sum("123456789")}, file), ""},
		"field after":            {"", formOf(file, field{"sha256", "", sum("123456789")}), ""},
		"both":                   {"?sha256=" + sum("123456789"), formOf(field{"sha256", "", strings.ToUpper(sum("123456789"))}, file), ""},
		"empty field":            {"", formOf(field{"sha256", "", ""}, file), ""},
		"wrong crc32c":           {"?crc32c=e3069284", formOf(file), "checksum_mismatch"},
		"wrong field before":     {"", formOf(field{"sha256", "", wrong}, file), "checksum_mismatch"},
		"wrong field after":      {"", formOf(file, field{"crc32c", "", "00000000"}), "checksum_mismatch"},
		"query against field":    {"?sha256=" + sum("123456789"), formOf(file, field{"sha256", "", wrong}), "checksum_mismatch"},
		"malformed":              {"?crc32c=xyz", formOf(file), "crc32c_invalid"},
		"malformed field":        {"", formOf(field{"crc32c", "", "e306928"}, file), "crc32c_invalid"},
		"malformed field, after": {"", formOf(file, field{"sha256", "", "x"}), "sha256_invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			if a := h.upload(tt.query, tt.form); a.code() != tt.code {
				t.Errorf("%v, want %q", a, tt.code)
			}
		})
	}
	if ids := unfinished(t, h.ledger, time.Now().Add(time.Hour), 10); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
}

// FuzzSums feeds the parsers of checksums.
func FuzzSums(f *testing.F) {
	for _, seed := range []string{
		"", "e3069283", "4waSgw==", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:", "crc32c=:4waSgw==:, md5=:AAAA:;q=1",
		"sha-256=:x:", "=::", ":", "sha-256=:", ",,,", "sha-256=::,sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:", sum("x"),
	} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		whole := func(s Sums, err error) {
			t.Helper()
			if err != nil {
				if fault.Of(err).Kind != fault.Invalid || s != (Sums{}) {
					t.Errorf("%+v, %v", s, err)
				}
				return
			}
			again, err := ParseSums(s.SHA256, s.CRC32C)
			if err != nil || again != s {
				t.Errorf("%+v is not in the form that it is kept in: %v", s, err)
			}
		}
		whole(ParseSums(a, b))
		whole(parseDigest(a))
		whole(sumsOfHeader(http.Header{"Content-Digest": {a, b}, "X-Checksum-Sha256": {b}, "X-Checksum-Crc32c": {a}}))
	})
}

// FuzzBegin feeds the body of POST /files/uploads, and checks what is agreed.
func FuzzIdempotencyKey(f *testing.F) {
	for _, seed := range []string{"", "a", `"a"`, `"`, `""`, `a"b`, "\x7f", strings.Repeat("x", 256)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		key, err := parseIdempotencyKey(value)
		if err != nil {
			if !errors.Is(err, errKey) || key != "" {
				t.Errorf("%q: %q, %v", value, key, err)
			}
			return
		}
		for _, same := range []string{key, `"` + key + `"`} {
			if again, err := parseIdempotencyKey(same); key != "" && (err != nil || again != key) {
				t.Errorf("%q was taken as %q, and that as %q, %v", value, key, again, err)
			}
		}
		if len(key) > maxKey || (key == "") != (value == "") {
			t.Errorf("%q was taken as %q", value, key)
		}
	})
}

func FuzzBegin(f *testing.F) {
	for _, seed := range []string{`{}`, `{"size":0}`, `{"size":9223372036854775807}`, `{"size":5,"part_size":-1,"name":"a/b\u0000","type":"image/png;a=b"}`, `{"size":209715200,"part_size":1}`, `{"part_size":9e18}`, `[]`, `{"type":"/"}`} {
		f.Add(seed)
	}
	h := newTestHouse(f, func(s *Settings) { s.MaxSessions = 0 })
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest(http.MethodPost, "/files/uploads", strings.NewReader(body))
		w := httptest.NewRecorder()
		h.server.Config.Handler.ServeHTTP(w, r)
		if w.Code >= 500 || w.Code == http.StatusCreated && !strings.Contains(w.Body.String(), `"part_size":`) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if w.Code != http.StatusCreated {
			return
		}
		u := h.answered(t, w.Body.Bytes())
		if u.PartSize < 1 || u.PartSize > partSize || u.Size != nil && (*u.Size+u.PartSize-1)/u.PartSize > MaxParts {
			t.Errorf("agreed: %+v", u)
		}
		if err := h.Abort(t.Context(), alice, u.ID); err != nil {
			t.Error(err)
		}
	})
}

// FuzzPart feeds numbers, sizes and bodies of parts.
func FuzzPart(f *testing.F) {
	f.Add("1", []byte("hello"), "")
	f.Add("10000", []byte{}, "sha-256=:x:")
	f.Add("-1", []byte("x"), "")
	f.Add("1e3", []byte("x"), "")
	f.Add("2", bytes.Repeat([]byte("x"), 1024), "")
	h := newTestHouse(f, func(s *Settings) { s.MaxSize = 4096 })
	f.Fuzz(func(t *testing.T, n string, body []byte, digest string) {
		begun, err := h.Begin(t.Context(), alice, NewUpload{Size: 2000, PartSize: 1024})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPut, "/files/uploads/"+begun.ID+"/parts/1", bytes.NewReader(body))
		r.SetPathValue("n", n)
		r.Header.Set("Content-Digest", digest)
		r.SetPathValue("id", begun.ID)
		w := httptest.NewRecorder()
		err = h.ServePart(w, h.as(r))
		u, serr := h.Status(t.Context(), alice, begun.ID)
		if serr != nil {
			t.Fatal(serr)
		}
		if err == nil {
			want := fmt.Sprintf(`{"n":%d,"size":%d}`, u.Parts[0].N, len(body))
			if len(u.Parts) != 1 || u.Parts[0].Size != u.partSizeOf(u.Parts[0].N) || w.Body.String() != want {
				t.Errorf("part %q: %+v, answered %s", n, u.Parts, w.Body)
			}
		} else if len(u.Parts) != 0 || fault.Of(err).Kind != fault.Invalid {
			t.Errorf("part %q: %v, and kept %+v", n, err, u.Parts)
		}
		if err := h.Abort(t.Context(), alice, begun.ID); err != nil {
			t.Error(err)
		}
	})
}
