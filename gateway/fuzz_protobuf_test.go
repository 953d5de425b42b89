package gateway

import (
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/centrifugal/protocol"
)

// FuzzReceiveProtobuf is FuzzReceive for the other encoding. A second client
// speaks JSON and is subscribed to the same channels: whatever the first one
// publishes, what the second gets can be read.
func FuzzReceiveProtobuf(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"id":1}`, `{"id":2,"subscribe":{"channel":"delta:a","delta":"fossil","flag":3,"recover":true,"offset":7,"epoch":"x"}}`,
		"{\"id\":2,\"subscribe\":{\"channel\":\"delta:a\",\"flag\":1}}\n{\"id\":3,\"publish\":{\"channel\":\"delta:a\",\"data\":{\"a\":1}}}",
		`{"id":2,"subscribe":{"channel":"delta:a","tf":{"op":"not","nodes":[{"key":"a","cmp":"gt","val":"1"}]}}}`,
		`{"id":2,"history":{"channel":"delta:a","limit":-1,"reverse":true,"since":{"offset":1}}}`,
		`{"id":2,"publish":{"channel":"room:a","data":"x"}}`, `{"id":2,"refresh":{"token":"alice/2"}}`, `{"send":{"data":1}}`,
	} {
		f.Add(pack(f, []byte(seed)))
	}
	enc := protocol.NewProtobufDataEncoder()
	packCommand(f, enc, &protocol.Command{Id: 3, Publish: &protocol.PublishRequest{Channel: "delta:a", Data: []byte("\xff\n")}})
	f.Add(enc.Finish())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	h := startHub(f, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		open := func(binary bool, commands string) (*client, *recorder) {
			sock := &recorder{done: make(chan struct{})}
			c := newClient(h.Hub, sock)
			c.binary = binary
			h.clients.add(c)
			c.open()
			if binary {
				c.receive(pack(t, []byte(commands)))
			} else {
				c.receive([]byte(commands))
			}
			return c, sock
		}
		reader, text := open(false, "{\"id\":1,\"connect\":{\"token\":\"bob\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"delta:a\",\"delta\":\"fossil\"}}\n{\"id\":3,\"subscribe\":{\"channel\":\"room:a\"}}")
		c, sock := open(true, `{"id":1,"connect":{"token":"alice"}}`)
		c.receive(slices.Clone(data))
		c.gone(cause{})
		reader.receive([]byte(`{"id":4,"history":{"channel":"delta:a","limit":-1}}`))
		reader.gone(cause{})
		for _, frame := range sock.frames {
			for dec, n := protocol.NewProtobufReplyDecoder([]byte(frame)), 0; ; n++ {
				if _, err := dec.Decode(); err != nil {
					if !errors.Is(err, io.EOF) || n == 0 {
						t.Errorf("frame %x: %v", frame, err)
					}
					break
				}
			}
		}
		for _, frame := range text.frames {
			for dec := protocol.NewJSONReplyDecoder([]byte(frame)); ; {
				r, err := dec.Decode()
				if err != nil {
					if !errors.Is(err, io.EOF) {
						t.Errorf("frame %q: %v", frame, err)
					}
					break
				}
				if r.GetPush().GetDisconnect() != nil || r.GetError() != nil {
					t.Errorf("the reader was told %v", r)
				}
			}
		}
	})
}
