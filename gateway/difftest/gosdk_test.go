package difftest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/centrifugal/centrifuge-go"

	"github.com/minigate/minigate/gateway"
)

// encodings are those of the Go SDK.
var encodings = []struct {
	name string
	make func(endpoint string, c sdk.Config) *sdk.Client
}{
	{"JSON", sdk.NewJsonClient},
	{"Protobuf", sdk.NewProtobufClient},
}

// goClient is a connected client of the Go SDK whose news come by channels.
type goClient struct {
	*sdk.Client
	t            *testing.T
	connecting   chan sdk.ConnectingEvent
	disconnected chan sdk.DisconnectedEvent
	connected    chan sdk.ConnectedEvent
	personal     chan sdk.ServerPublicationEvent
}

type goSub struct {
	*sdk.Subscription
	t          *testing.T
	subscribed chan sdk.SubscribedEvent
	gone       chan sdk.UnsubscribedEvent
	pubs       chan sdk.PublicationEvent
	joins      chan sdk.JoinEvent
}

// within waits for news, but not forever.
func within[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("never came: %s", what)
		panic("unreachable")
	}
}

func newGoClient(t *testing.T, endpoint string, create func(string, sdk.Config) *sdk.Client, c sdk.Config) *goClient {
	c.MinReconnectDelay, c.MaxReconnectDelay = 10*time.Millisecond, 50*time.Millisecond
	g := &goClient{
		t: t, Client: create(endpoint, c),
		connecting: make(chan sdk.ConnectingEvent, 100), disconnected: make(chan sdk.DisconnectedEvent, 100),
		connected: make(chan sdk.ConnectedEvent, 100), personal: make(chan sdk.ServerPublicationEvent, 100),
	}
	g.OnConnecting(func(e sdk.ConnectingEvent) { g.connecting <- e })
	g.OnDisconnected(func(e sdk.DisconnectedEvent) { g.disconnected <- e })
	g.OnConnected(func(e sdk.ConnectedEvent) { g.connected <- e })
	g.OnPublication(func(e sdk.ServerPublicationEvent) { g.personal <- e })
	t.Cleanup(g.Close)
	return g
}

func (g *goClient) connect() {
	g.t.Helper()
	if err := g.Connect(); err != nil {
		g.t.Fatal(err)
	}
	within(g.t, "connecting", g.connecting)
	within(g.t, "connected", g.connected)
}

func (g *goClient) sub(channel string, c sdk.SubscriptionConfig) *goSub {
	g.t.Helper()
	s, err := g.NewSubscription(channel, c)
	if err != nil {
		g.t.Fatal(err)
	}
	w := &goSub{
		t: g.t, Subscription: s, subscribed: make(chan sdk.SubscribedEvent, 100), gone: make(chan sdk.UnsubscribedEvent, 100),
		pubs: make(chan sdk.PublicationEvent, 100), joins: make(chan sdk.JoinEvent, 100),
	}
	s.OnSubscribed(func(e sdk.SubscribedEvent) { w.subscribed <- e })
	s.OnUnsubscribed(func(e sdk.UnsubscribedEvent) { w.gone <- e })
	s.OnPublication(func(e sdk.PublicationEvent) { w.pubs <- e })
	s.OnJoin(func(e sdk.JoinEvent) { w.joins <- e })
	if err := s.Subscribe(); err != nil {
		g.t.Fatal(err)
	}
	return w
}

func (s *goSub) want(data ...string) {
	s.t.Helper()
	for _, want := range data {
		if e := within(s.t, want, s.pubs); string(e.Data) != want {
			s.t.Fatalf("publication %s, want %s", e.Data, want)
		}
	}
}

// hubServer serves a Hub on loopback.
func hubServer(t *testing.T) (hub *gateway.Hub, endpoint string) {
	hub, handler := startOurs(t, labSettings(t))
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return hub, strings.Replace(srv.URL, "http", "ws", 1) + "/connection/websocket"
}

