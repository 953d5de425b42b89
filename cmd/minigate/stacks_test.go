package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

// A stackCase is what a client of another maker does on a connection of its
// own, in the steps of web/e2e/websocket.mjs, and what it has to see.
type stackCase struct {
	name     string
	needs    can
	protobuf bool
	steps    []string
	echoes   []string // of what was published
	pongs    int
	code     int // with which it sees the connection close; 0: any
}

// can is what a client can be made to do.
type can int

const (
	fragment can = 1 << iota // messages in fragments
	ping                     // and see the pong
	raw                      // bytes past the client
	half                     // end what it sends, and still read
	anyCode                  // close with every legal code, not only those of browsers
	answer                   // tell what the server answers to a close
	cutShort                 // read why what it still sends is refused
)

// A stack is a client, or one with some options.
type stack struct {
	name    string
	client  string // of websocket.mjs; "": websocket.py; "c": websocket.c
	options string
	can     can
	offers  bool // permessage-deflate, in a way that the server accepts
	once    bool // on one kind of node only
}

const (
	everything = fragment | ping | raw | half | anyCode | answer | cutShort
	browserCan = answer | cutShort
	// libwebsockets does not wait for the answer to its close.
	libwebsocketsCan = fragment | ping | cutShort
)

var stacks = []stack{
	{"ws", "ws", "", everything, true, false},
	{"ws, no compression", "ws", `{"perMessageDeflate":false}`, everything, false, true},
	{"ws, no context takeover", "ws", `{"perMessageDeflate":{"serverNoContextTakeover":true,"clientNoContextTakeover":true,"threshold":1}}`, everything, true, true},
	{"undici", "undici", "", browserCan, true, false},
	{"websockets", "", "", everything, true, false},
	{"websockets, no compression", "", "plain", everything, false, true},
	{"chromium", "chromium", "", browserCan, true, false},
	{"libwebsockets", "c", "", libwebsocketsCan, false, false},
}

func hexOf(s string) string { return cmp.Or(hex.EncodeToString([]byte(s)), "-") }

// saying is the step that sends a message, in as many fragments.
func saying(parts ...string) string {
	words := []string{"text"}
	for _, p := range parts {
		words = append(words, hexOf(p))
	}
	return strings.Join(words, " ")
}

func rawStep(frame []byte) string { return "raw " + hex.EncodeToString(frame) }

const connectAndSubscribe = `{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"c"}}`

// stackCases are the same for all; random makes text that does not compress.
func stackCases() []stackCase {
	noise := make([]byte, 10_000)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(noise) // never fails
	messages := []string{"short", "小程序 🚪", strings.Repeat("again ", 50), strings.Repeat("again ", 50), hex.EncodeToString(noise), sized(limit), "the end"}
	talk := []string{}
	for _, m := range messages {
		talk = append(talk, saying(publishing(m)))
	}
	long := strings.Repeat("p", 125)
	p := publishing(strings.Repeat("in fragments ", 100))
	cases := []stackCase{
		{name: "messages", steps: append(talk, "until "+hexOf("the end"), "close 1000 "+hexOf("bye")), echoes: messages, code: 1000},
		{name: "fragments", needs: fragment, steps: []string{
			saying(p[:100], p[100:101], p[101:]), saying("", publishing("the end"), ""), "until " + hexOf("the end"), "close 1000 -",
		}, echoes: []string{strings.Repeat("in fragments ", 100), "the end"}, code: 1000},
		{name: "pings", needs: ping, steps: []string{
			"ping " + hexOf("hello"), "pong " + hexOf("hello"), "ping " + hexOf(long), "pong " + hexOf(long), "close 1000 -",
		}, pongs: 2, code: 1000},
		{name: "too long", needs: cutShort, steps: []string{saying(publishing(sized(limit + 1)))}, code: 1009},
		{name: "closed by the server", steps: []string{saying("no command")}, code: 3501},
		{name: "no text", needs: raw, steps: []string{rawStep(textFrame(`{"id":9,"publish":{"channel":"c","data":"` + "\xff" + `"}}`))}, code: 3501},
		{name: "an unknown opcode", needs: raw, steps: []string{rawStep(maskedFrame(fin|3, "x"))}, code: 1002},
		{name: "a message within another", needs: raw, steps: []string{rawStep(slices.Concat(maskedFrame(opText, "{"), textFrame("{}")))}, code: 1002},
		{name: "half a connection", needs: half, steps: []string{"half"}, code: 1006},
		{name: "protobuf", protobuf: true, steps: []string{
			"binary " + hexOf("\x04\x08\x01\x22\x00"+"\x07\x08\x02\x2a\x03\x0a\x01c"), // connect, subscribe
			"binary " + hexOf("\x1c\x08\x03\x3a\x18\x0a\x01c\x12\x13"+`{"text": "the end"}`),
			"until " + hexOf("the end"), "close 1000 -",
		}, code: 1000},
	}
	for _, code := range []int{0, 1000, 1001, 1003, 1008, 1011, 1014, 3000, 4999} {
		needs := answer
		if code > 1000 && code < 3000 {
			needs |= anyCode
		}
		cases = append(cases, stackCase{name: fmt.Sprint("close ", code), needs: needs, steps: []string{fmt.Sprintf("close %d -", code)}, code: cmp.Or(code, 1005)})
	}
	for _, code := range []int{999, 1005, 1006, 1015, 2999, 5000} {
		cases = append(cases, stackCase{name: fmt.Sprint("illegal close ", code), needs: raw, steps: []string{rawStep(closeFrame(code, "x"))}, code: 1002})
	}
	return cases
}

