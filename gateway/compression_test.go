package gateway

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/minigate/minigate/gateway/epoll"
)

// rawWire is a client over TCP that sees frames as they are.
type rawWire struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader
}

func dialRaw(t *testing.T, address, extension string) *rawWire {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	w := &rawWire{t, conn, bufio.NewReader(conn)}
	request := "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"
	if extension != "" {
		request += "Sec-WebSocket-Extensions: " + extension + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(w.br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", resp, err)
	}
	want := ""
	if extension != "" {
		want = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
	}
	if got := resp.Header.Get("Sec-WebSocket-Extensions"); got != want {
		t.Fatalf("agreed on %q, want %q", got, want)
	}
	return w
}

// send sends a text message, with a mask of zeros, compressed or not.
func (w *rawWire) send(message string, compressed bool) {
	w.t.Helper()
	b := epoll.AppendHeader(nil, epoll.Text, len(message))
	if compressed {
		packed, ok := epoll.AppendDeflatedFrame(nil, epoll.Text, []byte(message))
		if !ok {
			w.t.Fatal("not worth compressing")
		}
		f := framesIn(packed)[0]
		b, message = packed[:len(packed)-len(f.payload)], f.payload
	}
	b = append(append([]byte{b[0], b[1] | 0x80}, b[2:]...), 0, 0, 0, 0)
	if _, err := w.conn.Write(append(b, message...)); err != nil {
		w.t.Fatal(err)
	}
}

// next returns what a frame holds, and whether it was compressed.
func (w *rawWire) next() (text string, compressed bool) {
	w.t.Helper()
	var head [4]byte
	if _, err := io.ReadFull(w.br, head[:2]); err != nil {
		w.t.Fatal(err)
	}
	n := int(head[1])
	if n == 126 {
		if _, err := io.ReadFull(w.br, head[2:]); err != nil {
			w.t.Fatal(err)
		}
		n = int(binary.BigEndian.Uint16(head[2:]))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(w.br, b); err != nil {
		w.t.Fatal(err)
	}
	f := wireFrame{head[0], string(b)}
	return f.inflated(w.t), f.first&0x40 != 0
}

// Who offers compression may compress, and gets what is worth it compressed;
// all others get the same as it is.
func TestCompression(t *testing.T) {
	for _, lean := range []bool{false, true} {
		t.Run(fmt.Sprintf("epoll %v", lean), func(t *testing.T) {
			h := startHub(t, func(s *Settings) {
				quietStorm(s)
				s.WebSocket.Compression, s.WebSocket.Epoll = true, lean
			})
			srv := httptest.NewServer(http.HandlerFunc(h.ServeWebSocket))
			t.Cleanup(srv.Close)
			join := `{"id":1,"connect":{"token":"alice","data":"` + strings.Repeat("x", 300) + `"}}` + "\n" + `{"id":2,"subscribe":{"channel":"live:a"}}`
			packed := dialRaw(t, srv.Listener.Addr().String(), "permessage-deflate; client_max_window_bits")
			plain := dialRaw(t, srv.Listener.Addr().String(), "")
			for _, w := range []*rawWire{packed, plain} {
				w.send(join, w == packed)
				for got := ""; !strings.Contains(got, `"subscribe":`); {
					text, _ := w.next()
					got += text
				}
			}
			long := `"` + strings.Repeat("all work and no play ", 100) + `"`
			for _, data := range []string{`"short"`, long, `"short"`, long} {
				h.publish("live:a", data)
				for _, w := range []*rawWire{packed, plain} {
					text, compressed := w.next()
					if want := `{"push":{"channel":"live:a","pub":{"data":` + data + `}}}`; text != want || compressed != (w == packed && data == long) {
						t.Errorf("got %.80s, compressed %v", text, compressed)
					}
				}
			}
		})
	}
}
