package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/minigate/minigate/internal/apidoc/apidoctest"
)

// testSocket speaks the Centrifuge protocol by hand, as a mini-program
// without any SDK would.
type testSocket struct {
	t    testing.TB
	conn *websocket.Conn
	next []json.RawMessage // messages of a frame not yet handed out
}

type frame struct {
	ID    uint32
	Error *struct {
		Code    uint32
		Message string
	}
	Connect *struct {
		Client string
		Subs   map[string]json.RawMessage
	}
	Subscribe json.RawMessage
	Publish   json.RawMessage
	RPC       *struct{ Data json.RawMessage }
	Push      *struct {
		Channel string
		Pub     *struct {
			Data   json.RawMessage
			Offset uint64
		}
		Message   *struct{ Data json.RawMessage }
		Subscribe *struct {
			Recoverable bool
			Data        json.RawMessage
		}
		Unsubscribe *struct{ Code uint32 }
		Disconnect  *struct {
			Code   uint32
			Reason string
		}
	}
}

// dial opens a socket and sends nothing yet.
func dial(t testing.TB, base string) *testSocket {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(base, "http")+"/connection/websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return &testSocket{t: t, conn: conn}
}

// connect opens a socket and logs it in.
func connect(t testing.TB, base, token string) *testSocket {
	t.Helper()
	s := dial(t, base)
	s.send(`{"id":1,"connect":{"token":"` + token + `"}}`)
	if f := s.read(); f.Connect == nil || f.Connect.Client == "" {
		t.Fatalf("connect was answered %+v", f)
	}
	return s
}

func (s *testSocket) send(text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// read returns the next message that is not a ping; pings are answered.
func (s *testSocket) read() frame {
	s.t.Helper()
	f, err := s.tryRead()
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

func (s *testSocket) tryRead() (frame, error) {
	for {
		for len(s.next) == 0 {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			_, data, err := s.conn.Read(ctx)
			cancel()
			if err != nil {
				return frame{}, err
			}
			for line := range strings.Lines(string(data)) {
				s.next = append(s.next, json.RawMessage(line))
			}
		}
		raw := s.next[0]
		s.next = s.next[1:]
		if err := apidoctest.CheckReply(raw); err != nil {
			s.t.Error(err)
		}
		if strings.TrimSpace(string(raw)) == "{}" {
			s.send("{}")
			continue
		}
		var f frame
		if err := json.Unmarshal(raw, &f); err != nil {
			return frame{}, err
		}
		return f, nil
	}
}

// publication returns the data of the next publication or message.
func (s *testSocket) publication() string {
	s.t.Helper()
	for {
		f := s.read()
		switch {
		case f.Push == nil:
		case f.Push.Pub != nil:
			return string(f.Push.Pub.Data)
		case f.Push.Message != nil:
			return string(f.Push.Message.Data)
		}
	}
}

// goodbye reads on to the disconnect push.
func (s *testSocket) goodbye() (code uint32, reason string) {
	s.t.Helper()
	for {
		f, err := s.tryRead()
		if err != nil {
			s.t.Fatalf("the socket was closed without a goodbye: %v", err)
		}
		if f.Push != nil && f.Push.Disconnect != nil {
			return f.Push.Disconnect.Code, f.Push.Disconnect.Reason
		}
	}
}
