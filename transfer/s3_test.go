package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/testdeps"
)

// inFront serves handler as an S3 server in place of the one in srv; toMinIO
// passes a request on to that.
func inFront(t *testing.T, srv testdeps.S3, handler func(w http.ResponseWriter, r *http.Request, toMinIO http.Handler)) testdeps.S3 {
	t.Helper()
	target := &url.URL{Scheme: "http", Host: srv.Endpoint}
	transport := &http.Transport{}
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // which is signed
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler(w, r, proxy) }))
	t.Cleanup(func() {
		front.Close()
		transport.CloseIdleConnections()
	})
	srv.Endpoint = front.Listener.Addr().String()
	return srv
}

func unfinishedParts(t *testing.T, s *S3, key string) int {
	t.Helper()
	list, err := s.core.ListMultipartUploads(t.Context(), s.settings.Bucket, key, "", "", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Uploads)
}

func TestS3DeleteFreesParts(t *testing.T) {
	s := newTestS3(t, testdeps.MinIO(t))
	for range 2 { // what two killed processes leave
		id, err := s.core.NewMultipartUpload(t.Context(), s.settings.Bucket, "half", minio.PutObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		data := random(partSize)
		if _, err := s.core.PutObjectPart(t.Context(), s.settings.Bucket, "half", id, 1, bytes.NewReader(data), partSize, minio.PutObjectPartOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := unfinishedParts(t, s, "half"); n != 2 {
		t.Fatalf("%d unfinished uploads, want 2", n)
	}
	if err := s.Delete(t.Context(), "half"); err != nil {
		t.Fatal(err)
	}
	if n := unfinishedParts(t, s, "half"); n != 0 {
		t.Errorf("%d unfinished uploads left", n)
	}
}

func TestS3FailureInTheMiddle(t *testing.T) {
	srv := testdeps.MinIO(t)
	var broken atomic.Bool
	s := newTestS3(t, inFront(t, srv, func(w http.ResponseWriter, r *http.Request, toMinIO http.Handler) {
		if broken.Load() && r.URL.Query().Get("partNumber") == "2" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		toMinIO.ServeHTTP(w, r)
	}))
	broken.Store(true)
	data := random(3*partSize + 1)
	if _, err := s.Put(t.Context(), "k", bytes.NewReader(data), -1); !isKind(err, fault.Unavailable) {
		t.Errorf("Put: %v", err)
	}
	wantNothing(t, s, "k")
	if n := unfinishedParts(t, s, "k"); n != 0 {
		t.Errorf("%d unfinished uploads left", n)
	}
	if s.buffers.spare != 3*partChunks {
		t.Errorf("%d chunks are back", s.buffers.spare)
	}
	broken.Store(false)
	if _, err := s.Put(t.Context(), "k", bytes.NewReader(data), -1); err != nil {
		t.Error(err)
	}
}

// The object is complete, but the answer that says so is lost; the retry finds
// the object in its way, or no upload any more.
func TestS3LostAnswers(t *testing.T) {
	var lost atomic.Int32
	s := newTestS3(t, inFront(t, testdeps.MinIO(t), func(w http.ResponseWriter, r *http.Request, toMinIO http.Handler) {
		last := r.Method == http.MethodPut && r.URL.RawQuery == "" || r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
		if last && lost.Add(1)%2 == 1 {
			toMinIO.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		toMinIO.ServeHTTP(w, r)
	}))
	for key, data := range map[string][]byte{"one": random(1000), "parts": random(partSize + 1)} {
		for _, conditional := range []bool{true, false} {
			s.settings.ConditionalWrites = conditional
			key := fmt.Sprint(key, conditional)
			if n, err := s.Put(t.Context(), key, bytes.NewReader(data), -1); err != nil || n != int64(len(data)) {
				t.Errorf("%s: Put = %d, %v", key, n, err)
			}
			if got := readAll(t, s, key, 0, -1); !bytes.Equal(got, data) {
				t.Errorf("%s: %d other bytes", key, len(got))
			}
		}
	}
	if lost.Load() != 8 {
		t.Errorf("%d tries, want 8", lost.Load())
	}
}

// A server that confirms what it does not have is not believed.
func TestS3LyingServer(t *testing.T) {
	s := newTestS3(t, inFront(t, testdeps.MinIO(t), func(w http.ResponseWriter, r *http.Request, toMinIO http.Handler) {
		if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") {
			_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><ETag>"x"</ETag></CompleteMultipartUploadResult>`)
			return
		}
		toMinIO.ServeHTTP(w, r)
	}))
	if _, err := s.Put(t.Context(), "k", bytes.NewReader(random(partSize+1)), -1); err == nil {
		t.Error("an object that does not exist was confirmed")
	}
}

// Servers may answer before they have read the body, and net/http may go on
// reading it then. The race detector watches the memory.
func TestS3EarlyAnswers(t *testing.T) {
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost:
			_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>1</UploadId></InitiateMultipartUploadResult>`)
		case http.MethodPut:
			w.WriteHeader(http.StatusForbidden)
		case http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	defer front.Close()
	s := newTestS3(t, testdeps.S3{Endpoint: front.Listener.Addr().String(), Region: "r", Bucket: "bucket", AccessKey: "a", SecretKey: "s"})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			size := []int64{-1, partSize / 2, 2 * partSize, -1}[i%4]
			n := []int64{2 * partSize, partSize / 2, 2 * partSize, 1000}[i%4]
			var returned atomic.Bool
			data := bytes.NewReader(random(int(n)))
			_, err := s.Put(t.Context(), fmt.Sprint(i), readerFunc(func(p []byte) (int, error) {
				if returned.Load() {
					t.Errorf("%d: read after Put returned", i)
				}
				return data.Read(p)
			}), size)
			returned.Store(true)
			if !errors.Is(err, errStoreRefuses) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// Slow clients that say how much is coming hold what they have sent and no
// more, so that a few of them keep nobody out.
func TestS3SlowClients(t *testing.T) {
	s := newTestS3(t, testdeps.MinIO(t))
	s.buffers.wait = time.Second
	const slow = 12
	asked, more := make(chan struct{}, slow), make(chan struct{})
	data := random(partSize)
	var wg sync.WaitGroup
	for i := range slow {
		wg.Go(func() {
			pause := readerFunc(func([]byte) (int, error) { asked <- struct{}{}; <-more; return 0, io.EOF })
			r := io.MultiReader(bytes.NewReader(data[:1000]), pause, bytes.NewReader(data[1000:]))
			if _, err := s.Put(t.Context(), fmt.Sprint("slow ", i), r, partSize); err != nil {
				t.Error(err)
			}
		})
	}
	for range slow {
		<-asked
	}
	s.buffers.mu.Lock()
	if s.buffers.spare != 3*partChunks-slow {
		t.Errorf("%d chunks are left", s.buffers.spare)
	}
	s.buffers.mu.Unlock()
	if _, err := s.Put(t.Context(), "unknown", bytes.NewReader(data), -1); err != nil {
		t.Error(err)
	}
	close(more)
	wg.Wait()
	for i := range slow {
		if got := readAll(t, s, fmt.Sprint("slow ", i), 0, -1); !bytes.Equal(got, data) {
			t.Errorf("%d: %d other bytes", i, len(got))
		}
	}
}

// Memory that somebody waits for in the middle of a file is free once what is in
// it was sent, and the rest streams.
func TestS3GivesMemoryUp(t *testing.T) {
	s := newTestS3(t, testdeps.MinIO(t))
	const half = partSize / 2
	data, cut := random(partSize), errors.New("cut")
	for name, rest := range map[string]io.Reader{"whole": bytes.NewReader(data[half+1:]), "cut": iotest.ErrReader(cut)} {
		wanted := readerFunc(func([]byte) (int, error) { s.buffers.await(1); return 0, io.EOF })
		given := readerFunc(func([]byte) (int, error) {
			s.buffers.mu.Lock()
			defer s.buffers.mu.Unlock()
			if s.buffers.spare != 3*partChunks {
				t.Errorf("%s: %d chunks are back", name, s.buffers.spare)
			}
			return 0, io.EOF
		})
		r := io.MultiReader(bytes.NewReader(data[:half]), wanted, bytes.NewReader(data[half:half+1]), given, rest)
		n, err := s.Put(t.Context(), name, r, partSize)
		s.buffers.await(-1)
		if name == "whole" && (err != nil || n != partSize || !bytes.Equal(readAll(t, s, name, 0, -1), data)) {
			t.Errorf("whole: %d bytes, %v", n, err)
		}
		if name == "cut" {
			if !errors.Is(err, cut) {
				t.Errorf("cut: %v", err)
			}
			wantNothing(t, s, name)
		}
	}
}

func TestS3AwayAndBack(t *testing.T) {
	srv := testdeps.StartMinIO(t)
	srv.Stop()
	s := newTestS3(t, srv.S3) // does not mind
	if _, err := s.Put(t.Context(), "k", strings.NewReader("x"), -1); !isKind(err, fault.Unavailable) {
		t.Errorf("Put while away: %v", err)
	}
	if err := s.Ping(t.Context()); !isKind(err, fault.Unavailable) {
		t.Errorf("Ping while away: %v", err)
	}
	srv.Restart()
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "k", strings.NewReader("x"), -1); err != nil {
		t.Error(err)
	}
	srv.Kill()
	if _, err := s.Open(t.Context(), "k", 0, -1); !isKind(err, fault.Unavailable) {
		t.Errorf("Open while away: %v", err)
	}
	srv.Restart()
	if got := readAll(t, s, "k", 0, -1); string(got) != "x" {
		t.Errorf("after the restart: %q", got)
	}
}

func TestS3Configuration(t *testing.T) {
	srv := testdeps.MinIO(t)
	missing := srv
	missing.Bucket = "missing"
	s := newTestS3(t, missing)
	if err := s.Ping(t.Context()); !isKind(err, fault.Unavailable) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("without bucket: %v", err)
	}
	s.settings.CreateBucket = true
	if _, err := s.Put(t.Context(), "k", strings.NewReader("x"), 1); err != nil {
		t.Errorf("create_bucket: %v", err)
	}
	srv.SecretKey = "wrong-secret-key"
	s = newTestS3(t, srv)
	err := s.Ping(t.Context())
	if !errors.Is(err, errStoreRefuses) || strings.Contains(err.Error(), "wrong-secret-key") {
		t.Errorf("wrong key: %v", err)
	}
}

func TestDownloadStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		body := readerFunc(func([]byte) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		d := &download{body: io.NopCloser(body), cancel: cancel, stall: time.AfterFunc(storageStall, cancel)}
		if _, err := d.Read(make([]byte, 1)); err == nil {
			t.Error("no error")
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Memory must not grow with the file, nor with the number of files.
func TestStoreMemory(t *testing.T) {
	const size = 64 << 20
	eachStore(t, func(t *testing.T, s Store) {
		put := func(key string, announced int64) {
			if _, err := s.Put(t.Context(), key, io.LimitReader(iotest.DataErrReader(zeros{}), size), announced); err != nil {
				t.Fatal(err)
			}
		}
		put("first", -1) // fills the pools
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		put("unknown", -1)
		put("known", size)
		runtime.ReadMemStats(&after)
		// minio-go signs chunk by chunk, which makes some garbage.
		if used := after.TotalAlloc - before.TotalAlloc; used > size/2 {
			t.Errorf("%d MiB allocated for 2 files of 64 MiB", used>>20)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
