package transfer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

// Who may read a direct upload is said when it is reserved, and so from when it
// is confirmed.
func TestDirectShared(t *testing.T) {
	share := func(s *Settings) { s.UserChannel, s.UserPublic, s.TTL.Channel = true, true, time.Hour }
	for name, h := range map[string]*house{
		"storage": directHouse(t, testdeps.MinIO(t), newTestRedisLedger(t), share),
		"folder":  newTestHouse(t, share),
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			reserve := func(query, mode string) (d directAnswer, a answer) {
				a = h.do("POST", "/files/direct"+query, strings.NewReader(`{"name":"a.txt","size":5,"mode":"`+mode+`"}`), "Content-Type", "application/json")
				_ = json.Unmarshal([]byte(a.body), &d) // or it is refused
				return d, a
			}
			if _, a := reserve("?channel=room", "form"); a.code() != "channel_not_allowed" {
				t.Errorf("no member: %v", a)
			}
			if _, a := reserve("?channel=room&public=true", "form"); a.code() != "access_invalid" {
				t.Errorf("both: %v", a)
			}
			h.join("alice", "room", true)
			h.join("bob", "room", true)
			for _, mode := range []string{"form", "parts"} {
				d, _ := reserve("?channel=room", mode)
				if d.Target == "storage" != (name == "storage") {
					t.Errorf("%s goes to the %s", mode, d.Target)
				}
				if mode == "form" {
					wxUpload(t, h, d.Upload, "hello")
				} else {
					h.put(d.Put[0], "hello")
				}
				if d.Target == "storage" { // else a form is confirmed with that
					h.wantRead(uploaded{URL: "/files/" + d.ID}, "", map[string]string{"bob": "file_not_found"})
				}
				f := h.decode(h.confirm(d.ID))
				h.wantRead(f, "hello", map[string]string{"alice": "", "bob": "", "carl": "file_not_found"})
				var info FileInfo
				h.api("/stat", `{"file":"`+f.ID+`"}`, &info)
				if info.Channel != "room" || time.Until(info.ExpiresAt) < 59*time.Minute {
					t.Errorf("%s: %+v", mode, info)
				}
			}
			d, _ := reserve("?public=true", "parts")
			h.put(d.Put[0], "hello")
			h.wantRead(h.decode(h.confirm(d.ID)), "hello", map[string]string{"nobody": ""})
		})
	}
	h := newTestHouse(t)
	a := h.do("POST", "/files/direct?channel=room", strings.NewReader(`{"size":5}`), "Content-Type", "application/json")
	if a.code() != "access_not_allowed" {
		t.Errorf("where nobody may: %v", a)
	}
}

// A client that cannot reach the storage is given the gateway's addresses, also
// in the middle of an upload.
func TestDirectToGateway(t *testing.T) {
	h := directHouse(t, testdeps.MinIO(t), newTestFileLedger(t))
	for _, mode := range []string{"form", "parts"} {
		if d := h.reserve(`{"size":5,"mode":"` + mode + `"}`); d.Target != "storage" {
			t.Errorf("%s goes to the %s unless asked", mode, d.Target)
		}
		d := h.reserve(`{"size":5,"target":"gateway","mode":"` + mode + `"}`)
		if d.Target != "gateway" || d.Mode != mode {
			t.Errorf("%s, as asked: %+v", mode, d)
		}
	}
	if a := h.do("POST", "/files/direct", strings.NewReader(`{"size":5,"target":"storage"}`), "Content-Type", "application/json"); a.code() != "target_invalid" {
		t.Errorf("another target: %v", a)
	}

	data := strings.Repeat("x", minPart) + "hello"
	d := h.reserve(fmt.Sprintf(`{"name":"a.txt","size":%d,"mode":"parts"}`, len(data)))
	if status := h.put(d.Put[0], data[:minPart]); d.Target != "storage" || status != http.StatusOK {
		t.Fatalf("the first part: status %d, to the %s", status, d.Target)
	}
	if a := h.do("GET", "/files/direct/"+d.ID+"?target=moon", nil); a.code() != "target_invalid" {
		t.Errorf("another target: %v", a)
	}
	again := h.readdress(d.ID, "?target=gateway")
	if again.Target != "gateway" || len(again.Put) != 1 || !strings.HasPrefix(again.Put[0].URL, "/files/uploads/") {
		t.Fatalf("the second part goes to %+v", again)
	}
	if status := h.put(again.Put[0], data[minPart:]); status != http.StatusOK {
		t.Errorf("the second part: status %d", status)
	}
	if back := h.readdress(d.ID, ""); back.Target != "storage" || back.Received != int64(len(data)) {
		t.Errorf("the storage has %+v", back)
	}
	f := h.decode(h.confirm(d.ID))
	if a := h.do("GET", f.URL, nil); a.body != data {
		t.Errorf("%d bytes came back", len(a.body))
	}
}
