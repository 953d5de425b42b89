package testdeps

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// S3 is how to reach an S3 server of one test.
type S3 struct {
	Endpoint  string // host:port, plain HTTP; it stays the same over Restart
	AccessKey string
	SecretKey string
	Bucket    string // exists and is empty
	Region    string
}

// MinIOServer is a MinIO server of one test. Its objects outlive a Restart.
type MinIOServer struct {
	S3
	server
}

// MinIO starts an S3 server and returns how to reach it.
func MinIO(t testing.TB) S3 {
	t.Helper()
	return StartMinIO(t).S3
}

// StartMinIO starts an S3 server for tests that stop, kill or restart it.
func StartMinIO(t testing.TB) *MinIOServer {
	t.Helper()
	path := minioBinary(t)
	s := &MinIOServer{
		S3:     S3{AccessKey: "minigate-test", SecretKey: "minigate-test-secret", Bucket: "minigate", Region: "us-east-1"},
		server: server{t: t, dir: t.TempDir()},
	}
	data := filepath.Join(s.dir, "data")
	// To MinIO a directory beside its own is a bucket.
	if err := os.MkdirAll(filepath.Join(data, s.Bucket), 0o700); err != nil {
		t.Fatal(err)
	}
	s.ready = func(int) error { return minioReady(s.Endpoint) }
	s.startOnFreePort(func(port int) {
		s.Endpoint = loopback(port)
		s.command = func() *exec.Cmd {
			cmd := exec.Command(path, "server", "--quiet", "--address", s.Endpoint, data)
			cmd.Env = append(os.Environ(), "HOME="+s.dir, "MINIO_BROWSER=off", "MINIO_UPDATE=off",
				"MINIO_ROOT_USER="+s.AccessKey, "MINIO_ROOT_PASSWORD="+s.SecretKey, "MINIO_REGION="+s.Region)
			return cmd
		}
	})
	return s
}

// minioReady asks whether the server takes reads and writes.
func minioReady(endpoint string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+endpoint+"/minio/health/cluster", http.NoBody)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true} // leaves no goroutine behind
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // only the status counts
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("minio at %s answers %s", endpoint, resp.Status)
	}
	return nil
}
