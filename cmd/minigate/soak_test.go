package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

// soakTime is how long clients come and go. SOAK_TIME overrides it.
func soakTime(t *testing.T) time.Duration {
	d := 10 * time.Second
	if testdeps.Long() {
		d = 20 * time.Minute
	}
	if text := os.Getenv("SOAK_TIME"); text != "" {
		var err error
		if d, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestSoak has clients of every bad habit on a node for a while. When all have
// left it holds as many descriptors, goroutines and bytes as it did before.
func TestSoak(t *testing.T) {
	_, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL)+`  insecure: true
  ping_interval: 2s
  pong_timeout: 1s
  stale_close_delay: 2s
  channel_linger: 100ms
  command_rate_limit: 0
websocket: {compression: true, write_timeout: 1s}
`)
	k := &soak{t: t, base: p.Public, end: make(chan struct{})}
	k.first()
	k.leave(p)
	before := soakRest(t, p)

	for _, habit := range []func(*rand.Rand){k.talks, k.talks, k.talks, k.stalls, k.stalls, k.vanishes, k.babbles, k.hesitates} {
		k.repeat(habit)
	}
	k.repeat(func(rnd *rand.Rand) { k.publish(p, rnd) })
	timer := time.AfterFunc(soakTime(t), func() { close(k.end) })
	defer timer.Stop()
	k.wg.Wait()
	k.leave(p)

	after := soakAfter(t, p, before)
	t.Logf("%d connections, %d publications, %d messages received", k.connections.Load(), k.published.Load(), k.received.Load())
	t.Logf("before %+v, after %+v", before, after)
	if k.connections.Load() < 20 || k.published.Load() < 20 || k.received.Load() < 20 {
		t.Error("that was nothing")
	}
	if !after.isWithin(before) {
		t.Errorf("more descriptors or goroutines than before:\n%s", goroutineList(t, p))
	}
	if grown := after.heap - before.heap; grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	var inspected struct{ Problems []string }
	if status := call(t, "POST", p.Ops+"/api/inspect", map[string]string{"X-API-Key": testAPIKey}, map[string]any{}, &inspected); status != http.StatusOK || len(inspected.Problems) > 0 {
		t.Errorf("status %d, the hub contradicts itself: %q", status, inspected.Problems)
	}
	for line := range strings.Lines(p.Output()) {
		if strings.Contains(line, `"level":"ERROR"`) {
			t.Errorf("clients that come and go are no error: %s", line)
		}
	}
}

// soak is a crowd of clients.
type soak struct {
	t    *testing.T
	base string
	end  chan struct{} // closed when it is time
	wg   sync.WaitGroup

	connections, published, received atomic.Int64
}

func (k *soak) isOver() bool {
	select {
	case <-k.end:
		return true
	default:
		return false
	}
}

// repeat runs a habit until it is time.
func (k *soak) repeat(habit func(*rand.Rand)) {
	rnd := rand.New(rand.NewPCG(rand.Uint64(), 1))
	k.wg.Go(func() {
		for !k.isOver() {
			habit(rnd)
		}
	})
}

// first is a client for which the node makes what it keeps: the loops of its
// poller start with the first connection. It stays until it is subscribed.
func (k *soak) first() {
	conn := k.dial([]byte(soakHandshake), soakConnect("c0"))
	if conn == nil {
		k.t.FailNow()
	}
	defer func() { _ = conn.Close() }()
	for got := []byte{}; !bytes.Contains(got, []byte(`{"id":2,"subscribe":`)); {
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			k.t.Fatalf("%v after %q", err, got)
		}
		got = append(got, buf[:n]...)
	}
}

// pause waits, but not beyond the end.
func (k *soak) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-k.end:
	}
}

// soakHandshake asks for a connection, in one packet with what follows.
const soakHandshake = "GET /connection/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"

