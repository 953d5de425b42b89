package transfer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

// api posts to one of the backend's endpoints and decodes what it answers.
func (h *house) api(path, body string, into any) answer {
	h.t.Helper()
	a := h.do("POST", "/api/files"+path, strings.NewReader(body), "User", "nobody", "Content-Type", "application/json")
	if into != nil {
		if a.StatusCode != http.StatusOK {
			h.t.Fatalf("%s %s: %v", path, body, a)
		}
		if err := json.Unmarshal([]byte(a.body), into); err != nil {
			h.t.Fatal(err)
		}
	}
	return a
}

// eachHouse runs test over both ledgers and both stores.
func eachHouse(t *testing.T, test func(t *testing.T, h *house)) {
	t.Run("folder and file", func(t *testing.T) { test(t, newTestHouse(t)) })
	t.Run("S3 and Redis", func(t *testing.T) {
		test(t, newHouse(t, newTestS3(t, testdeps.MinIO(t)), newTestRedisLedger(t)))
	})
}

func TestAdminFiles(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		if a := h.api("", `{}`, nil); a.StatusCode != http.StatusOK || a.body != `{"files":[]}` {
			t.Errorf("no files: %v", a)
		}
		var anns []File // the newest first
		bobs := h.decode(h.upload("", formOf(field{"f", "b.txt", "hello"}), "User", "bob"))
		for i := range 3 {
			f := h.decode(h.upload("", formOf(field{"f", fmt.Sprint(i, ".txt"), "hello"}), "User", "ann"))
			record, err := h.ledger.Get(t.Context(), f.ID)
			if err != nil {
				t.Fatal(err)
			}
			anns = append(anns, record)
		}
		slices.SortFunc(anns, func(a, b File) int { return strings.Compare(string(placeOf(b)), string(placeOf(a))) })
		var stat map[string]any
		h.api("/stat", `{"file":"`+anns[0].ID+`"}`, &stat)
		created, _ := stat["created"].(string)
		if at, err := time.Parse(time.RFC3339, created); err != nil || time.Since(at).Abs() > time.Hour {
			t.Errorf("created %q", created)
		}
		want := map[string]any{
			"id": anns[0].ID, "name": anns[0].Name, "size": 5.0, "type": "text/plain; charset=utf-8", "sha256": sum("hello"),
			"owner": map[string]any{"openid": "ann", "appid": "wx1", "unionid": "u-alice"}, "state": "ready", "created": created,
		}
		if !reflect.DeepEqual(stat, want) {
			t.Errorf("%v\nwant %v", stat, want)
		}
		var page struct {
			Files  []map[string]any
			Cursor string
		}
		h.api("", `{"user":"ann","limit":2}`, &page)
		if len(page.Files) != 2 || !reflect.DeepEqual(page.Files[0], want) || page.Files[1]["id"] != anns[1].ID || page.Cursor == "" {
			t.Errorf("the first page: %+v", page)
		}
		cursor := page.Cursor
		page.Cursor = ""
		h.api("", `{"user":"ann","limit":2,"cursor":"`+cursor+`"}`, &page)
		if len(page.Files) != 1 || page.Files[0]["id"] != anns[2].ID || page.Cursor != "" {
			t.Errorf("the last page: %+v", page)
		}
		if h.api("", `{"user":null}`, &page); len(page.Files) != 4 || page.Cursor != "" {
			t.Errorf("all: %+v", page)
		}

		if a := h.api("/delete", `{"file":"`+bobs.ID+`"}`, nil); a.StatusCode != http.StatusOK || a.body != `{}` {
			t.Errorf("delete: %v", a)
		}
		if a := h.do("GET", "/files/"+bobs.ID, nil, "User", "bob"); a.StatusCode != http.StatusNotFound {
			t.Errorf("a deleted file: %v", a)
		}
		for _, path := range []string{"/stat", "/delete", "/link"} {
			if a := h.api(path, `{"file":"`+bobs.ID+`"}`, nil); a.code() != "file_not_found" || a.StatusCode != http.StatusNotFound {
				t.Errorf("%s of a deleted file: %v", path, a)
			}
		}
		if h.api("", `{}`, &page); len(page.Files) != 3 {
			t.Errorf("all after the deletion: %+v", page)
		}
	})
}

