package gateway

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A push is what the protocol's own encoder makes of it, which refuses what is not
// JSON, and stays what it is when the next one is encoded.
func TestPushesAreEncodedAsByTheProtocol(t *testing.T) {
	ch := &channel{name: "feed:\"a\""}
	var kept, wanted [][]byte
	places := map[string]func(*envelope, protocol.Raw){
		"data": func(v *envelope, raw protocol.Raw) { v.pub.Data, v.push.Pub = raw, &v.pub },
		"conn info": func(v *envelope, raw protocol.Raw) {
			v.pub.Info, v.push.Pub = &protocol.ClientInfo{ConnInfo: raw}, &v.pub
		},
		"chan info": func(v *envelope, raw protocol.Raw) {
			v.pub.Info, v.push.Pub = &protocol.ClientInfo{ChanInfo: raw}, &v.pub
		},
		"who came": func(v *envelope, raw protocol.Raw) {
			v.join.Info, v.push.Join = &protocol.ClientInfo{ConnInfo: raw}, &v.join
		},
		"who left": func(v *envelope, raw protocol.Raw) {
			v.leave.Info, v.push.Leave = &protocol.ClientInfo{ChanInfo: raw}, &v.leave
		},
	}
	for place, put := range places {
		for _, raw := range []string{`{"a":1}`, "[1,\n2]", "\n", "", `{"a":`, `1,"b":2`, `"` + strings.Repeat("x", 5*fullBatch) + `"`, `"short"`} {
			fill := func(v *envelope) { put(v, protocol.Raw(raw)) }
			same := envelope{push: protocol.Push{Channel: ch.name}}
			same.reply.Push = &same.push
			fill(&same)
			want, err := protocol.DefaultJsonReplyEncoder.Encode(&same.reply)
			var frame, data []byte
			ch.encodeIn(0, fill, func(msg []byte) { frame, data = frameOf(encoding(0).opcode(), msg) })
			if (err != nil) != (frame == nil) || string(data) != string(want) {
				t.Errorf("%.20q as %s: %.100q, want %.100q (%v)", raw, place, data, want, err)
			}
			kept, wanted = append(kept, data), append(wanted, want)
		}
	}
	for i, data := range kept {
		if string(data) != string(wanted[i]) {
			t.Errorf("a message has become %.100q, was %.100q", data, wanted[i])
		}
	}
}

// bothEncodings runs a test as a client that speaks JSON and as one that
// speaks Protobuf, which the official codec translates.
func bothEncodings(t *testing.T, f func(t *testing.T, o dialOptions)) {
	t.Run("json", func(t *testing.T) { f(t, dialOptions{}) })
	t.Run("protobuf", func(t *testing.T) { f(t, dialOptions{protobuf: true}) })
}

