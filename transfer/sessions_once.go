package transfer

import (
	"context"
	"strings"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

const (
	maxKey  = 255 // bytes of NewUpload.Key
	maxOpen = 100 // uploads that Open returns
)

var (
	errKey       = fault.Newf(fault.Invalid, "idempotency_key_invalid", "Idempotency-Key has 1 to %d printable ASCII characters.", maxKey)
	errKeyReused = fault.New(fault.Conflict, "idempotency_key_reused", "This Idempotency-Key is that of another upload, which is still open.")
)

// Open returns the uploads of a user that are not completed, those first that
// expire first, 100 at most, without their parts. Faults: those of the ledger.
func (s *Service) Open(ctx context.Context, user auth.User) ([]Upload, error) {
	files, err := s.ledger.Sessions(ctx, user, maxOpen)
	uploads := make([]Upload, len(files))
	for i, f := range files {
		uploads[i] = uploadOf(f)
	}
	return uploads, err
}

// beginOnce returns the open upload that has the key of f, or begins f. Only
// clients that ask two nodes at the same time get two.
func (s *Service) beginOnce(ctx context.Context, f File) (Upload, error) {
	key := accountOf(f.Owner) + "\x00" + f.Session.Way + "\x00" + f.Session.Key
	u, err, shared := s.beginning.Do(key, func() (any, error) {
		ctx := context.WithoutCancel(ctx) // others may wait for it
		ctx, cancel := context.WithTimeoutCause(ctx, cleanUp, errTooSlow)
		defer cancel()
		return s.findOrBegin(ctx, f)
	})
	if shared && err == nil {
		return s.findOrBegin(ctx, f) // what the others asked for may be another
	}
	return u.(Upload), err
}

func (s *Service) findOrBegin(ctx context.Context, f File) (Upload, error) {
	open, err := s.ledger.Sessions(ctx, f.Owner, maxOpen)
	if err != nil {
		return Upload{}, err
	}
	for _, found := range open {
		if found.Session.Way != f.Session.Way || found.Session.Key != f.Session.Key {
			continue
		}
		if !sameUpload(found, f) {
			return Upload{}, errKeyReused
		}
		if found.Session.Upload == "" { // who began it did not get further
			err := s.store.Delete(ctx, found.Key) // ends what the storage may have begun
			if err == nil {
				err = s.beginStored(ctx, &found)
			}
			if err != nil {
				return Upload{}, err
			}
		}
		return s.Status(ctx, f.Owner, found.ID)
	}
	f, err = s.begin(ctx, f)
	return uploadOf(f), err
}

// sameUpload tells whether two sessions are of one upload, as far as is known.
func sameUpload(a, b File) bool {
	known := func(f File) Session {
		s := f.Session
		s.Upload, s.Expires, s.PartSize, s.Note, s.Rev = "", b.Session.Expires, 0, "", 0
		return s
	}
	return a.Access == b.Access && known(a) == known(b) && (a.Name == b.Name || b.Name == "")
}

// parseIdempotencyKey reads the value of Idempotency-Key: a string as in RFC 8941, or the
// same without quotes; "" stands for none.
func parseIdempotencyKey(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	if quoted, ok := strings.CutPrefix(value, `"`); ok {
		var closed bool
		if value, closed = strings.CutSuffix(quoted, `"`); !closed {
			return "", errKey
		}
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return "", errKey
		}
	}
	if value == "" || len(value) > maxKey {
		return "", errKey
	}
	return value, nil
}