func TestAdminFilesRefused(t *testing.T) {
	h := newTestHouse(t)
	pending := reserved(t, h.ledger, 0)
	f := h.keep("a.txt", "hello")
	unknown := newFile(alice).ID
	for _, tt := range []struct {
		path, body string
		status     int
		code       string
	}{
		{"", `{"limit":0}`, 400, "page_invalid"},
		{"", `{"limit":501}`, 400, "page_invalid"},
		{"", `{"limit":-1}`, 400, "page_invalid"},
		{"", `{"limit":"5"}`, 400, "json_invalid"},
		{"", `{"cursor":"x"}`, 400, "cursor_invalid"},
		{"", `{"cursor":"` + strings.Repeat("0", 38) + `"}`, 400, "cursor_invalid"},
		{"", `{"user":"a b"}`, 400, "openid_invalid"},
		{"", `{"user":"ann\u0000"}`, 400, "openid_invalid"},
		{"", `[]`, 400, "json_invalid"},
		{"", ``, 400, "body_missing"},
		{"", `{"user":"` + strings.Repeat("x", maxAdminBody) + `"}`, 413, "body_too_large"},
		{"/stat", `{}`, 400, "file_id_invalid"},
		{"/stat", `{"file":"../etc/passwd"}`, 400, "file_id_invalid"},
		{"/stat", `{"file":"` + unknown + `"}`, 404, "file_not_found"},
		{"/delete", `{"file":"` + strings.ToLower(unknown) + `"}`, 400, "file_id_invalid"},
		{"/delete", `{"file":"` + unknown + `"}`, 404, "file_not_found"},
		{"/delete", `{"file":"` + pending.ID + `"}`, 409, "file_state"},
		{"/link", `{"expires_in":60}`, 400, "file_id_invalid"},
		{"/link", `{"file":"` + unknown + `","expires_in":60}`, 404, "file_not_found"},
		{"/link", `{"file":"` + pending.ID + `","expires_in":60}`, 404, "file_not_found"},
		{"/link", `{"file":"` + f.ID + `","expires_in":-1}`, 400, "expires_in_invalid"},
		{"/link", `{"file":"` + f.ID + `","expires_in":604801}`, 400, "expires_in_invalid"},
		{"/link", `{"file":"` + f.ID + `","expires_in":9223372036854775807}`, 400, "expires_in_invalid"},
		{"/link", `{"file":"` + f.ID + `","expires_in":1.5}`, 400, "json_invalid"},
	} {
		if a := h.api(tt.path, tt.body, nil); a.StatusCode != tt.status || a.code() != tt.code {
			t.Errorf("%s %.80s: %v, want %d %s", tt.path, tt.body, a, tt.status, tt.code)
		}
	}
	if a := h.do("GET", f.URL, nil); a.body != "hello" {
		t.Errorf("the file is gone: %v", a)
	}
	var stat FileInfo
	if h.api("/stat", `{"file":"`+pending.ID+`"}`, &stat); stat.State != Pending || stat.Owner != alice {
		t.Errorf("of an upload under way: %+v", stat)
	}
}

func TestLinkIsMade(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.PublicURL = "https://f.example.com/" })
	for name, ending := range map[string]string{
		"a.jpg": "/file.jpg", "照片.PNG": "/file.PNG", "noext": "", "a.tar.gz": "/file.gz", "x.%2e": "", "b.c d": "", "x.文": "", "x.01234567890": "",
	} {
		f := h.keep(name, "hello")
		var link LinkAnswer
		h.api("/link", `{"file":"`+f.ID+`","expires_in":3600}`, &link)
		want := fmt.Sprintf("https://f.example.com/files/%s%s?link=%s-%d", f.ID, ending, f.ID, link.ExpiresAt.Unix())
		if link.URL != want {
			t.Errorf("%s: %s, want %s", name, link.URL, want)
		}
	}
}

