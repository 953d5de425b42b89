// Command centrifuge is a server on the library that Centrifugo is made of,
// github.com/centrifugal/centrifuge. It does what minigate does for the same
// clients: a login token is looked up, each user has a personal channel with
// history and recovery, and clients subscribe to another one with both.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/centrifugal/centrifuge"
)

// options are the flags.
type options struct {
	tokens         string
	deflate, tuned bool
	ping           time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.tokens, "tokens", "", "file with a login token and its user on each line")
	flag.BoolVar(&o.deflate, "deflate", false, "take permessage-deflate")
	flag.BoolVar(&o.tuned, "tuned", false, "what the library offers to those with many connections")
	flag.DurationVar(&o.ping, "ping", 25*time.Second, "how often each connection is pinged")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "centrifuge:", err)
		os.Exit(1)
	}
}

// server has the logins by the fingerprint of their token, as minigate stores
// them.
type server struct {
	options
	node   *centrifuge.Node
	logins map[[sha256.Size]byte]string
}

func run(o options) error {
	s := &server{options: o, logins: make(map[[sha256.Size]byte]string)}
	if err := s.readLogins(); err != nil {
		return err
	}
	var err error
	if s.node, err = centrifuge.New(centrifuge.Config{}); err != nil {
		return err
	}
	s.node.OnConnecting(s.connecting)
	s.node.OnConnect(connected)
	if err := s.node.Run(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/publish", s.publish)
	mux.Handle("GET /connection/websocket", centrifuge.NewWebsocketHandler(s.node, s.websocket()))
	fmt.Println(l.Addr(), l.Addr())
	return http.Serve(l, mux) // until the process is ended
}

func (s *server) readLogins() error {
	f, err := os.Open(s.tokens)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		token, user, _ := strings.Cut(lines.Text(), " ")
		s.logins[sha256.Sum256([]byte(token))] = user
	}
	return lines.Err()
}

func (s *server) websocket() centrifuge.WebsocketConfig {
	c := centrifuge.WebsocketConfig{
		Compression: s.deflate, CompressionLevel: 1, // as Centrifugo has it; the library does not compress at all by default
		PingPongConfig: centrifuge.PingPongConfig{PingInterval: s.ping, PongTimeout: s.ping / 3},
	}
	if s.tuned {
		c.UseWriteBufferPool = true
		c.ReadBufferSize = 256
		c.ProcessCommandsOffReadLoop = true
		c.CompressionPreparedMessageCacheSize = 16 << 20
	}
	return c
}

// Subscriptions are followed as minigate's are.
var recovering = centrifuge.SubscribeOptions{EnableRecovery: true, EnablePositioning: true}

func (s *server) connecting(_ context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
	user, known := s.logins[sha256.Sum256([]byte(e.Token))]
	if !known {
		return centrifuge.ConnectReply{}, centrifuge.DisconnectInvalidToken
	}
	reply := centrifuge.ConnectReply{
		Credentials:   &centrifuge.Credentials{UserID: user},
		Subscriptions: map[string]centrifuge.SubscribeOptions{"#" + user: recovering},
	}
	if s.tuned { // collects messages before it writes
		reply.WriteDelay, reply.WriteWithTimer, reply.MaxMessagesInFrame = 25*time.Millisecond, true, -1
		reply.ReplyWithoutQueue = true
	}
	return reply, nil
}

func connected(client *centrifuge.Client) {
	client.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
		answer(centrifuge.SubscribeReply{Options: recovering}, nil)
	})
	client.OnHistory(func(_ centrifuge.HistoryEvent, answer centrifuge.HistoryCallback) {
		answer(centrifuge.HistoryReply{}, nil)
	})
}

// key is the API key of minigate dev, too.
const key = "dev"

func (s *server) publish(w http.ResponseWriter, r *http.Request) {
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("X-API-Key")), []byte(key)) == 0 {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var request struct {
		Channel string
		Data    json.RawMessage
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<20)).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	result, err := s.node.Publish(request.Channel, request.Data, centrifuge.WithHistory(100, 5*time.Minute))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"result": map[string]any{"offset": result.Offset, "epoch": result.Epoch}}) // to the caller
}
