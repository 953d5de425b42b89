package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/testdeps"
)

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

const png = "\x89PNG\r\n\x1a\n and so on"

func TestUpload(t *testing.T) {
	h := newTestHouse(t)
	for name, tt := range map[string]struct {
		query, form, contentType string
		want                     uploaded
	}{
		"as wx.uploadFile sends it": {"", formOf(field{"user", "", "a"}, field{"file", "tmp_1.png", png}), formType, uploaded{Name: "tmp_1.png", Type: "image/png"}},
		"fields after the file":     {"", formOf(field{"f", "tmp.png", png}, field{"name", "", "照片.png"}), formType, uploaded{Name: "照片.png", Type: "image/png"}},
		"field filename":            {"?name=q.png", formOf(field{"filename", "", "f.png"}, field{"f", "t.png", png}), formType, uploaded{Name: "f.png", Type: "image/png"}},
		"name in the query":         {"?name=%E5%9B%BE.png", formOf(field{"f", "t.png", png}), formType, uploaded{Name: "图.png", Type: "image/png"}},
		"boundary missing":          {"", formOf(field{"a", "", "b"}, field{"f", "t.png", png}), "multipart/form-data", uploaded{Name: "t.png", Type: "image/png"}},
		"boundary empty":            {"", formOf(field{"f", "t.png", png}), "Multipart/Form-Data; boundary=", uploaded{Name: "t.png", Type: "image/png"}},
		"boundary not a token":      {"", strings.ReplaceAll(formOf(field{"f", "t.png", png}), "--b", "--a:b/c"), "multipart/form-data; boundary=a:b/c", uploaded{Name: "t.png", Type: "image/png"}},
		"a type that lies":          {"", strings.Replace(formOf(field{"f", "t.png", "hello"}), "\r\n\r\n", "\r\nContent-Type: image/png\r\n\r\n", 1), formType, uploaded{Name: "t.png", Type: "text/plain; charset=utf-8"}},
		"a bad header":              {"", formOf(field{"f", `a"b".png`, png}), formType, uploaded{Name: `a"b".png`, Type: "image/png"}},
		"no usable name":            {"?name=%00", formOf(field{"f", "...", png}), formType, uploaded{Name: "file.png", Type: "image/png"}},
		"hostile names":             {"", formOf(field{"f", `..\..\C:/windows/evil.png`, png}), formType, uploaded{Name: "evil.png", Type: "image/png"}},
		"size and sum announced":    {fmt.Sprintf("?size=%d&sha256=%s", len(png), strings.ToUpper(sum(png))), formOf(field{"f", "t.png", png}), formType, uploaded{Name: "t.png", Type: "image/png"}},
		"no newline at the end":     {"", strings.TrimSuffix(formOf(field{"f", "t.png", png}), "\r\n"), formType, uploaded{Name: "t.png", Type: "image/png"}},
		"preamble and epilogue":     {"", "hello\r\n" + formOf(field{"f", "t.png", png}) + "bye", formType, uploaded{Name: "t.png", Type: "image/png"}},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			a := h.do("POST", "/files"+tt.query, strings.NewReader(tt.form), "Content-Type", tt.contentType)
			got := h.decode(a)
			content := png
			if tt.want.Type != "image/png" {
				content = "hello"
			}
			tt.want.ID, tt.want.URL = got.ID, "/files/"+got.ID
			tt.want.Size, tt.want.SHA256 = int64(len(content)), sum(content)
			if got != tt.want {
				t.Errorf("%+v\nwant %+v", got, tt.want)
			}
			if back := h.do("GET", got.URL, nil); back.body != content || back.Header.Get("Content-Type") != tt.want.Type {
				t.Errorf("came back: %v", back)
			}
			if last := h.told[len(h.told)-1]; last.Event != FileReady || last.File.ID != got.ID || last.File.State != Ready || last.File.Owner != alice {
				t.Errorf("told: %+v", last)
			}
		})
	}
}

func TestUploadEmptyFile(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.PublicURL = "https://f.example.com/x/" })
	f := h.keep("empty.txt", "")
	if f.Size != 0 || f.SHA256 != sum("") || f.URL != "https://f.example.com/x/files/"+f.ID {
		t.Errorf("%+v", f)
	}
	if a := h.do("GET", "/files/"+f.ID, nil); a.StatusCode != http.StatusOK || a.ContentLength != 0 || a.body != "" {
		t.Errorf("%v", a)
	}
}

