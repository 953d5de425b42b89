package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/testdeps"
)

// TestSDKUploads drives large files by our own SDK on uni-h5's wx, while the
// node is killed in the middle, into a folder and straight to an S3 server. What
// comes back in pieces comes from minigate, also where others are sent on.
func TestSDKUploads(t *testing.T) {
	t.Run("folder", func(t *testing.T) {
		testSDKUploads(t, "files:\n  part_size: 256KiB\n", 256<<10, "gateway")
	})
	t.Run("s3", func(t *testing.T) {
		testSDKUploads(t, s3Files(testdeps.MinIO(t))+"    direct: true\n    redirect: true\n", 5<<20, "storage")
	})
}

// s3Files are the settings of files in an S3 server.
func s3Files(srv testdeps.S3) string {
	return fmt.Sprintf("files:\n  store: s3\n  s3:\n    endpoint: %s\n    region: %s\n    bucket: %s\n    access_key: %s\n    secret_key: %s\n    secure: false\n",
		srv.Endpoint, srv.Region, srv.Bucket, srv.AccessKey, srv.SecretKey)
}

func testSDKUploads(t *testing.T, files string, partSize int, target string) {
	_, wechatURL := simulator(t)
	config := baseConfig(t, wechatURL) + files
	p := startServe(t, config)
	config = strings.Replace(config, "listen: 127.0.0.1:0", "listen: "+strings.TrimPrefix(p.Public, "http://"), 1)
	waitDirect(t, p, target)
	again := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		p.kill()
		p = startServe(t, config)
	}))
	defer again.Close()
	t.Log(runNode(t, "uploads-sdk.mjs", append(clientEnv(t, p, wechatURL, p.Public),
		"RESTART_URL="+again.URL, fmt.Sprint("PART_SIZE=", partSize), "TARGET="+target)...))
}

// waitDirect waits until a node has tried its storage.
func waitDirect(t *testing.T, p *program, target string) {
	t.Helper()
	if target == "gateway" {
		return
	}
	eventually(t, "the storage takes direct uploads", func() bool {
		return strings.Count(p.Output(), "the storage takes direct uploads") == 2
	})
}