// A link lives no longer than was asked for, and not much shorter; for a while
// it stays the same.
func TestLinkExpiry(t *testing.T) {
	start := time.Unix(1_700_000_000, 123_456_789)
	for _, ttl := range []time.Duration{time.Second, 2 * time.Second, 10 * time.Second, time.Minute, time.Hour, 24 * time.Hour, 168 * time.Hour} {
		distinct := map[time.Time]bool{}
		for i := range 1000 {
			at := start.Add(ttl * time.Duration(i) / 1000)
			end := linkExpiry(at, ttl)
			life := end.Sub(at)
			if shortest := ttl - max(ttl/linkSteps, time.Second); life > ttl || life < shortest {
				t.Fatalf("%v: lives for %v, want %v to %v", ttl, life, shortest, ttl)
			}
			distinct[end] = true
		}
		if n := len(distinct); n > linkSteps+3 {
			t.Errorf("%v: %d different links within that time", ttl, n)
		}
	}
	h := newTestHouse(t, func(s *Settings) { s.LinkMaxTTL = 10 * time.Minute })
	f := h.keep("a.txt", "hello")
	var link LinkAnswer
	h.api("/link", `{"file":"`+f.ID+`"}`, &link)
	if life := time.Until(link.ExpiresAt); life > 10*time.Minute || life < 5*time.Minute {
		t.Errorf("without expires_in it lives for %v", life)
	}
}

// Who has a link reads the file, whoever it belongs to, as long as it is there.
func TestDownloadWithLink(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		f, other := h.keep("a.txt", "0123456789"), h.keep("b.txt", "other")
		for _, user := range []string{"nobody", "bob", "alice"} {
			for _, path := range []string{f.URL, f.URL + "/file.txt"} {
				a := h.do("GET", path, nil, "User", user, "Link", f.ID)
				if a.StatusCode != http.StatusOK || a.body != "0123456789" || a.Header.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("%s %s: %v", user, path, a)
				}
				keep := a.Header.Get("Cache-Control")
				var age int
				if n, err := fmt.Sscanf(keep, "private, max-age=%d", &age); n != 1 || err != nil || age > 60 || age < 30 {
					t.Errorf("Cache-Control: %s of a link that lives for a minute", keep)
				}
			}
			if a := h.do("HEAD", f.URL, nil, "User", user, "Link", f.ID); a.StatusCode != http.StatusOK || a.ContentLength != 10 {
				t.Errorf("HEAD: %v", a)
			}
			if a := h.do("GET", f.URL, nil, "User", user, "Link", f.ID, "Range", "bytes=2-4"); a.StatusCode != http.StatusPartialContent || a.body != "234" {
				t.Errorf("range: %v", a)
			}
			if a := h.do("GET", f.URL, nil, "User", user, "Link", f.ID, "If-None-Match", `"`+f.SHA256+`"`); a.StatusCode != http.StatusNotModified {
				t.Errorf("condition: %v", a)
			}
		}
		if a := h.do("GET", other.URL, nil, "User", "nobody", "Link", f.ID); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("another file: %v", a)
		}
		if a := h.do("DELETE", f.URL, nil, "User", "nobody", "Link", f.ID); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("delete: %v", a)
		}
		h.api("/delete", `{"file":"`+f.ID+`"}`, &struct{}{})
		if a := h.do("GET", f.URL, nil, "User", "nobody", "Link", f.ID); a.StatusCode != http.StatusNotFound || a.code() != "file_not_found" {
			t.Errorf("after its end: %v", a)
		}
	})
}
