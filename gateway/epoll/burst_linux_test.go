package epoll

import (
	"bytes"
	"context"
	"io"
	"net/http/httptest"
	"testing"

	"github.com/coder/websocket"
)

// BenchmarkBurst reads a burst of one small command: with the reader here, with
// a connection of the library's that exists only meanwhile, handshake included
// since there is no other way to make one, and with one that is kept, which holds
// its buffers while it is idle.
func BenchmarkBurst(b *testing.B) {
	burst := frame(finBit|byte(Text), `{"id":7,"rpc":{"method":"ping","data":{}}}`)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r := readers.Get().(*Reader)
			r.reset(testLimit, false)
			if _, _, ok, err := r.Next(bytes.Clone(burst)); !ok || err != nil { // which is unmasked in place
				b.Fatal(ok, err)
			}
			readers.Put(r)
		}
	})
	b.Run("the library's, for a burst", func(b *testing.B) {
		b.ReportAllocs()
		req := upgradeRequest()
		for b.Loop() {
			conn, err := websocket.Accept(taken{httptest.NewRecorder(), &wire{Reader: bytes.NewReader(burst)}}, req, nil)
			if err == nil {
				_, _, err = conn.Read(context.Background())
			}
			if err != nil {
				b.Fatal(err)
			}
			_ = conn.CloseNow()
		}
	})
	b.Run("the library's, kept", func(b *testing.B) {
		b.ReportAllocs()
		conn, err := websocket.Accept(taken{httptest.NewRecorder(), &wire{Reader: &endless{data: burst}}}, upgradeRequest(), nil)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = conn.CloseNow() }()
		for b.Loop() {
			if _, _, err := conn.Read(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// endless yields data again and again, once a read.
type endless struct{ data []byte }

// Read implements io.Reader.
func (e *endless) Read(p []byte) (int, error) {
	if len(p) < len(e.data) {
		return 0, io.ErrShortBuffer
	}
	return copy(p, e.data), nil
}