func (c *stackCase) script() string {
	lines := []string{"open -", saying(connectAndSubscribe), "until " + hexOf(`"id":2`)}
	if c.protobuf {
		lines = []string{"open centrifuge-protobuf"}
	}
	return strings.Join(slices.Concat(lines, c.steps, []string{"end\n"}), "\n")
}

// closes tells whether it is the client that closes.
func (c *stackCase) closes() bool {
	return strings.HasPrefix(c.steps[len(c.steps)-1], "close ")
}

// TestOtherStacks has clients of other makers talk to minigate, held in either
// way, with and without compression, and from behind nginx.
func TestOtherStacks(t *testing.T) {
	compiled := compileClient(t)
	for _, on := range []bool{true, false} {
		for _, compression := range []bool{true, false} {
			t.Run(fmt.Sprintf("epoll=%v compression=%v", on, compression), func(t *testing.T) {
				p := stackNode(t, on, compression)
				for _, s := range stacks {
					if !s.once || on && compression {
						t.Run(s.name, func(t *testing.T) { s.play(t, compiled, p.Public, "", compression) })
					}
				}
			})
		}
	}
	t.Run("nginx", func(t *testing.T) {
		p := stackNode(t, true, true)
		front := testdeps.StartFront(t, strings.TrimPrefix(p.Public, "http://"))
		for _, s := range stacks {
			if !s.once {
				t.Run(s.name, func(t *testing.T) { s.play(t, compiled, front.URL, front.CertFile, true) })
			}
		}
	})
}

func stackNode(t *testing.T, epoll, compression bool) *program {
	_, wechatURL := simulator(t)
	return startServe(t, baseConfig(t, wechatURL)+fmt.Sprintf(
		"  insecure: true\nwebsocket: {epoll: %v, compression: %v, message_size_limit: %d}\n", epoll, compression, limit))
}

// compileClient makes a program of websocket.c.
func compileClient(t *testing.T) string {
	file := filepath.Join(t.TempDir(), "websocket")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cc := exec.CommandContext(ctx, "cc", "-Wall", "-Wextra", "-Werror", "-o", file, "../../web/e2e/websocket.c", "-lwebsockets")
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("websocket.c: %v\n%s", err, out)
	}
	return file
}

// play runs a client over all cases it can do; compiled is that of websocket.c.
func (s *stack) play(t *testing.T, compiled, base, certFile string, compression bool) {
	able := s.can
	if certFile != "" && s.client == "" {
		able &^= half // Python's TLS has only whole connections
	}
	if certFile != "" && s.client == "c" {
		able &^= cutShort // nginx hangs up meanwhile, and libwebsockets gives up at once
	}
	var cases []stackCase
	var script strings.Builder
	for _, c := range stackCases() {
		if c.needs&^able == 0 {
			cases = append(cases, c)
			script.WriteString(c.script())
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "websocket.mjs")
	switch s.client {
	case "":
		cmd = exec.CommandContext(ctx, "/usr/bin/python3", "websocket.py")
	case "c":
		cmd = exec.CommandContext(ctx, compiled)
	}
	cmd.Dir = "../../web/e2e"
	cmd.Env = append(os.Environ(), "CLIENT="+s.client, "OPTIONS="+s.options, "WS_URL=ws"+strings.TrimPrefix(base, "http")+"/connection/websocket",
		"CA_FILE="+certFile, "NODE_EXTRA_CA_CERTS="+certFile, "NODE_NO_WARNINGS=1")
	if s.client == "chromium" {
		cmd.Env = append(cmd.Env, "CHROMIUM="+testdeps.Chromium(t))
	}
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.CombinedOutput()
	said := strings.Split(strings.TrimSuffix(string(out), "\nend\n"), "\nend\n")
	if err != nil || len(said) != len(cases) {
		t.Fatalf("%d of %d cases were played: %v\n%.2000s", len(said), len(cases), err, out[max(0, len(out)-2000):])
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.check(t, said[i], s.offers && compression, s.can) })
	}
}

// check compares what a client has seen with what it had to.
func (c *stackCase) check(t *testing.T, said string, compressed bool, able can) {
	var echoes []string
	pongs, code, all := 0, "", []byte{}
	for line := range strings.SplitSeq(said, "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		data, _ := hex.DecodeString(rest)
		switch kind {
		case "open":
			if got := strings.Contains(rest, "permessage-deflate"); got != compressed {
				t.Errorf("agreed on %s, want compression %v", rest, compressed)
			}
		case "message":
			all = append(append(all, data...), '\n')
		case "pong":
			pongs++
		case "closed":
			code, _, _ = strings.Cut(rest, " ")
		}
	}
	if c.protobuf {
		if n := bytes.Count(all, []byte(`{"text": "the end"}`)); n != 1 {
			t.Errorf("the publication came %d times in %q", n, all)
		}
	} else {
		echoes = echoesIn(t, all)
	}
	if !slices.Equal(echoes, c.echoes) {
		t.Errorf("%d echoes, want %d: %.300q", len(echoes), len(c.echoes), echoes)
	}
	// "?" is a close of the client's own, with an answer that it cannot tell.
	untold := code == "?" && able&answer == 0 && c.closes()
	if pongs != c.pongs || code != strconv.Itoa(c.code) && !untold {
		t.Errorf("%d pongs, closed with %s; want %d and %d", pongs, code, c.pongs, c.code)
	}
}

func echoesIn(t *testing.T, lines []byte) (echoes []string) {
	for line := range bytes.Lines(lines) {
		var r struct {
			Push struct{ Pub struct{ Data *string } }
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Errorf("%v in %q", err, line)
		}
		if data := r.Push.Pub.Data; data != nil {
			echoes = append(echoes, *data)
		}
	}
	return echoes
}
