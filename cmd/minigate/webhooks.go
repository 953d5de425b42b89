package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/internal/seal"
	"github.com/minigate/minigate/internal/webhook"
	"github.com/minigate/minigate/transfer"
)

// Webhooks are the calls to the business backend.
type Webhooks struct {
	webhook.Settings

	WeChatPush Hook `yaml:"wechat_push" doc:"What WeChat pushes (messages and events of users) is passed on here, at least once and in order per user."`
	OpenData   Hook `yaml:"open_data" doc:"Open data and phone numbers that phones had opened are passed on here too, so that your backend need not believe the phone."`

	Upload   transfer.WebhookSettings         `yaml:"upload" doc:"Asking your backend at every upload."`
	Download transfer.DownloadWebhookSettings `yaml:"download" doc:"Asking your backend at every download."`
	Check    transfer.CheckWebhookSettings    `yaml:"check" doc:"Asking your backend about what is in each file, before others than its owner can read it."`
	Files    Hook                             `yaml:"files" doc:"Files that have become ready (file_ready), were blocked by a check (file_blocked) or deleted (file_deleted) are told here, at least once and in order per user."`

	UserStatus StatusHook `yaml:"user_status" doc:"Who comes online and who goes offline is told here, at least once, with a number per user by which your backend knows what is newer."`
}

// Hook is one address of the backend.
type Hook struct {
	Endpoint string        `yaml:"endpoint" doc:"URL that is called with POST; empty switches it off."`
	Timeout  time.Duration `yaml:"timeout" default:"5s" doc:"How long one call may take; between 100ms and 60s."`
}

// Check finds mistakes in one hook.
func (h *Hook) Check(report func(path, problem string)) {
	if h.Endpoint == "" {
		return
	}
	if problem := webhook.CheckEndpoint(h.Endpoint); problem != "" {
		report("endpoint", problem)
	}
	if h.Timeout < 100*time.Millisecond || h.Timeout > time.Minute {
		report("timeout", "must be between 100ms and 60s")
	}
}

// checkWebhooks wants a key wherever something is to be signed.
func (c *Config) checkWebhooks(report func(path, problem string)) {
	if len(c.Webhooks.Keys) > 0 {
		return
	}
	live := c.gateway()
	for _, hook := range live.Hooks() {
		if hook.Proxy.Endpoint != "" {
			report(hook.At+".endpoint", "needs a key in webhooks.keys to sign with")
		}
	}
	for path, endpoint := range map[string]string{
		"webhooks.open_data.endpoint":    c.Webhooks.OpenData.Endpoint,
		"session.login_webhook.endpoint": c.Session.LoginWebhook.Endpoint,
		"webhooks.wechat_push.endpoint":  c.Webhooks.WeChatPush.Endpoint,
		"webhooks.upload.endpoint":       c.Webhooks.Upload.Endpoint,
		"webhooks.download.endpoint":     c.Webhooks.Download.Endpoint,
		"webhooks.check.endpoint":        c.Webhooks.Check.Endpoint,
		"webhooks.files.endpoint":        c.Webhooks.Files.Endpoint,
		"webhooks.user_status.endpoint":  c.Webhooks.UserStatus.Endpoint,
	} {
		if endpoint != "" {
			report(path, "needs a key in webhooks.keys to sign with")
		}
	}
}

// backendHooks call the business backend: at once, or through a queue that
// outlives a restart.
type backendHooks struct {
	client *webhook.Client
	news   *webhook.Dispatcher
}

// The hooks that are delivered from the queue; the names of the first two are
// also those of their events.
const (
	pushHook  = "wechat_push"
	dataHook  = "open_data"
	filesHook = "files"
)

// buildHooks makes them; sealing keys protect what waits. There is a queue
// also where nothing is to be delivered any more: operators may look into it,
// and the dead age.
func (s *server) buildHooks(sealing [][32]byte) error {
	cfg := &s.cfg.Webhooks
	metrics := webhook.NewMetrics(s.registry)
	s.hooks.client = webhook.NewClient(webhook.Options{Settings: cfg.Settings, Metrics: metrics})
	var endpoints []*webhook.Endpoint
	for name, hook := range map[string]Hook{
		pushHook: cfg.WeChatPush, dataHook: cfg.OpenData, filesHook: cfg.Files, statusHook: cfg.UserStatus.Hook,
	} {
		if hook.Endpoint == "" {
			continue
		}
		endpoint, err := s.hooks.client.Endpoint(name, hook.Endpoint, hook.Timeout)
		if err != nil {
			return fmt.Errorf("webhooks.%s: %w", name, err)
		}
		endpoints = append(endpoints, endpoint)
	}
	sealer, err := seal.New(sealing)
	if err != nil {
		return err
	}
	queue, err := s.stores.queue(webhook.QueueOptions{Settings: cfg.Queue, Sealer: sealer, Metrics: metrics})
	if err != nil {
		return err
	}
	s.hooks.news = webhook.NewDispatcher(queue, cfg.Queue, metrics, endpoints...)
	return nil
}

func (st *stores) queue(o webhook.QueueOptions) (webhook.Queue, error) {
	if st.redis != nil {
		return webhook.NewRedisQueue(st.redis, st.prefix, o), nil
	}
	q, err := webhook.NewFileQueue(st.db, o)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	return q, nil
}

// pushed is the body of the wechat_push webhook.
type pushed struct {
	Event    string       `json:"event"`
	Delivery string       `json:"delivery"` // the same each time this is sent
	Push     *wechat.Push `json:"push"`
}

// forwardPush queues what WeChat pushed; the order of one user is kept.
func (s *server) forwardPush(ctx context.Context, p *wechat.Push) error {
	if s.cfg.Webhooks.WeChatPush.Endpoint == "" {
		return nil
	}
	id := webhook.NewID()
	return s.hooks.news.Enqueue(ctx, id, pushHook, pushHook, p.AppID+"/"+p.From, pushed{pushHook, id, p})
}

// opened is the body of the open_data webhook.
type opened struct {
	Event    string `json:"event"`
	Delivery string `json:"delivery"`
	auth.Vouched
}

// forwardData queues what a phone had opened; the order of one user is kept.
func (s *server) forwardData(ctx context.Context, v auth.Vouched) error {
	if s.cfg.Webhooks.OpenData.Endpoint == "" {
		return nil
	}
	id := webhook.NewID()
	return s.hooks.news.Enqueue(ctx, id, dataHook, dataHook, v.User.AppID+"/"+v.User.OpenID, opened{dataHook, id, v})
}

// infos tells how the hooks do on this node.
func (h *backendHooks) infos() []webhook.EndpointInfo {
	endpoints := h.client.Endpoints()
	list := make([]webhook.EndpointInfo, len(endpoints))
	for i, e := range endpoints {
		list[i] = e.Info()
	}
	return list
}

// run delivers until ctx ends.
func (h *backendHooks) run(ctx context.Context) error {
	defer h.client.Close()
	if err := h.news.Run(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
