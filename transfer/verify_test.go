package transfer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// verify returns what both sides find, as "problem file" or "problem key".
func (h *house) verify(limit int) (found []string) {
	h.t.Helper()
	for _, side := range []string{sideFiles, sideStorage} {
		cursor := ""
		for range 100 {
			var page VerifyAnswer
			h.api("/verify", fmt.Sprintf(`{"side":%q,"limit":%d,"cursor":%q}`, side, limit, cursor), &page)
			for _, d := range page.Differences {
				what := d.Key
				if d.File != "" {
					what = d.File
				}
				found = append(found, d.Problem+" "+what)
			}
			if cursor = page.Cursor; cursor == "" {
				break
			}
		}
	}
	slices.Sort(found)
	return found
}

func (h *house) store1(key, content string) {
	h.t.Helper()
	if _, err := h.store.Put(h.t.Context(), key, strings.NewReader(content), -1); err != nil {
		h.t.Fatal(err)
	}
}

func TestVerify(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		if found := h.verify(10); len(found) != 0 {
			t.Errorf("nothing is there, and found %v", found)
		}
		for range 5 {
			h.keep("a.txt", "hello")
		}
		pending := reserved(t, h.ledger, 0)
		h.store1(pending.Key, "an upload under way")
		if found := h.verify(2); len(found) != 0 {
			t.Errorf("all is well, and found %v", found)
		}

		lost, short := h.keep("lost.txt", "hello"), h.keep("short.txt", "hello")
		for _, f := range []uploaded{lost, short} {
			record, err := h.ledger.Get(t.Context(), f.ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.store.Delete(t.Context(), record.Key); err != nil {
				t.Fatal(err)
			}
			if f == short {
				h.store1(record.Key, "hell")
			}
		}
		orphan := newFile(alice)
		h.store1(orphan.Key, "of nobody")
		h.store1("something/else", "not ours")
		want := []string{
			"bytes_missing " + lost.ID, "record_missing " + orphan.ID,
			"size_differs " + short.ID, "unknown_object something/else",
		}
		for _, limit := range []int{1, 500} {
			if found := h.verify(limit); !slices.Equal(found, want) {
				t.Errorf("pages of %d: %v\nwant %v", limit, found, want)
			}
		}
	})
}

func TestVerifyRefused(t *testing.T) {
	h := newTestHouse(t)
	for body, code := range map[string]string{
		`{}`: "side_invalid", `{"side":"both"}`: "side_invalid", `{"side":"files","limit":0}`: "page_invalid",
		`{"side":"storage","limit":501}`: "page_invalid", `{"side":"files","cursor":"x"}`: "cursor_invalid",
	} {
		if a := h.api("/verify", body, nil); a.code() != code {
			t.Errorf("%s: %v, want %s", body, a, code)
		}
	}
}

