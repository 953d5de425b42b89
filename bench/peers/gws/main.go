// Command gws is a bare WebSocket server on github.com/lxzan/gws: no channels,
// no logins, a message goes to all or to one user by the library's broadcaster.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lxzan/gws"
)

// server knows the connections by user. Those without one have their own.
type server struct {
	gws.BuiltinEventHandler

	ping time.Duration

	// Read-locked between the answer to a handshake and add: a client may know
	// that it is connected before the server does.
	joining sync.RWMutex

	mu    sync.RWMutex
	conns map[*gws.Conn]string
	users map[string]*gws.Conn
}

func main() {
	deflate := flag.Bool("deflate", false, "take permessage-deflate, without context takeover")
	ping := flag.Duration("ping", 25*time.Second, "how often each connection is pinged")
	flag.Parse()
	if err := run(*deflate, *ping); err != nil {
		fmt.Fprintln(os.Stderr, "gws:", err)
		os.Exit(1)
	}
}

func run(deflate bool, ping time.Duration) error {
	s := &server{ping: ping, conns: make(map[*gws.Conn]string), users: make(map[string]*gws.Conn)}
	upgrader := gws.NewUpgrader(s, &gws.ServerOption{
		ReadBufferSize:    512, // what its author recommends for many connections; less memory, same speed
		PermessageDeflate: gws.PermessageDeflate{Enabled: deflate},
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /publish", s.publish)
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		s.joining.RLock()
		defer s.joining.RUnlock()
		c, err := upgrader.Upgrade(w, r)
		if err != nil {
			return // it was answered
		}
		s.add(c, r.URL.Query().Get("user"))
		go c.ReadLoop()
	})
	fmt.Println(l.Addr(), l.Addr())
	go s.pings()
	return http.Serve(l, mux) // until the process is ended
}

func (s *server) add(c *gws.Conn, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c], s.users[user] = user, c
}

// OnClose forgets a connection.
func (s *server) OnClose(c *gws.Conn, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if user := s.conns[c]; s.users[user] == c {
		delete(s.users, user)
	}
	delete(s.conns, c)
}

// OnMessage answers a message with itself.
func (s *server) OnMessage(c *gws.Conn, message *gws.Message) {
	defer func() { _ = message.Close() }()              // gives a buffer back
	_ = c.WriteMessage(message.Opcode, message.Bytes()) // OnClose follows
}

func (s *server) publish(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.joining.Lock() // who was let in before is known after
	s.mu.RLock()
	s.joining.Unlock()
	defer s.mu.RUnlock()
	if user, personal := strings.CutPrefix(r.URL.Query().Get("channel"), "#"); personal {
		if c := s.users[user]; c != nil {
			_ = c.WriteMessage(gws.OpcodeText, body) // OnClose follows
		}
		return
	}
	b := gws.NewBroadcaster(gws.OpcodeText, body)
	defer func() { _ = b.Close() }() // gives a buffer back once all have it
	for c := range s.conns {
		_ = b.Broadcast(c) // OnClose follows
	}
}

// pings pings each connection once in a while, spread over it: the library
// leaves that to its users.
func (s *server) pings() {
	for {
		s.mu.RLock()
		all := make([]*gws.Conn, 0, len(s.conns))
		for c := range s.conns {
			all = append(all, c)
		}
		s.mu.RUnlock()
		began := time.Now()
		for i, c := range all {
			time.Sleep(time.Until(began.Add(s.ping * time.Duration(i/100*100) / time.Duration(len(all)))))
			_ = c.WritePing(nil) // OnClose follows
		}
		time.Sleep(max(time.Until(began.Add(s.ping)), 10*time.Millisecond))
	}
}
