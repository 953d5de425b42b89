package testdeps

import (
	"bytes"
	"crypto/rand"
	"io"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

func s3Client(t *testing.T, s S3) *minio.Client {
	t.Helper()
	c, err := minio.New(s.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""), Region: s.Region, MaxRetries: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMinIOKeepsObjectsOverRestart(t *testing.T) {
	var endpoint string
	t.Run("test", func(t *testing.T) {
		tests := []struct {
			name string
			end  func(*MinIOServer)
		}{
			{"stop", func(s *MinIOServer) { s.Stop() }},
			{"kill", func(s *MinIOServer) { s.Kill() }},
		}
		s := StartMinIO(t)
		endpoint = s.Endpoint
		client := s3Client(t, s.S3)
		if ok, err := client.BucketExists(t.Context(), s.Bucket); err != nil || !ok {
			t.Fatalf("bucket %s exists: %v, %v", s.Bucket, ok, err)
		}
		want := make([]byte, 6<<20)
		_, _ = rand.Read(want) // never fails
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				// A part size below the object's size makes this a multipart upload.
				if _, err := client.PutObject(t.Context(), s.Bucket, tt.name, bytes.NewReader(want), int64(len(want)),
					minio.PutObjectOptions{PartSize: 5 << 20}); err != nil {
					t.Fatal(err)
				}
				tt.end(s)
				if err := dialable(s.Endpoint); err == nil {
					t.Fatalf("minio at %s still accepts", s.Endpoint)
				}
				s.Restart()
				object, err := client.GetObject(t.Context(), s.Bucket, tt.name, minio.GetObjectOptions{})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = object.Close() }()
				got, err := io.ReadAll(object)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("got %d other bytes back than the %d stored", len(got), len(want))
				}
			})
		}
	})
	if err := dialable(endpoint); err == nil {
		t.Errorf("minio at %s outlived its test", endpoint)
	}
}