// Every reply and every push says the same in both encodings.
func TestEncodings(t *testing.T) {
	bothEncodings(t, func(t *testing.T, o dialOptions) {
		h := startHub(t, nil)
		w, _ := h.loginWith(o, "alice/vip")
		info := `"user":"alice","client":"*"*`
		w.send(`{"id":2,"subscribe":{"channel":"room:a"}}`)
		w.want(`{"id":2,"subscribe":{"recoverable":true,"epoch":"*","positioned":true}}`)
		w.want(`{"push":{"channel":"room:a","join":{"info":{` + info + `}}}}`)
		w.send(`{"id":3,"publish":{"channel":"room:a","data":{"text":"你好"}}}`)
		w.wantAll(`{"push":{"channel":"room:a","pub":{"data":{"text":"你好"},"info":{`+info+`},"offset":1,"epoch":"*"}}}`, `{"id":3,"publish":{}}`)
		w.send(`{"id":4,"presence":{"channel":"room:a"}}`,
			`{"id":5,"presence_stats":{"channel":"room:a"}}`, `{"id":6,"history":{"channel":"room:a","limit":-1}}`,
			`{"id":7,"rpc":{"method":"x","data":1}}`, `{"id":8,"refresh":{"token":"alice/2"}}`)
		w.want(`{"id":4,"presence":{"presence":{"*":{`+info+`}}}}`,
			`{"id":5,"presence_stats":{"num_clients":1,"num_users":1}}`,
			`{"id":6,"history":{"publications":[{"data":{"text":"你好"},"info":{`+info+`},"offset":1}],"epoch":"*","offset":1}}`,
			`{"id":7,"error":{"code":108,"message":"not available"}}`,
			`{"id":8,"refresh":{}}`)
		bob, _ := h.login("bob")
		bob.send(`{"id":2,"subscribe":{"channel":"room:a"}}`, `{"id":3,"unsubscribe":{"channel":"room:a"}}`)
		w.want(`{"push":{"channel":"room:a","join":{"info":{"user":"bob"*`, `{"push":{"channel":"room:a","leave":{"info":{"user":"bob"*`)
		h.publish("room:a", `2`)
		w.want(`{"push":{"channel":"room:a","pub":{"data":2,"offset":2}}}`)
		if res, err := h.Push(t.Context(), PushRequest{All: true, Data: json.RawMessage(`{"all":1}`)}); err != nil || res.All != 2 {
			t.Errorf("reached %d: %v", res.All, err)
		}
		w.want(`{"push":{"message":{"data":{"all":1}}}}`)
		w.send(`{"id":9,"subscribe":{"channel":"live:a"}}`, `{"id":10,"unsubscribe":{"channel":"live:a"}}`, `{"id":11,"subscribe":{"channel":"feed:a"}}`)
		w.want(`{"id":9,"subscribe":{}}`, `{"id":10,"unsubscribe":{}}`, `{"id":11,"subscribe":*`)
		if err := h.Unsubscribe(t.Context(), "alice", "feed:a", Selection{}); err != nil {
			t.Fatal(err)
		}
		w.want(`{"push":{"channel":"feed:a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`)
		if err := h.Disconnect(context.Background(), "alice", DisconnectOptions{}); err != nil {
			t.Fatal(err)
		}
		w.wantEnd(DisconnectForced)
	})
}

// Pings and pongs work in both encodings: without pongs the connection ends.
func TestEncodedPing(t *testing.T) {
	bothEncodings(t, func(t *testing.T, o dialOptions) {
		synctest.Test(t, func(t *testing.T) {
			h := startHub(t, nil)
			w, _ := h.loginWith(o, "alice")
			for range 3 {
				w.want("{}")
				w.send("{}")
			}
			w.want("{}")
			w.wantEnd(DisconnectNoPong)
		})
	})
}

// Several messages travel in one frame, both ways.
func TestProtobufBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil)
		w := h.dial(dialOptions{protobuf: true, deaf: true})
		w.send(`{"id":1,"connect":{"token":"alice"}}`, `{"id":2,"subscribe":{"channel":"live:a"}}`)
		synctest.Wait() // its writer hangs in the first frame
		for range 3 {
			h.publish("live:a", "1")
		}
		sizes := []int{}
		for range 2 {
			_, frame, err := w.conn.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for dec := protocol.NewProtobufReplyDecoder(frame); ; n++ {
				if r, err := dec.Decode(); r == nil {
					if err.Error() != "EOF" {
						t.Fatal(err)
					}
					break
				}
			}
			sizes = append(sizes, n)
		}
		if sizes[0]+sizes[1] != 5 || sizes[1] < 3 {
			t.Errorf("frames of %v messages", sizes)
		}
	})
}

// What is in the wrong kind of frame, or not in the encoding agreed upon, is
// refused in words; JSON may also come as bytes.
func TestWrongEncoding(t *testing.T) {
	command := []byte(`{"id":1,"connect":{"token":"alice"}}`)
	for name, tc := range map[string]struct {
		dial  dialOptions
		typ   websocket.MessageType
		frame []byte
		want  *Disconnect
	}{
		"text on a protobuf socket":       {dialOptions{protobuf: true}, websocket.MessageText, command, DisconnectProtocol},
		"a text pong on protobuf":         {dialOptions{protobuf: true}, websocket.MessageText, []byte{0}, DisconnectProtocol},
		"json in bytes on protobuf":       {dialOptions{protobuf: true}, websocket.MessageBinary, command, DisconnectBadRequest},
		"empty on protobuf":               {dialOptions{protobuf: true}, websocket.MessageBinary, nil, DisconnectBadRequest},
		"cut off":                         {dialOptions{protobuf: true}, websocket.MessageBinary, []byte{9, 8}, DisconnectBadRequest},
		"length without end":              {dialOptions{protobuf: true}, websocket.MessageBinary, []byte{0xff}, DisconnectBadRequest},
		"protobuf on a json socket":       {dialOptions{}, websocket.MessageBinary, pack(t, command), DisconnectBadRequest},
		"json in bytes on a json socket":  {dialOptions{}, websocket.MessageBinary, command, nil},
		"protobuf asked for in the query": {dialOptions{query: "?cf_protocol=protobuf", binary: true}, websocket.MessageBinary, pack(t, command), nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, nil)
			w := h.dial(tc.dial)
			if err := w.conn.Write(t.Context(), tc.typ, tc.frame); err != nil {
				t.Fatal(err)
			}
			if tc.want == nil {
				w.want(`{"id":1,"connect":{"client":*`)
				return
			}
			w.wantEnd(tc.want)
		})
	}
}

