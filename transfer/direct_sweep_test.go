package transfer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

// expire lets a reservation expire.
func (h *house) expire(id string) {
	h.t.Helper()
	f, err := h.ledger.Get(h.t.Context(), id)
	if err == nil {
		f.Session.Expires = now().Add(-2 * cleanUp)
		err = h.ledger.Update(h.t.Context(), f, Quota{})
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// What nobody confirms is confirmed where it is whole, and removed where not.
func TestDirectSwept(t *testing.T) {
	srv := testdeps.MinIO(t)
	eachLedger(t, func(t *testing.T, l Ledger) {
		h, other := directHouse(t, srv, l), directHouse(t, srv, l)
		posted, empty := h.reserve(`{"size":5}`), h.reserve(`{"size":5}`)
		put, half := h.reserve(`{"size":5,"mode":"parts"}`), h.reserve(fmt.Sprintf(`{"size":%d}`, 20<<20))
		form := h.reserve(`{"size":0}`)
		for _, status := range []int{
			wxUpload(t, h, posted.Upload, "hello"), h.put(put.Put[0], "world"), h.put(half.Put[0], strings.Repeat("x", minPart)),
		} {
			if status != http.StatusOK {
				t.Fatal(status)
			}
		}
		alive := h.reserve(`{"size":5}`)
		for _, d := range []directAnswer{posted, empty, put, half, form} {
			h.expire(d.ID)
			if a := h.confirm(d.ID); a.StatusCode != http.StatusGone || a.code() != "upload_expired" {
				t.Errorf("confirm when it has expired: %v", a)
			}
		}
		var wg sync.WaitGroup
		for _, node := range []*house{h, other} {
			wg.Go(func() {
				if err := node.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for id, want := range map[string]string{posted.ID: "hello", put.ID: "world"} {
			if a := h.do("GET", "/files/"+id, nil); a.body != want {
				t.Errorf("%v, want %s", a, want)
			}
			if a := h.do("DELETE", "/files/"+id, nil); a.StatusCode != http.StatusNoContent {
				t.Errorf("%v", a)
			}
		}
		for _, id := range []string{empty.ID, half.ID} {
			if _, err := l.Get(t.Context(), id); !errors.Is(err, errNoFile) {
				t.Errorf("still there: %v", err)
			}
		}
		if a := h.do("DELETE", "/files/direct/"+alive.ID, nil); a.StatusCode != http.StatusNoContent {
			t.Errorf("%v", a)
		}
		if a := h.do("DELETE", "/files/"+form.ID, nil); a.StatusCode != http.StatusNoContent {
			t.Errorf("an empty file is whole: %v", a)
		}
		h.wantNothingLeft()
	})
}

// While the storage is away nothing is removed that may be whole.
func TestDirectSweptLater(t *testing.T) {
	m := testdeps.StartMinIO(t)
	h := directHouse(t, m.S3, newTestFileLedger(t))
	d := h.reserve(`{"size":5}`)
	if status := wxUpload(t, h, d.Upload, "hello"); status != http.StatusOK {
		t.Fatal(status)
	}
	h.expire(d.ID)
	m.Stop()
	if err := h.Sweep(t.Context()); err == nil {
		t.Error("swept without the storage")
	}
	m.Restart()
	if err := h.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := h.do("GET", "/files/"+d.ID, nil); a.body != "hello" {
		t.Errorf("%v", a)
	}
}

// One protocol cannot be used on the uploads of another where that means
// nothing, and can where it does.
func TestDirectByOtherWays(t *testing.T) {
	h := directHouse(t, testdeps.MinIO(t), newTestFileLedger(t))
	posted, parts := h.reserve(`{"size":5}`), h.begin(`{"size":5}`)
	for _, a := range []answer{
		h.do("PUT", "/files/uploads/"+posted.ID+"/parts/1", strings.NewReader("hello")),
		h.do("POST", "/files/uploads/"+posted.ID+"/form", strings.NewReader(formOf(field{"file", "a", "hello"})), "Content-Type", formType),
		h.do("GET", "/files/direct/"+parts.ID, nil),
		h.do("GET", "/files/direct/"+posted.ID, nil, "User", "mallory"),
	} {
		if a.StatusCode != http.StatusNotFound || a.code() != "upload_not_found" {
			t.Errorf("%v", a)
		}
	}
	if a := h.do("GET", "/files/direct/"+posted.ID+"?from=x", nil); a.code() != "from_invalid" {
		t.Errorf("%v", a)
	}
	// Where a phone cannot reach the storage, its parts come through us.
	put := h.reserve(`{"size":5,"mode":"parts"}`)
	if a := h.do("PUT", "/files/uploads/"+put.ID+"/parts/1", strings.NewReader("hello")); a.StatusCode != http.StatusOK {
		t.Errorf("%v", a)
	}
	if f := h.decode(h.confirm(put.ID)); f.Size != 5 {
		t.Errorf("%+v", f)
	}
}

// A form to the gateway that broke off can be sent again, and one that cannot
// be taken is gone.
func TestDirectFormToGateway(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.AllowedTypes = []string{"text/*", "image/*"} })
	long := strings.Repeat("0123456789abcdef", 6<<16) // 6 MiB: two parts
	d := h.reserve(fmt.Sprintf(`{"name":"a.txt","size":%d}`, len(long)))
	whole := formOf(field{name: "name", value: "b.txt"}, field{"file", "c.txt", long})
	send := func(form string) answer {
		return h.do("POST", d.Upload.URL, strings.NewReader(form), "Content-Type", formType)
	}
	for name, try := range map[string]struct{ form, code string }{
		"cut in the file":     {whole[:len(whole)/2], "upload_torn"},
		"cut at the boundary": {whole[:len(whole)-4], "upload_torn"},
		"two files":           {formOf(field{"file", "c.txt", long}, field{"file", "d.txt", "x"}), "too_many_files"},
		"too short":           {formOf(field{"file", "c.txt", long[1:]}), "size_mismatch"},
		"too long":            {formOf(field{"file", "c.txt", long + "x"}), "size_mismatch"},
		"no file":             {formOf(field{name: "a", value: "b"}), "file_missing"},
		"another sum":         {formOf(field{name: "sha256", value: sum("x")}, field{"file", "c.txt", long}), "checksum_mismatch"},
	} {
		if a := send(try.form); a.code() != try.code {
			t.Errorf("%s: %v, want %s", name, a, try.code)
		}
		if a := h.confirm(d.ID); a.StatusCode == http.StatusCreated {
			t.Errorf("%s: %v", name, a)
		}
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if a := send(whole); a.StatusCode != http.StatusCreated {
				t.Errorf("%v", a)
			}
		})
	}
	wg.Wait()
	f := h.decode(h.confirm(d.ID))
	if back := h.do("GET", f.URL, nil); f.Name != "a.txt" || back.body != long {
		t.Errorf("%+v, %d bytes", f, len(back.body))
	}
	d = h.reserve(`{"size":8}`)
	if a := send(formOf(field{"file", "c", "%PDF-1.7"})); a.code() != "type_not_allowed" {
		t.Errorf("%v", a)
	}
	if a := h.confirm(d.ID); a.code() != "upload_not_found" {
		t.Errorf("%v", a)
	}
	wantUsage(t, h.ledger, "refused", Usage{Stored: f.Size, Daily: f.Size})
}

// The backend is asked when an upload is reserved.
func TestDirectWebhook(t *testing.T) {
	h := askingAlone(t, says(http.StatusOK, `{"allow":false,"reason":"Not on Fridays."}`))
	a := h.do("POST", "/files/direct", strings.NewReader(`{"size":5}`), "Content-Type", "application/json")
	if a.StatusCode != http.StatusForbidden || a.code() != "upload_refused" {
		t.Errorf("%v", a)
	}
	h.wantEmpty()
	h = askingAlone(t, says(http.StatusOK, `{"attributes":{"album":7}}`))
	d := h.reserve(`{"name":"a.txt","size":5}`)
	if status := wxUpload(t, h, d.Upload, "hello"); status != http.StatusCreated {
		t.Fatal(status)
	}
	h.decode(h.confirm(d.ID))
	if f, err := h.ledger.Get(t.Context(), d.ID); err != nil || f.Attributes != `{"album":7}` {
		t.Errorf("%+v, %v", f, err)
	}
}

// A public endpoint is what is signed, without a request.
func TestDirectPublicEndpoint(t *testing.T) {
	srv := testdeps.MinIO(t)
	s := newTestS3(t, srv)
	settings := s.settings
	settings.PublicURL = "https://files.example.com"
	var err error
	if s.signer, err = newSigner(settings); err != nil {
		t.Fatal(err)
	}
	form, err := s.postForm(t.Context(), "k", "", 3, now().Add(time.Hour))
	if err != nil || form.URL != "https://files.example.com/"+srv.Bucket+"/" {
		t.Errorf("%+v, %v", form, err)
	}
	address, err := s.partURL(t.Context(), "k", "t.id", 7, 3, time.Hour)
	if err != nil || !strings.HasPrefix(address, "https://files.example.com/"+srv.Bucket+"/k?") || !strings.Contains(address, "X-Amz-SignedHeaders=content-length%3Bhost") {
		t.Errorf("%s, %v", address, err)
	}
}

func TestDirectTickets(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.PublicURL = "https://gate.example.com/" })
	var asked time.Duration
	h.ticket = func(_ context.Context, upload string, ttl time.Duration) string {
		asked = ttl
		return "T/" + upload
	}
	d := h.reserve(`{"size":5}`)
	if want := "https://gate.example.com/files/uploads/" + d.ID + "/form?ticket=T%2F" + d.ID; d.Upload.URL != want || asked > time.Hour || asked < 59*time.Minute {
		t.Errorf("%s for %v, want %s", d.Upload.URL, asked, want)
	}
	d = h.reserve(`{"size":5,"mode":"parts"}`)
	if want := "https://gate.example.com/files/uploads/" + d.ID + "/parts/1?ticket=T%2F" + d.ID; len(d.Put) != 1 || d.Put[0].URL != want {
		t.Errorf("%+v, want %s", d.Put, want)
	}
}

// What is posted is the file's that it was reserved for; where there is none, a
// comparison of files and storage finds it.
func TestDirectCompared(t *testing.T) {
	h := directHouse(t, testdeps.MinIO(t), newTestFileLedger(t))
	d := h.reserve(`{"size":5}`)
	for range 2 { // before it is confirmed, and once more afterwards
		if status := wxUpload(t, h, d.Upload, "hello"); status != http.StatusOK {
			t.Fatal(status)
		}
		if found := h.verify(10); len(found) != 0 {
			t.Errorf("all is well, and found %v", found)
		}
		h.decode(h.confirm(d.ID))
	}
	f := newFile(alice)
	h.store1(f.postKey(), "posted when it was removed")
	if found := h.verify(10); !slices.Equal(found, []string{RecordMissing + " " + f.ID}) {
		t.Errorf("found %v", found)
	}
}
