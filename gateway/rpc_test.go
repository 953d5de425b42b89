package gateway

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// backend answers calls in tests: "echo" at once, others as told.
type backend struct {
	calls   chan RPC
	answers chan func() (json.RawMessage, error)
	ended   atomic.Int32 // calls that were broken off
}

func newBackend() *backend {
	return &backend{calls: make(chan RPC, 100), answers: make(chan func() (json.RawMessage, error))}
}

func (b *backend) answer(ctx context.Context, call RPC) (json.RawMessage, error) {
	if call.Method == "echo" {
		return call.Data, nil
	}
	b.calls <- call
	select {
	case f := <-b.answers:
		return f()
	case <-ctx.Done():
		b.ended.Add(1)
		return nil, ctx.Err()
	}
}

func (b *backend) into(o *Options) { o.RPC = b.answer }

func data(text string) func() (json.RawMessage, error) {
	return func() (json.RawMessage, error) { return json.RawMessage(text), nil }
}

func TestRPCWithoutBackend(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	w.send(`{"id":2,"rpc":{"method":"echo","data":1}}`)
	w.want(`{"id":2,"error":{"code":108,"message":"not available"}}`)
	w.send(`{"send":{"data":1}}`)
	w.wantEnd(DisconnectNotAvailable)
}

// What the backend is asked, and what of its answer the client is told.
func TestRPC(t *testing.T) {
	b := newBackend()
	h := startHub(t, nil, b.into)
	w, reply := h.login("alice/vip")
	session, err := h.verifyToken(t.Context(), "alice/vip")
	if err != nil {
		t.Fatal(err)
	}
	w.send(`{"id":2,"rpc":{"method":"orders/create","data":{"n": 1}}}`)
	call := <-b.calls
	if call.Method != "orders/create" || string(call.Data) != `{"n": 1}` || call.Session == nil || call.Session.User.OpenID != "alice" ||
		string(call.Session.Claims) != `{"vip":true}` || call.Session.Fingerprint != session.Fingerprint || call.Session.Device != session.Device || !strings.Contains(reply, call.Client) || call.Client == "" {
		t.Errorf("asked %+v", call)
	}
	b.answers <- data("{\"ok\":\n [1,\r\n2]}\n")
	w.want(`{"id":2,"rpc":{"data":{"ok":[1,2]}}}`)

	for want, answer := range map[string]func() (json.RawMessage, error){
		`{"id":3,"rpc":{}}`: data(""),
		`{"id":3,"error":{"code":100,"message":"internal server error","temporary":true}}`: data("<html>"),
		`{"id":3,"error":{"code":1204,"message":"out of stock","temporary":true}}`: func() (json.RawMessage, error) {
			return nil, &ReplyError{1204, "out of stock", true}
		},
		`{"id":3,"error":{"code":103,"message":"permission denied"}}`: func() (json.RawMessage, error) {
			return nil, fault.New(fault.Forbidden, "backend_forbidden", "No.")
		},
	} {
		w.send(`{"id":3,"rpc":{"method":"x"}}`)
		if call := <-b.calls; len(call.Data) != 0 {
			t.Errorf("data %q out of nothing", call.Data)
		}
		b.answers <- answer
		w.want(want)
	}
}

func TestRPCOfNobody(t *testing.T) {
	b := newBackend()
	h := startHub(t, anonymous, b.into)
	w, _ := h.nobodyConnects()
	w.send(`{"id":2,"rpc":{"method":"x"}}`)
	if call := <-b.calls; call.Session != nil {
		t.Errorf("asked for %+v", call.Session)
	}
	b.answers <- data("1")
	w.want(`{"id":2,"rpc":{"data":1}}`)
}

// By default commands wait for each other; pushes and pings do not wait.
func TestRPCInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		h := startHub(t, nil, b.into)
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"live:a"}}`)
		w.want(`{"id":2,"subscribe":{}}`)
		w.send(`{"id":3,"rpc":{"method":"slow"}}`, `{"id":4,"rpc":{"method":"echo","data":4}}`)
		<-b.calls
		h.publish("live:a", "1")
		w.want(`{"push":{"channel":"live:a","pub":{"data":1}}}`)
		time.Sleep(time.Minute) // longer than a pong may take
		w.want(`{}`)            // and no second one: the answer to the first waits behind the call
		b.answers <- data("3")
		w.want(`{"id":3,"rpc":{"data":3}}`, `{"id":4,"rpc":{"data":4}}`)
	})
}

// With client.concurrency a slow call holds up nobody, until all places are
// taken. Other commands keep their order.
func TestRPCConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		h := startHub(t, func(s *Settings) { s.Client.Concurrency = 2; s.Client.PingInterval = 0 }, b.into)
		w, _ := h.login("alice")
		w.send(`{"id":2,"rpc":{"method":"slow","data":"kept"}}`, `{"id":3,"rpc":{"method":"echo","data":3}}`)
		w.want(`{"id":3,"rpc":{"data":3}}`)
		w.send(`{"id":4,"subscribe":{"channel":"live:a"}}`)
		w.want(`{"id":4,"subscribe":{}}`)
		if call := <-b.calls; string(call.Data) != `"kept"` { // the read buffer was used again
			t.Errorf("data became %s", call.Data)
		}
		w.send(`{"id":5,"rpc":{"method":"slow"}}`, `{"id":6,"rpc":{"method":"echo","data":6}}`)
		<-b.calls
		synctest.Wait() // both places are taken
		if len(w.lines) > 0 {
			t.Errorf("answered without a place: %s", w.next())
		}
		b.answers <- data("0")
		if one, two := w.next(), w.next(); !match(`{"id":*,"rpc":{"data":0}}`, one) || two != `{"id":6,"rpc":{"data":6}}` {
			t.Errorf("%s %s", one, two)
		}
		_ = w.conn.CloseNow() // the other one is broken off, and gone waits for it
		synctest.Wait()
		if n := b.ended.Load(); n != 1 {
			t.Errorf("%d calls broken off", n)
		}
		if n, _ := h.clients.counts(); n != 0 {
			t.Errorf("%d clients left", n)
		}
	})
}

// A node that ends does not wait for the backend.
func TestRPCEndsWithHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		h := startHub(t, nil, b.into)
		w, _ := h.login("alice")
		w.send(`{"id":2,"rpc":{"method":"slow"}}`)
		<-b.calls
		h.cut()
		synctest.Wait()
		if b.ended.Load() != 1 {
			t.Error("the call goes on")
		}
	})
}
