package gateway

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/centrifugal/protocol"
	"github.com/coder/websocket"

	"github.com/minigate/minigate/gateway/ask"
	"github.com/minigate/minigate/internal/settings"
)

const commonFields = `{"client":"*","transport":"websocket","protocol":"json","encoding":"json","user":"u",`

func TestAskToSubscribe(t *testing.T) {
	forBoth(t, func(t *testing.T, opts dialOptions, protocol string) {
		o := newHookBackend(t)
		h := startHub(t, withHooks, o.into)
		w := h.known(o, opts, "")
		o.says("/subscribe", `{"result":{"info":{"role":1},"data":{"k":
			2},"override":{"join_leave":{"value":true},"force_push_join_leave":{"value":true},"force_positioning":{"value":true}}}}`)
		w.send(`{"id":2,"subscribe":{"channel":"hook:a","data":{"pin":1}}}`)
		w.want(`{"id":2,"subscribe":{"epoch":"*","positioned":true,"data":{"k":2}}}`,
			`{"push":{"channel":"hook:a","join":{"info":{"user":"u","client":"*","chan_info":{"role":1}}}}}`)
		o.wantCall("/subscribe", `{"client":"*","transport":"websocket","protocol":"`+protocol+`","encoding":"json","user":"u","channel":"hook:a","data":{"pin":1}}`)
		w.send(`{"id":3,"subscribe":{"channel":"hook:a"}}`)
		w.want(`{"id":3,"error":{"code":105,"message":"already subscribed"}}`)
		o.wantNoCall()
	})
}

// What the backend may answer to subscribe, and what becomes of it.
func TestSubscribeAnswers(t *testing.T) {
	denied := `{"id":2,"error":{"code":103,"message":"permission denied"}}`
	failed := `{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}`
	for name, tc := range map[string]struct {
		answer  string
		want    string
		wantEnd *Disconnect
	}{
		"empty":      {`{}`, `{"id":2,"subscribe":{}}`, nil},
		"result":     {`{"result":{}}`, `{"id":2,"subscribe":{}}`, nil},
		"denied":     {`{"error":{"code":103,"message":"permission denied"}}`, denied, nil},
		"disconnect": {`{"disconnect":{"code":4600,"reason":"go away"}}`, "", &Disconnect{4600, "go away"}},
		"to error":   {`418 `, `{"id":2,"error":{"code":1418,"message":"teapot","temporary":true}}`, nil},
		"500":        {`500 `, failed, nil},
		"403":        {`403 {}`, failed, nil},
		"no JSON":    {`[]`, failed, nil},
		"expired":    {`{"result":{"expire_at":1}}`, `{"id":2,"error":{"code":110,"message":"expired"}}`, nil},
		"odd time":   {`{"result":{"expire_at":-1}}`, failed, nil},
		"odd info":   {`{"result":{"b64info":"Zm9v"}}`, failed, nil}, // no JSON
	} {
		t.Run(name, func(t *testing.T) {
			o := newHookBackend(t)
			h := startHub(t, withHooks, o.into)
			w := h.known(o, dialOptions{}, "")
			o.says("/subscribe", tc.answer)
			w.send(`{"id":2,"subscribe":{"channel":"hook:a"}}`)
			if tc.wantEnd != nil {
				w.wantEnd(tc.wantEnd)
				return
			}
			w.want(tc.want)
			w.sync()
		})
	}
}

// The backend opens no channels that are limited to others or private, and is
// not asked about those that are the user's own.
func TestSubscribeUnasked(t *testing.T) {
	o := newHookBackend(t)
	h := startHub(t, func(s *Settings) {
		withHooks(s)
		s.Channel.Namespaces = append(s.Channel.Namespaces, Namespace{Name: "only", Access: Access{SubscribeProxyEnabled: true}})
	}, o.into)
	w := h.known(o, dialOptions{}, "")
	for channel, want := range map[string]string{
		"hook:a#v": `{"id":2,"error":{"code":103,*`, "$hook:a": `{"id":2,"error":{"code":103,*`, "only:a#v": `{"id":2,"error":{"code":103,*`,
		"hook:b#v,u": `{"id":2,"subscribe":{*`, "live:a": `{"id":2,"subscribe":{*`, "hook:": `{"id":2,"subscribe":{*`,
	} {
		w.send(`{"id":2,"subscribe":{"channel":"` + channel + `"}}`)
		w.want(want)
		if channel == "hook:" {
			o.wantCall("/subscribe", commonFields+`"channel":"hook:"}`)
		}
		o.wantNoCall()
	}
}

