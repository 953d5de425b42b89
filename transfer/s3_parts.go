package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/minigate/minigate/internal/fault"
)

// putUnknown sends a source in parts, each from memory of the common budget:
// one is filled while the one before is being sent.
func (s *S3) putUnknown(ctx context.Context, key string, src *source) error {
	p, err := s.buffers.fill(ctx, src)
	if err == io.EOF {
		return s.putPart(ctx, key, p)
	}
	if err != nil {
		return err
	}
	o := s.fresh()
	id, err := s.core.NewMultipartUpload(ctx, s.settings.Bucket, key, minio.PutObjectOptions{ContentType: objectType, UserMetadata: o.UserMetadata})
	if err != nil {
		p.release()
		return err
	}
	u := &s3Upload{S3: s, key: key, id: id, options: o}
	if err = u.send(ctx, src, p); err == nil {
		err = u.complete(ctx, src.n)
	}
	if err != nil {
		s.abortLater(ctx, key, id)
	}
	return err
}

// s3Upload is one multipart upload.
type s3Upload struct {
	*S3
	key, id string
	options minio.PutObjectOptions
	sent    []minio.CompletePart // in order, since parts are sent one by one
}

// send sends first and all that follows in src.
func (u *s3Upload) send(ctx context.Context, src *source, first *part) error {
	group, sending := errgroup.WithContext(ctx)
	group.SetLimit(1) // the part being filled is the second one in memory
	next, err := first, error(nil)
	for err == nil || (err == io.EOF && next != nil && next.size > 0) {
		p, last := next, err == io.EOF
		group.Go(func() error { return u.sendPart(sending, p) })
		if next = nil; last {
			break
		}
		next, err = u.buffers.fill(sending, src)
	}
	if next != nil {
		next.release() // empty: the source ended with the part before
	}
	if failed := group.Wait(); failed != nil {
		return failed // which cancelled the filling
	}
	if err == io.EOF {
		return nil
	}
	return err
}

func (u *s3Upload) sendPart(ctx context.Context, p *part) error {
	defer p.release()
	n := len(u.sent) + 1
	if n > maxParts {
		return errFileTooLarge
	}
	sent, err := u.sendTo(ctx, u.key, u.id, n, p)
	if err != nil {
		return err
	}
	u.sent = append(u.sent, minio.CompletePart{PartNumber: n, ETag: sent.ETag})
	return nil
}

// complete makes the parts an object of size bytes. The answer alone is not
// believed: some servers confirm objects that do not exist.
func (u *s3Upload) complete(ctx context.Context, size int64) error {
	_, err := u.core.CompleteMultipartUpload(ctx, u.settings.Bucket, u.key, u.id, u.sent, u.options)
	return u.confirm(ctx, u.key, u.options, size, err)
}

// confirm finds out whether an object was stored, whatever the answer err to
// that: one that was lost is followed by a retry that cannot succeed.
func (s *S3) confirm(ctx context.Context, key string, o minio.PutObjectOptions, size int64, err error) error {
	info, serr := s.core.StatObject(ctx, s.settings.Bucket, key, minio.StatObjectOptions{})
	switch {
	case serr == nil && info.Size == size && info.UserMetadata[tokenName] == o.UserMetadata[tokenName]:
		return nil
	case err != nil:
		return err
	case serr != nil:
		return serr
	}
	return fault.New(fault.Upstream, "storage_damaged", "The file storage did not keep the file.").
		Because(fmt.Errorf("%d of %d bytes stored", info.Size, size))
}

// abortLater frees the parts of an upload that failed, maybe because ctx ended.
func (s *S3) abortLater(ctx context.Context, key, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	if err := s.core.AbortMultipartUpload(ctx, s.settings.Bucket, key, id); err != nil {
		slog.WarnContext(ctx, "parts of a failed upload stay in the storage until they are swept", "key", key, "error", err)
	}
}

// abortAll frees the parts of every unfinished upload of key. Servers differ
// in what ListMultipartUploads finds, but all know the exact key.
func (s *S3) abortAll(ctx context.Context, key string) error {
	list, err := s.core.ListMultipartUploads(ctx, s.settings.Bucket, key, "", "", "", 1000)
	if e, ok := errors.AsType[minio.ErrorResponse](err); ok && (e.Code == minio.NotImplemented || e.Code == minio.AccessDenied) {
		return nil // such a bucket needs a lifecycle rule that drops them
	}
	if err != nil {
		return err
	}
	for _, u := range list.Uploads {
		if u.Key != key {
			continue
		}
		err := s.core.AbortMultipartUpload(ctx, s.settings.Bucket, key, u.UploadID)
		if e, ok := errors.AsType[minio.ErrorResponse](err); err != nil && (!ok || e.Code != minio.NoSuchUpload) {
			return err
		}
	}
	return nil
}