// What is not JSON goes to those who speak Protobuf. Those who speak JSON are
// not sent it, and lose neither their place nor their connection.
func TestDataThatIsNotJSON(t *testing.T) {
	h := startHub(t, nil)
	text, _ := h.login("alice")
	binary, _ := h.loginWith(dialOptions{protobuf: true}, "bob")
	for _, w := range []*wire{text, binary} {
		w.send(`{"id":2,"subscribe":{"channel":"delta:a"}}`)
		w.want(`{"id":2,"subscribe":*`)
	}
	raw := "\xff\x00{"
	enc := protocol.NewProtobufDataEncoder()
	packCommand(t, enc, &protocol.Command{Id: 3, Publish: &protocol.PublishRequest{Channel: "delta:a", Data: []byte(raw)}})
	packCommand(t, enc, &protocol.Command{Id: 4, Publish: &protocol.PublishRequest{Channel: "delta:a", Data: []byte("{\n\"a\":\n1}")}})
	if err := binary.conn.Write(t.Context(), websocket.MessageBinary, enc.Finish()); err != nil {
		t.Fatal(err)
	}
	binary.wantAll(`binary delta:a "\xff\x00{"`, `{"id":3,"publish":{}}`,
		`{"push":{"channel":"delta:a","pub":{"data":{"a":1},"info":*"offset":2}}}`, `{"id":4,"publish":{}}`)
	text.want(`{"push":{"channel":"delta:a","pub":{"data":{"a":1},"info":*"offset":2}}}`)
	if n := testutil.ToFloat64(h.metrics.undeliverable); n != 1 {
		t.Errorf("%v counted", n)
	}
	text.send(`{"id":3,"history":{"channel":"delta:a","limit":-1}}`)
	text.want(`{"id":3,"history":{"publications":[{"data":{"a":1},"info":*,"offset":2}],"epoch":"*","offset":2}}`)
	text.send(`{"id":4,"unsubscribe":{"channel":"delta:a"}}`, `{"id":5,"subscribe":{"channel":"delta:a","recover":true}}`)
	text.want(`{"id":4,"unsubscribe":{}}`, `{"id":5,"subscribe":{"recoverable":true,"epoch":"*","publications":[{"data":{"a":1},"info":*,"offset":2}],"recovered":true,"positioned":true,"was_recovering":true}}`)
	text.sync()
}