// A token that no verifier is there for is the backend's.
func TestSubscribeTokenForBackend(t *testing.T) {
	o := newHookBackend(t)
	h := startHub(t, withHooks, o.into, func(opts *Options) { opts.SubscribeTokens = nil })
	w := h.known(o, dialOptions{}, "")
	w.send(`{"id":2,"subscribe":{"channel":"$hook:a","token":"t"}}`, `{"id":3,"subscribe":{"channel":"live:a","token":"t"}}`)
	w.want(`{"id":2,"subscribe":{}}`, `{"id":3,"error":{"code":103,"message":"permission denied"}}`)
	o.wantCall("/subscribe", commonFields+`"channel":"$hook:a","token":"t"}`)
}

func TestAskToPublish(t *testing.T) {
	failed := `{"id":3,"error":{"code":100,"message":"internal server error","temporary":true}}`
	for name, tc := range map[string]struct {
		answer    string
		want, pub string
	}{
		"empty":        {`{}`, `{"id":3,"publish":{}}`, `{"data":{"text":"hi"},"info":{"user":"u","client":"*"},"offset":1,"epoch":"*"}`},
		"replaced":     {`{"result":{"data":{"text": "ho"},"tags":{"a":"b"}}}`, `{"id":3,"publish":{}}`, `{"data":{"text":"ho"},"info":*,"offset":1,"tags":{"a":"b"},*}`},
		"b64":          {`{"result":{"b64data":"eyJhIjoxfQ=="}}`, `{"id":3,"publish":{}}`, `{"data":{"a":1},*`},
		"skip history": {`{"result":{"skip_history":true}}`, `{"id":3,"publish":{}}`, `{"data":{"text":"hi"},"info":{"user":"u","client":"*"}}`},
		"version":      {`{"result":{"version":7,"version_epoch":"e"}}`, `{"id":3,"publish":{}}`, `{"data":{"text":"hi"},*`},
		"refused":      {`{"error":{"code":1003,"message":"no such words"}}`, `{"id":3,"error":{"code":1003,"message":"no such words"}}`, ""},
		"400":          {`400 {}`, failed, ""},
		"many tags":    {`{"result":{"tags":{"a":"` + strings.Repeat("x", 257) + `"}}}`, failed, ""},
		"long key":     {`{"result":{"idempotency_key":"` + strings.Repeat("x", 257) + `"}}`, failed, ""},
		"odd version":  {`{"result":{"version":-1}}`, failed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := newHookBackend(t)
			h := startHub(t, withHooks, o.into)
			w := h.known(o, dialOptions{}, "")
			w.send(`{"id":2,"subscribe":{"channel":"hook:a"}}`)
			w.want(`{"id":2,"subscribe":{}}`)
			<-o.calls
			o.says("/publish", tc.answer)
			w.send(`{"id":3,"publish":{"channel":"hook:a","data":{"text":"hi"}}}`)
			got := map[bool]string{}
			for range 1 + min(len(tc.pub), 1) {
				line := w.next()
				got[strings.HasPrefix(line, `{"push"`)] = line
			}
			if !match(tc.want, got[false]) || tc.pub != "" && !match(`{"push":{"channel":"hook:a","pub":`+tc.pub+`}}`, got[true]) {
				t.Errorf("got %s and %s", got[false], got[true])
			}
			o.wantCall("/publish", commonFields+`"channel":"hook:a","data":{"text":"hi"}}`)
			w.sync()
		})
	}
}

// A repeat of the backend's idempotency key, and a version that is not newer,
// are published once.
func TestAskedPublishOnce(t *testing.T) {
	for name, answer := range map[string]string{"key": `{"result":{"idempotency_key":"k"}}`, "version": `{"result":{"version":3}}`} {
		t.Run(name, func(t *testing.T) {
			o := newHookBackend(t)
			h := startHub(t, withHooks, o.into)
			w := h.known(o, dialOptions{}, "")
			o.says("/publish", answer)
			w.send(`{"id":2,"publish":{"channel":"hook:a","data":1}}`, `{"id":3,"publish":{"channel":"hook:a","data":2}}`)
			w.want(`{"id":2,"publish":{}}`, `{"id":3,"publish":{}}`)
			w.send(`{"id":4,"subscribe":{"channel":"hook:a"}}`, `{"id":5,"history":{"channel":"hook:a","limit":10}}`)
			w.want(`{"id":4,"subscribe":{}}`, `{"id":5,"history":{"publications":[{"data":1,*}],"epoch":"*","offset":1}}`)
		})
	}
}