func TestUploadRefused(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.MaxSize, s.AllowedTypes = 1<<20, []string{"image/*", "text/plain"} })
	file := field{"f", "t.txt", "hello"}
	many := make([]field, maxFields+1)
	for i := range many {
		many[i] = field{name: fmt.Sprint(i)}
	}
	for name, tt := range map[string]struct {
		query, form, contentType string
		status                   int
		code                     string
	}{
		"raw body":               {"", "hello", "image/png", 415, "multipart_required"},
		"no content type":        {"", formOf(file), "", 415, "multipart_required"},
		"another multipart":      {"", formOf(file), "multipart/mixed; boundary=b", 415, "multipart_required"},
		"empty body":             {"", "", formType, 400, "upload_torn"},
		"empty, no boundary":     {"", "", "multipart/form-data", 400, "upload_torn"},
		"no boundary anywhere":   {"", "hello\r\nhello", "multipart/form-data", 400, "form_invalid"},
		"endless first line":     {"", "--" + strings.Repeat("b", 1000), "multipart/form-data", 400, "form_invalid"},
		"another boundary":       {"", strings.Repeat(formOf(file), 1000), "multipart/form-data; boundary=x", 400, "form_invalid"},
		"no file":                {"", formOf(field{"name", "", "x"}), formType, 400, "file_missing"},
		"nothing":                {"", "--b--\r\n", formType, 400, "file_missing"},
		"two files":              {"", formOf(file, file), formType, 400, "too_many_files"},
		"fields before":          {"", formOf(append(many, file)...), formType, 400, "too_many_fields"},
		"fields after":           {"", formOf(append([]field{file}, many...)...), formType, 400, "too_many_fields"},
		"long field":             {"", formOf(field{"x", "", strings.Repeat("x", maxField+1)}, file), formType, 413, "field_too_large"},
		"long field after":       {"", formOf(file, field{"x", "", strings.Repeat("x", maxField+1)}), formType, 413, "field_too_large"},
		"long part header":       {"", strings.Replace(formOf(file), "\r\n\r\n", "\r\nX: "+strings.Repeat("x", maxHead)+"\r\n\r\n", 1), formType, 400, "form_invalid"},
		"bad part header":        {"", "--b\r\nno header\r\n\r\nx\r\n--b--\r\n", formType, 400, "form_invalid"},
		"no closing boundary":    {"", strings.TrimSuffix(formOf(file), "--b--\r\n"), formType, 400, "upload_torn"},
		"another part begins":    {"", strings.TrimSuffix(formOf(file), "--\r\n") + "\r\n", formType, 400, "upload_torn"},
		"ends in a part header":  {"", strings.TrimSuffix(formOf(file), "--\r\n") + "\r\nContent-Disposition: form-data; name=n\r\n", formType, 400, "upload_torn"},
		"half closing boundary":  {"", strings.TrimSuffix(formOf(file), "-\r\n"), formType, 400, "upload_torn"},
		"size is no number":      {"?size=5MB", formOf(file), formType, 400, "size_invalid"},
		"size below zero":        {"?size=-1", formOf(file), formType, 400, "size_invalid"},
		"size too small":         {"?size=4", formOf(file), formType, 400, "size_mismatch"},
		"size too large":         {"?size=6", formOf(file), formType, 400, "size_mismatch"},
		"announced over limit":   {"?size=1048577", formOf(file), formType, 413, "file_too_large"},
		"over limit":             {"", formOf(field{"f", "t.txt", strings.Repeat("x", 1<<20+1)}), formType, 413, "file_too_large"},
		"body over limit":        {"", formOf(field{"f", "t.txt", strings.Repeat("x", 8<<20)}), formType, 413, "file_too_large"},
		"sum is no sum":          {"?sha256=abc", formOf(file), formType, 400, "sha256_invalid"},
		"another sum":            {"?sha256=" + sum("x"), formOf(file), formType, 400, "checksum_mismatch"},
		"a type not allowed":     {"", formOf(field{"f", "t.png", "<!DOCTYPE html><html><script>"}), formType, 415, "type_not_allowed"},
		"a type that pretends":   {"", formOf(field{"f", "t.png", "%PDF-1.7 "}), formType, 415, "type_not_allowed"},
		"declared with a NUL":    {"", typed(formOf(file), "image/\x00png"), formType, 400, "form_invalid"},
		"declared as allowed":    {"", typed(formOf(field{"f", "t.png", "<!DOCTYPE html><html><script>"}), "image/png"), formType, 415, "type_not_allowed"},
		"encoded quoted":         {"?size=2", strings.Replace(formOf(field{"f", "a", "=41"}), "\r\n\r\n", "\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", 1), formType, 400, "size_mismatch"},
		"a query that is broken": {"?size=%zz;", formOf(file, file), formType, 400, "too_many_files"},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			a := h.do("POST", "/files"+tt.query, strings.NewReader(tt.form), "Content-Type", tt.contentType)
			if a.StatusCode != tt.status || a.code() != tt.code {
				t.Errorf("%v, want %d %s", a, tt.status, tt.code)
			}
			h.wantEmpty()
		})
	}
	if ok := h.count("upload", "ok"); ok != 0 {
		t.Errorf("%v uploads counted as ok", ok)
	}
}

func TestUploadLargestFile(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.MaxSize = 1 << 20 })
	if f := h.keep("t.txt", strings.Repeat("x", 1<<20)); f.Size != 1<<20 {
		t.Errorf("%+v", f)
	}
}

