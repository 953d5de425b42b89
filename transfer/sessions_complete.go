package transfer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"

	"github.com/gabriel-vasile/mimetype"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

var errPartsMissing = fault.New(fault.Conflict, "parts_missing", "Parts of this upload are missing.")

// Complete makes the parts of an upload a file, which is Ready and announced, or
// Checking, when this returns. It may be called again, at the same time as well, and
// answers the same file. It goes on when ctx ends, so that a client that lost
// patience finds the file when it asks again.
//
// Faults: NotFound `upload_not_found`; Gone `upload_expired`; Conflict
// `parts_missing` (which names them), `parts_changed`, where the upload goes
// on; Invalid `checksum_mismatch`, Unsupported `type_not_allowed`,
// `type_mismatch`, TooLarge `file_too_large`, and those of quotas as of Begin
// where the size was not declared, after which it is gone; those of the ledger
// and the store, after which it can be completed again.
func (s *Service) Complete(ctx context.Context, user auth.User, id string) (File, error) {
	if _, err := s.session(ctx, user, id); err != nil {
		return File{}, err
	}
	return s.finishOnce(ctx, id, func(ctx context.Context) (File, error) {
		f, err := s.session(ctx, user, id)
		if err != nil || f.kept() {
			return f, err
		}
		return s.finish(ctx, f)
	})
}

// finishOnce is what has to be done once for an upload on this node, however
// many ask for it.
func (s *Service) finishOnce(ctx context.Context, id string, do func(ctx context.Context) (File, error)) (File, error) {
	f, err, _ := s.completing.Do(id, func() (any, error) {
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), s.settings.PendingTTL, errTooSlow)
		defer cancel()
		return do(ctx)
	})
	return f.(File), err
}

// finish makes a pending upload a file.
func (s *Service) finish(ctx context.Context, f File) (_ File, err error) {
	if f.posted() {
		defer func() {
			if err == nil {
				s.unpost(ctx, f)
			}
		}()
	}
	end := s.metrics.begin("upload")
	defer func() { end(err) }()
	object, err := s.assemble(ctx, f)
	if errors.Is(err, errSize) {
		s.discard(ctx, f)
	}
	if err != nil {
		return File{}, err
	}
	if f.Size = object.Size; f.Size == 0 {
		f.SHA256 = emptySum
	}
	if err := s.inspectObject(ctx, &f); err != nil {
		if e := fault.Of(err); e.Kind == fault.Invalid || e.Kind == fault.Unsupported || e.Kind == fault.TooLarge {
			s.discard(ctx, f)
		}
		return File{}, err
	}
	s.arrived(&f)
	s.setAccess(&f, f.Access) // its time begins now
	if err := s.ledger.Commit(ctx, f, s.quota()); err != nil {
		if errors.Is(err, errQuota) || errors.Is(err, errDaily) {
			s.discard(ctx, f)
		}
		return s.notCommitted(ctx, f, err)
	}
	f.Whole = true
	s.became(ctx, f)
	return f, nil
}

// notCommitted finds out what became of an upload that could not be committed.
func (s *Service) notCommitted(ctx context.Context, f File, err error) (File, error) {
	if !errors.Is(err, errFileState) && !errors.Is(err, errNoFile) {
		return File{}, err // may be completed again
	}
	now, gone := s.ledger.Get(ctx, f.ID)
	switch {
	case gone == nil && now.kept():
		return now, nil // by another node
	case gone == nil || errors.Is(gone, errNoFile):
		// It was aborted, or expired, while its parts became an object.
		if err := s.store.Delete(ctx, f.Key); err != nil {
			slog.WarnContext(ctx, "the bytes of an upload that was aborted stay in the storage", "key", f.Key, "error", err)
		}
		return File{}, errNoUpload.Because(err)
	}
	return File{}, gone
}

// assemble makes an object of the parts of f.
func (s *Service) assemble(ctx context.Context, f File) (Object, error) {
	switch {
	case f.posted():
		return s.adopt(ctx, f)
	case f.Session.Size == 0:
		return s.assembleNothing(ctx, f)
	}
	object, err := s.join(ctx, f)
	if errors.Is(err, errNoUpload) || errors.Is(err, errPartsMissing) || errors.Is(err, errParts) {
		// Somebody was here before, and did not get as far as the commit. While a
		// storage is at it, it may not list all parts, or not take them.
		if size, gone := s.store.Stat(ctx, f.Key); gone == nil && (f.Session.Size < 0 || f.Session.Size == size) {
			return Object{Size: size}, nil
		}
	}
	return object, err
}

// join has the storage make an object of the parts that it has of f.
func (s *Service) join(ctx context.Context, f File) (_ Object, err error) {
	u := uploadOf(f)
	if u.Parts, err = s.store.Parts(ctx, f.Key, f.Session.Upload); err != nil {
		return Object{}, err
	}
	if missing := u.Missing(); len(missing) > 0 {
		e := *errPartsMissing
		e.Msg = "Parts are missing, or not whole: " + spans(missing) + "."
		return Object{}, &e
	}
	if count := u.Count(); count >= 0 {
		u.Parts = u.Parts[:count] // more could only come before the size was declared
	}
	if u.Received() > s.limit(f.Owner, f.Access, "") {
		return Object{}, errFileTooLarge
	}
	return s.store.Complete(ctx, f.Key, f.Session.Upload, u.Parts)
}

// assembleNothing stores an empty file, which has no parts.
func (s *Service) assembleNothing(ctx context.Context, f File) (Object, error) {
	_, err := s.store.Put(ctx, f.Key, strings.NewReader(""), 0)
	if err != nil && !errors.Is(err, errObjectTaken) {
		return Object{}, err
	}
	return Object{}, s.store.Abort(ctx, f.Key, f.Session.Upload)
}

const emptySum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// inspectObject finds the type of a file in its bytes, and checks them against
// what was declared. Where a checksum was, they are read once more: nobody has
// seen them in their order.
func (s *Service) inspectObject(ctx context.Context, f *File) error {
	if want := (Sums{f.Session.SHA256, f.Session.CRC32C}); !want.none() {
		sum := newSummer(want)
		if err := s.readObject(ctx, f.Key, 0, -1, sum); err != nil {
			return err
		}
		if err := want.check(sum.sums()); err != nil {
			return err
		}
		f.SHA256 = cmp.Or(want.SHA256, f.SHA256)
	}
	var head bytes.Buffer
	if err := s.readObject(ctx, f.Key, 0, min(f.Size, sniffSize), &head); err != nil {
		return err
	}
	found := mimetype.Detect(head.Bytes())
	f.Type = found.String()
	if f.Name == "" {
		f.Name = pickName(f.Type)
	}
	if f.Size > s.limit(f.Owner, f.Access, f.Type) {
		return errFileTooLarge
	}
	return s.judge(*f, f.Session.Type, found)
}

// readObject copies a part of an object to w, which never fails.
func (s *Service) readObject(ctx context.Context, key string, offset, length int64, w io.Writer) error {
	content, err := s.store.Open(ctx, key, offset, length)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }() // only read
	if _, err := io.Copy(w, newSource(ctx, content, -1)); err != nil {
		return errStoreAway.Because(err)
	}
	return nil
}