func TestAskRPC(t *testing.T) {
	forBoth(t, func(t *testing.T, opts dialOptions, protocol string) {
		o := newHookBackend(t)
		h := startHub(t, withHooks, o.into)
		w := h.known(o, opts, "")
		o.says("/rpc", `{"result":{"data":{"n":
			1}}}`, `{}`, `{"error":{"code":1404,"message":"no such order"}}`, `500 `, `{"disconnect":{"code":4700,"reason":"bye"}}`)
		w.send(`{"id":2,"rpc":{"method":"shop:orders","data":{"a":1}}}`, `{"id":3,"rpc":{"method":"shop:x"}}`, `{"id":4,"rpc":{"method":"shop:x"}}`,
			`{"id":5,"rpc":{"method":"shop:x"}}`, `{"id":6,"rpc":{"method":"off:x"}}`, `{"id":7,"rpc":{"method":"other:x"}}`, `{"id":8,"rpc":{"method":"x"}}`)
		w.want(`{"id":2,"rpc":{"data":{"n":1}}}`, `{"id":3,"rpc":{}}`, `{"id":4,"error":{"code":1404,"message":"no such order"}}`,
			`{"id":5,"error":{"code":100,"message":"internal server error","temporary":true}}`, `{"id":6,"error":{"code":108,"message":"not available"}}`,
			`{"id":7,"error":{"code":104,"message":"method not found"}}`, `{"id":8,"error":{"code":108,"message":"not available"}}`)
		o.wantCall("/rpc", `{"client":"*","transport":"websocket","protocol":"`+protocol+`","encoding":"json","user":"u","method":"shop:orders","data":{"a":1}}`)
		w.send(`{"id":9,"rpc":{"method":"shop:x"}}`)
		w.wantEnd(&Disconnect{4700, "bye"})
	})
}

// The webhook answers what it is switched on for, rpc.upstream the rest.
func TestAskRPCBesideUpstream(t *testing.T) {
	o, b := newHookBackend(t), newBackend()
	h := startHub(t, withHooks, o.into, b.into)
	w := h.known(o, dialOptions{}, "")
	o.says("/rpc", `{"result":{"data":"webhook"}}`)
	w.send(`{"id":2,"rpc":{"method":"shop:x"}}`, `{"id":3,"rpc":{"method":"echo","data":"upstream"}}`)
	w.want(`{"id":2,"rpc":{"data":"webhook"}}`, `{"id":3,"rpc":{"data":"upstream"}}`)
}

// Where a proxy takes base64, clients that speak Protobuf send what they like;
// else they are told that it is none.
func TestBinaryEncoding(t *testing.T) {
	o := newHookBackend(t)
	h := startHub(t, func(s *Settings) {
		withHooks(s)
		s.RPC.Proxy.Binary, s.Channel.Proxy.Publish.Binary = true, true
	}, o.into)
	w := h.known(o, dialOptions{}, "")
	o.says("/rpc", `{"result":{"b64data":"eyJhIjoxfQ=="}}`, `{"result":{"b64data":"/wA="}}`)
	w.send(`{"id":2,"rpc":{"method":"shop:x","data":{"a":1}}}`, `{"id":3,"rpc":{"method":"shop:x"}}`)
	w.want(`{"id":2,"rpc":{"data":{"a":1}}}`, `{"id":3,"error":{"code":100,*`) // bytes are nothing for JSON
	o.wantCall("/rpc", `{"client":"*","transport":"websocket","protocol":"json","encoding":"binary","user":"u","method":"shop:x","b64data":"eyJhIjoxfQ=="}`)
}

