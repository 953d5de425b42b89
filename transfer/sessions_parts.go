package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/gabriel-vasile/mimetype"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/auth"
)

// NewPart is what is known of a part before it is read.
type NewPart struct {
	Size int64 // bytes; -1: unknown
	Sums       // checked before the part is kept
}

// PutPart stores all that r yields as part n of an upload, and returns once it
// is durable. Parts may come in any order and at the same time, and may come
// again: the last one counts. Each but the last has Upload.PartSize bytes.
// r ends with io.EOF where the part is whole; with any other error nothing is
// kept, and PutPart returns that error.
//
// Faults: NotFound `upload_not_found`; Gone `upload_expired`; Conflict
// `upload_completed`; Invalid `part_invalid`, `part_size_invalid`,
// `checksum_mismatch`; TooLarge `file_too_large`; Unsupported
// `type_not_allowed`, `type_mismatch` (as the first part's bytes say); Limited
// `too_many_uploads`; Unavailable `uploads_busy`; those of the ledger and the
// store.
func (s *Service) PutPart(ctx context.Context, user auth.User, id string, n int, r io.Reader, o NewPart) (_ Part, err error) {
	end := s.metrics.begin("part")
	defer func() { end(err) }()
	leave, err := s.uploads.enter(ownerOf(user))
	if err != nil {
		return Part{}, err
	}
	defer leave()
	f, err := s.open(ctx, user, id)
	if err == nil && f.posted() {
		err = errNoUpload // it has no parts
	}
	if err != nil {
		return Part{}, err
	}
	size, err := s.expect(f, n, o.Size)
	if err != nil {
		return Part{}, err
	}
	m := &partMeter{r: checked(r, o.Sums), left: f.Session.PartSize, bytes: s.metrics.bytes.WithLabelValues("upload")}
	r = m
	if n == 1 {
		if r, err = s.sniff(f, m); err != nil {
			return Part{}, err
		}
	}
	p, err := s.store.PutPart(ctx, f.Key, f.Session.Upload, n, r, size)
	if errors.Is(err, errSize) {
		err = errPartSize.Because(err)
	}
	return p, err
}

// expect checks the number and size of a part before it is read, and returns
// what it must have, -1 where that is not known.
func (s *Service) expect(f File, n int, size int64) (int64, error) {
	u := uploadOf(f)
	if err := checkPartNumber(n); err != nil {
		return 0, err
	}
	count := u.Count()
	if count >= 0 && n > count {
		return 0, errPartNumber
	}
	if count < 0 && int64(n-1)*u.PartSize+max(size, 0) > s.limit(f.Owner, f.Access, u.Type) {
		return 0, errFileTooLarge
	}
	want := u.partSizeOf(n)
	if size > u.PartSize || size >= 0 && want >= 0 && size != want {
		return 0, errPartSize
	}
	return max(size, want), nil
}

// sniff refuses a first part whose bytes are of a type that is not taken.
func (s *Service) sniff(f File, r io.Reader) (io.Reader, error) {
	head := make([]byte, sniffSize)
	n, err := fill(r, head)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if err := s.judgeHead(f, head[:n]); err != nil {
		return nil, err
	}
	return io.MultiReader(bytes.NewReader(head[:n]), r), nil
}

// judgeHead refuses an upload whose first bytes are of a type that is not
// taken, or not of the declared size.
func (s *Service) judgeHead(f File, head []byte) error {
	found := mimetype.Detect(head)
	if err := s.judge(f, f.Session.Type, found); err != nil {
		return err
	}
	if f.Session.Size > s.limit(f.Owner, f.Access, found.String()) {
		return errFileTooLarge
	}
	return nil
}

// partMeter measures a part while it passes.
type partMeter struct {
	r     io.Reader
	left  int64
	bytes prometheus.Counter
}

// Read implements io.Reader.
func (m *partMeter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.left -= int64(n); m.left < 0 {
		return 0, errPartSize
	}
	m.bytes.Add(float64(n))
	return n, err
}
