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

	"github.com/centrifugal/fdelta"
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

	numbers map[int64]string  // the channels that pushes have numbers for
	values  map[string][]byte // what the last publication was, of channels with deltas

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
	c := &conn{ws: ws, live: map[string]bool{}, asks: map[uint32]string{}, numbers: map[int64]string{}, values: map[string][]byte{}, gone: make(chan struct{})}
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

// undelta returns what a publication is once it is put together, in channels
// where it may be a delta.
func (c *conn) undelta(channel string, pub *protocol.Publication) []string {
	base, deltas := c.values[channel]
	if !deltas {
		return nil
	}
	var text string
	if err := json.Unmarshal(pub.Data, &text); err != nil {
		return []string{"! neither a delta nor a text: " + string(pub.Data)}
	}
	value := []byte(text)
	if pub.Delta {
		var err error
		if value, err = fdelta.Apply(base, value); err != nil {
			return []string{"! a delta that does not fit: " + err.Error()}
		}
	}
	c.values[channel] = value
	return []string{"= " + string(value)}
}
