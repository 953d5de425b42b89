package difftest

import (
	"context"
	"errors"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	sdk "github.com/centrifugal/centrifuge-go"
	"github.com/centrifugal/gocent/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/gateway/serverapi"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/settings"
)

const backendKey = "a key of more than sixteen bytes"

// backendClient is the server SDK of the protocol's authors, which speaks the
// older form of the API to one URL, on a hub that clients reach at endpoint.
func backendClient(t *testing.T) (api *gocent.Client, endpoint string) {
	t.Helper()
	hub, endpoint := hubServer(t)
	var s serverapi.Settings
	settings.Defaults(&s)
	keys, err := apikey.New([]apikey.Key{{Name: "backend", Key: backendKey, Scope: apikey.Admin}}, false)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(serverapi.New(hub, keys, s, serverapi.NewMetrics(prometheus.NewRegistry())))
	t.Cleanup(srv.Close)
	return gocent.New(gocent.Config{Addr: srv.URL + "/api", Key: backendKey, HTTPClient: srv.Client()}), endpoint
}

func TestServerSDKPublishesAndReads(t *testing.T) {
	api, endpoint := backendClient(t)
	ctx := t.Context()
	alice := newGoClient(t, endpoint, sdk.NewJsonClient, sdk.Config{Token: jwt(`{"sub":"alice"}`)})
	if err := alice.Connect(); err != nil {
		t.Fatal(err)
	}
	id := within(t, "connected", alice.connected).ClientID
	room := alice.sub("room:a", sdk.SubscriptionConfig{})
	within(t, "subscribed", room.subscribed)

	first, err := api.Publish(ctx, "room:a", []byte(`{"n":1}`))
	if err != nil || first.Offset != 1 || first.Epoch == "" {
		t.Fatalf("Publish: %+v, %v", first, err)
	}
	if res, err := api.Publish(ctx, "room:a", []byte(`{"n":2}`), gocent.WithSkipHistory(true)); err != nil || res.Offset != 0 {
		t.Errorf("Publish without history: %+v, %v", res, err)
	}
	all, err := api.Broadcast(ctx, []string{"room:a", "nowhere:a"}, []byte(`{"n":3}`))
	if err != nil || len(all.Responses) != 2 || all.Responses[0].Result.Offset != 2 || all.Responses[1].Error == nil || all.Responses[1].Error.Code != 102 {
		t.Errorf("Broadcast: %+v, %v", all, err)
	}
	room.want(`{"n":1}`, `{"n":2}`, `{"n":3}`)

	history, err := api.History(ctx, "room:a", gocent.WithLimit(10), gocent.WithSince(&gocent.StreamPosition{Offset: 1, Epoch: first.Epoch}))
	if err != nil || len(history.Publications) != 1 || string(history.Publications[0].Data) != `{"n":3}` || history.Offset != 2 || history.Epoch != first.Epoch {
		t.Errorf("History: %+v, %v", history, err)
	}
	if err := api.HistoryRemove(ctx, "room:a"); err != nil {
		t.Error(err)
	}
	if history, err = api.History(ctx, "room:a", gocent.WithLimit(10)); err != nil || len(history.Publications) != 0 || history.Offset != 2 {
		t.Errorf("History after its end: %+v, %v", history, err)
	}

	present, err := api.Presence(ctx, "room:a")
	if err != nil || len(present.Presence) != 1 || present.Presence[id].User != "alice" {
		t.Errorf("Presence: %+v, %v", present, err)
	}
	if stats, err := api.PresenceStats(ctx, "room:a"); err != nil || stats.NumClients != 1 || stats.NumUsers != 1 {
		t.Errorf("PresenceStats: %+v, %v", stats, err)
	}
	if channels, err := api.Channels(ctx, gocent.WithPattern("room:*")); err != nil || !slices.Equal(slices.Collect(maps.Keys(channels.Channels)), []string{"room:a"}) {
		t.Errorf("Channels: %+v, %v", channels, err)
	}
	if info, err := api.Info(ctx); err != nil || len(info.Nodes) != 1 || info.Nodes[0].NumClients != 1 || info.Nodes[0].Version != "test" {
		t.Errorf("Info: %+v, %v", info, err)
	}
}

func TestServerSDKMovesUsers(t *testing.T) {
	api, endpoint := backendClient(t)
	ctx := t.Context()
	alice := newGoClient(t, endpoint, sdk.NewJsonClient, sdk.Config{Token: jwt(`{"sub":"alice"}`)})
	alice.connect()
	room := alice.sub("room:a", sdk.SubscriptionConfig{})
	within(t, "subscribed", room.subscribed)
	if err := api.Subscribe(ctx, "rec:server", "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Publish(ctx, "rec:server", []byte(`{"n":1}`)); err != nil {
		t.Fatal(err)
	}
	if e := within(t, "a publication of the channel that the server chose", alice.personal); e.Channel != "rec:server" || string(e.Data) != `{"n":1}` {
		t.Errorf("publication %+v", e)
	}
	if err := api.Unsubscribe(ctx, "room:a", "alice"); err != nil {
		t.Fatal(err)
	}
	if e := within(t, "the end of the subscription", room.gone); e.Code != 2000 {
		t.Errorf("unsubscribed: %+v", e)
	}
	if err := api.Disconnect(ctx, "alice", gocent.WithDisconnect(&gocent.Disconnect{Code: 4500, Reason: "enough"})); err != nil {
		t.Fatal(err)
	}
	if e := within(t, "the end of the connection", alice.disconnected); e.Code != 4500 || e.Reason != "enough" {
		t.Errorf("disconnected: %+v", e)
	}
}

func TestServerSDKPipesAndFails(t *testing.T) {
	api, _ := backendClient(t)
	pipe := api.Pipe()
	err := errors.Join(
		pipe.AddPublish("room:a", []byte(`{"n":1}`)), pipe.AddPublish("nowhere:a", []byte(`{}`)), pipe.AddHistory("room:a", gocent.WithLimit(1)), pipe.AddInfo(),
	)
	if err != nil {
		t.Fatal(err)
	}
	replies, err := api.SendPipe(t.Context(), pipe)
	if err != nil || len(replies) != 4 {
		t.Fatalf("SendPipe: %v, %v", replies, err)
	}
	if e := replies[1].Error; e == nil || e.Code != 102 {
		t.Errorf("the reply about no channel: %+v", replies[1])
	}
	if got := string(replies[2].Result); replies[2].Error != nil || !strings.Contains(got, `"data":{"n":1}`) {
		t.Errorf("the history within the pipe: %s %+v", got, replies[2].Error)
	}
	_, err = api.Publish(t.Context(), "nowhere:a", []byte(`{}`))
	if e, ok := errors.AsType[*gocent.Error](err); !ok || e.Code != 102 {
		t.Errorf("Publish to no channel: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := api.Info(ctx); err == nil {
		t.Error("a cancelled call has an answer")
	}
}
