package transfer

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/testdeps"
)

// tusClient speaks tus 1.0 by hand.
type tusClient struct {
	*house
	url  string
	user string
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func (h *house) tusCreate(size int, meta string, header ...string) *tusClient {
	h.t.Helper()
	c := &tusClient{house: h}
	a := c.ask("POST", TusPath, "", append([]string{"Upload-Length", strconv.Itoa(size), "Upload-Metadata", meta}, header...)...)
	if c.url = a.Header.Get("Location"); a.StatusCode != http.StatusCreated || !strings.HasPrefix(c.url, TusPath) || a.Header.Get("Tus-Resumable") != "1.0.0" {
		h.t.Fatalf("create: %v %v", a, a.Header)
	}
	if expires, err := http.ParseTime(a.Header.Get("Upload-Expires")); size > 0 && (err != nil || time.Until(expires) < 23*time.Hour) {
		h.t.Errorf("expires: %v, %v", a.Header, err)
	}
	return c
}

func (c *tusClient) id() string { return strings.TrimPrefix(c.url, TusPath) }

func (c *tusClient) ask(method, path, data string, header ...string) answer {
	c.t.Helper()
	header = append([]string{"Tus-Resumable", "1.0.0", "User", c.user}, header...)
	var body io.Reader
	if data != "" {
		body = strings.NewReader(data)
	}
	return c.do(method, path, body, header...)
}

func (c *tusClient) patch(offset int, data string, header ...string) answer {
	c.t.Helper()
	return c.ask("PATCH", c.url, data, append([]string{"Content-Type", "application/offset+octet-stream", "Upload-Offset", strconv.Itoa(offset)}, header...)...)
}

func (c *tusClient) mustPatch(offset int, data string, header ...string) answer {
	c.t.Helper()
	a := c.patch(offset, data, header...)
	if a.StatusCode != http.StatusNoContent || a.Header.Get("Upload-Offset") != strconv.Itoa(offset+len(data)) {
		c.t.Fatalf("patch at %d with %d bytes: %v %v", offset, len(data), a, a.Header)
	}
	return a
}

func (c *tusClient) offset() int {
	c.t.Helper()
	a := c.ask("HEAD", c.url, "")
	n, err := strconv.Atoi(a.Header.Get("Upload-Offset"))
	if a.StatusCode != http.StatusOK || err != nil || a.Header.Get("Cache-Control") != "no-store" {
		c.t.Fatalf("HEAD: %v %v", a, a.Header)
	}
	return n
}

func (c *tusClient) wantFile(data string) {
	c.t.Helper()
	if a := c.ask("HEAD", c.url, ""); a.Header.Get(FileHeader) != c.id() || a.Header.Get("Upload-Expires") != "" {
		c.t.Errorf("HEAD of what is a file: %v", a.Header)
	}
	if a := c.do("GET", "/files/"+c.id(), nil); a.StatusCode != http.StatusOK || a.body != data {
		c.t.Errorf("%d, and %d bytes came back, want %d that are the same", a.StatusCode, len(a.body), len(data))
	}
}

// cut sends part of a PATCH and closes its half of the connection.
func (c *tusClient) cut(offset, announced int, data string, header ...string) answer {
	c.t.Helper()
	conn, err := net.Dial("tcp", c.server.Listener.Addr().String())
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	extra := ""
	for pair := range slices.Chunk(header, 2) {
		extra += pair[0] + ": " + pair[1] + "\r\n"
	}
	_, err = fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUser: %s\r\nContent-Type: application/offset+octet-stream\r\nUpload-Offset: %d\r\nContent-Length: %d\r\n%s\r\n%s",
		c.url, c.user, offset, announced, extra, data)
	if err == nil {
		err = conn.(*net.TCPConn).CloseWrite()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer{res, string(text)}
}

// tusHouses runs test with both stores and ledgers.
func tusHouses(t *testing.T, test func(t *testing.T, h *house)) {
	t.Run("alone", func(t *testing.T) { test(t, newTestHouse(t)) })
	t.Run("s3 and redis", func(t *testing.T) {
		test(t, newHouse(t, newTestS3(t, testdeps.MinIO(t)), newTestRedisLedger(t)))
	})
}

func TestTus(t *testing.T) {
	tusHouses(t, func(t *testing.T, h *house) {
		data := png + string(random(2*minPart+100))
		meta := "filename " + b64("照片.png") + ",filetype " + b64("image/png") + ",sha256 " + b64(sum(data)) + ",empty"
		c := h.tusCreate(len(data), meta)
		if a := c.ask("HEAD", c.url, ""); a.Header.Get("Upload-Offset") != "0" || a.Header.Get("Upload-Length") != strconv.Itoa(len(data)) || a.Header.Get("Upload-Metadata") != meta || a.Header.Get("Upload-Expires") == "" {
			t.Errorf("HEAD: %v %v", a, a.Header)
		}
		at := 0
		for _, n := range []int{1, 100_000, 0, 1, minPart} { // the last one ends behind the first part
			c.mustPatch(at, data[at:at+n])
			at += n
		}
		// Cut: what came is there, whatever the piece.
		for _, n := range []int{70_000, 10, 2_000_000} {
			if a := c.cut(at, len(data)-at, data[at:at+n]); a.code() != "upload_torn" || a.StatusCode != http.StatusBadRequest {
				t.Errorf("cut: %v", a)
			}
			if at += n; c.offset() != at {
				t.Fatalf("after a cut: %d, want %d", c.offset(), at)
			}
		}
		if a := c.patch(at-1, data[at-1:]); a.code() != "mismatched_offset" || a.StatusCode != http.StatusConflict {
			t.Errorf("a wrong offset: %v", a)
		}
		a := c.mustPatch(at, data[at:])
		if a.Header.Get(FileHeader) != c.id() || a.Header.Get("Upload-Expires") != "" {
			t.Errorf("the last answer: %v", a.Header)
		}
		c.wantFile(data)
		c.mustPatch(len(data), "") // the answer was lost, say
		if f, err := h.ledger.Get(t.Context(), c.id()); err != nil || f.Name != "照片.png" || f.Type != "image/png" || f.SHA256 != sum(data) || f.Session.Way != WayTus {
			t.Errorf("%+v, %v", f, err)
		}
		h.wantEvents("one upload", FileReady+"-"+c.id())
		if a := c.ask("DELETE", c.url, ""); a.code() != "upload_completed" {
			t.Errorf("termination of a file: %v", a)
		}
		if a := h.do("DELETE", "/files/"+c.id(), nil); a.StatusCode != http.StatusNoContent {
			t.Errorf("%v", a)
		}
		if a := c.ask("HEAD", c.url, ""); a.StatusCode != http.StatusNotFound {
			t.Errorf("HEAD of a deleted file: %v", a)
		}
		h.wantNothingLeft()
	})
}

func TestTusSmallSteps(t *testing.T) {
	tusHouses(t, func(t *testing.T, h *house) {
		const step = 1 << 20
		data := string(random(11*step + 3))
		c := h.tusCreate(len(data), "")
		for at := 0; at < len(data); at += step {
			// As wx.request does it.
			a := c.ask("POST", c.url, data[at:min(at+step, len(data))], "X-HTTP-Method-Override", "PATCH", "Content-Type", "application/offset+octet-stream", "Upload-Offset", strconv.Itoa(at))
			if a.StatusCode != http.StatusNoContent {
				t.Fatalf("at %d: %v", at, a)
			}
			f, err := h.ledger.Get(t.Context(), c.id())
			if err != nil {
				t.Fatal(err)
			}
			if n := len(tusKeys(f)); n > 3 {
				t.Fatalf("%d side objects are remembered", n)
			}
		}
		c.wantFile(data)
		if a := h.do("DELETE", "/files/"+c.id(), nil); a.StatusCode != http.StatusNoContent {
			t.Errorf("%v", a)
		}
		h.wantNothingLeft()
	})
}

// sha1Of is an Upload-Checksum.
func sha1Of(s string) string {
	raw := sha1.Sum([]byte(s))
	return "sha1 " + base64.StdEncoding.EncodeToString(raw[:])
}

func TestTusChecksum(t *testing.T) {
	tusHouses(t, func(t *testing.T, h *house) {
		data := string(random(2*minPart + 1000))
		c := h.tusCreate(len(data), "")
		const first = 1000
		c.mustPatch(0, data[:first], "Upload-Checksum", sha1Of(data[:first]))
		for what, piece := range map[string]string{
			"a tail": strings.Repeat("x", 50), "parts and a tail": strings.Repeat("x", minPart+50), "all the rest": strings.Repeat("x", len(data)-first),
		} {
			a := c.patch(first, piece, "Upload-Checksum", sha1Of("something else"))
			if a.StatusCode != tusMismatch || a.code() != "chunk_mismatch" || c.offset() != first {
				t.Errorf("%s: %v, then at %d", what, a, c.offset())
			}
		}
		if a := c.cut(first, len(data)-first, data[first:minPart+100], "Upload-Checksum", sha1Of(data[first:])); a.code() != "upload_torn" || c.offset() != first {
			t.Errorf("cut: %v, then at %d", a, c.offset())
		}
		c.mustPatch(first, data[first:minPart+7], "Upload-Checksum", sha1Of(data[first:minPart+7]))
		c.mustPatch(minPart+7, data[minPart+7:], "Upload-Checksum", sha1Of(data[minPart+7:]))
		c.wantFile(data)
	})
}

func TestTusOfOthers(t *testing.T) {
	h := newTestHouse(t)
	c := h.tusCreate(10, "")
	bob := &tusClient{house: h, url: c.url, user: "bob"}
	for what, a := range map[string]answer{
		"HEAD": bob.ask("HEAD", c.url, ""), "PATCH": bob.patch(0, "0123456789"), "DELETE": bob.ask("DELETE", c.url, ""),
		"another way": c.ask("HEAD", TusPath+h.begin(`{"size":5}`).ID, ""),
	} {
		if a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %v", what, a)
		}
	}
	nobody := &tusClient{house: h, url: c.url, user: "nobody"}
	if a := nobody.patch(0, "x"); a.code() != "token_missing" || a.Header.Get("Tus-Resumable") == "" {
		t.Errorf("%v", a)
	}
	c.mustPatch(0, "0123456789")
}

