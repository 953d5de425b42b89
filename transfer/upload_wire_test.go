package transfer

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// dial opens a connection and sends what is given.
func (h *house) dial(data string) *net.TCPConn {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, data); err != nil {
		h.t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// response reads an answer from a connection.
func (h *house) response(conn net.Conn) answer {
	h.t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer{resp, string(body)}
}

const uploadHead = "POST /files HTTP/1.1\r\nHost: x\r\nContent-Type: " + formType + "\r\n"

// A connection that is cut anywhere leaves nothing, whether the length of the
// body was announced or not.
func TestUploadTorn(t *testing.T) {
	h := newTestHouse(t)
	form := formOf(field{"a", "", "b"}, field{"f", "x.txt", strings.Repeat("0123456789", 500)}, field{"c", "", "d"})
	known := uploadHead + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(form)) + form
	chunked := uploadHead + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", len(form)) + form + "\r\n0\r\n\r\n"
	for name, request := range map[string]string{"known length": known, "chunked": chunked} {
		start := strings.Index(request, "\r\n\r\n") + 4
		end := strings.LastIndex(request, "--b--") + len("--b-")
		for cut := start; cut <= end; cut += 1 + max(0, min(97, end-60-cut)) {
			conn := h.dial(request[:cut])
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if a := h.response(conn); a.code() != "upload_torn" {
				t.Errorf("%s, cut after %d of %d: %v", name, cut, len(request), a)
			}
			h.wantEmpty()
		}
	}
	if n := h.count("upload", "canceled"); n == 0 || h.count("upload", "ok") != 0 {
		t.Errorf("%v uploads counted as canceled", n)
	}
	if a := h.response(h.dial(known)); a.StatusCode != http.StatusCreated {
		t.Errorf("uncut: %v", a)
	}
	if a := h.response(h.dial(chunked)); a.StatusCode != http.StatusCreated {
		t.Errorf("uncut and chunked: %v", a)
	}
}

func TestUploadStalls(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.StallTimeout = 50 * time.Millisecond })
	form := formOf(field{"f", "x.txt", strings.Repeat("x", 10_000)})
	for _, sent := range []int{0, 10, 5000, len(form) - 3} {
		conn := h.dial(uploadHead + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(form)) + form[:sent])
		if a := h.response(conn); a.StatusCode != http.StatusRequestTimeout || a.code() != "upload_stalled" {
			t.Errorf("after %d bytes: %v", sent, a)
		}
		h.wantEmpty()
	}
}

func TestUploadTooSlow(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.PendingTTL = 50 * time.Millisecond })
	r, w := io.Pipe()
	go func() { // drips until the server has had enough
		_, err := io.WriteString(w, "--b\r\nContent-Disposition: form-data; name=f; filename=x\r\n\r\n")
		for err == nil {
			_, err = w.Write(random(1000))
		}
	}()
	a := h.do("POST", "/files", r, "Content-Type", formType)
	_ = r.Close()
	if a.StatusCode != http.StatusRequestTimeout || a.code() != "upload_too_slow" {
		t.Errorf("%v", a)
	}
	h.wantEmpty()
}

// The answer to what is too large comes before any of it is read.
func TestUploadTooLargeUnread(t *testing.T) {
	h := newTestHouse(t)
	conn := h.dial(uploadHead + "Expect: 100-continue\r\nContent-Length: 300000000\r\n\r\n")
	if a := h.response(conn); a.StatusCode != http.StatusRequestEntityTooLarge || a.code() != "file_too_large" {
		t.Errorf("%v", a)
	}
}

func TestUploadLimits(t *testing.T) {
	h := newTestHouse(t, func(s *Settings) { s.MaxConcurrent, s.MaxPerUser = 3, 2 })
	form := formOf(field{"f", "x.txt", "hello"})
	begin := func(user string) *net.TCPConn {
		conn := h.dial(uploadHead + fmt.Sprintf("User: %s\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", user, len(form)))
		// The server asks for the body once the upload was let in.
		if line, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
			t.Fatalf("%q, %v", line, err)
		}
		return conn
	}
	first, second := begin("alice"), begin("alice")
	if a := h.upload("", form); a.StatusCode != http.StatusTooManyRequests || a.code() != "too_many_uploads" || a.Header.Get("Retry-After") == "" {
		t.Errorf("third of one user: %v", a)
	}
	third := begin("bob")
	if a := h.upload("", form, "User", "carol"); a.StatusCode != http.StatusServiceUnavailable || a.code() != "uploads_busy" || a.Header.Get("Retry-After") == "" {
		t.Errorf("fourth of all: %v", a)
	}
	for _, conn := range []*net.TCPConn{first, second, third} {
		if _, err := io.WriteString(conn, form); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(io.LimitReader(conn, 20)); err != nil || !strings.Contains(string(answer), "201") {
			t.Errorf("%q, %v", answer, err)
		}
	}
	if f := h.keep("y.txt", "hello"); f.Size != 5 {
		t.Errorf("after they ended: %+v", f)
	}
}

// Memory does not grow with the file.
func TestUploadMemory(t *testing.T) {
	const size = 64 << 20
	h := newTestHouse(t)
	head := "--b\r\nContent-Disposition: form-data; name=f; filename=x\r\n\r\n"
	transfer := func() {
		body := io.MultiReader(strings.NewReader(head), io.LimitReader(zeros{}, size), strings.NewReader("\r\n--b--\r\n"))
		f := h.decode(h.do("POST", "/files", body, "Content-Type", formType))
		resp, err := h.server.Client().Get(h.server.URL + f.URL)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err != nil || n != size {
			t.Fatalf("%d bytes, %v", n, err)
		}
		_ = resp.Body.Close()
	}
	transfer()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	transfer()
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("%d KiB allocated for 64 MiB there and back", used>>10)
	}
}
