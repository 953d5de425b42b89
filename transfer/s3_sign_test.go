package transfer

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/minigate/minigate/internal/testdeps"
)

// TestS3SignContent looks at what goes over the line, of objects and of parts.
func TestS3SignContent(t *testing.T) {
	srv := testdeps.MinIO(t)
	for _, sign := range []bool{true, false} {
		var mu sync.Mutex
		sums := map[string]string{}
		proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: srv.Endpoint})
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				mu.Lock()
				sums[r.URL.Path+r.URL.Query().Get("partNumber")] = r.Header.Get("X-Amz-Content-Sha256")
				mu.Unlock()
			}
			proxy.ServeHTTP(w, r)
		}))
		behind := srv
		behind.Endpoint = strings.TrimPrefix(front.URL, "http://")
		s := newTestS3(t, behind, func(o *S3Settings) { o.SignContent = sign })
		data := random(5000)
		key := "signed"
		if !sign {
			key = "unsigned"
		}
		if _, err := s.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
			t.Fatal(err)
		}
		id := begin(t, s, key+"-parts")
		putPart(t, s, key+"-parts", id, 1, data)
		if _, err := s.Complete(t.Context(), key+"-parts", id, partsOf(t, s, key+"-parts", id)); err != nil {
			t.Fatal(err)
		}
		for path, suffix := range map[string]string{key: "", key + "-parts": "1"} {
			if got := sums["/"+srv.Bucket+"/"+path+suffix]; (got != "UNSIGNED-PAYLOAD") != sign || got == "" {
				t.Errorf("%s, sign %v: %q", path, sign, got)
			}
			if got := readAll(t, s, path, 0, -1); !bytes.Equal(got, data) {
				t.Errorf("%s: %d other bytes came back", path, len(got))
			}
		}
		front.CloseClientConnections()
		front.Close()
	}
}
