package transfer

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/testdeps"
)

// meddled is a store in which a part comes once more after the parts were
// listed, and before they are joined.
type meddled struct {
	Store
	left int // how often
}

func (m *meddled) Complete(ctx context.Context, key, upload string, parts []Part) (Object, error) {
	if m.left > 0 {
		m.left--
		content := strings.NewReader(strings.Repeat(string('a'+rune(m.left)), int(parts[0].Size)-1) + "!")
		if _, err := m.PutPart(ctx, key, upload, parts[0].N, content, parts[0].Size); err != nil {
			return Object{}, err
		}
	}
	return m.Store.Complete(ctx, key, upload, parts)
}

// A form that comes again while the same one is completed, as where a phone or a
// proxy sent it twice, costs its client nothing; one that does not cease to is
// Conflict, and may be sent again.
func TestDirectFormComesAgain(t *testing.T) {
	for name, open := range map[string]func() Store{
		"folder": func() Store { return newTestFolder(t) },
		"s3":     func() Store { return newTestS3(t, testdeps.MinIO(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			store := &meddled{Store: open(), left: 2}
			h := newHouse(t, store, newTestFileLedger(t))
			d := h.reserve(`{"name":"a.txt","size":6,"mode":"form"}`)
			if status := wxUpload(t, h, d.Upload, "hello!"); status != http.StatusCreated {
				t.Errorf("two that came meanwhile: status %d", status)
			}
			if a := h.do("GET", "/files/"+d.ID, nil); a.body != "aaaaa!" {
				t.Errorf("the file is %v, not what came last", a)
			}
			store.left = 3
			d = h.reserve(`{"name":"b.txt","size":6,"mode":"form"}`)
			if status := wxUpload(t, h, d.Upload, "hello!"); status != http.StatusConflict {
				t.Errorf("three that came meanwhile: status %d", status)
			}
			if status := wxUpload(t, h, d.Upload, "hello!"); status != http.StatusCreated {
				t.Errorf("sent again: status %d", status)
			}
			if a := h.do("GET", "/files/"+d.ID, nil); a.body != "hello!" {
				t.Errorf("the file is %v", a)
			}
		})
	}
}
