package gateway

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/auth"
)

// recorder is a socket that keeps what the frames hold that are written.
type recorder struct {
	mu     sync.Mutex
	frames []string
	done   chan struct{}
	once   sync.Once
}

func (r *recorder) waits() bool { return false }

func (r *recorder) write(frames []byte, _ bool) (left int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range framesIn(frames) {
		r.frames = append(r.frames, f.payload)
	}
	return 0, nil
}

type wireFrame struct {
	first   byte // FIN, RSV1 and opcode
	payload string
}

// framesIn takes apart what a server sends.
func framesIn(b []byte) (list []wireFrame) {
	for len(b) > 0 {
		n, from := int(b[1]), 2
		switch n {
		case 126:
			n, from = int(binary.BigEndian.Uint16(b[2:])), 4
		case 127:
			n, from = int(binary.BigEndian.Uint64(b[2:])), 10
		}
		list = append(list, wireFrame{b[0], string(b[from : from+n])})
		b = b[from+n:]
	}
	return list
}

func (r *recorder) close(uint32, string) { r.abort() }
func (r *recorder) abort()               { r.once.Do(func() { close(r.done) }) }

// FuzzReceive feeds a connection with frames: whatever comes, the server
// answers in well-formed lines and lets go of everything at the end.
func FuzzReceive(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "{}\n", "null", "[]", `{"id":1}`,
		`{"id":2,"subscribe":{"channel":"room:a","recover":true,"offset":18446744073709551615,"epoch":"x"}}`,
		"{\"id\":2,\"subscribe\":{\"channel\":\"feed:a\"}}\n{\"id\":3,\"unsubscribe\":{\"channel\":\"feed:a\"}}",
		`{"id":2,"publish":{"channel":"room:a","data":{"a":[1,"\u2028"]}}}`,
		`{"id":2,"history":{"channel":"asked:a","limit":-2147483648,"reverse":true,"since":{"offset":1}}}`,
		`{"id":2,"presence":{"channel":"$room:#,"}}`,
		`{"id":2,"refresh":{"token":"alice/2"}}`,
		`{"send":{"data":1}}`, "\xff", strings.Repeat("[", 1000),
	} {
		f.Add([]byte(seed))
	}
	h := startHub(f, func(s *Settings) { s.Client.ChannelLinger = 0 })
	f.Fuzz(func(t *testing.T, data []byte) {
		sock := &recorder{done: make(chan struct{})}
		c := newClient(h.Hub, sock)
		h.clients.add(c)
		c.open()
		c.receive([]byte(`{"id":1,"connect":{"token":"alice"}}`))
		c.receive(slices.Clone(data))
		c.gone(cause{})
		for _, frame := range sock.frames {
			for line := range strings.SplitSeq(frame, "\n") {
				if r, _ := protocol.NewJSONReplyDecoder([]byte(line)).Decode(); r == nil {
					t.Errorf("not a reply: %q", line)
				}
			}
		}
		if h.channels.get("room:a") != nil || h.channels.get("feed:a") != nil {
			t.Error("a channel is left")
		}
		if err := h.Check(); err != nil {
			t.Error(err)
		}
	})
}

func FuzzChannelName(f *testing.F) {
	for _, seed := range []string{"", "a", "room:a", "$room:a", "#alice", "room:#alice,bob", "named:x", ":", "$", "$:#", "union:#u", "房:间", "room:\x00"} {
		f.Add(seed)
	}
	b := newRulebook(testSettings())
	f.Fuzz(func(t *testing.T, name string) {
		r, err := b.findForClient(name)
		if (r == nil) == (err == nil) {
			t.Fatalf("rules %v, error %v", r, err)
		}
		if err != nil {
			return
		}
		if name == "" || len(name) > 255 || !isASCII(name) {
			t.Errorf("accepted %q", name)
		}
		if server, err := b.find(name); err != nil || server != r {
			t.Errorf("the server may not use %q: %v", name, err)
		}
		if r.maySubscribe(name, "alice") && (name[0] == '$' || strings.Contains(name, "#") && !strings.Contains(name, "alice")) {
			t.Errorf("alice may subscribe to %q", name)
		}
	})
}

// BenchmarkFanOut publishes to subscribers whose sockets cost nothing: what is
// left is the hub's own work.
func BenchmarkFanOut(b *testing.B) {
	subscribe := `{"id":2,"subscribe":{"channel":"live:a"}}`
	b.Run("1000 JSON", func(b *testing.B) { benchmarkFanOut(b, 1000, "live:a", []encoding{0}, subscribe) })
	b.Run("10000 JSON", func(b *testing.B) { benchmarkFanOut(b, 10_000, "live:a", []encoding{0}, subscribe) })
	b.Run("10000 mixed", func(b *testing.B) {
		benchmarkFanOut(b, 10_000, "ticker:a", []encoding{0, asProtobuf},
			`{"id":2,"subscribe":{"channel":"ticker:a"}}`, `{"id":2,"subscribe":{"channel":"ticker:a","flag":1}}`,
			`{"id":2,"subscribe":{"channel":"ticker:a","flag":1,"delta":"fossil"}}`)
	})
}

func benchmarkFanOut(b *testing.B, subscribers int, channel string, encodings []encoding, commands ...string) {
	h := startHub(b, nil)
	var wg sync.WaitGroup
	for i := range subscribers {
		sock := &counter{}
		c := newClient(h.Hub, sock)
		sock.done = &wg
		h.clients.add(c)
		c.login = newLogin(&auth.Session{User: auth.User{OpenID: "u"}, Expires: time.Now().Add(time.Hour)}, "u")
		c.state = connected
		command := []byte(commands[i%len(commands)])
		if c.binary = encodings[i%len(encodings)] == asProtobuf; c.binary {
			command = pack(b, command)
		}
		c.receive(command)
		c.out.writer.Wait()
		sock.subscribed = true
		b.Cleanup(func() { c.gone(cause{}) })
	}
	versions := [][]byte{[]byte(`{"text":"` + strings.Repeat("x", 100) + `","n":1}`), []byte(`{"text":"` + strings.Repeat("x", 100) + `","n":2}`)}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		wg.Add(subscribers)
		if _, err := h.Publish(b.Context(), channel, versions[n%2], PublishOptions{Delta: true}); err != nil {
			b.Fatal(err)
		}
		wg.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(subscribers), "ns/delivery")
}

// counter is a socket that counts frames once it is subscribed: there is one
// for each publication.
type counter struct {
	done       *sync.WaitGroup
	subscribed bool
}

func (c *counter) waits() bool { return false }

func (c *counter) write([]byte, bool) (left int, err error) {
	if c.subscribed {
		c.done.Done()
	}
	return 0, nil
}

func (c *counter) close(uint32, string) {}
func (c *counter) abort()               {}
