package gateway

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
)

// Every line is what one connected client sends in one frame, and all it gets.
func TestCommands(t *testing.T) {
	long := "live:" + strings.Repeat("x", 251)
	fail := func(id, code, msg string) string {
		return `{"id":` + id + `,"error":{"code":` + code + `,"message":"` + msg + `"}}`
	}
	for name, tc := range map[string]struct {
		send []string
		want []string
	}{
		"id after the request":          {[]string{`{"subscribe":{"channel":"live:a"},"id":2}`}, []string{`{"id":2,"subscribe":{}}`}},
		"several in one frame":          {[]string{`{"id":2,"subscribe":{"channel":"live:a"}}`, `{"id":3,"unsubscribe":{"channel":"live:a"}}`, `{"id":4,"subscribe":{"channel":"live:a"}}`}, []string{`{"id":2,"subscribe":{}}`, `{"id":3,"unsubscribe":{}}`, `{"id":4,"subscribe":{}}`}},
		"trailing newline":              {[]string{`{"id":2,"unsubscribe":{"channel":"x"}}`, ``}, []string{`{"id":2,"unsubscribe":{}}`}},
		"unknown keys":                  {[]string{`{"id":2,"new":1,"unsubscribe":{"channel":"x","newer":[]}}`}, []string{`{"id":2,"unsubscribe":{}}`}},
		"pong without ping":             {[]string{`{}`, `{}`}, nil},
		"no id is a pong":               {[]string{`{"subscribe":{"channel":"live:a"}}`}, nil},
		"unsubscribe unknown namespace": {[]string{`{"id":2,"unsubscribe":{"channel":"nope:a"}}`}, []string{`{"id":2,"unsubscribe":{}}`}},
		"subscribe twice":               {[]string{`{"id":2,"subscribe":{"channel":"live:a"}}`, `{"id":3,"subscribe":{"channel":"live:a"}}`}, []string{`{"id":2,"subscribe":{}}`, fail("3", "105", "already subscribed")}},
		"subscribe twice, not allowed":  {[]string{`{"id":2,"subscribe":{"channel":"#alice","token":"forged"}}`}, []string{fail("2", "105", "already subscribed")}},
		"subscribe to server-side":      {[]string{`{"id":2,"subscribe":{"channel":"#alice"}}`}, []string{fail("2", "105", "already subscribed")}},
		"unknown namespace":             {[]string{`{"id":2,"subscribe":{"channel":"nope:a"}}`}, []string{fail("2", "102", "unknown channel")}},
		"name too long":                 {[]string{`{"id":2,"subscribe":{"channel":"` + long + `"}}`}, []string{fail("2", "107", "bad request")}},
		"name not ASCII":                {[]string{`{"id":2,"subscribe":{"channel":"live:房"}}`}, []string{fail("2", "107", "bad request")}},
		"name not as the regex":         {[]string{`{"id":2,"subscribe":{"channel":"named:A"}}`}, []string{fail("2", "107", "bad request")}},
		"not allowed":                   {[]string{`{"id":2,"subscribe":{"channel":"plain"}}`}, []string{fail("2", "103", "permission denied")}},
		"history of a private channel":  {[]string{`{"id":2,"history":{"channel":"$asked:a"}}`}, []string{fail("2", "103", "permission denied")}},
		"publish to a private channel":  {[]string{`{"id":2,"publish":{"channel":"$room:a","data":1}}`}, []string{fail("2", "103", "permission denied")}},
		"private":                       {[]string{`{"id":2,"subscribe":{"channel":"$live:a"}}`}, []string{fail("2", "103", "permission denied")}},
		"other kind":                    {[]string{`{"id":2,"subscribe":{"channel":"live:a","type":1}}`}, []string{fail("2", "103", "permission denied")}},
		"filter":                        {[]string{`{"id":2,"subscribe":{"channel":"live:a","tf":{"key":"k","cmp":"ex"}}}`}, []string{fail("2", "107", "bad request")}},
		"fossil is not given":           {[]string{`{"id":2,"subscribe":{"channel":"live:a","delta":"fossil","flag":1}}`}, []string{`{"id":2,"subscribe":{"id":*}}`}},
		"user limited, named":           {[]string{`{"id":2,"subscribe":{"channel":"dialog:#bob,alice"}}`}, []string{`{"id":2,"subscribe":{"recoverable":true,"epoch":"*","positioned":true}}`}},
		"user limited, not named":       {[]string{`{"id":2,"subscribe":{"channel":"dialog:#bob"}}`}, []string{fail("2", "103", "permission denied")}},
		"someone's channel":             {[]string{`{"id":2,"subscribe":{"channel":"live:#bob"}}`}, []string{fail("2", "103", "permission denied")}},
		"someone's history":             {[]string{`{"id":2,"history":{"channel":"dialog:#bob","limit":1}}`}, []string{fail("2", "103", "permission denied")}},
		"someone's unionid":             {[]string{`{"id":2,"subscribe":{"channel":"union:#union-bob"}}`, `{"id":3,"publish":{"channel":"union:#union-bob","data":1}}`}, []string{fail("2", "103", "permission denied"), fail("3", "103", "permission denied")}},
		"publish":                       {[]string{`{"id":2,"publish":{"channel":"room:a","data":{"x":1}}}`}, []string{`{"id":2,"publish":{}}`}},
		"publish to someone":            {[]string{`{"id":2,"publish":{"channel":"room:#bob","data":1}}`, `{"id":3,"publish":{"channel":"room:#bob,alice","data":1}}`}, []string{fail("2", "103", "permission denied"), `{"id":3,"publish":{}}`}},
		"publish nothing":               {[]string{`{"id":2,"publish":{"channel":"room:a"}}`}, []string{fail("2", "107", "bad request")}},
		"publish not allowed":           {[]string{`{"id":2,"publish":{"channel":"feed:a","data":1}}`}, []string{fail("2", "103", "permission denied")}},
		"publish for subscribers":       {[]string{`{"id":2,"publish":{"channel":"live:a","data":1}}`}, []string{fail("2", "103", "permission denied")}},
		"presence off":                  {[]string{`{"id":2,"presence":{"channel":"feed:a"}}`, `{"id":3,"presence_stats":{"channel":"feed:a"}}`}, []string{fail("2", "108", "not available"), fail("3", "108", "not available")}},
		"presence not allowed":          {[]string{`{"id":2,"presence":{"channel":"room:a"}}`}, []string{fail("2", "103", "permission denied")}},
		"history off":                   {[]string{`{"id":2,"history":{"channel":"live:a"}}`}, []string{fail("2", "108", "not available")}},
		"history not allowed":           {[]string{`{"id":2,"history":{"channel":"feed:a"}}`}, []string{fail("2", "103", "permission denied")}},
		"history, position only":        {[]string{`{"id":2,"history":{"channel":"asked:a"}}`}, []string{`{"id":2,"history":{"publications":[],"epoch":"*","offset":0}}`}},
		"history of another epoch":      {[]string{`{"id":2,"history":{"channel":"asked:a","limit":-1,"since":{"epoch":"x"}}}`}, []string{fail("2", "112", "unrecoverable position")}},
		"history backwards from 0":      {[]string{`{"id":2,"history":{"channel":"asked:a","limit":-1,"reverse":true,"since":{}}}`}, []string{fail("2", "107", "bad request")}},
		"rpc":                           {[]string{`{"id":2,"rpc":{"method":"x"}}`}, []string{fail("2", "108", "not available")}},
		"sub_refresh, unknown":          {[]string{`{"id":2,"sub_refresh":{"channel":"live:a","token":"x"}}`}, []string{fail("2", "103", "permission denied")}},
		"sub_refresh without token":     {[]string{`{"id":2,"subscribe":{"channel":"live:a"}}`, `{"id":3,"sub_refresh":{"channel":"live:a"}}`}, []string{`{"id":2,"subscribe":{}}`, fail("3", "107", "bad request")}},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, nil)
			w, _ := h.login("alice")
			w.send(strings.Join(tc.send, "\n"))
			w.want(tc.want...)
			w.sync()
		})
	}
}

