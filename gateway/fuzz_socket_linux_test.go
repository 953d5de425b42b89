package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/gateway/epoll"
)

// crowd is a few clients over TCP, and the hub that holds them under epoll. A
// schedule says who does what next.
type crowd struct {
	t       *testing.T
	hub     *testHub
	address string
	clients [3]*crowdClient
	dialed  int64
}

type crowdClient struct {
	conn   *net.TCPConn
	unsent []byte
}

const crowdHandshake = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"

// crowds are the seeds; step has the meaning of the bytes, each of which is
// followed by another.
var crowds = map[string][]byte{
	"comes and goes":       {0, 0, 1, 0, 2, 0, 12, 255, 13, 1, 14, 2},
	"is published to":      {0, 0, 1, 0, 2, 1, 12, 255, 15, 20, 6, 65, 6, 129, 13, 255, 14, 0},
	"publishes to others":  {0, 0, 1, 0, 2, 1, 12, 255, 0, 1, 1, 1, 2, 1, 3, 1, 12, 255, 15, 20, 13, 255, 14, 1},
	"is unsubscribed":      {0, 0, 1, 0, 2, 1, 12, 255, 15, 20, 8, 1, 4, 1, 12, 255},
	"is sent away":         {0, 0, 1, 0, 2, 1, 12, 255, 15, 20, 7, 0, 6, 1, 13, 255},
	"does not read":        {0, 0, 1, 0, 2, 1, 2, 2, 12, 255, 15, 20, 6, 255, 6, 255, 6, 255, 6, 255, 6, 255, 6, 255},
	"byte by byte":         {0, 0, 12, 100, 12, 100, 1, 0, 12, 1, 12, 1, 12, 1, 12, 30},
	"babbles":              {0, 0, 1, 0, 12, 255, 10, 77, 10, 200, 12, 255, 13, 255},
	"closes, and goes on":  {0, 0, 1, 0, 11, 0, 2, 1, 12, 255, 13, 255},
	"pings":                {0, 0, 1, 0, 5, 9, 5, 120, 12, 255, 15, 9, 13, 255},
	"is one of three":      {0, 0, 0, 1, 0, 2, 1, 0, 1, 1, 1, 2, 2, 0, 2, 1, 2, 2, 12, 255, 9, 2, 15, 9, 14, 0, 14, 1},
	"is replaced in place": {0, 0, 1, 0, 12, 255, 14, 0, 0, 0, 1, 0, 12, 255, 14, 1, 0, 0, 1, 0, 12, 255},
}

// FuzzCrowd lets clients come, do and go by a schedule. Afterwards nothing of
// them is left, and the hub does not contradict itself.
func FuzzCrowd(f *testing.F) {
	h := startHub(f, func(s *Settings) {
		quietStorm(s)
		s.Client.ChannelLinger = time.Millisecond
		s.Client.CommandRateLimit = 0
		s.Client.QueueMaxSize = 64 << 10
		s.WebSocket.Compression = true
		s.WebSocket.SendBuffer = 4 << 10
	})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(h.ServeWebSocket))
	var served atomic.Int64 // connections that net/http is through with: closed, or the hub's
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateHijacked || state == http.StateClosed {
			served.Add(1)
		}
	}
	srv.Start()
	f.Cleanup(srv.Close)
	(&crowd{hub: h, address: strings.TrimPrefix(srv.URL, "http://")}).warm(f, &served)
	for _, s := range crowds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		if len(s) > 200 {
			return
		}
		descriptors, goroutines, before := openFiles(t), runtime.NumGoroutine(), served.Load()
		c := &crowd{t: t, hub: h, address: strings.TrimPrefix(srv.URL, "http://")}
		for ; len(s) >= 2; s = s[2:] {
			c.step(s[0], s[1])
		}
		c.leave()
		// A client may have hung up before its connection was accepted.
		c.await("all clients to be served", func() bool { return served.Load()-before == c.dialed })
		c.await("all clients to be gone", func() bool { // those, too, whose handshake is under way
			n, _ := h.clients.counts()
			h.clients.mu.RLock()
			defer h.clients.mu.RUnlock()
			return n == 0 && h.clients.admitted == 0 && h.pending.n.Load() == 0
		})
		c.await("messages for everybody to be out", h.announcements.none)
		c.await("what they held", func() bool { return openFiles(t) <= descriptors && runtime.NumGoroutine() <= goroutines })
		if err := h.Check(); err != nil {
			t.Error(err)
		}
		if n := h.budget.used.Load(); n != 0 {
			t.Errorf("%d bytes are counted for nobody", n)
		}
	})
	if n := testutil.ToFloat64(h.metrics.held.WithLabelValues(heldByGoroutine)); n != 0 {
		f.Errorf("%v connections were held by goroutines", n)
	}
}

