//go:build linux

package main

import (
	"bytes"
	"compress/flate"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// conn belongs to the loop, but for writes.
type conn struct {
	fd       int
	upgraded bool
	user     string
	rest     []byte // of a request or frame that is not whole
}

// server is all there is. mu guards conns and users, and is held while
// something is written, so that frames stay whole.
type server struct {
	listener, epoll int
	deflate         bool

	mu    sync.Mutex
	conns map[int]*conn
	users map[string]*conn
}

func main() {
	deflate := flag.Bool("deflate", false, "take permessage-deflate and compress what is sent")
	ping := flag.Duration("ping", 25*time.Second, "how often each connection is pinged")
	flag.Parse()
	if err := run(*deflate, *ping); err != nil {
		fmt.Fprintln(os.Stderr, "raw:", err)
		os.Exit(1)
	}
}

func run(deflate bool, ping time.Duration) error {
	s := &server{deflate: deflate, conns: make(map[int]*conn), users: make(map[string]*conn)}
	sockets, err := s.listen()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(sockets, l.Addr())
	go s.pings(ping)
	go s.loop()
	return http.Serve(l, http.HandlerFunc(s.publish)) // until the process is ended
}

func (s *server) listen() (addr string, err error) {
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return "", err
	}
	if s.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return "", err
	}
	if err := unix.Bind(s.listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", err
	}
	if err := unix.Listen(s.listener, 65535); err != nil {
		return "", err
	}
	at, err := unix.Getsockname(s.listener)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port), s.watch(s.listener)
}

func (s *server) watch(fd int) error {
	return unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (s *server) loop() {
	events, buf := make([]unix.EpollEvent, 256), make([]byte, 64<<10)
	for {
		n, err := unix.EpollWait(s.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			panic(err)
		}
		for _, e := range events[:max(n, 0)] {
			if fd := int(e.Fd); fd == s.listener {
				s.accept()
			} else if !s.read(fd, buf) {
				s.drop(fd)
			}
		}
	}
}

func (s *server) accept() {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // only later without
		s.mu.Lock()
		s.conns[fd] = &conn{fd: fd}
		s.mu.Unlock()
		if s.watch(fd) != nil {
			s.drop(fd)
		}
	}
}

func (s *server) drop(fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.conns[fd]; c != nil && s.users[c.user] == c {
		delete(s.users, c.user)
	}
	delete(s.conns, fd)
	_ = unix.Close(fd)
}

// read takes what is there and tells whether the connection lives on.
func (s *server) read(fd int, buf []byte) bool {
	s.mu.Lock()
	c := s.conns[fd]
	s.mu.Unlock()
	if c == nil {
		return true
	}
	have := copy(buf, c.rest)
	n, err := unix.Read(fd, buf[have:])
	if err == unix.EAGAIN {
		return true
	}
	if n <= 0 {
		return false
	}
	b := buf[:have+n]
	if !c.upgraded {
		end := bytes.Index(b, []byte("\r\n\r\n"))
		if end < 0 {
			c.rest = bytes.Clone(b)
			return len(b) < 4<<10
		}
		s.upgrade(c, string(b[:end]))
		b = b[end+4:]
	}
	alive := true
	for size := 1; size > 0 && alive; {
		var op byte
		var payload []byte
		if op, payload, size = parse(b); size > 0 {
			alive = s.frame(c, op, payload)
			b = b[size:]
		}
	}
	c.rest = nil
	if len(b) > 0 {
		c.rest = bytes.Clone(b)
	}
	return alive
}

func (s *server) upgrade(c *conn, request string) {
	_, user, _ := strings.Cut(request, "user=")
	c.user, _, _ = strings.Cut(user, " ")
	_, key, _ := strings.Cut(request, "Sec-WebSocket-Key: ")
	key, _, _ = strings.Cut(key, "\r\n")
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455, section 4.2.2
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n"
	if s.deflate && strings.Contains(request, "permessage-deflate") {
		answer += "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
	}
	c.upgraded = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[c.user] = c
	send(c.fd, []byte(answer+"\r\n"))
}

// frame answers a message with itself.
func (s *server) frame(c *conn, op byte, payload []byte) bool {
	switch op {
	case 1, 2, 8:
		s.mu.Lock()
		defer s.mu.Unlock()
		send(c.fd, frame(0x80|op, payload))
	}
	return op != 8
}

// parse finds one masked frame of up to 64 KiB; size 0 means that it is not
// whole.
func parse(b []byte) (op byte, payload []byte, size int) {
	if len(b) < 6 {
		return 0, nil, 0
	}
	n, head := int(b[1]&0x7f), 2
	if n == 126 {
		n, head = int(binary.BigEndian.Uint16(b[2:])), 4
	}
	if len(b) < head+4+n {
		return 0, nil, 0
	}
	mask := b[head : head+4]
	payload = b[head+4 : head+4+n]
	for i := range payload {
		payload[i] ^= mask[i&3]
	}
	return b[0] & 0x0f, payload, head + 4 + n
}

func frame(first byte, payload []byte) []byte {
	b := []byte{first}
	if n := len(payload); n < 126 {
		b = append(b, byte(n))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	}
	return append(b, payload...)
}

// send writes all of b, and waits where the socket is full.
func send(fd int, b []byte) {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch err {
		case nil:
			b = b[n:]
		case unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 1000) // then it is tried again
		case unix.EINTR:
		default:
			return // the loop hears of it, too
		}
	}
}

// publish sends a body to a user, or to all.
func (s *server) publish(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10-1))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	first := byte(0x81)
	if s.deflate {
		first, body = 0xc1, compress(body)
	}
	message := frame(first, body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if user, personal := strings.CutPrefix(r.URL.Query().Get("channel"), "#"); personal {
		if c := s.users[user]; c != nil {
			send(c.fd, message)
		}
		return
	}
	for fd, c := range s.conns {
		if c.upgraded {
			send(fd, message)
		}
	}
}

func compress(b []byte) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestSpeed) // the level is one that exists
	_, _ = w.Write(b)                              // into memory
	_ = w.Flush()
	return bytes.TrimSuffix(out.Bytes(), []byte("\x00\x00\xff\xff"))
}

// pings pings each connection once in a while, spread over it.
func (s *server) pings(every time.Duration) {
	const parts = 100
	ping := frame(0x89, nil)
	for part := 0; ; part = (part + 1) % parts {
		time.Sleep(every / parts)
		s.mu.Lock()
		for fd, c := range s.conns {
			if fd%parts == part && c.upgraded {
				send(fd, ping)
			}
		}
		s.mu.Unlock()
	}
}
