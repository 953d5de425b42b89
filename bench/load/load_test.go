//go:build linux

package main

import (
	"bytes"
	"compress/flate"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/bench/harness"
)

func TestTargetsOtherMachinesNever(t *testing.T) {
	for _, bad := range []string{"ws://192.0.2.1:80/", "ws://example.com:80/", "wss://127.0.0.1:80/", "http://127.0.0.1:80/", "ws://[::1]:80/", "ws://127.0.0.1/"} {
		if _, _, err := target(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if to, path, err := target("ws://127.0.0.1:8080/connection/websocket?x=1"); err != nil || to.Port() != 8080 || path != "/connection/websocket?x=1" {
		t.Errorf("got %v %q %v", to, path, err)
	}
}

func TestFramesRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535} {
		want := bytes.Repeat([]byte{'x'}, n)
		b := text(want)
		b[1] &= 0x7f // as a server sends it: without a mask
		unmasked := append(bytes.Clone(b[:len(b)-n-4]), want...)
		for cut := range min(len(unmasked), 6) {
			if _, _, size := parse(unmasked[:cut]); size != 0 {
				t.Errorf("%d bytes of %d are taken for a frame", cut, len(unmasked))
			}
		}
		got, op, size := parse(append(unmasked, "rest"...))
		if !bytes.Equal(got, want) || op != 1 || size != len(unmasked) {
			t.Errorf("%d bytes: got %d, opcode %d, size %d", n, len(got), op, size)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i+1)*time.Millisecond, 1)
	}
	for q, want := range map[float64]time.Duration{.5: 500 * time.Millisecond, .99: 990 * time.Millisecond} {
		if got := h.quantile(q); got < want || got > want*104/100 {
			t.Errorf("quantile %v: %v, want about %v", q, got, want)
		}
	}
}

func TestStampFindsTheNewest(t *testing.T) {
	due := time.Now().Add(-time.Hour)
	b := []byte(`{"push":{"pub":{"data":{"t":1}}}}` + "\n" + `{"push":{"pub":{"data":{"t":` + strconv.FormatInt(due.UnixNano(), 10) + `,"p":"x"}}}}`)
	if d := stamp(b); d < time.Hour || d > 2*time.Hour {
		t.Errorf("got %v", d)
	}
	if d := stamp([]byte(`{}`)); d != 0 {
		t.Errorf("nothing was due %v ago", d)
	}
}

