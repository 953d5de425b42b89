package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

// noise is n bytes that no compression or deduplication helps with.
func noise(n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{1}), n)
}

// TestOneGigabyte sends 1 GB up and down and looks at the memory it took.
func TestOneGigabyte(t *testing.T) {
	const size, limit = int64(1e9), int64(128 << 20)
	sum := sha256.New()
	_, _ = io.Copy(sum, noise(size))
	want := hex.EncodeToString(sum.Sum(nil))

	s3 := testdeps.MinIO(t)
	for name, files := range map[string]string{
		"folder": "files:\n  max_size: 2GiB\n",
		"s3": fmt.Sprintf("files:\n  max_size: 2GiB\n  store: s3\n  s3: {endpoint: %q, bucket: big, create_bucket: true, secure: false, access_key: %s, secret_key: %s}\n",
			s3.Endpoint, s3.AccessKey, s3.SecretKey),
	} {
		t.Run(name, func(t *testing.T) {
			sim, wechatURL := simulator(t)
			p := startServe(t, baseConfig(t, wechatURL)+files)
			me := login(t, p.Public, sim.NewCode(testAppID, "alice"))

			began := time.Now()
			file := upload(t, p.Public, me.Token, "big.bin", noise(size))
			up := time.Since(began)
			if file.SHA256 != want || file.Size != size {
				t.Fatalf("upload was answered %+v, want sha256 %s", file, want)
			}
			began = time.Now()
			if got := downloadSum(t, p.Public+"/files/"+file.ID, me.Token); got != want {
				t.Fatalf("downloaded bytes hash to %s, want %s", got, want)
			}
			rss := p.peakRSS(t)
			t.Logf("1 GB through %s: up %v, down %v, peak RSS %d MiB", name, up.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), rss>>20)
			if rss > limit {
				t.Errorf("peak RSS %d MiB, limit %d MiB", rss>>20, limit>>20)
			}
		})
	}
}

func downloadSum(t testing.TB, url, token string) string {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, res.Body); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("download: status %d, %v", res.StatusCode, err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