// dial opens a connection that has said all that is in first.
func (k *soak) dial(first ...[]byte) *net.TCPConn {
	conn, err := net.Dial("tcp", strings.TrimPrefix(k.base, "http://"))
	if err != nil {
		k.t.Errorf("the node takes nobody any more: %v", err)
		return nil
	}
	k.connections.Add(1)
	tcp := conn.(*net.TCPConn)
	_ = tcp.SetDeadline(time.Now().Add(20 * time.Second))
	for _, b := range first {
		if _, err := tcp.Write(b); err != nil {
			break // the node may have had enough of it
		}
	}
	return tcp
}

func soakConnect(channel string) []byte {
	return textFrame(`{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"` + channel + `"}}`)
}

func soakChannel(rnd *rand.Rand) string { return fmt.Sprint("c", rnd.IntN(4)) }

// talks is a client as it should be: it publishes, reads, answers pings, and
// goes in one of the ways in which connections end.
func (k *soak) talks(rnd *rand.Rand) {
	channel := soakChannel(rnd)
	conn := k.dial([]byte(soakHandshake), soakConnect(channel))
	if conn == nil {
		return
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if n > 0 {
				k.received.Add(1)
			}
		}
	})
	for range rnd.IntN(20) {
		frames := [][]byte{
			textFrame(fmt.Sprintf(`{"id":3,"publish":{"channel":%q,"data":%q}}`, channel, strings.Repeat("hello ", rnd.IntN(200)))),
			maskedFrame(fin|opPing, "soak"), textFrame("{}"),
			textFrame(fmt.Sprintf(`{"id":4,"subscribe":{"channel":"%d"}}`+"\n"+`{"id":5,"unsubscribe":{"channel":"%[1]d"}}`, rnd.IntN(1000))),
			textFrame(`{"id":6,"rpc":{"method":"x"}}`),
		}
		if _, err := conn.Write(frames[rnd.IntN(len(frames))]); err != nil {
			break
		}
		k.pause(time.Duration(rnd.IntN(5)) * time.Millisecond)
	}
	switch rnd.IntN(3) {
	case 0:
		_, _ = conn.Write(closeFrame(1000, "bye")) // or it is closed already
		reader.Wait()                              // until the node has closed it
	case 1:
		_ = conn.SetLinger(0) // a reset
	}
	_ = conn.Close()
	reader.Wait()
}

// stalls subscribes to everything and reads nothing.
func (k *soak) stalls(rnd *rand.Rand) {
	conn := k.dial()
	if conn == nil {
		return
	}
	_ = conn.SetReadBuffer(2048)
	_, _ = conn.Write([]byte(soakHandshake))
	_, _ = conn.Write(soakConnect("c0"))
	for i := range 3 {
		_, _ = conn.Write(textFrame(fmt.Sprintf(`{"id":3,"subscribe":{"channel":"c%d"}}`, i+1)))
	}
	k.pause(time.Duration(rnd.IntN(4000)) * time.Millisecond)
	_ = conn.Close()
}

// vanishes stays silent on an open line, as one that is dead, until the node
// gives it up.
func (k *soak) vanishes(rnd *rand.Rand) {
	conn := k.dial([]byte(soakHandshake), soakConnect(soakChannel(rnd)))
	if conn == nil {
		return
	}
	defer func() { _ = conn.Close() }()
	buf := make([]byte, 1<<16)
	for {
		if _, err := conn.Read(buf); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				k.t.Error("the node keeps clients that answer no ping")
			}
			return
		}
	}
}

// babbles sends noise, from the start or on a good connection.
func (k *soak) babbles(rnd *rand.Rand) {
	noise := make([]byte, 1+rnd.IntN(300))
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	first := [][]byte{[]byte(soakHandshake), soakConnect("c0"), noise}[rnd.IntN(3):]
	conn := k.dial(first...)
	if conn == nil {
		return
	}
	k.pause(time.Duration(rnd.IntN(20)) * time.Millisecond)
	_ = conn.Close()
}

