package transfer

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// What can be wrong between the ledger and the store.
const (
	BytesMissing  = "bytes_missing"  // a file is ready and the store does not have it
	SizeDiffers   = "size_differs"   // the store has another number of bytes
	RecordMissing = "record_missing" // the store has bytes of a file that the ledger does not know
	PartsLeft     = "parts_left"     // the store has parts of a file that is whole
	UnknownObject = "unknown_object" // the store has something that is not ours
)

// The sides from which the two can be compared.
const (
	sideFiles   = "files"
	sideStorage = "storage"
)

// verifyTogether is how many questions one comparison has open.
const verifyTogether = 8

var errSide = fault.New(fault.Invalid, "side_invalid", "side is files or storage.")

// Difference is one that a comparison has found.
type Difference struct {
	Problem  string    `json:"problem"`
	File     string    `json:"file,omitempty"`    // id, where there is one
	Key      string    `json:"key"`               // in the store
	Upload   string    `json:"upload,omitempty"`  // id, where it is an upload in parts
	Size     int64     `json:"size"`              // bytes, as the ledger says
	Stored   int64     `json:"stored"`            // bytes, as the store says
	Modified time.Time `json:"modified,omitzero"` // of the object
}

// VerifyAnswer is what ServeVerify answers.
type VerifyAnswer struct {
	Checked     int          `json:"checked"` // files or objects
	Differences []Difference `json:"differences"`
	Cursor      string       `json:"cursor,omitempty"` // of the next page; missing on the last one
}

// ServeVerify is POST {side, limit?, cursor?} → VerifyAnswer: a page of a
// comparison of ledger and store, of all ready files (side files) or of all
// objects (side storage); limit is 50 unless given, and 500 at most. Uploads and
// deletions under way are not different. Faults: Invalid `side_invalid`,
// `page_invalid`, `cursor_invalid`; those of the ledger and of the store.
func (s *Service) ServeVerify(w http.ResponseWriter, r *http.Request) error {
	req := struct {
		Side, Cursor string
		Limit        int
	}{Limit: defaultPage}
	if err := rest.Decode(w, r, maxAdminBody, &req); err != nil {
		return err
	}
	if req.Limit < 1 || req.Limit > maxPage {
		return errPage
	}
	var a VerifyAnswer
	var err error
	switch req.Side {
	case sideFiles:
		after, ok := parsePlace(req.Cursor)
		if !ok {
			return errCursor
		}
		a, err = s.verifyFiles(r.Context(), after, req.Limit)
	case sideStorage:
		if len(req.Cursor) > maxAdminBody {
			return errCursor
		}
		a, err = s.verifyStorage(r.Context(), req.Cursor, req.Limit)
	default:
		return errSide
	}
	if err != nil {
		return err
	}
	if a.Differences == nil {
		a.Differences = []Difference{}
	}
	return rest.JSON(w, http.StatusOK, a)
}

// verifyFiles looks for the bytes of files.
func (s *Service) verifyFiles(ctx context.Context, after Place, limit int) (VerifyAnswer, error) {
	files, next, err := s.ledger.List(ctx, "", after, limit)
	if err != nil {
		return VerifyAnswer{}, err
	}
	found, err := compareAll(ctx, files, s.verifyFile)
	return VerifyAnswer{len(files), found, string(next)}, err
}

func (s *Service) verifyFile(ctx context.Context, f File) (*Difference, error) {
	size, err := s.store.Stat(ctx, f.Key)
	missing := errors.Is(err, errNoObject)
	if err != nil && !missing || err == nil && size == f.Size {
		return nil, err
	}
	// It may have been deleted meanwhile.
	if now, err := s.ledger.Get(ctx, f.ID); errors.Is(err, errNoFile) || err == nil && now.State != Ready && now.State != Checking {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	d := &Difference{Problem: SizeDiffers, File: f.ID, Key: f.Key, Size: f.Size, Stored: size}
	if missing {
		d.Problem = BytesMissing
	}
	return d, nil
}

// verifyStorage looks for the files of bytes.
func (s *Service) verifyStorage(ctx context.Context, after string, limit int) (VerifyAnswer, error) {
	objects, next, err := s.store.List(ctx, after, limit)
	if err != nil {
		return VerifyAnswer{}, err
	}
	found, err := compareAll(ctx, objects, s.verifyObject)
	return VerifyAnswer{len(objects), found, next}, err
}

func (s *Service) verifyObject(ctx context.Context, o Object) (*Difference, error) {
	d := &Difference{Problem: UnknownObject, Key: o.Key, Upload: o.Upload, Stored: o.Size, Modified: o.Modified.UTC()}
	key, posted := strings.CutPrefix(o.Key, pendingPrefix)
	id, variant, ok := parseKey(key)
	if !ok {
		return d, nil
	}
	d.Problem, d.File = RecordMissing, id
	f, err := s.ledger.Get(ctx, id)
	switch {
	case err != nil && !errors.Is(err, errNoFile):
		return nil, err
	case err == nil && posted: // it goes with its file
		return nil, nil
	case err == nil && o.Upload != "" && f.Key == o.Key:
		if f.State != Ready {
			return nil, nil // under way, or the sweeper's
		}
		d.Problem = PartsLeft
	case err == nil && variant == "" && f.Key == o.Key:
		return nil, nil // its size is compared from the other side
	case err == nil && slices.Contains(tusKeys(f), o.Key):
		return nil, nil // of an upload over tus
	case err == nil && variant != "" && slices.Contains(strings.Fields(f.Thumbs), variant):
		return nil, nil
	}
	if there, err := s.stillThere(ctx, o); err != nil || !there {
		return nil, err
	}
	return d, nil
}

// stillThere looks again: o may have been deleted since it was listed.
func (s *Service) stillThere(ctx context.Context, o Object) (bool, error) {
	var err error
	if o.Upload != "" {
		_, err = s.store.Parts(ctx, o.Key, o.Upload)
	} else {
		_, err = s.store.Stat(ctx, o.Key)
	}
	if errors.Is(err, errNoObject) || errors.Is(err, errNoUpload) {
		return false, nil
	}
	return err == nil, err
}

// compareAll judges each of list, some at the same time, and keeps the order.
func compareAll[T any](ctx context.Context, list []T, judge func(context.Context, T) (*Difference, error)) ([]Difference, error) {
	results := make([]*Difference, len(list))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(verifyTogether)
	for i, one := range list {
		g.Go(func() (err error) {
			results[i], err = judge(ctx, one)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var found []Difference
	for _, d := range results {
		if d != nil {
			found = append(found, *d)
		}
	}
	return found, nil
}

// ourKey is what newFile makes, and behind "~" a variant of it.
var ourKey = regexp.MustCompile(`^\d{4}/\d\d/\d\d/([A-Z2-7]{26})(?:~([0-9a-z-]{1,32}))?$`)

// parseKey returns the file that a key is of, and which variant of it.
func parseKey(key string) (id, variant string, ok bool) {
	m := ourKey.FindStringSubmatch(key)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}
