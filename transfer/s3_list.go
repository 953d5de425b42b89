package transfer

import (
	"context"
	"net/url"
	"time"

	"github.com/minio/minio-go/v7"
)

// List implements Store, with one request for up to 999 objects. Its places are
// keys.
func (s *S3) List(ctx context.Context, after string, limit int) ([]Object, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the iteration where it is left early
	var objects []Object
	for o := range s.core.ListObjectsIter(ctx, s.settings.Bucket, minio.ListObjectsOptions{
		Recursive: true, StartAfter: after, MaxKeys: min(limit+1, 1000),
	}) {
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		if o.Err != nil {
			return nil, "", s3Fault(o.Err)
		}
		if len(objects) == limit {
			return objects, objects[limit-1].Key, nil
		}
		objects = append(objects, Object{Key: o.Key, Size: o.Size, Modified: o.LastModified})
	}
	return objects, "", ctx.Err()
}

// Address implements Store: a presigned GET.
func (s *S3) Address(ctx context.Context, key string, p Presented) (string, error) {
	if !s.settings.Redirect {
		return "", nil
	}
	as := url.Values{}
	as.Set("response-content-type", p.Type)
	as.Set("response-content-disposition", p.Disposition)
	left := time.Until(p.Until).Truncate(time.Second)
	if left < time.Second {
		left = time.Second // S3 knows nothing shorter
	}
	u, err := s.signer.PresignedGetObject(ctx, s.settings.Bucket, key, left, as)
	if err != nil {
		return "", s3Fault(err)
	}
	return u.String(), nil
}