// under begins a PATCH that has sent data, and ends when the returned function
// is called, which returns its answer.
func (c *tusClient) under(offset int, data string) func() answer {
	c.t.Helper()
	body, feed := io.Pipe()
	req, err := http.NewRequestWithContext(c.t.Context(), "PATCH", c.server.URL+c.url, body)
	if err != nil {
		c.t.Fatal(err)
	}
	for name, v := range map[string]string{
		"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream", "Upload-Offset": strconv.Itoa(offset),
		"Expect": "100-continue", // the store has looked by the time it reads
	} {
		req.Header.Set(name, v)
	}
	client := c.server.Client()
	client.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
	answers := make(chan answer)
	go func() {
		defer close(answers)
		res, err := client.Do(req)
		if err != nil {
			c.t.Error(err)
			return
		}
		text, _ := io.ReadAll(res.Body) // is compared
		_ = res.Body.Close()
		answers <- answer{res, string(text)}
	}()
	if _, err := io.WriteString(feed, data); err != nil {
		c.t.Fatal(err)
	}
	return func() answer {
		_ = feed.Close() // of a pipe
		return <-answers
	}
}

// On another node, and with a request left over on the first.
func TestTusElsewhere(t *testing.T) {
	redis := newTestRedisLedger(t)
	store := newTestS3(t, testdeps.MinIO(t))
	h, other := newHouse(t, store, redis), newHouse(t, store, NewRedisLedger(redis.client, redis.prefix))
	data := string(random(minPart + 3000))
	c := h.tusCreate(len(data), "")
	c.mustPatch(0, data[:1000])
	late := c.under(1000, strings.Repeat("x", 500_000))
	there := &tusClient{house: other, url: c.url}
	if at := there.offset(); at != 1000 {
		t.Errorf("elsewhere at %d", at)
	}
	there.mustPatch(1000, data[1000:2000])
	if a := late(); a.code() != "upload_changed" || a.StatusCode != http.StatusConflict {
		t.Errorf("the late request: %v", a)
	}
	there.mustPatch(2000, data[2000:])
	there.wantFile(data)
	if a := h.do("DELETE", "/files/"+c.id(), nil); a.StatusCode != http.StatusNoContent {
		t.Errorf("%v", a)
	}
	h.wantNothingLeft()
}