// warm makes what a first client makes.
func (c *crowd) warm(f *testing.F, served *atomic.Int64) {
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		f.Fatal(err)
	}
	_, _ = conn.Write([]byte(crowdHandshake))
	_, _ = conn.Read(make([]byte, 1000))
	_ = conn.Close()
	for n := 1; n > 0 || served.Load() == 0 || !waits("gateway.(*Hub).Run(") || !waits("epoll.(*Poller[...]).Run("); runtime.Gosched() {
		n, _ = c.hub.clients.counts()
	}
}

// waits tells whether f waits in a select. One that starts goroutines first and
// waits last has then started them all.
func waits(f string) bool {
	all := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(all[:runtime.Stack(all, true)]), "\n\n") {
		if lines := strings.SplitN(stack, "\n", 3); len(lines) > 1 && strings.Contains(lines[0], "[select") && strings.Contains(lines[1], f) {
			return true
		}
	}
	return false
}

func openFiles(t *testing.T) int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func (c *crowd) await(what string, done func() bool) {
	c.t.Helper()
	for began := time.Now(); !done(); time.Sleep(20 * time.Microsecond) {
		if time.Since(began) > 30*time.Second {
			all := make([]byte, 1<<20)
			c.t.Fatalf("waited for %s; check: %v\n%s", what, c.hub.Check(), all[:runtime.Stack(all, true)])
		}
	}
}

func (c *crowd) step(verb, n byte) {
	who := int(n) % len(c.clients)
	user, channel := "user"+itoa(who), fmt.Sprint("feed:", n%4)
	data := json.RawMessage(`"` + strings.Repeat("news ", int(n&15)<<(n>>4)/8) + `"`)
	ctx := context.Background()
	switch verb % 16 {
	case 0:
		c.come(who)
	case 1:
		c.say(who, `{"id":1,"connect":{"token":"`+user+`"}}`)
	case 2:
		c.say(who, `{"id":2,"subscribe":{"channel":"`+channel+`","recover":true}}`)
	case 3:
		c.say(who, `{"id":3,"publish":{"channel":"`+channel+`","data":1}}`)
	case 4:
		c.say(who, `{"id":4,"unsubscribe":{"channel":"`+channel+`"}}`)
	case 5:
		c.add(who, crowdFrame(epoll.Ping, strings.Repeat("p", int(n)%126)))
	case 6:
		_, _ = c.hub.Publish(ctx, channel, data, PublishOptions{})
	case 7:
		_ = c.hub.Disconnect(ctx, user, DisconnectOptions{})
	case 8:
		_ = c.hub.Unsubscribe(ctx, user, channel, Selection{})
	case 9:
		_, _ = c.hub.Push(ctx, PushRequest{All: true, Data: data})
	case 10:
		c.add(who, []byte{n, verb})
	case 11:
		c.add(who, crowdFrame(epoll.Close, "\x03\xe8"))
	case 12:
		c.send(int(n))
	case 13:
		c.receive(int(n) << 4)
	case 14:
		c.hangUp(who, n%4)
	case 15:
		for range n {
			runtime.Gosched()
		}
	}
}

func crowdFrame(op epoll.Opcode, payload string) []byte {
	b := epoll.AppendHeader(nil, op, len(payload))
	b[1] |= 0x80
	return append(append(b, 0, 0, 0, 0), payload...) // a mask of zeros
}

func (c *crowd) come(who int) {
	if c.clients[who] != nil {
		return
	}
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		c.t.Fatal(err)
	}
	tcp := conn.(*net.TCPConn)
	_ = tcp.SetReadBuffer(2 << 10)
	c.dialed++
	c.clients[who] = &crowdClient{conn: tcp, unsent: []byte(crowdHandshake)}
}

func (c *crowd) add(who int, b []byte) {
	if cl := c.clients[who]; cl != nil {
		cl.unsent = append(cl.unsent, b...)
	}
}

func (c *crowd) say(who int, command string) { c.add(who, crowdFrame(epoll.Text, command)) }

// send writes up to n bytes of each client.
func (c *crowd) send(n int) {
	for _, cl := range c.clients {
		if cl != nil {
			b := cl.unsent[:min(len(cl.unsent), n)]
			cl.unsent = cl.unsent[len(b):]
			_, _ = cl.conn.Write(b) // the hub may have closed it
		}
	}
}

// receive reads up to n bytes of each client that are there.
func (c *crowd) receive(n int) {
	for _, cl := range c.clients {
		if cl != nil {
			_ = cl.conn.SetReadDeadline(time.Now().Add(50 * time.Microsecond))
			if _, err := cl.conn.Read(make([]byte, n)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				continue // the next write finds out, too
			}
		}
	}
}

func (c *crowd) hangUp(who int, how byte) {
	cl := c.clients[who]
	if cl == nil {
		return
	}
	switch how {
	case 0:
		_ = cl.conn.SetLinger(0) // a reset
	case 1:
		_ = cl.conn.CloseWrite()
		return
	}
	_ = cl.conn.Close()
	c.clients[who] = nil
}

func (c *crowd) leave() {
	for _, cl := range c.clients {
		if cl != nil {
			_ = cl.conn.Close()
		}
	}
}
