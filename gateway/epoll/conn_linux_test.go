package epoll

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"
)

// peer is the server's side of a connection in these tests: it echoes what
// does not begin with a bang, and does what those say.
type peer struct {
	t    *testing.T
	conn *Conn[*peer]
	gone chan struct{}
	why  error      // once gone
	room chan error // what Room said
	errs chan error // how the writes of !flood ended
}

// write sends a message, and waits for room where it has to.
func (p *peer) write(op Opcode, b []byte) error {
	left, err := p.conn.Write(append(AppendHeader(nil, op, len(b)), b...), true)
	if left > 0 {
		err = <-p.room
	}
	return err
}

func (p *peer) message(op Opcode, b []byte) {
	verb, _, _ := strings.Cut(string(b), " ")
	switch verb {
	case "!close":
		if err := p.conn.Close(4001, "as you say"); err != nil {
			p.t.Errorf("Close: %v", err)
		}
	case "!abort":
		p.conn.Abort()
	case "!flood": // until the client is given up
		data := bytes.Repeat([]byte("x"), 100<<10)
		for {
			if err := p.write(Binary, data); err != nil {
				p.errs <- err
				return
			}
		}
	default:
		if err := p.write(op, b); err != nil {
			p.t.Errorf("Write: %v", err)
		}
	}
}

// wantGone waits for the end, and looks at why it came.
func (p *peer) wantGone(why error) {
	p.t.Helper()
	if <-p.gone; !errors.Is(p.why, why) {
		p.t.Errorf("gone for %v, want %v", p.why, why)
	}
}

// site is a server whose connections a poller has.
type site struct {
	url   string
	peers chan *peer
}

func startSite(t *testing.T, o Options[*peer]) *site {
	t.Helper()
	o.Message = func(p *peer, op Opcode, b []byte) { p.message(op, b) }
	o.Room = func(p *peer, err error) { p.room <- err }
	o.Gone = func(p *peer, why error) { p.why = why; close(p.gone) }
	poller, err := NewPoller(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- poller.Run(ctx) }()
	s := &site{peers: make(chan *peer, 1000)}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.accept(t, poller, w, r) }))
	s.url = srv.URL
	t.Cleanup(func() {
		srv.Close()
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func (s *site) accept(t *testing.T, poller *Poller[*peer], w http.ResponseWriter, r *http.Request) {
	h := &hijack{ResponseWriter: w}
	conn, err := websocket.Accept(h, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionNoContextTakeover})
	if err != nil {
		t.Errorf("Accept: %v", err)
		return
	}
	fd, ok := Detach(h.conn)
	if !ok {
		t.Error("Detach refused a TCP connection")
		return
	}
	p := &peer{t: t, gone: make(chan struct{}), room: make(chan error, 1), errs: make(chan error, 1)}
	p.conn = poller.Take(fd, w.Header().Get("Sec-WebSocket-Extensions") != "", p)
	_ = conn.CloseNow()
	p.conn.Start(h.early)
	s.peers <- p
}

type hijack struct {
	http.ResponseWriter
	conn  net.Conn
	early []byte
}

func (h *hijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	h.conn, h.early = conn, bytes.Clone(early)
	return conn, rw, nil
}

func testOptions() Options[*peer] {
	return Options[*peer]{MessageLimit: 1 << 20, WriteTimeout: 30 * time.Second, CloseTimeout: 30 * time.Second}
}

func (s *site) dial(t *testing.T) (*websocket.Conn, *peer) {
	t.Helper()
	return s.dialWith(t, nil)
}

func (s *site) dialWith(t *testing.T, o *websocket.DialOptions) (*websocket.Conn, *peer) {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), s.url, o)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(4 << 20)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn, <-s.peers
}