// Every line is what ends a connection.
func TestFatalCommands(t *testing.T) {
	connect := `{"connect":{"token":"alice"},"id":1}`
	for name, tc := range map[string]struct {
		before bool // instead of after connect
		send   string
		want   *Disconnect
	}{
		"empty":                     {false, ``, DisconnectBadRequest},
		"not JSON":                  {false, `hello`, DisconnectBadRequest},
		"half a command":            {false, `{"id":2,"rpc":{`, DisconnectBadRequest},
		"blank line between":        {false, "{}\n\n{}", DisconnectBadRequest},
		"duplicate key":             {false, `{"id":2,"id":3,"rpc":{}}`, DisconnectBadRequest},
		"not UTF-8":                 {false, "{\"id\":2,\"rpc\":{\"method\":\"\xff\"}}", DisconnectBadRequest},
		"wrong type":                {false, `{"id":"2","rpc":{}}`, DisconnectBadRequest},
		"id out of range":           {false, `{"id":4294967296,"rpc":{}}`, DisconnectBadRequest},
		"no request":                {false, `{"id":2}`, DisconnectBadRequest},
		"ping":                      {false, `{"id":2,"ping":{}}`, DisconnectBadRequest},
		"second connect":            {false, connect, DisconnectBadRequest},
		"send":                      {false, `{"send":{"data":1}}`, DisconnectNotAvailable},
		"no channel":                {false, `{"id":2,"subscribe":{}}`, DisconnectBadRequest},
		"unknown delta":             {false, `{"id":2,"subscribe":{"channel":"live:a","delta":"x"}}`, DisconnectBadRequest},
		"subscribe before connect":  {true, `{"id":2,"subscribe":{"channel":"live:a"}}`, DisconnectBadRequest},
		"unknown namespace in subs": {true, `{"id":1,"connect":{"token":"alice","subs":{"nope:a":{"recover":true}}}}`, DisconnectBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, nil)
			var w *wire
			if tc.before {
				w = h.dial(dialOptions{})
			} else {
				w, _ = h.login("alice")
			}
			w.send(tc.send)
			w.wantEnd(tc.want)
		})
	}
}