// hesitates goes away in the middle of a frame, of the handshake or before it.
func (k *soak) hesitates(rnd *rand.Rand) {
	all := append([]byte(soakHandshake), soakConnect("c0")...)
	conn := k.dial(all[:rnd.IntN(len(all))])
	if conn == nil {
		return
	}
	k.pause(time.Duration(rnd.IntN(20)) * time.Millisecond)
	_ = conn.Close()
}

// publish is the backend: to one channel, to all, and closes whom it likes.
func (k *soak) publish(p *program, rnd *rand.Rand) {
	data := strings.Repeat("news ", rnd.IntN(1500))
	var status int
	var answer struct{ Error json.RawMessage }
	header := map[string]string{"X-API-Key": testAPIKey}
	switch rnd.IntN(4) {
	case 0:
		status = call(k.t, "POST", p.Ops+"/api/broadcast", header, map[string]any{"channels": []string{"c0", "c1", "c2", "c3"}, "data": data}, &answer)
	case 1:
		status = call(k.t, "POST", p.Ops+"/api/push", header, map[string]any{"all": true, "data": data}, &answer)
	default:
		status = call(k.t, "POST", p.Ops+"/api/publish", header, map[string]any{"channel": soakChannel(rnd), "data": data}, &answer)
	}
	if status != http.StatusOK || answer.Error != nil {
		k.t.Errorf("status %d, error %s", status, answer.Error)
	}
	k.published.Add(1)
	k.pause(5 * time.Millisecond)
}

// leave waits until the node knows that everybody has left.
func (k *soak) leave(p *program) {
	client.CloseIdleConnections()
	eventually(k.t, "all connections gone", func() bool { return p.metric(k.t, "minigate_connections") == 0 })
}

// soakNumbers are what a node holds.
type soakNumbers struct {
	descriptors, goroutines int
	heap                    int64 // bytes that are live
}

// isWithin says whether a node holds no more than it did then. Its heap is
// compared by itself, since that never stands still.
func (n soakNumbers) isWithin(then soakNumbers) bool {
	return n.descriptors <= then.descriptors && n.goroutines <= then.goroutines
}

// soakRest waits until nothing has moved for a second: net/http keeps a
// connection to which it answered an error for half of one.
func soakRest(t *testing.T, p *program) (n soakNumbers) {
	t.Helper()
	last, since := soakNumbers{}, time.Time{}
	eventually(t, "a node at rest", func() bool {
		n = takeNumbers(t, p)
		if n.descriptors != last.descriptors || n.goroutines != last.goroutines {
			last, since = n, time.Now()
		}
		return time.Since(since) > time.Second
	})
	return n
}

// soakAfter gives a node time to come back to what it held before.
func soakAfter(t *testing.T, p *program, before soakNumbers) (n soakNumbers) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if n = takeNumbers(t, p); n.isWithin(before) || time.Now().After(end) {
			return n
		}
	}
}

func takeNumbers(t *testing.T, p *program) (n soakNumbers) {
	t.Helper()
	header := map[string]string{"X-API-Key": testAPIKey}
	for range 3 { // pools are empty after the second collection
		_, profile := callRaw(t, "GET", p.Ops+"/debug/pprof/heap?gc=1&debug=1", header, nil)
		m := regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`).FindSubmatch(profile)
		if m == nil {
			t.Fatalf("no HeapAlloc in %.300s", profile)
		}
		_ = json.Unmarshal(m[1], &n.heap) // digits
	}
	// Not of the metrics: gathering them starts goroutines that may be counted.
	if _, err := fmt.Sscanf(goroutineList(t, p), "goroutine profile: total %d", &n.goroutines); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	n.descriptors = len(files)
	return n
}

func goroutineList(t *testing.T, p *program) string {
	t.Helper()
	_, list := callRaw(t, "GET", p.Ops+"/debug/pprof/goroutine?debug=1", map[string]string{"X-API-Key": testAPIKey}, nil)
	return string(list)
}