// A ping may be a line among pushes, and is none of them.
func TestPingsAmongPushes(t *testing.T) {
	const push = `{"push":{"channel":"c","pub":{"data":{},"offset":1}}}`
	for text, want := range map[string]bool{
		push: false, push + "\n" + push: false, "{}\n" + push: true, push + "\n{}": true, push + "\n{}\n" + push: true,
	} {
		if got := among([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// Every mode measures a real minigate, and sees all that it should.
func TestModesAgainstMinigate(t *testing.T) {
	m := startMinigate(t)
	const n = 60
	for mode, deliveries := range map[string]int64{
		"idle": 0, "storm": 0, "handshake": 0, "fanout": 5 * n, "rate": 10 * n, "stall": 5 * (n - 10), "unicast": -1, "command": -1,
	} {
		r, err := newRun(options{
			mode: mode, socket: m.Socket(), channel: "feed:load", publish: m.Ops + "/api/publish", key: "dev", login: m.Public + "/auth/login",
			n: n, count: 5, stalled: 10, publishers: 2, size: 128, rate: 100, length: 100 * time.Millisecond, loops: 2,
			pids: strconv.Itoa(m.Cmd.Process.Pid), sources: 2,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.work(); err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		got := r.result
		if deliveries < 0 && got.Deliveries > 0 && (mode != "unicast" || got.Deliveries == got.Published) {
			deliveries = got.Deliveries // as many as there was time for
		}
		if got.Failed > 0 || got.Deliveries != deliveries || got.ConnectTime <= 0 {
			t.Errorf("%s: %+v, want %d deliveries", mode, got, deliveries)
		}
	}
}

// A command that is refused is not taken for one that was carried out.
func TestRefusedCommandsAreFailures(t *testing.T) {
	m := startMinigate(t, "MINIGATE_CHANNEL_NAMESPACES=[{name: feed, allow_subscribe_for_client: true}]")
	r, err := newRun(options{
		mode: "command", socket: m.Socket(), channel: "feed:load", login: m.Public + "/auth/login", n: 5, length: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.work(); err != nil {
		t.Fatal(err)
	}
	if r.result.Failed != 5 || r.result.Deliveries != 0 {
		t.Errorf("got %+v", r.result)
	}
}

func startMinigate(t *testing.T, environ ...string) *harness.Minigate {
	t.Helper()
	r, err := harness.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	programs, err := r.Build(t.Context(), "./cmd/minigate")
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.StartMinigate(t.Context(), programs[0], "data", environ...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A server that is gone has not used nothing.
func TestGoneServersCannotBeMeasured(t *testing.T) {
	if _, err := parsePIDs("1,x"); err == nil {
		t.Error("x is taken for a process id")
	}
	s, err := parsePIDs(strconv.Itoa(1 << 30)) // more than any process has
	if err != nil {
		t.Fatal(err)
	}
	if s.cpu(); s.err == nil {
		t.Error("the CPU time of nobody was measured")
	}
	s.err = nil
	if s.memory(); s.err == nil {
		t.Error("the memory of nobody was measured")
	}
}

// What is compressed is opened, also what is sent to many.
func TestInflating(t *testing.T) {
	l := new(loop)
	for i := range 3 * maxKnown {
		want := strings.Repeat("hello ", i%(2*maxKnown))
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, flate.BestSpeed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(want)); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		message := bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
		for range 2 {
			if got, err := l.inflate(message); err != nil || string(got) != want {
				t.Fatalf("got %q, %v, want %q", got, err, want)
			}
		}
	}
	if _, err := l.inflate([]byte("\xff\xff")); err == nil {
		t.Error("nonsense is taken")
	}
}

// Connections that come back are told apart by what they missed.
func TestFollowing(t *testing.T) {
	f := new(follow)
	c := new(conn)
	reply := func(s string) {
		t.Helper()
		rest, err := f.subscribed(c, []byte(`{"id":1,"connect":{"subs":{"#me":{"epoch":"other","offset":77}}}}`+"\n"+s))
		if err != nil {
			t.Fatal(err)
		}
		f.published(c, rest)
	}
	want := func(what string, recovered, unrecovered, gaps int64, offset uint64) {
		t.Helper()
		if f.recovered.Load() != recovered || f.unrecovered.Load() != unrecovered || f.gaps.Load() != gaps || c.offset.Load() != offset {
			t.Errorf("%s: recovered %d, unrecovered %d, gaps %d, offset %d", what, f.recovered.Load(), f.unrecovered.Load(), f.gaps.Load(), c.offset.Load())
		}
	}
	reply(`{"id":2,"subscribe":{"recoverable":true,"epoch":"e","offset":5,"positioned":true}}`)
	want("new", 0, 0, 0, 5)
	f.published(c, []byte(`{"push":{"channel":"c","pub":{"data":{"p":"x","t":1},"offset":6}}}`+"\n"+`{"push":{"channel":"c","pub":{"data":{},"offset":7}}}`))
	want("two more", 0, 0, 0, 7)
	reply(`{"id":2,"subscribe":{"epoch":"e","offset":9,"recovered":true,"was_recovering":true,"publications":[{"data":{},"offset":8},{"data":{},"offset":9}]}}`)
	want("recovered", 2, 0, 0, 9)
	reply(`{"id":2,"subscribe":{"epoch":"e","offset":9,"recovered":true}}` + "\n" + `{"push":{"channel":"c","pub":{"data":{},"offset":10}}}`)
	want("one more in the same message", 2, 0, 0, 10)
	f.published(c, []byte(`{"push":{"channel":"c","pub":{"data":{},"offset":12}}}`))
	want("a gap", 2, 0, 1, 12)
	f.published(c, []byte(`{"push":{"channel":"c","pub":{"data":{},"offset":12}}}`))
	want("twice", 2, 0, 2, 12)
	reply(`{"id":2,"subscribe":{"epoch":"f","offset":3,"was_recovering":true}}`)
	want("unrecovered", 2, 1, 2, 3)
	if c.epoch != "f" {
		t.Errorf("epoch %q", c.epoch)
	}
}

func TestDelaysOfTheSDKs(t *testing.T) {
	for tries, most := range []time.Duration{time.Second, 1500 * time.Millisecond, 2500 * time.Millisecond, 4500 * time.Millisecond} {
		for range 1000 {
			if d := sdkDelay(tries); d < minDelay || d > most {
				t.Fatalf("%v after %d tries, want %v at most", d, tries, most)
			}
		}
	}
	for range 1000 {
		if d := sdkDelay(200); d < minDelay || d > maxDelay {
			t.Fatalf("%v after many tries", d)
		}
	}
}