// What somebody put into the folder is named, and left alone.
func TestVerifyForeignFiles(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.OrphanTTL = 24 * time.Hour })
	h.keep("a.txt", "hello")
	dir := h.store.(*Folder).dir
	foreign := []string{dir + "/00/README", dir + "/ff/" + nameEncoding.EncodeToString([]byte(newFile(alice).Key))}
	for _, name := range foreign {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := h.verify(10)
	if len(found) != 2 || found[0] != "unknown_object 00/README" || !strings.HasPrefix(found[1], "unknown_object ff/") {
		t.Errorf("%v", found)
	}
	if err := h.Compare(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range foreign {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

// aged is a folder whose objects are old.
type aged struct {
	*Folder
	age time.Duration
}

func (s aged) List(ctx context.Context, after string, limit int) ([]Object, string, error) {
	objects, next, err := s.Folder.List(ctx, after, limit)
	for i := range objects {
		objects[i].Modified = objects[i].Modified.Add(-s.age)
	}
	return objects, next, err
}

func TestCompareDeletesOrphans(t *testing.T) {
	for name, tt := range map[string]struct {
		ttl, age time.Duration
		files    int
		deletes  bool
	}{
		"old enough":     {24 * time.Hour, 25 * time.Hour, 3, true},
		"too young":      {24 * time.Hour, 23 * time.Hour, 3, false},
		"switched off":   {0, 1000 * time.Hour, 3, false},
		"ledger is lost": {24 * time.Hour, 25 * time.Hour, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			folder := newTestFolder(t)
			h := newHouse(t, aged{folder, tt.age}, newTestFileLedger(t), func(s *Settings) { s.OrphanTTL = tt.ttl })
			var kept []uploaded
			for range tt.files {
				kept = append(kept, h.keep("a.txt", "hello"))
			}
			h.store1(newFile(alice).Key, "of nobody")
			h.store1(newFile(alice).Key+"~100x100-cover", "the same")
			h.store1("something/else", "not ours")
			if err := h.Compare(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := tt.files + 3
			if tt.deletes {
				want -= 2
			}
			if n := len(filesIn(t, folder.dir)); n != want {
				t.Errorf("%d files are stored, want %d", n, want)
			}
			if size := testutil.ToFloat64(h.metrics.orphanBytes.WithLabelValues(RecordMissing)); size != 17 {
				t.Errorf("orphans have %v bytes", size)
			}
			h.wantOrphans(map[string]float64{RecordMissing: 2, UnknownObject: 1})
			for _, f := range kept {
				if a := h.do("GET", f.URL, nil); a.body != "hello" {
					t.Errorf("a file: %v", a)
				}
			}
		})
	}
}

func TestParseKey(t *testing.T) {
	f := newFile(alice)
	for key, want := range map[string]string{
		f.Key: f.ID + " ", f.Key + "~10x20-cover": f.ID + " 10x20-cover",
		"": "", f.ID: "", "x" + f.Key: "", f.Key + "~": "", f.Key + "~A": "", f.Key + "/x": "", strings.ToLower(f.Key): "", f.Key + "\n": "",
	} {
		got := ""
		if id, variant, ok := parseKey(key); ok {
			got = id + " " + variant
		}
		if got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
	}
}

// Parts of open uploads and of those that are to be swept are in order; others
// are not, and go when they are old enough.
func TestVerifyUploadsInParts(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.OrphanTTL = 24 * time.Hour })
	h.keep("a.txt", "hello")
	open, whole := h.begin(`{"size":5}`), h.begin(`{"size":5}`)
	open.mustPart(1, "hello")
	whole.mustPart(1, "hello")
	whole.complete()
	retired := h.begin(`{"size":5}`)
	if _, err := h.ledger.Retire(t.Context(), retired.ID, Pending); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 10} {
		if found := h.verify(limit); len(found) != 0 {
			t.Errorf("all is well, and found %v", found)
		}
	}
	forgotten := h.begin(`{"size":5}`)
	forgotten.mustPart(1, "hello")
	if err := h.ledger.Forget(t.Context(), forgotten.ID); err != nil {
		t.Fatal(err)
	}
	record, err := h.ledger.Get(t.Context(), whole.ID)
	if err != nil {
		t.Fatal(err)
	}
	left, err := h.store.Begin(t.Context(), record.Key, 5)
	if err != nil {
		t.Fatal(err)
	}
	h.store1(".hidden", "not ours")
	want := []string{"parts_left " + whole.ID, "record_missing " + forgotten.ID, "unknown_object .hidden"}
	for _, limit := range []int{1, 10} {
		if found := h.verify(limit); !slices.Equal(found, want) {
			t.Errorf("found %v, want %v", found, want)
		}
	}
	folder := h.store.(*Folder)
	old := time.Now().Add(-25 * time.Hour)
	for _, dir := range []string{folder.upload(record.Key, left).dir, filepath.Join(folder.uploads(record.Created.Format("2006/01/02/") + forgotten.ID))} {
		dirs := []string{dir}
		for _, below := range []string{"*", "*/*"} {
			if entries, err := filepath.Glob(filepath.Join(dir, below)); err == nil {
				dirs = append(dirs, entries...)
			}
		}
		for _, d := range dirs {
			if err := os.Chtimes(d, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := h.Compare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found := h.verify(10); !slices.Equal(found, want[2:]) {
		t.Errorf("compared: %v, want %v", found, want[2:])
	}
	if open.status().Received != 5 {
		t.Error("the open upload has lost its part")
	}
	if a := h.do("GET", "/files/"+whole.ID, nil); a.body != "hello" {
		t.Errorf("the file: %v", a)
	}
}