// SDKs send connect and all subscribes in one frame, before any answer.
func TestPipelinedConnect(t *testing.T) {
	h := startHub(t, nil)
	w := h.dial(dialOptions{})
	w.send(`{"connect":{"token":"alice"},"id":1}`, `{"subscribe":{"channel":"live:a"},"id":2}`, `{"unsubscribe":{"channel":"live:a"},"id":3}`)
	w.want(`{"id":1,"connect":*}`, `{"id":2,"subscribe":{}}`, `{"id":3,"unsubscribe":{}}`)
	w.sync()

	w = h.dial(dialOptions{})
	w.send(`{"connect":{"token":"expired"},"id":1}`, `{"subscribe":{"channel":"live:a"},"id":2}`)
	w.want(`{"id":1,"error":{"code":109,"message":"token expired"}}`)
	w.send(`{"id":3,"connect":{"token":"alice"}}`) // ignored like all that follows
	if n, _ := h.clients.counts(); n != 2 {
		t.Errorf("%d clients", n)
	}
}

func TestMessageTooBig(t *testing.T) {
	h := startHub(t, func(s *Settings) { s.WebSocket.MessageSizeLimit = 1 << 10 })
	w, _ := h.login("alice")
	go func() { // the pipe holds nothing: the write ends only when it is read
		_ = w.conn.Write(t.Context(), 1, []byte(`{"id":2,"publish":{"channel":"room:a","data":"`+strings.Repeat("x", 1<<10)+`"}}`))
	}()
	w.want("closed 1009 *")
}