func TestHeadersForBackend(t *testing.T) {
	o := newHookBackend(t)
	h := startHub(t, func(s *Settings) {
		withHooks(s)
		p := &s.Client.Proxy.Connect.Proxy
		p.HTTPHeaders = []string{"origin", "X-Real-IP", "authorization", "Cookie"}
		p.EmulatedHeaders = []string{"Cookie", "x-app", "x-token", "origin"}
		p.HTTP.StaticHeaders = map[string]settings.Secret{"X-App": "static", "X-Key": "key", "origin": "static"}
	}, o.into)
	o.says("/connect", `{"result":{"user":"u"}}`)
	w := h.dial(dialOptions{header: http.Header{
		"Authorization": {"Bearer eyJ.foreign.jwt"}, "Origin": {"https://a.example"}, "X-Real-Ip": {"203.0.113.9"}, "X-Secret": {"s"}, "Content-Type": {"text/x"},
	}})
	w.send(`{"id":1,"connect":{"headers":{"cookie":"emulated","X-App":"emulated","X-Token":"a mg_login","origin":"emulated","X-Secret":"e"}}}`)
	w.want(`{"id":1,"connect":{*`)
	got := (<-o.calls).header
	for name, want := range map[string]string{
		"Authorization": "Bearer eyJ.foreign.jwt", "Origin": "https://a.example", "X-Real-Ip": h.listener.clientIP(), "Cookie": "emulated", "X-App": "emulated",
		"X-Key": "key", "X-Secret": "", "X-Token": "", "Content-Type": "application/json", "X-Minigate-Event": "connect",
	} {
		if got := got.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}

	w = h.dial(dialOptions{})
	w.send(`{"id":1,"connect":{"headers":{"cookie":"a\r\nX-Evil: 1"}}}`)
	w.wantEnd(DisconnectBadRequest)
	o.wantNoCall()
	if _, resp, err := h.tryDial(dialOptions{header: http.Header{"Cookie": {strings.Repeat("c", 9<<10)}}}); err == nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("too large headers: %v, %v", resp, err)
	}
}

// Our own login tokens stay here, wherever they are.
func TestLoginTokensStay(t *testing.T) {
	o := newHookBackend(t)
	h := startHub(t, func(s *Settings) {
		withHooks(s)
		s.Client.Proxy.Connect.ForLogins = true
		s.Client.Proxy.Connect.HTTPHeaders = []string{"Authorization", "Cookie"}
	}, o.into)
	w := h.dial(dialOptions{header: http.Header{"Authorization": {"Bearer mg_alice"}, "Cookie": {"a=b; t=mg_alice"}}})
	w.send(`{"id":1,"connect":{}}`)
	w.want(`{"id":1,"connect":{*`)
	if got := (<-o.calls).header; got.Get("Authorization") != "" || got.Get("Cookie") != "" {
		t.Errorf("passed on: %v", got)
	}
}

func TestMetaForBackend(t *testing.T) {
	o := newHookBackend(t)
	h := startHub(t, func(s *Settings) {
		withHooks(s)
		s.RPC.Proxy.IncludeMeta = true
		withJWT(s)
	}, o.into)
	w := h.known(o, dialOptions{}, `,"meta":{"m":1}`)
	w.send(`{"id":2,"rpc":{"method":"shop:x"}}`)
	w.want(`{"id":2,"rpc":{}}`)
	o.wantCall("/rpc", commonFields+`"method":"shop:x","meta":{"m":1}}`)
	w = h.loginJWT(object{"sub": "j", "meta": object{"j": 2}})
	w.send(`{"id":2,"rpc":{"method":"shop:x"}}`)
	w.want(`{"id":2,"rpc":{}}`)
	o.wantCall("/rpc", `*"user":"j","method":"shop:x","meta":{"j":2}}`)
	h = startHub(t, func(s *Settings) { withHooks(s); s.RPC.Proxy.IncludeMeta = true }, o.into)
	w, _ = h.login("alice/vip")
	w.send(`{"id":2,"rpc":{"method":"shop:x"}}`)
	w.want(`{"id":2,"rpc":{}}`)
	o.wantCall("/rpc", `*"user":"alice","method":"shop:x","meta":{"appid":"wx1","unionid":"union-alice","claims":{"vip":true}}}`)
}

// Namespaces choose webhooks by name.
func TestNamedProxies(t *testing.T) {
	o := newHookBackend(t)
	h := startHub(t, func(s *Settings) {
		withHooks(s)
		var p ask.Named
		settings.Defaults(&p)
		p.Name, p.Endpoint = "other", "http://other/all"
		s.Proxies = []ask.Named{p}
		s.Channel.WithoutNamespace.SubscribeProxyEnabled, s.Channel.WithoutNamespace.SubscribeProxyName = true, "other"
		s.RPC.WithoutNamespace = ask.RPCRules{ProxyEnabled: true, ProxyName: "other"}
	}, o.into)
	w := h.known(o, dialOptions{}, "")
	w.send(`{"id":2,"subscribe":{"channel":"plain"}}`, `{"id":3,"rpc":{"method":"y"}}`, `{"id":4,"rpc":{"method":"shop:y"}}`)
	w.want(`{"id":2,"subscribe":{*`, `{"id":3,"rpc":{}}`, `{"id":4,"rpc":{}}`)
	o.wantCall("/all", commonFields+`"channel":"plain"}`)
	o.wantCall("/all", commonFields+`"method":"y"}`)
	o.wantCall("/rpc", commonFields+`"method":"shop:y"}`)
}

