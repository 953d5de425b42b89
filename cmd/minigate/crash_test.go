package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestKilledDuringUpload kills the process in the middle of an upload and
// starts it again on the same data directory.
func TestKilledDuringUpload(t *testing.T) {
	sim, wechatURL := simulator(t)
	config := baseConfig(t, wechatURL) + "files:\n  sweep_interval: 1s\n"
	data := regexp.MustCompile(`(?m)^data: (.*)$`).FindStringSubmatch(config)[1]
	p := startServe(t, config)
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	var others []loginAnswer
	for i := range 50 {
		others = append(others, login(t, p.Public, sim.NewCode(testAppID, fmt.Sprint("user", i))))
	}
	whole := upload(t, p.Public, me.Token, "whole.txt", strings.NewReader("kept"))

	// Half of a second file is on its way, and on disk, when the process dies.
	half := make(chan struct{})
	body, feed := io.Pipe()
	go func() {
		defer close(half)
		req := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"half.bin\"\r\n\r\n"
		_, _ = feed.Write(append([]byte(req), bytes.Repeat([]byte("x"), 8<<20)...))
	}()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		req := newRequest("POST", p.Public+"/files", me.Token, body)
		req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		if res, err := client.Do(req); err == nil {
			_ = res.Body.Close()
		}
	}()
	eventually(t, "half of the upload is on disk", func() bool { return diskUsage(t, data) > 4<<20 })
	p.kill()
	_ = feed.Close()
	<-half
	<-gone

	began := time.Now()
	p = startServe(t, config)
	t.Logf("ready %v after the restart", time.Since(began).Round(time.Millisecond))
	for _, other := range others {
		if status, _ := callRaw(t, "GET", p.Public+"/auth/session", bearer(other.Token), nil); status != 200 {
			t.Errorf("a session is gone: status %d", status)
		}
	}
	if status, _ := callRaw(t, "GET", p.Public+"/auth/session", bearer(me.Token), nil); status != 200 {
		t.Errorf("the session is gone: status %d", status)
	}
	if status, got := callRaw(t, "GET", p.Public+"/files/"+whole.ID, bearer(me.Token), nil); status != 200 || string(got) != "kept" {
		t.Errorf("the file is gone: status %d, %q", status, got)
	}
	eventually(t, "the space of the half upload is reclaimed", func() bool { return diskUsage(t, data) < 2<<20 })
}

// diskUsage sums the files below dir, the database aside.
func diskUsage(t testing.TB, dir string) int64 {
	t.Helper()
	var sum int64
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".db") {
			return nil // files come and go while we look
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