// Clients that can do with numbers get them instead of names, where it is
// allowed and works; all of a node get the same one for a channel.
func TestChannelIDs(t *testing.T) {
	t.Run("on", func(t *testing.T) {
		h := startHub(t, nil)
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"room:a","flag":1}}`)
		id := decode(t, w.next()).Subscribe.Id
		if id <= 0 {
			t.Fatalf("id %d", id)
		}
		push := `{"push":{"id":` + itoa(int(id)) + `,`
		w.want(push + `"join":{"info":{"user":"alice"*`)
		bob, _ := h.login("bob")
		bob.send(`{"id":2,"subscribe":{"channel":"room:a","flag":1}}`, `{"id":3,"unsubscribe":{"channel":"room:a"}}`)
		if other := decode(t, bob.next()).Subscribe.Id; other != id {
			t.Errorf("ids %d and %d", id, other)
		}
		w.want(push+`"join":{"info":{"user":"bob"*`, push+`"leave":{"info":{"user":"bob"*`)
		h.publish("room:a", "1")
		w.want(push + `"pub":{"data":1,"offset":1,"epoch":"*"}}}`)
		w.send(`{"id":3,"subscribe":{"channel":"room:b","flag":1}}`)
		if other := decode(t, w.next()).Subscribe.Id; other == id || other <= 0 {
			t.Errorf("id %d for both channels", other)
		}
		w.want(`{"push":{"id":*`)
		if err := h.Unsubscribe(t.Context(), "alice", "room:a", Selection{}); err != nil {
			t.Fatal(err)
		}
		for line := w.next(); !strings.Contains(line, "unsubscribe"); line = w.next() {
			if !strings.Contains(line, "leave") {
				t.Error(line)
			}
		}
	})
	t.Run("protobuf", func(t *testing.T) {
		h := startHub(t, nil)
		w, _ := h.loginWith(dialOptions{protobuf: true}, "alice")
		w.send(`{"id":2,"subscribe":{"channel":"live:a","flag":1}}`)
		w.want(`{"id":2,"subscribe":{}}`)
		h.publish("live:a", "1")
		w.want(`{"push":{"channel":"live:a","pub":{"data":1}}}`)
	})
	t.Run("off", func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.AllowChannelCompaction = false })
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"live:a","flag":1}}`)
		w.want(`{"id":2,"subscribe":{}}`)
		h.publish("live:a", "1")
		w.want(`{"push":{"channel":"live:a","pub":{"data":1}}}`)
	})
	t.Run("server-side", func(t *testing.T) {
		h := startHub(t, nil)
		w := h.dial(dialOptions{})
		w.send(`{"id":1,"connect":{"token":"alice","subs":{"live:a":{"flag":1}}}}`)
		if r := decode(t, w.next()); r.Connect.Subs["live:a"] == nil || r.Connect.Subs["live:a"].Id != 0 {
			t.Errorf("%v", r)
		}
		h.publish("live:a", "1")
		w.want(`{"push":{"channel":"live:a","pub":{"data":1}}}`)
	})
}

// A message is encoded once for all who speak the same, and not at all where
// nobody does; the backlog knows its size.
func TestEncodedOnce(t *testing.T) {
	h := startHub(t, nil)
	var clients []*wire
	for i, o := range []dialOptions{{}, {}, {protobuf: true}, {protobuf: true}} {
		w, _ := h.loginWith(o, "alice")
		w.send(`{"id":2,"subscribe":{"channel":"live:a","flag":` + itoa(i&1) + `}}`)
		w.want(`{"id":2,"subscribe":{*}}`)
		clients = append(clients, w)
	}
	ch := h.channels.get("live:a")
	h.publish("live:a", `"x"`)
	ch.mu.Lock()
	m := ch.log.messages[0]
	ch.mu.Unlock()
	for _, w := range clients {
		w.want(`{"push":{*"pub":{"data":"x"}}}`)
	}
	total := len(m.pub.Data)
	for _, e := range []encoding{0, byID, asProtobuf, asProtobuf | byID} {
		a, b := m.in(e).frame, m.in(e).frame
		if len(a) == 0 || &a[0] != &b[0] {
			t.Errorf("encoding %d: not shared", e)
		}
		if p := m.in(e | forDelta).frame; e&asProtobuf != 0 && &p[0] != &a[0] {
			t.Errorf("encoding %d: whole data for deltas is encoded apart", e)
		}
		total += len(a)
	}
	forms := 0
	for f := m.forms.Load(); f != nil; f = f.next {
		forms++
	}
	if forms != 6 { // and two of JSON in strings, asked for above
		t.Errorf("%d forms", forms)
	}
	total += len(m.in(forDelta).frame) + len(m.in(forDelta|byID).frame)
	if n := ch.log.bytes.Load(); n != int64(total) {
		t.Errorf("backlog of %d bytes, want %d", n, total)
	}
	ch.mu.Lock()
	ch.log.expire(h.now() + time.Hour)
	ch.mu.Unlock()
	m.in(asDelta)
	if n := ch.log.bytes.Load(); n != 0 {
		t.Errorf("%d bytes after it was dropped", n)
	}
}
