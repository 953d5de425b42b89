package transfer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// postName is the field that S3 wants the file in.
const postName = "file"

// newSigner makes the client that signs what phones send. It makes no request
// itself: what it signs has to name the host that the phone will use, and with
// the region known it needs to ask nobody.
func newSigner(s S3Settings) (*minio.Client, error) {
	endpoint, secure := s.Endpoint, s.Secure
	if u, err := url.Parse(s.PublicURL); err == nil && u.Host != "" {
		endpoint, secure = u.Host, u.Scheme == "https"
	}
	signer, err := minio.New(endpoint, &minio.Options{
		Creds:  credentials.NewStaticV4(s.AccessKey, s.SecretKey.Value(), ""),
		Secure: secure,
		Region: s.Region,
	})
	if err != nil {
		return nil, fmt.Errorf("S3 storage: %w", err)
	}
	return signer, nil
}

// postForm signs a form (POST policy) for one object of exactly size bytes.
func (s *S3) postForm(ctx context.Context, key, media string, size int64, until time.Time) (*Form, error) {
	return signForm(ctx, s.signer, s.settings.Bucket, key, media, size, until)
}

func signForm(ctx context.Context, signer *minio.Client, bucket, key, media string, size int64, until time.Time) (*Form, error) {
	p := minio.NewPostPolicy()
	err := errors.Join(
		p.SetBucket(bucket),
		p.SetKey(key),
		p.SetContentType(policyType(media)),
		p.SetContentLengthRange(size, size),
		p.SetSuccessStatusAction("200"), // wx does not care, browsers like an answer with a body
		p.SetExpires(until.UTC()),
	)
	if err != nil {
		return nil, errStoreAway.Because(err)
	}
	u, fields, err := signer.PresignedPostPolicy(ctx, p)
	if err != nil {
		return nil, s3Fault(err)
	}
	delete(fields, "bucket") // the address has it
	return &Form{URL: u.String(), Name: postName, Fields: fields}, nil
}

// plainType is a media type without parameters, of characters that mean nothing
// in JSON: policies are not escaped.
var plainType = regexp.MustCompile(`^[a-z0-9][a-z0-9.+_-]{0,62}/[a-z0-9][a-z0-9.+_-]{0,62}$`)

// policyType is what a policy asks for where media was declared.
func policyType(media string) string {
	if media, _, _ = strings.Cut(media, ";"); plainType.MatchString(media) {
		return media
	}
	return objectType
}

// partURL signs the PUT of a part of exactly size bytes.
func (s *S3) partURL(ctx context.Context, key, upload string, n int, size int64, ttl time.Duration) (string, error) {
	_, id := s.options(upload)
	return signPart(ctx, s.signer, s.settings.Bucket, key, id, n, size, ttl)
}

func signPart(ctx context.Context, signer *minio.Client, bucket, key, id string, n int, size int64, ttl time.Duration) (string, error) {
	query := url.Values{"partNumber": {strconv.Itoa(n)}, "uploadId": {id}}
	header := http.Header{"Content-Length": {strconv.FormatInt(size, 10)}}
	u, err := signer.PresignHeader(ctx, http.MethodPut, bucket, key, max(ttl.Truncate(time.Second), time.Second), query, header)
	if err != nil {
		return "", s3Fault(err)
	}
	return u.String(), nil
}

// statPosted returns the size and entity tag of what is posted under key now.
func (s *S3) statPosted(ctx context.Context, key string) (size int64, tag string, err error) {
	info, err := s.core.StatObject(ctx, s.settings.Bucket, key, minio.StatObjectOptions{})
	return info.Size, info.ETag, s3Fault(err)
}

// adopt copies what was posted under from, if it still has this tag, to key. It
// is an upload with one part: other than a plain copy, that one does not
// replace what is there. Conflict: something is, or the tag is another.
func (s *S3) adopt(ctx context.Context, from, tag, key string, size int64) error {
	o := s.fresh()
	id, err := s.core.NewMultipartUpload(ctx, s.settings.Bucket, key, minio.PutObjectOptions{ContentType: objectType, UserMetadata: o.UserMetadata})
	if err != nil {
		return s3Fault(err)
	}
	part, err := s.core.CopyObjectPart(ctx, s.settings.Bucket, from, s.settings.Bucket, key, id, 1, 0, -1,
		map[string]string{"X-Amz-Copy-Source-If-Match": `"` + tag + `"`})
	if err = s3Fault(err); err == nil {
		u := &s3Upload{S3: s, key: key, id: id, options: o, sent: []minio.CompletePart{part}}
		err = s3Fault(u.complete(ctx, size))
	} else if errors.Is(err, errObjectTaken) { // is what S3 means by a condition that fails
		err = errPostChanged.Because(errors.New(err.Error()))
	}
	if err != nil {
		s.abortLater(ctx, key, id)
	}
	return err
}