func codeOf(err error) uint32 {
	if e := new(sdk.Error); errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// TestGoSDK drives the official Go SDK.
func TestGoSDK(t *testing.T) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			hub, endpoint := hubServer(t)
			t.Run("everyday", func(t *testing.T) { everyday(t, hub, endpoint, enc.make) })
			t.Run("recovery", func(t *testing.T) { recovery(t, hub, endpoint, enc.make) })
			t.Run("tokens", func(t *testing.T) { tokens(t, endpoint, enc.make) })
			t.Run("ends", func(t *testing.T) { ends(t, hub, endpoint, enc.make) })
		})
	}
}

func everyday(t *testing.T, hub *gateway.Hub, endpoint string, create func(string, sdk.Config) *sdk.Client) {
	ctx := t.Context()
	a := newGoClient(t, endpoint, create, sdk.Config{Token: jwt(`{"sub":"alice","info":{"n":1}}`), Name: "go", Version: "1"})
	a.connect()
	room := a.sub("room:everyday", sdk.SubscriptionConfig{})
	within(t, "subscribed", room.subscribed)
	if e := within(t, "own join", room.joins); e.User != "alice" {
		t.Errorf("join of %q", e.User)
	}
	for i := range 5 {
		if _, err := room.Publish(ctx, fmt.Appendf(nil, `{"i":%d}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	room.want(`{"i":0}`, `{"i":1}`, `{"i":2}`, `{"i":3}`, `{"i":4}`)
	who, err := room.Presence(ctx)
	if err != nil || len(who.Clients) != 1 {
		t.Fatalf("presence %+v, %v", who, err)
	}
	for _, info := range who.Clients {
		if info.User != "alice" || string(info.ConnInfo) != `{"n":1}` {
			t.Errorf("presence %+v", info)
		}
	}
	stats, err := room.PresenceStats(ctx)
	if err != nil || stats.NumClients != 1 || stats.NumUsers != 1 {
		t.Errorf("stats %+v, %v", stats, err)
	}
	page, err := room.History(ctx, sdk.WithHistoryLimit(2), sdk.WithHistoryReverse(true))
	if err != nil || len(page.Publications) != 2 || page.Publications[0].Offset != 5 || page.Offset != 5 {
		t.Errorf("history %+v, %v", page, err)
	}
	_, err = room.History(ctx, sdk.WithHistoryLimit(2), sdk.WithHistorySince(&sdk.StreamPosition{Offset: 1, Epoch: "other"}))
	if codeOf(err) != 112 {
		t.Errorf("history of another epoch: %v", err)
	}
	if _, err = a.RPC(ctx, "x", []byte(`{}`)); codeOf(err) != 108 {
		t.Errorf("rpc without a backend: %v", err)
	}
	if _, err = a.Publish(ctx, "nowhere:x", []byte(`1`)); codeOf(err) != 102 {
		t.Errorf("publish to nowhere: %v", err)
	}
	if _, err := hub.Push(ctx, gateway.PushRequest{Users: []string{"alice"}, Data: json.RawMessage(`"hi"`)}); err != nil {
		t.Fatal(err)
	}
	if e := within(t, "push", a.personal); e.Channel != "#alice" || string(e.Data) != `"hi"` {
		t.Errorf("push %+v", e)
	}
	for range 20 {
		if err := errors.Join(room.Unsubscribe(), room.Subscribe()); err != nil {
			t.Fatal(err)
		}
		within(t, "unsubscribed", room.gone)
		within(t, "subscribed again", room.subscribed)
	}
}

func recovery(t *testing.T, hub *gateway.Hub, endpoint string, create func(string, sdk.Config) *sdk.Client) {
	ctx := t.Context()
	hold := make(chan struct{}, 1)
	first := true
	a := newGoClient(t, endpoint, create, sdk.Config{GetToken: func(sdk.ConnectionTokenEvent) (string, error) {
		if !first {
			<-hold // what is published meanwhile is missed
		}
		first = false
		return jwt(`{"sub":"rita"}`), nil
	}})
	a.connect()
	subs := []*goSub{a.sub("rec:r", sdk.SubscriptionConfig{}), a.sub("small:r", sdk.SubscriptionConfig{})}
	for _, s := range subs {
		within(t, "subscribed", s.subscribed)
	}
	publish := func(from, to int) {
		for i := from; i <= to; i++ {
			for _, s := range subs {
				if _, err := hub.Publish(ctx, s.Channel, fmt.Append(nil, i), gateway.PublishOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	publish(1, 1)
	for _, s := range subs {
		s.want("1")
	}
	a.SetToken("") // so that the SDK asks for another
	if err := hub.Disconnect(ctx, "rita", gateway.DisconnectOptions{Code: 3011, Reason: "force reconnect"}); err != nil {
		t.Fatal(err)
	}
	if e := within(t, "connecting", a.connecting); e.Code != 3011 {
		t.Errorf("connecting %+v", e)
	}
	publish(2, 5)
	hold <- struct{}{}
	var recovered []bool
	for _, s := range subs {
		e := within(t, "subscribed", s.subscribed)
		if !e.WasRecovering {
			t.Errorf("%s: %+v", s.Channel, e)
		}
		recovered = append(recovered, e.Recovered)
	}
	if !slices.Equal(recovered, []bool{true, false}) {
		t.Errorf("recovered %v", recovered)
	}
	publish(6, 6)
	subs[0].want("2", "3", "4", "5", "6")
	subs[1].want("6")
}

func tokens(t *testing.T, endpoint string, create func(string, sdk.Config) *sdk.Client) {
	exp := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	asked, subAsked := make(chan struct{}, 10), make(chan struct{}, 10)
	times := []time.Duration{-time.Minute, 2 * time.Second, time.Hour}
	a := newGoClient(t, endpoint, create, sdk.Config{GetToken: func(sdk.ConnectionTokenEvent) (string, error) {
		d := times[0]
		times = times[1:]
		asked <- struct{}{}
		return jwt(fmt.Sprintf(`{"sub":"tom","exp":%d}`, exp(d))), nil
	}})
	a.connect()
	subTimes := []time.Duration{-time.Minute, 2 * time.Second, time.Hour}
	s := a.sub("$room:tom", sdk.SubscriptionConfig{GetToken: func(e sdk.SubscriptionTokenEvent) (string, error) {
		d := subTimes[0]
		subTimes = subTimes[1:]
		subAsked <- struct{}{}
		return jwt(fmt.Sprintf(`{"sub":"tom","channel":"%s","exp":%d}`, e.Channel, exp(d))), nil
	}})
	within(t, "subscribed", s.subscribed)
	for range 3 {
		within(t, "token", asked)
		within(t, "subscription token", subAsked)
	}
	if _, err := s.PresenceStats(t.Context()); err != nil { // in order: after both refreshes
		t.Fatal(err)
	}
	if a.State() != sdk.StateConnected || s.State() != sdk.SubStateSubscribed || len(a.disconnected)+len(s.gone) > 0 {
		t.Errorf("%v, %v after the refreshes", a.State(), s.State())
	}
}

func ends(t *testing.T, hub *gateway.Hub, endpoint string, create func(string, sdk.Config) *sdk.Client) {
	ctx := context.Background()
	for code, stays := range map[uint32]bool{3503: true, 4500: true, 3000: false, 3012: false, 4000: false} {
		a := newGoClient(t, endpoint, create, sdk.Config{Token: jwt(`{"sub":"eve"}`)})
		a.connect()
		if err := hub.Disconnect(ctx, "eve", gateway.DisconnectOptions{Code: code, Reason: "some words"}); err != nil {
			t.Fatal(err)
		}
		if stays {
			if e := within(t, "disconnected", a.disconnected); e.Code != code || e.Reason != "some words" {
				t.Errorf("%d: %+v", code, e)
			}
		} else {
			if e := within(t, "connecting", a.connecting); e.Code != code {
				t.Errorf("%d: %+v", code, e)
			}
			within(t, "connected again", a.connected)
		}
		a.Close()
	}
	forged := newGoClient(t, endpoint, create, sdk.Config{Token: jwt(`{"sub":"eve"}`) + "x"})
	if err := forged.Connect(); err != nil {
		t.Fatal(err)
	}
	if e := within(t, "disconnected", forged.disconnected); e.Code != 3500 {
		t.Errorf("forged token: %+v", e)
	}
}