// On the same node who comes back is told of all that was read, and the request
// before is over.
func TestTusInterrupted(t *testing.T) {
	h := newTestHouse(t)
	data := string(random(1_000_000))
	c := h.tusCreate(len(data), "")
	late := c.under(0, data[:500_000])
	at := c.offset()
	if at > 500_000 {
		t.Fatalf("at %d", at)
	}
	c.mustPatch(at, data[at:])
	if a := late(); a.code() != "upload_interrupted" || a.StatusCode != http.StatusConflict {
		t.Errorf("the late request: %v", a)
	}
	c.wantFile(data)
}

func TestTusAfterRestart(t *testing.T) {
	dir := t.TempDir()
	data := string(random(minPart + 70_000))
	open := func() (*house, func()) {
		store, err := NewFolder(dir + "/files")
		if err != nil {
			t.Fatal(err)
		}
		db := openBolt(t, dir+"/node.db")
		ledger, err := NewFileLedger(db)
		if err != nil {
			t.Fatal(err)
		}
		return newHouse(t, store, ledger), func() { _, _ = db.Close(), store.Close() }
	}
	h, end := open()
	c := h.tusCreate(len(data), "")
	c.mustPatch(0, data[:60_000])
	end()
	c.house, end = open()
	if err := c.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.mustPatch(60_000, data[60_000:])
	c.wantFile(data)
	end()
}

