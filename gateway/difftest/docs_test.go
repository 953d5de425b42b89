package difftest

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/centrifugal/centrifuge-go"

	"github.com/minigate/minigate/gateway"
)

// followLobby is the Go example of docs/protocol.md, at another URL.
func followLobby(client *centrifuge.Client, show func(channel string, data []byte)) error {
	client.OnPublication(func(e centrifuge.ServerPublicationEvent) { show(e.Channel, e.Data) }) // the personal channel
	room, err := client.NewSubscription("room:lobby")
	if err != nil {
		return err
	}
	room.OnPublication(func(e centrifuge.PublicationEvent) { show(room.Channel, e.Data) })
	if err := room.Subscribe(); err != nil {
		return err
	}
	return client.Connect() // returns at once, and reconnects by itself
}

// TestDocumentedGo runs the Go example of docs/protocol.md, which is the body
// of followLobby.
func TestDocumentedGo(t *testing.T) {
	page, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("docs_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(page), "```go\nclient := centrifuge.NewJsonClient(")
	_, code, _ = strings.Cut(code, "\n")
	code, _, _ = strings.Cut(code, "```")
	if body := "\t" + strings.ReplaceAll(strings.TrimSpace(code), "\n", "\n\t"); len(body) < 100 || !strings.Contains(string(source), body) {
		t.Fatalf("followLobby is not what the page says:\n%s", body)
	}

	hub, endpoint := hubServer(t)
	news := make(chan string, 10)
	client := centrifuge.NewJsonClient(endpoint, centrifuge.Config{Token: jwt(`{"sub":"gopher"}`)})
	t.Cleanup(client.Close)
	connected := make(chan centrifuge.ConnectedEvent, 1)
	client.OnConnected(func(e centrifuge.ConnectedEvent) { connected <- e })
	if err := followLobby(client, func(channel string, data []byte) { news <- channel + " " + string(data) }); err != nil {
		t.Fatal(err)
	}
	within(t, "connected", connected)
	if _, err := hub.Push(t.Context(), gateway.PushRequest{Users: []string{"gopher"}, Data: json.RawMessage(`"hi"`)}); err != nil {
		t.Fatal(err)
	}
	if got := within(t, "push", news); got != `#gopher "hi"` {
		t.Errorf("push %s", got)
	}
	room, _ := client.GetSubscription("room:lobby")
	for room.State() != centrifuge.SubStateSubscribed {
		if _, err := room.PresenceStats(t.Context()); err != nil { // waits for the subscription
			t.Fatal(err)
		}
	}
	if _, err := hub.Publish(t.Context(), "room:lobby", json.RawMessage(`"all"`), gateway.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := within(t, "publication", news); got != `room:lobby "all"` {
		t.Errorf("publication %s", got)
	}
}