func TestChannelLimit(t *testing.T) {
	h := startHub(t, func(s *Settings) { s.Client.ChannelLimit = 3 }) // two are the server's
	w, _ := h.login("alice")
	w.send(`{"id":2,"subscribe":{"channel":"live:a"}}`, `{"id":3,"subscribe":{"channel":"live:b"}}`)
	w.want(`{"id":2,"subscribe":{}}`, `{"id":3,"error":{"code":106,"message":"limit exceeded"}}`)
	w.send(`{"id":4,"subscribe":{"channel":"nowhere:b"}}`) // whatever it is
	w.want(`{"id":4,"error":{"code":106,"message":"limit exceeded"}}`)
	w.send(`{"id":4,"unsubscribe":{"channel":"live:a"}}`, `{"id":5,"subscribe":{"channel":"live:b"}}`)
	w.want(`{"id":4,"unsubscribe":{}}`, `{"id":5,"subscribe":{}}`)
}

// A server-side subscription can be left by the client, but then it is a
// stranger there.
func TestLeaveServerSideChannel(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	w.send(`{"id":2,"unsubscribe":{"channel":"#alice"}}`, `{"id":3,"subscribe":{"channel":"#alice"}}`)
	w.want(`{"id":2,"unsubscribe":{}}`, `{"id":3,"error":{"code":103,"message":"permission denied"}}`)
}

func TestRoom(t *testing.T) {
	h := startHub(t, nil)
	a, reply := h.login("alice")
	id := reply[len(`{"id":1,"connect":{"client":"`):][:36]
	me := `{"user":"alice","client":"` + id + `"}`
	a.send(`{"id":2,"subscribe":{"channel":"room:a"}}`)
	a.want(`{"id":2,"subscribe":{"recoverable":true,"epoch":"*","positioned":true}}`,
		`{"push":{"channel":"room:a","join":{"info":`+me+`}}}`)

	b, _ := h.login("bob")
	b.send(`{"id":2,"subscribe":{"channel":"room:a"}}`)
	a.want(`{"push":{"channel":"room:a","join":{"info":{"user":"bob","client":"*"}}}}`)
	b.want(`{"id":2,"subscribe":*`, `{"push":{"channel":"room:a","join":*"bob"*`)

	b.send(`{"id":3,"presence_stats":{"channel":"room:a"}}`, `{"id":4,"presence":{"channel":"room:a"}}`)
	b.want(`{"id":3,"presence_stats":{"num_clients":2,"num_users":2}}`, `{"id":4,"presence":{"presence":{*`+me+`*}}}`)

	a.send(`{"id":3,"publish":{"channel":"room:a","data":{"text":"hi"}}}`)
	b.want(`{"push":{"channel":"room:a","pub":{"data":{"text":"hi"},"info":` + me + `,"offset":1,"epoch":"*"}}}`)
	b.send(`{"id":5,"history":{"channel":"room:a","limit":-1}}`)
	b.want(`{"id":5,"history":{"publications":[{"data":{"text":"hi"},"info":` + me + `,"offset":1}],"epoch":"*","offset":1}}`)

	b.send(`{"id":6,"unsubscribe":{"channel":"room:a"}}`)
	b.want(`{"id":6,"unsubscribe":{}}`)
	b.sync() // not told of its own leave
	var got []string
	for range 3 {
		got = append(got, a.next()) // the reply to publish and its push may come in either order
	}
	all := strings.Join(got, "\n")
	for _, part := range []string{`{"id":3,"publish":{}}`, `"pub":{"data":{"text":"hi"}`, `"leave":{"info":{"user":"bob"`} {
		if !strings.Contains(all, part) {
			t.Errorf("alice got no %s:\n%s", part, all)
		}
	}
	a.send(`{"id":4,"presence_stats":{"channel":"room:a"}}`)
	a.want(`{"id":4,"presence_stats":{"num_clients":1,"num_users":1}}`)
}

