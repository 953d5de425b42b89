package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/gateway/status"
	"github.com/minigate/minigate/internal/webhook"
)

// StatusHook is the hook that is told who came online and who went offline.
type StatusHook struct {
	Hook

	Grace time.Duration `yaml:"grace" default:"10s" doc:"How long a user may be gone before that counts as offline; whoever is back sooner is not told of. The same on every node; between 1s and 1h."`
	Batch int           `yaml:"batch" default:"100" doc:"How many events one call may carry; 1 to 100."`
}

// Check finds mistakes in the hook.
func (h *StatusHook) Check(report func(path, problem string)) {
	h.Hook.Check(report)
	if h.Grace < time.Second || h.Grace > time.Hour {
		report("grace", "must be between 1s and 1h")
	}
	if h.Batch < 1 || h.Batch > status.MaxBatch {
		report("batch", fmt.Sprintf("must be between 1 and %d", status.MaxBatch))
	}
}

const statusHook = "user_status"

// statusNews is the body of the user_status webhook.
type statusNews struct {
	Event    string         `json:"event"`
	Delivery string         `json:"delivery"` // the same each time this is sent
	Events   []status.Event `json:"events"`
}

// buildStatus makes what tells the backend who is online, and has o tell it
// about connections. Nothing of that is there without an endpoint.
func (s *server) buildStatus(o *gateway.Options) error {
	cfg := s.cfg.Webhooks.UserStatus
	if cfg.Endpoint == "" {
		return nil
	}
	timing := status.Timing{Grace: cfg.Grace}
	store, err := s.stores.status(timing)
	if err != nil {
		return err
	}
	s.status = status.New(status.Options{
		Store: store, Timing: timing, Node: o.Node.UID, Batch: cfg.Batch, Tell: s.tellStatus, Metrics: status.NewMetrics(s.registry),
	})
	o.Arrived = func(u auth.User) { s.status.Arrived(status.User{ID: u.OpenID, AppID: u.AppID, UnionID: u.UnionID}) }
	o.Left = func(u auth.User) { s.status.Left(u.OpenID) }
	return nil
}

func (st *stores) status(t status.Timing) (status.Store, error) {
	if st.redis != nil {
		return status.NewRedisStore(st.redis, st.prefix, t), nil
	}
	store, err := status.NewFileStore(st.db, t)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	return store, nil
}

// tellStatus queues events; the order of one part is kept.
func (s *server) tellStatus(ctx context.Context, part int, events []status.Event) error {
	id := webhook.NewID()
	return s.hooks.news.Enqueue(ctx, id, statusHook, statusHook, "part "+strconv.Itoa(part), statusNews{statusHook, id, events})
}