// Commands keep their order behind a slow answer, and the end of the connection
// breaks the question off.
func TestQuestionsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newHookBackend(t)
		h := startHub(t, withHooks, o.into)
		w := h.known(o, dialOptions{}, "")
		o.hold = make(chan struct{})
		w.send(`{"id":2,"subscribe":{"channel":"hook:a"}}`, `{"id":3,"subscribe":{"channel":"live:a"}}`)
		<-o.calls
		close(o.hold)
		w.want(`{"id":2,"subscribe":{}}`, `{"id":3,"subscribe":{}}`)
		o.hold = make(chan struct{})
		w.send(`{"id":4,"publish":{"channel":"hook:a","data":1}}`)
		<-o.calls
		h.EndUser("u", DisconnectForced)
		if err := <-o.ended; !errors.Is(err, context.Canceled) { // and no timeout
			t.Errorf("the question ended with %v", err)
		}
		w.wantEnd(DisconnectForced)
	})
}

// A backend that does not answer in time costs its own timeout, no more.
func TestQuestionTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newHookBackend(t)
		h := startHub(t, withHooks, o.into)
		w := h.known(o, dialOptions{}, "")
		o.hold = make(chan struct{})
		for id := range 5 { // then the breaker opens
			w.send(`{"id":` + itoa(id+2) + `,"rpc":{"method":"shop:x"}}`)
			w.want(`{"id":` + itoa(id+2) + `,"error":{"code":100,"message":"internal server error","temporary":true}}`)
			<-o.calls
			if err := <-o.ended; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the question ended with %v", err)
			}
		}
		w.send(`{"id":9,"rpc":{"method":"shop:x"}}`)
		w.want(`{"id":9,"error":{"code":100,"message":"internal server error","temporary":true}}`)
		o.wantNoCall()
	})
}

// Bytes that are no JSON reach only those who take base64, and come back the
// same way.
func TestBytesForBackend(t *testing.T) {
	for name, tc := range map[string]struct {
		binary bool
		want   *protocol.Reply
	}{
		"base64": {true, &protocol.Reply{Id: 2, Rpc: &protocol.RPCResult{Data: []byte{0xff, 0}}}},
		"json":   {false, &protocol.Reply{Id: 2, Error: &protocol.Error{Code: 107, Message: "bad request"}}},
	} {
		t.Run(name, func(t *testing.T) {
			o := newHookBackend(t)
			h := startHub(t, func(s *Settings) { withHooks(s); s.RPC.Proxy.Binary = tc.binary }, o.into)
			o.says("/connect", `{"result":{"user":"u"}}`)
			o.says("/rpc", `{"result":{"b64data":"/wA="}}`)
			w := h.dial(dialOptions{protobuf: true, decoded: true})
			w.send(`{"id":1,"connect":{}}`)
			<-w.replies
			<-o.calls
			enc := protocol.NewProtobufDataEncoder()
			packCommand(t, enc, &protocol.Command{Id: 2, Rpc: &protocol.RPCRequest{Method: "shop:x", Data: []byte{0xff, 1}}})
			if err := w.conn.Write(t.Context(), websocket.MessageBinary, enc.Finish()); err != nil {
				t.Fatal(err)
			}
			if got := <-w.replies; !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			if tc.binary {
				o.wantCall("/rpc", `*"encoding":"binary","user":"u","method":"shop:x","b64data":"/wE="}`)
			}
			o.wantNoCall()
		})
	}
}

// Whom the backend does not know may be nobody, where that is allowed.
func TestUnknownIsNobody(t *testing.T) {
	o := newHookBackend(t)
	h := startHub(t, func(s *Settings) { withHooks(s); s.Client.AllowAnonymous = true }, o.into)
	w := h.dial(dialOptions{})
	w.send(`{"id":1,"connect":{}}`, `{"id":2,"rpc":{"method":"shop:x"}}`)
	w.want(`{"id":1,"connect":{*`, `{"id":2,"rpc":{}}`)
	o.wantCall("/connect", `*"encoding":"json"}`)
	o.wantCall("/rpc", `*"user":"","method":"shop:x"}`)
}