func TestTusExpires(t *testing.T) {
	h := newTestHouse(t)
	c := h.tusCreate(1000, "")
	c.mustPatch(0, "some bytes")
	f, err := h.ledger.Get(t.Context(), c.id())
	if err != nil {
		t.Fatal(err)
	}
	f.Session.Expires = now().Add(-time.Hour)
	if err := h.ledger.Update(t.Context(), f, Quota{}); err != nil {
		t.Fatal(err)
	}
	for what, a := range map[string]answer{"HEAD": c.ask("HEAD", c.url, ""), "PATCH": c.patch(10, "more")} {
		if a.StatusCode != http.StatusGone {
			t.Errorf("%s: %v", what, a)
		}
	}
	if err := h.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.wantNothingLeft()
}

func TestTusTerminates(t *testing.T) {
	tusHouses(t, func(t *testing.T, h *house) {
		c := h.tusCreate(2*minPart, "")
		c.mustPatch(0, string(random(minPart+100)))
		if a := c.ask("DELETE", c.url, ""); a.StatusCode != http.StatusNoContent || a.Header.Get("Upload-Expires") != "" {
			t.Errorf("%v", a)
		}
		if a := c.ask("HEAD", c.url, ""); a.StatusCode != http.StatusNotFound {
			t.Errorf("%v", a)
		}
		h.wantNothingLeft()
	})
}

func FuzzTusMeta(f *testing.F) {
	for _, seed := range []string{"", " ", "a", "a ", "name " + b64("x") + ",b", "a YQ==,a YQ==", ",", "a b c", "\xff YQ==", "a Y\nQ=="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		meta, err := parseTusMeta(text)
		if err != nil {
			return
		}
		got := handler.ParseMetadataHeader(text)
		if len(got) != len(meta) {
			t.Fatalf("%q: tusd reads %q, we %q", text, got, meta)
		}
		for name, v := range meta {
			if got[name] != v {
				t.Fatalf("%q: tusd reads %q, we %q", text, got, meta)
			}
		}
		if _, err := mediaOf(declaredType(meta)); err != nil {
			t.Errorf("%q is declared as %q", text, declaredType(meta))
		}
	})
}

// mediaOf is what Begin makes of a type.
func mediaOf(media string) (File, error) {
	s := &Service{settings: Settings{MaxSize: 1 << 30, PartSize: minPart}, store: &Folder{}}
	return s.newSession(auth.User{}, NewUpload{Type: media})
}

func FuzzTusChecksum(f *testing.F) {
	for _, seed := range []string{"", "sha1 " + b64(strings.Repeat("x", 20)), "md5 abc", "sha1", " "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseTusChecksum(text)
		if err == nil && text != "" && len(c.want) != c.hash.Size() {
			t.Errorf("%q: %d bytes", text, len(c.want))
		}
	})
}
