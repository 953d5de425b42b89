package transfer

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/settings"
)

// bySize lets files be of 40 bytes, of 20 in channels, and of 10 in public.
func bySize(s *Settings) {
	s.UserPublic, s.UserChannel, s.MaxSize, s.MaxSessions = true, true, 100, 0
	s.Limits = []Limit{
		{Access: []string{"public"}, MaxSize: 10},
		{Access: []string{"channel"}, MaxSize: 20},
		{Access: []string{"private", "channel"}, MaxSize: 40},
	}
}

// How large a file may be goes by who may read it, whichever way it comes in
// and whenever that is known.
func TestSizesByAccess(t *testing.T) {
	h := newTestHouse(t, bySize)
	h.join("alice", "room", true)
	post := func(path, body string) answer {
		return h.do("POST", path, strings.NewReader(body), "Content-Type", "application/json")
	}
	for query, most := range map[string]int{"": 40, "?channel=room": 20, "?public=true": 10, "?public=false": 40} {
		and := "&" + strings.TrimPrefix(query, "?")
		ways := map[string]func(text string) answer{
			"form": func(text string) answer { return h.upload(query, formOf(field{"f", "a.txt", text})) },
			"form, announced": func(text string) answer {
				return h.upload("?size="+strconv.Itoa(len(text))+and, formOf(field{"f", "a.txt", text}))
			},
			"of the backend": func(text string) answer {
				return h.do("POST", "/api/files/upload?user=bob&appid=wx1"+and, strings.NewReader(formOf(field{"f", "a.txt", text})), "Content-Type", formType)
			},
			"parts": func(text string) answer { return post("/files/uploads"+query, fmt.Sprintf(`{"size":%d}`, len(text))) },
			"direct": func(text string) answer {
				return post("/files/direct"+query, fmt.Sprintf(`{"size":%d,"mode":"form"}`, len(text)))
			},
			"direct parts": func(text string) answer {
				return post("/files/direct"+query, fmt.Sprintf(`{"size":%d,"mode":"parts"}`, len(text)))
			},
		}
		begin := func() (u uploading) {
			begun := post("/files/uploads"+query, `{"part_size":1024}`)
			if err := json.Unmarshal([]byte(begun.body), &u.uploadAnswer); err != nil {
				t.Fatalf("%v, %v", begun, err)
			}
			u.house, u.path = h, "/files/uploads/"+u.ID
			return u
		}
		ways["part, undeclared"] = func(text string) answer { u := begin(); return u.part(1, text) }
		ways["parts, undeclared"] = func(text string) answer {
			u := begin()
			h.do("PUT", u.path+"/parts/1", io.MultiReader(strings.NewReader(text))) // whose length nobody knows
			return u.complete()
		}
		if most == 40 { // these two are always of their owner alone
			ways["tus"] = func(text string) answer {
				return h.do("POST", TusPath, nil, "Tus-Resumable", "1.0.0", "Upload-Length", strconv.Itoa(len(text)))
			}
			ways["uploader"] = func(text string) answer { return (&uploader{h, "id" + text, "a.txt", text, len(text)}).send(0) }
		}
		for way, send := range ways {
			if a := send(strings.Repeat("x", most)); a.StatusCode >= 300 {
				t.Errorf("%s%s with %d bytes: %v", way, query, most, a)
			}
			if a := send(strings.Repeat("x", most+1)); a.StatusCode != http.StatusRequestEntityTooLarge || a.code() != "file_too_large" {
				t.Errorf("%s%s with %d bytes: %v", way, query, most+1, a)
			}
		}
	}
}

// A file that is too large for those who are to read it stays as it is. A limit
// that came later takes nothing away, and keeps nobody from taking it back.
func TestAccessBySize(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		bySize(&h.settings)
		small, large := h.keep("small.txt", strings.Repeat("x", 10)), h.keep("large.txt", strings.Repeat("x", 15))
		for _, step := range []struct {
			file uploaded
			more string
			code string
		}{
			{small, `,"public":true`, ""},
			{large, `,"public":true`, "file_too_large"},
			{large, `,"channel":"room"`, ""},
			{large, `,"public":true,"expires_in":60`, "file_too_large"},
		} {
			if a := h.api("/access", `{"file":"`+step.file.ID+`"`+step.more+`}`, nil); a.code() != step.code {
				t.Errorf("%s %s: %v, want %q", step.file.Name, step.more, a, step.code)
			}
		}
		if f := h.record(large.ID); f.Access != (Access{Channel: "room"}) || !f.Expires.IsZero() {
			t.Errorf("refused, and left as %+v until %v", f.Access, f.Expires)
		}
		h.settings.Limits[1].MaxSize, h.settings.Limits[2].MaxSize = 5, 5
		for _, step := range [][2]string{{`,"channel":"room2"`, ""}, {`,"public":true`, "file_too_large"}, {"", ""}, {`,"channel":"room"`, "file_too_large"}} {
			if a := h.api("/access", `{"file":"`+large.ID+`"`+step[0]+`}`, nil); a.code() != step[1] {
				t.Errorf("%s under other limits: %v, want %q", step[0], a, step[1])
			}
		}
	})
}

func TestLimitAccessIsChecked(t *testing.T) {
	var s Settings
	settings.Defaults(&s)
	s.Limits = []Limit{{Access: []string{"public", "everybody"}, MaxSize: 1}, {Access: []string{"private", "channel"}, MaxSize: 1}}
	var got []string
	s.Check(func(path, problem string) { got = append(got, path+" "+problem) })
	if want := []string{"limits[0].access[1] must be private, public or channel"}; !slices.Equal(got, want) {
		t.Errorf("reported %q", got)
	}
}
