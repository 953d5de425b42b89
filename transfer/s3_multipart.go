package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/minio/minio-go/v7"
)

// minPart is what S3 wants in every part but the last.
const minPart = 5 << 20

// MinPart implements Store.
func (s *S3) MinPart() int64 { return minPart }

// Begin implements Store. The id that S3 gives stands behind a token of ours,
// by which Complete knows the object again.
func (s *S3) Begin(ctx context.Context, key string, size int64) (string, error) {
	if size < minPart || size > partSize {
		return "", errPartSize.Because(fmt.Errorf("parts of %d bytes", size))
	}
	if !s.ready.Load() {
		if err := s.Ping(ctx); err != nil {
			return "", err
		}
	}
	o := s.fresh()
	id, err := s.core.NewMultipartUpload(ctx, s.settings.Bucket, key, minio.PutObjectOptions{ContentType: objectType, UserMetadata: o.UserMetadata})
	if err != nil {
		return "", partsFault(err)
	}
	return o.UserMetadata[tokenName] + "." + id, nil
}

// options are those of the Begin that returned upload, and the id of S3.
func (s *S3) options(upload string) (o minio.PutObjectOptions, id string) {
	token, id, _ := strings.Cut(upload, ".")
	o = s.fresh()
	o.UserMetadata = map[string]string{tokenName: token}
	return o, id
}

// PutPart implements Store. A part is sent from memory once all of it is
// there: some servers keep what they got of a part whose connection breaks. A
// lease is in memory already.
func (s *S3) PutPart(ctx context.Context, key, upload string, n int, r io.Reader, size int64) (Part, error) {
	if err := checkPartNumber(n); err != nil {
		return Part{}, err
	}
	if size > partSize {
		return Part{}, errPartSize
	}
	if l, ok := r.(*lease); ok {
		return s.sendPart(ctx, key, upload, n, l.part)
	}
	src := newSource(ctx, r, size)
	p, err := s.buffers.fill(ctx, src)
	if err == nil && atEnd(src) != io.EOF { // one part is full; is there more?
		p.release()
		err = errPartSize
	}
	if cause := src.failure(); cause != nil {
		return Part{}, cause
	}
	if err != nil && err != io.EOF {
		return Part{}, err
	}
	defer p.release()
	return s.sendPart(ctx, key, upload, n, p)
}

func (s *S3) sendPart(ctx context.Context, key, upload string, n int, p *part) (Part, error) {
	_, id := s.options(upload)
	sent, err := s.sendTo(ctx, key, id, n, p)
	if err != nil {
		return Part{}, partsFault(err)
	}
	return Part{N: n, Size: p.size, Tag: sent.ETag}, nil
}

// Parts implements Store.
func (s *S3) Parts(ctx context.Context, key, upload string) (parts []Part, err error) {
	_, id := s.options(upload)
	for marker := 0; ; {
		page, err := s.core.ListObjectParts(ctx, s.settings.Bucket, key, id, marker, 1000)
		if err != nil {
			return nil, partsFault(err)
		}
		for _, p := range page.ObjectParts {
			parts = append(parts, Part{N: p.PartNumber, Size: p.Size, Tag: strings.Trim(p.ETag, `"`)})
		}
		if !page.IsTruncated || page.NextPartNumberMarker <= marker {
			return parts, nil
		}
		marker = page.NextPartNumberMarker
	}
}

// Complete implements Store.
func (s *S3) Complete(ctx context.Context, key, upload string, parts []Part) (Object, error) {
	size, err := sizeOf(parts)
	if err != nil {
		return Object{}, err
	}
	o, id := s.options(upload)
	u := &s3Upload{S3: s, key: key, id: id, options: o}
	for _, p := range parts {
		u.sent = append(u.sent, minio.CompletePart{PartNumber: p.N, ETag: p.Tag})
	}
	if err := u.complete(ctx, size); err != nil {
		return Object{}, partsFault(err)
	}
	return Object{Size: size}, nil
}

// Abort implements Store.
func (s *S3) Abort(ctx context.Context, key, upload string) error {
	_, id := s.options(upload)
	err := partsFault(s.core.AbortMultipartUpload(ctx, s.settings.Bucket, key, id))
	if errors.Is(err, errNoUpload) {
		return nil
	}
	return err
}

// partsFault is s3Fault where what is missing is an upload in parts.
func partsFault(err error) error {
	e, ok := errors.AsType[minio.ErrorResponse](err)
	switch {
	case ok && e.Code == minio.NoSuchUpload:
		return errNoUpload.Because(fmt.Errorf("%s: %s", e.Code, e.Message))
	case ok && (e.Code == minio.InvalidPart || e.Code == "InvalidPartOrder" || e.Code == minio.EntityTooSmall):
		return errParts.Because(fmt.Errorf("%s: %s", e.Code, e.Message))
	}
	return s3Fault(err)
}

// sendTo sends p as part n of an upload.
func (s *S3) sendTo(ctx context.Context, key, id string, n int, p *part) (minio.ObjectPart, error) {
	o := minio.PutObjectPartOptions{DisableContentSha256: !s.settings.SignContent}
	if p.size == 0 { // minio-go wants a body that it knows to be empty
		return s.core.PutObjectPart(ctx, s.settings.Bucket, key, id, n, bytes.NewReader(nil), 0, o)
	}
	body := &lease{part: p}
	defer body.end()
	return s.core.PutObjectPart(ctx, s.settings.Bucket, key, id, n, body, p.size, o)
}