func say(t *testing.T, conn *websocket.Conn, text string) {
	t.Helper()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestEchoesMessagesOfAllSizes(t *testing.T) {
	s := startSite(t, testOptions())
	conn, p := s.dial(t)
	for _, size := range []int{0, 1, 125, 126, glance - 9, glance - 8, glance - 7, glance, readBuffer, readBuffer + 1, 65535, 65536, 1 << 20} {
		want := strings.Repeat("é", size/2) + strings.Repeat("z", size%2)
		sent := make(chan error, 1)
		go func() { sent <- conn.Write(t.Context(), websocket.MessageText, []byte(want)) }()
		typ, got, err := conn.Read(t.Context())
		if err := errors.Join(err, <-sent); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if typ != websocket.MessageText || string(got) != want {
			t.Fatalf("%d bytes came back as %d of type %v", size, len(got), typ)
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("the client's Close: %v", err)
	}
	p.wantGone(ErrLeft)
}

func TestCompressedMessages(t *testing.T) {
	s := startSite(t, testOptions())
	conn, p := s.dialWith(t, &websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1})
	for range 3 { // each stands alone
		text := strings.Repeat("all work and no play ", 2000)
		say(t, conn, text)
		if _, got, err := conn.Read(t.Context()); err != nil || string(got) != text {
			t.Fatalf("%d bytes came back, %v", len(got), err)
		}
	}
	packed, ok := AppendDeflatedFrame(nil, Text, bytes.Repeat([]byte("y"), 5000))
	if left, err := p.conn.Write(packed, true); !ok || left > 0 || err != nil {
		t.Fatalf("compressed %v, %d bytes left, %v", ok, left, err)
	}
	if _, got, err := conn.Read(t.Context()); err != nil || len(got) != 5000 || len(packed) > 100 {
		t.Errorf("%d bytes came of a frame of %d, %v", len(got), len(packed), err)
	}
	say(t, conn, strings.Repeat("x", 2<<20)) // a bomb of two kilobytes
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("the client saw %v", err)
	}
	<-p.gone
}

func TestAnswersPings(t *testing.T) {
	s := startSite(t, testOptions())
	conn, p := s.dial(t)
	ctx := conn.CloseRead(t.Context())
	if err := conn.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	_ = conn.CloseNow()
	<-ctx.Done()
	p.wantGone(io.EOF)
}

func TestClosesAsAsked(t *testing.T) {
	s := startSite(t, testOptions())
	for verb, want := range map[string]websocket.StatusCode{"!close": 4001, "!abort": -1} {
		why := map[string]error{"!close": ErrLeft, "!abort": ErrClosed}[verb] // a client answers a close frame
		conn, p := s.dial(t)
		say(t, conn, verb)
		say(t, conn, "late") // handed to nobody, harms nobody
		_, _, err := conn.Read(t.Context())
		if got := websocket.CloseStatus(err); got != want {
			t.Errorf("%s: the client saw %v", verb, err)
		}
		p.wantGone(why)
	}
}

func TestTooLargeMessageIsRefusedByCode(t *testing.T) {
	o := testOptions()
	o.MessageLimit = 100
	s := startSite(t, o)
	conn, p := s.dial(t)
	say(t, conn, strings.Repeat("x", 101))
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("the client saw %v", err)
	}
	<-p.gone
	if v, ok := errors.AsType[*ViolationError](p.why); !ok || v.Code != CodeTooBig {
		t.Errorf("gone for %v", p.why)
	}
}

func TestGivesUpOnClientsThatDoNotRead(t *testing.T) {
	o := testOptions()
	o.WriteTimeout = 50 * time.Millisecond
	s := startSite(t, o)
	conn, p := s.dial(t)
	say(t, conn, "!flood")
	if err := <-p.errs; !errors.Is(err, ErrTimeout) {
		t.Errorf("Write: %v, want %v", err, ErrTimeout)
	}
	<-p.gone
}

