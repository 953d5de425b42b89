package difftest

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/fault"
)

// server is one of the two that are compared, with what a backend can ask of
// it. Answers are texts to compare.
type server struct {
	net *pipes

	publish func(channel, data string, o publishOptions) string
	forget  func(channel string) // its history
	kick    func(user string, code uint32)
	remove  func(user, channel string) // ends a subscription
	all     func(data string)          // a message that belongs to no channel
	members func(channel string) string
}

type publishOptions struct {
	skip bool // history
	key  string
	tags map[string]string
}

// startOurs runs a Hub. The caller is inside a synctest bubble, or dials it
// over a real network by handler.
func startOurs(t testing.TB, s gateway.Settings) (hub *gateway.Hub, handler http.Handler) {
	tokens := verifier(t, s)
	hub = gateway.New(gateway.Options{
		Settings: s, Engine: engine.NewMemory(), ConnectTokens: tokens, SubscribeTokens: tokens,
		Verify: func(context.Context, string) (*auth.Session, error) {
			return nil, fault.New(fault.Unauthenticated, "token_invalid", "There are no logins here.")
		},
		Metrics: gateway.NewMetrics(prometheus.NewRegistry()),
		Node:    engine.Node{UID: "n1", Name: "node", Version: "test"},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- hub.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return hub, http.HandlerFunc(hub.ServeWebSocket)
}

func ours(t testing.TB) *server {
	hub, handler := startOurs(t, labSettings(t))
	ctx := context.Background()
	must := func(err error) {
		if err != nil {
			t.Errorf("ours: %v", err)
		}
	}
	return &server{
		net: listen(t, handler),
		publish: func(channel, data string, o publishOptions) string {
			res, err := hub.Publish(ctx, channel, json.RawMessage(data), gateway.PublishOptions{
				SkipHistory: o.skip, Tags: o.tags, IdempotencyKey: o.key,
			})
			must(err)
			return "offset " + strconv.FormatUint(res.Position.Offset, 10)
		},
		forget: func(channel string) { must(hub.HistoryRemove(ctx, channel)) },
		kick:   func(user string, code uint32) { must(hub.Disconnect(ctx, user, gateway.DisconnectOptions{Code: code})) },
		remove: func(user, channel string) { must(hub.Unsubscribe(ctx, user, channel, gateway.Selection{})) },
		all: func(data string) {
			_, err := hub.Push(ctx, gateway.PushRequest{All: true, Data: json.RawMessage(data)})
			must(err)
		},
		members: func(channel string) string {
			clients, users, err := hub.PresenceStats(ctx, channel)
			must(err)
			return strconv.Itoa(clients) + " clients, " + strconv.Itoa(users) + " users"
		},
	}
}
