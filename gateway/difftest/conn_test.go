package difftest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/centrifugal/protocol"
	"github.com/coder/websocket"
)

// conn is a client that speaks the protocol by hand.
type conn struct {
	ws   *websocket.Conn
	mute atomic.Bool
	id   string // as the server calls it
	live map[string]bool
	asks map[uint32]string // the channels of commands by id

	mu       sync.Mutex
	received []message
	gone     chan struct{}
}

// message is one line from the server, or the end of the connection.
type message struct {
	raw   []byte
	reply *protocol.Reply
	end   string
}

func dial(t testing.TB, net *pipes) *conn {
	ws, resp, err := websocket.Dial(context.Background(), "ws://server/connection/websocket", &websocket.DialOptions{HTTPClient: net.client()})
	if err != nil {
		t.Fatalf("dial: %v %v", err, resp)
	}
	ws.SetReadLimit(-1)
	c := &conn{ws: ws, live: map[string]bool{}, asks: map[uint32]string{}, gone: make(chan struct{})}
	go c.read()
	return c
}

func (c *conn) close() {
	_ = c.ws.CloseNow()
	<-c.gone
}

func (c *conn) ended() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

func (c *conn) add(m message) {
	c.mu.Lock()
	c.received = append(c.received, m)
	c.mu.Unlock()
}

func (c *conn) take() []message {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.received
	c.received = nil
	return list
}

func (c *conn) read() {
	defer close(c.gone)
	for {
		typ, data, err := c.ws.Read(context.Background())
		if ce := new(websocket.CloseError); errors.As(err, ce) {
			c.add(message{end: fmt.Sprintf("closed %d %s", ce.Code, ce.Reason)})
			return
		}
		if err != nil {
			c.add(message{end: "broken"})
			return
		}
		if typ != websocket.MessageText {
			c.add(message{end: "frame of type " + typ.String()})
			continue
		}
		c.decode(data)
	}
}

// decode takes a frame apart with the official decoder, which must agree with
// a plain look at its lines.
func (c *conn) decode(frame []byte) {
	decoder := protocol.NewJSONReplyDecoder(frame)
	for line := range bytes.SplitSeq(frame, []byte("\n")) {
		reply, err := decoder.Decode()
		if err != nil && !errors.Is(err, io.EOF) || reply == nil || !json.Valid(line) {
			c.add(message{end: fmt.Sprintf("undecodable %q: %v", line, err)})
			return
		}
		if string(line) == "{}" {
			if !c.mute.Load() {
				c.send("{}")
			}
			continue // pings come at random moments
		}
		c.add(message{raw: line, reply: reply})
	}
}

// send writes a frame. That it cannot shows in what is received.
func (c *conn) send(frame string) {
	c.note(frame)
	_ = c.ws.Write(context.Background(), websocket.MessageText, []byte(frame))
}

// note remembers which channels the commands of a frame are about.
func (c *conn) note(frame string) {
	for line := range bytes.SplitSeq([]byte(frame), []byte("\n")) {
		var cmd map[string]json.RawMessage
		var id uint32
		if json.Unmarshal(line, &cmd) != nil || json.Unmarshal(cmd["id"], &id) != nil {
			continue
		}
		for _, raw := range cmd {
			var req struct{ Channel string }
			if json.Unmarshal(raw, &req) == nil && req.Channel != "" {
				c.asks[id] = req.Channel
			}
		}
	}
}