func TestUploadDiskFull(t *testing.T) {
	h := newTestHouse(t)
	folder := h.store.(*Folder)
	folder.open = openFull
	a := h.upload("", formOf(field{"f", "t.txt", "hello"}))
	if a.StatusCode != http.StatusInsufficientStorage || a.code() != "storage_full" {
		t.Errorf("%v", a)
	}
	folder.open = os.OpenFile
	h.wantEmpty()
	if n := h.count("upload", "failed"); n != 1 {
		t.Errorf("%v counted as failed", n)
	}
}

// Everything over S3 and Redis as well, once.
func TestUploadS3Redis(t *testing.T) {
	h := newHouse(t, newTestS3(t, testdeps.MinIO(t)), newTestRedisLedger(t), func(s *Settings) { s.MaxSize = 64 << 20 })
	data := string(random(2*partSize + 99))
	for _, query := range []string{"", fmt.Sprintf("?size=%d", len(data))} {
		f := h.decode(h.upload(query, formOf(field{"f", "数据.bin", data})))
		if f.SHA256 != sum(data) || f.Name != "数据.bin" {
			t.Errorf("%+v", f)
		}
		if a := h.do("GET", f.URL, nil); a.body != data {
			t.Errorf("%d other bytes came back", len(a.body))
		}
		if a := h.do("GET", f.URL, nil, "Range", "bytes=8388600-8388615"); a.StatusCode != 206 || a.body != data[8388600:8388616] {
			t.Errorf("range: %d, %d bytes", a.StatusCode, len(a.body))
		}
		if a := h.do("DELETE", f.URL, nil); a.StatusCode != http.StatusNoContent {
			t.Errorf("%v", a)
		}
	}
	for _, bad := range []string{formOf(field{"f", "x", data}, field{"g", "y", ""}), strings.TrimSuffix(formOf(field{"f", "x", data}), "\r\n--b--\r\n")} {
		if a := h.upload("", bad); a.StatusCode != http.StatusBadRequest {
			t.Errorf("%v", a)
		}
	}
	for object := range h.store.(*S3).core.ListObjectsIter(t.Context(), "minigate", listAll) {
		t.Errorf("left: %s", object.Key)
	}
	wantNothingInRedis(t, h.ledger.(*RedisLedger))
}

// A restart after a kill keeps what was answered and forgets the rest.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	db := openBolt(t, filepath.Join(dir, "test.db"))
	ledger, err := NewFileLedger(db)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := NewFolder(filepath.Join(dir, "files"))
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, folder, ledger)
	done := h.keep("a.txt", "hello")
	whole, half := reserved(t, ledger, 0), reserved(t, ledger, 0)
	if _, err := folder.Put(t.Context(), whole.Key, strings.NewReader("not committed"), -1); err != nil {
		t.Fatal(err)
	}
	_, tmp := folder.paths(half.Key)
	if file, err := opener(os.OpenFile).create(tmp); err != nil || file.Close() != nil {
		t.Fatal(err)
	}
	h.server.Close()
	_, _ = db.Close(), folder.Close()

	if ledger, err = NewFileLedger(openBolt(t, filepath.Join(dir, "test.db"))); err != nil {
		t.Fatal(err)
	}
	if folder, err = NewFolder(filepath.Join(dir, "files")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	h = newHouse(t, folder, ledger)
	h.started = h.started.Add(1e6) // the millisecond after
	if err := h.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := h.do("GET", done.URL, nil); a.body != "hello" {
		t.Errorf("a committed file: %v", a)
	}
	for _, f := range []File{whole, half} {
		if a := h.do("GET", "/files/"+f.ID, nil); a.StatusCode != http.StatusNotFound {
			t.Errorf("a file that was not committed: %v", a)
		}
	}
	if files := filesIn(t, folder.dir); len(files) != 1 {
		t.Errorf("stored: %v", files)
	}
}

func FuzzForm(f *testing.F) {
	f.Add(formType, []byte(formOf(field{"a", "", "b"}, field{"f", "x.png", png}, field{"name", "", "n"})))
	f.Add("multipart/form-data", []byte(formOf(field{"f", `a"b`, "x"})))
	f.Add("multipart/form-data; boundary=", []byte("--\r\n\r\n----"))
	f.Add("multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; filename=x; filename*=UTF-8''y\r\n\r\n--b--"))
	f.Fuzz(func(t *testing.T, contentType string, data []byte) {
		content, err := readForm(contentType, bytes.NewReader(data))
		if err != nil {
			if code := codeOf(err); code == "" || code == "internal" {
				t.Errorf("not a fault of the client's: %v", err)
			}
			return
		}
		if !bytes.Contains(data, content) {
			t.Errorf("%q is not in the body", content)
		}
		if !bytes.Contains(data, []byte("--")) {
			t.Error("taken without a closing boundary")
		}
	})
}