// Whoever is gone is gone from presence at once, and the others are told.
func TestDisconnectLeaves(t *testing.T) {
	h := startHub(t, nil)
	a, _ := h.login("alice")
	a.send(`{"id":2,"subscribe":{"channel":"room:a"}}`)
	a.want(`{"id":2,*`, `*"join"*`)
	b, _ := h.login("bob")
	b.send(`{"id":2,"subscribe":{"channel":"room:a"}}`)
	a.want(`*"join"*"bob"*`)
	_ = b.conn.CloseNow()
	a.want(`{"push":{"channel":"room:a","leave":{"info":{"user":"bob"*`)
	a.send(`{"id":3,"presence_stats":{"channel":"room:a"}}`)
	a.want(`{"id":3,"presence_stats":{"num_clients":1,"num_users":1}}`)
}

// A client that unsubscribes while the server is unsubscribing it hears of both
// in an order it can make sense of, and may subscribe again at once.
func TestUnsubscribeTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.ChannelLinger = 0 })
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"live:a"}}`)
		w.want(`{"id":2,"subscribe":{}}`)
		slow := make(chan struct{})
		wait := func() { <-slow }
		h.engine.leaving.Store(&wait)
		go func() { _ = h.Unsubscribe(context.Background(), "alice", "live:a", Selection{}) }()
		synctest.Wait()
		w.send(`{"id":3,"unsubscribe":{"channel":"live:a"}}`, `{"id":4,"subscribe":{"channel":"live:a"}}`)
		synctest.Wait()
		if len(w.lines) > 0 {
			t.Fatalf("%s came too early", w.next())
		}
		close(slow)
		w.want(`{"push":{"channel":"live:a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`,
			`{"id":3,"unsubscribe":{}}`, `{"id":4,"subscribe":{}}`)
	})
}

// Who subscribes again while the server is unsubscribing it is never told that
// it is subscribed already: SDKs would take that for the end.
func TestSubscribeWhileUnsubscribed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.ChannelLinger = 0 })
		w, _ := h.login("alice")
		w.send(`{"id":2,"subscribe":{"channel":"live:a"}}`)
		w.want(`{"id":2,"subscribe":{}}`)
		slow := make(chan struct{})
		wait := func() { <-slow }
		h.engine.leaving.Store(&wait)
		go func() { _ = h.Unsubscribe(context.Background(), "alice", "live:a", Selection{}) }()
		synctest.Wait()
		w.send(`{"id":3,"subscribe":{"channel":"live:a"}}`)
		synctest.Wait()
		if len(w.lines) > 0 {
			t.Fatalf("%s came too early", w.next())
		}
		close(slow)
		w.want(`{"push":{"channel":"live:a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`, `{"id":3,"subscribe":{}}`)
		h.publish("live:a", "1")
		w.want(`*"data":1*`)
	})
}

// No 105 may come from an unsubscribe that was answered before, and no push of
// an old subscription after the answer.
func TestSubscribeLoop(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	for range 200 {
		w.send(`{"id":2,"subscribe":{"channel":"live:a"}}`, `{"id":3,"publish":{"channel":"live:a","data":1}}`, `{"id":4,"unsubscribe":{"channel":"live:a"}}`)
		w.want(`{"id":2,"subscribe":{}}`)
		for line := w.next(); line != `{"id":4,"unsubscribe":{}}`; line = w.next() {
			if strings.Contains(line, "error") {
				t.Fatal(line)
			}
		}
	}
	w.sync()
	if n, _ := h.channels.counts(); n != 2 {
		t.Errorf("%d channels left, want the two of the server", n)
	}
}