// A pong, another message and a close frame wait behind what the socket had no
// room for.
func TestOrderWhereTheSocketIsFull(t *testing.T) {
	s := startSite(t, testOptions())
	conn, p := s.dial(t)
	conn.SetReadLimit(64 << 20)
	big := bytes.Repeat([]byte("x"), 16<<20) // more than any socket takes at once
	left, err := p.conn.Write(append(AppendHeader(nil, Binary, len(big)), big...), true)
	if err != nil || left == 0 {
		t.Fatalf("Write: %d bytes left, %v", left, err)
	}
	pongs := make(chan string, 4)
	client, q := s.dialWith(t, &websocket.DialOptions{OnPongReceived: func(_ context.Context, b []byte) { pongs <- string(b) }})
	client.SetReadLimit(64 << 20)
	lent := append(AppendHeader(nil, Binary, len(big)), big...)
	if left, err := q.conn.Write(lent, false); err != nil || left == 0 {
		t.Fatalf("Write: %d bytes left, %v", left, err)
	}
	clear(lent)
	for _, payload := range []string{"one", "two"} { // only the newest is answered
		if err := q.conn.pong([]byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	if _, b, err := client.Read(t.Context()); err != nil || !bytes.Equal(b, big) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if err := <-q.room; err != nil {
		t.Errorf("Room: %v", err)
	}
	if left, err := q.conn.Write(append(AppendHeader(nil, Text, 4), "done"...), true); left > 0 || err != nil {
		t.Errorf("Write: %d bytes left, %v", left, err)
	}
	if _, b, err := client.Read(t.Context()); err != nil || string(b) != "done" {
		t.Errorf("got %q, %v", b, err)
	}
	if got := <-pongs; got != "two" || len(pongs) > 0 {
		t.Errorf("got pong %q and %d more", got, len(pongs))
	}

	if err := p.conn.Close(4001, "behind it all"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.conn.Write(AppendHeader(nil, Text, 0), true); !errors.Is(err, ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if _, b, err := conn.Read(t.Context()); err != nil || len(b) != len(big) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != 4001 {
		t.Errorf("the client saw %v", err)
	}
	<-p.gone
}

// A client that closes before it has read everything reads it all, and the
// answer to its close frame.
func TestCloseIsAnsweredBehindWhatIsUnsent(t *testing.T) {
	s := startSite(t, testOptions())
	line, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = line.Close() }()
	request := "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n"
	if _, err := io.WriteString(line, request); err != nil {
		t.Fatal(err)
	}
	p := <-s.peers
	big := append(AppendHeader(nil, Binary, 16<<20), bytes.Repeat([]byte("x"), 16<<20)...)
	if left, err := p.conn.Write(big, true); err != nil || left == 0 {
		t.Fatalf("Write: %d bytes left, %v", left, err)
	}
	if _, err := line.Write(frame(0x88, "\x0f\xa0")); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(line)
	if want := append(big, "\x88\x02\x0f\xa0"...); err != nil || !bytes.HasSuffix(got, want) {
		t.Errorf("%d bytes that end with %x, %v", len(got), got[max(0, len(got)-4):], err)
	}
	<-p.gone
}

func TestGivesUpOnClientsThatDoNotAnswerClose(t *testing.T) {
	o := testOptions()
	o.CloseTimeout = 10 * time.Millisecond
	s := startSite(t, o)
	conn, p := s.dial(t) // which does not read
	say(t, conn, "!close")
	p.wantGone(ErrClosed)
}

// A client that sends before the answer to its handshake, and all at once.
func TestEarlyBytesAreNotLost(t *testing.T) {
	s := startSite(t, testOptions())
	for i := range 50 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("number %d", i)
		request := "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n"
		all := append([]byte(request), frame(0x81, text)...)
		all = append(all, frame(0x88, "\x03\xe8")...)
		if _, err := conn.Write(all); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		want := "\x81" + string(rune(len(text))) + text + "\x88\x02\x03\xe8"
		if err != nil || !strings.HasSuffix(string(answer), want) {
			t.Fatalf("the answer ends with %q, %v", answer[max(0, len(answer)-40):], err)
		}
		_ = conn.Close()
		<-(<-s.peers).gone
	}
}

func TestManyComeAndGo(t *testing.T) {
	s := startSite(t, testOptions())
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() {
			for i := range 30 {
				conn, _, err := websocket.Dial(t.Context(), s.url, nil)
				if err != nil {
					t.Error(err)
					return
				}
				for n := range i % 4 {
					text := fmt.Sprint("message ", n)
					if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
						t.Error(err)
					}
					if _, b, err := conn.Read(t.Context()); err != nil || string(b) != text {
						t.Errorf("%q came back as %q, %v", text, b, err)
					}
				}
				switch i % 3 {
				case 0:
					_ = conn.CloseNow()
				case 1:
					_ = conn.Close(websocket.StatusGoingAway, "")
				default:
					_ = conn.Write(t.Context(), websocket.MessageText, []byte("!abort"))
					_, _, _ = conn.Read(t.Context())
					_ = conn.CloseNow()
				}
			}
		})
	}
	clients.Wait()
	for range 600 {
		<-(<-s.peers).gone
	}
}

// A connection that is not watched any more would never be read again.
func TestUnwatchedIsFound(t *testing.T) {
	s := startSite(t, testOptions())
	conn, p := s.dial(t)
	say(t, conn, "watched") // the answer says that it has begun to read
	if _, _, err := conn.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := p.conn.loop.poller.Len(), p.conn.Check(); n != 1 || err != nil {
		t.Errorf("%d watched, %v", n, err)
	}
	l, fd := p.conn.loop, int(p.conn.fd)
	if err := unix.EpollCtl(l.fd, unix.EPOLL_CTL_DEL, fd, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and looking does not mend it
		if p.conn.Check() == nil {
			t.Error("a descriptor that is not watched passes")
		}
	}
	l.drop(p.conn)
	if n, err := p.conn.loop.poller.Len(), p.conn.Check(); n != 0 || err == nil {
		t.Errorf("%d watched, %v", n, err)
	}
	l.put(p.conn)
	p.conn.Abort()
	if err := unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd)}); err != nil {
		t.Fatal(err)
	}
	p.wantGone(ErrClosed)
	if err := p.conn.Check(); err != nil {
		t.Errorf("a closed one: %v", err)
	}
}
