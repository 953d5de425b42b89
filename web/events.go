package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/health"
	"github.com/minigate/minigate/internal/webhook"
)

const (
	listInterval     = 2 * time.Second // how often the tables are sent
	listedSockets    = 200
	eventWriteWithin = 10 * time.Second // a browser that takes longer is gone
)

// lists are the tables of the page.
type lists struct {
	Version     string                   `json:"version"`
	Health      health.Snapshot          `json:"health"`
	Nodes       []engine.Node            `json:"nodes"`
	Connections []gateway.ConnectionInfo `json:"connections"` // of this node, at most listedSockets
	Alerts      []auth.Alert             `json:"alerts"`      // of this node
	Hooks       []webhook.EndpointInfo   `json:"hooks"`       // of this node
}

// serveEvents streams `samples` events, the first of which carries the last
// minutes, and `lists` events (HTML Living Standard, server-sent events).
func (c *Console) serveEvents(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold the events back
	out := http.NewResponseController(w)
	send := func(event string, v any) error {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := out.SetWriteDeadline(time.Now().Add(eventWriteWithin)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, data); err != nil {
			return err
		}
		return out.Flush()
	}
	defer c.live.watch()()
	var last int64
	var listed time.Time
	for {
		news, next, ok := c.live.since(last)
		if !ok || !c.allowed(r) {
			return // the console ended, or the operator signed out
		}
		if len(news) > 0 {
			last = news[len(news)-1].Time
			if send("samples", news) != nil {
				return
			}
		}
		if time.Since(listed) >= listInterval {
			listed = time.Now()
			if send("lists", c.lists(r.Context())) != nil {
				return
			}
		}
		select {
		case <-next:
		case <-r.Context().Done():
			return
		}
	}
}

func (c *Console) lists(ctx context.Context) lists {
	ctx, cancel := context.WithTimeout(ctx, listInterval)
	defer cancel()
	nodes, err := c.o.Nodes(ctx)
	if err != nil {
		nodes = nil // Redis is away, which the health report says better
	}
	return lists{c.o.Version, c.o.Health(), nodes, c.o.Connections(listedSockets), c.o.Alerts(), c.o.Hooks()}
}
