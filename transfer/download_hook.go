package transfer

import (
	"context"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/webhook"
)

const hookDownload = "download" // name of the hook and of its event

var (
	errDownloadRefused = fault.New(fault.Forbidden, "download_refused", "The service refused to hand out this file.")
	errDownloadAway    = fault.New(fault.Unavailable, "download_webhook_unavailable", "Downloads cannot be checked right now: try again.")
)

// DownloadWebhookSettings say whom to ask at every download.
type DownloadWebhookSettings struct {
	Endpoint string        `yaml:"endpoint" doc:"URL at your backend that is asked at every download, with what minigate would decide. It may overrule that both ways. Empty asks nobody."`
	Timeout  time.Duration `yaml:"timeout" default:"2s" doc:"Time the backend has to answer; between 50ms and 30s."`
	Required bool          `yaml:"required" default:"false" doc:"What happens while the backend gives no usable answer: true refuses downloads, false goes by what minigate decides alone."`
}

// Check finds mistakes in the block.
func (s *DownloadWebhookSettings) Check(report func(path, problem string)) {
	webhook.CheckGate(s.Endpoint, s.Timeout, report)
}

// downloadHook asks the business backend whether a file may be read.
type downloadHook struct{ *webhook.Gate }

// newDownloadHook returns nil where nobody is to be asked.
func newDownloadHook(s DownloadWebhookSettings, client *webhook.Client, m *Metrics) (*downloadHook, error) {
	gate, err := webhook.NewGate(client, webhook.GateOptions{
		Hook: hookDownload, Subject: "downloads", Without: "its answer, by the rules of files alone",
		Endpoint: s.Endpoint, Timeout: s.Timeout, Required: s.Required,
		Refused: errDownloadRefused, Away: errDownloadAway, Unchecked: m.downloadsUnchecked,
	})
	if gate == nil {
		return nil, err
	}
	return &downloadHook{gate}, nil
}

// downloadQuestion is what the backend is asked.
type downloadQuestion struct {
	Event    string     `json:"event"`          // "download"
	Delivery string     `json:"delivery"`       // tells a replay apart, as X-Minigate-Delivery, but signed
	User     *auth.User `json:"user,omitempty"` // missing where nobody has logged in
	File     FileInfo   `json:"file"`
	Allowed  bool       `json:"allowed"`       // what minigate decides
	Via      string     `json:"via,omitempty"` // why: owner, public, channel or link
	IP       string     `json:"ip,omitempty"`  // as trusted proxies say
	Time     int64      `json:"time"`          // Unix seconds
}

// verdictOnDownload is what the backend may say; {} or 204 leave it to minigate.
type verdictOnDownload struct {
	Allow  *bool  `json:"allow"`
	Reason string `json:"reason"` // of a refusal, shown to who would have been allowed
}

// ask returns whether g may read after all. Faults: Forbidden
// `download_refused`; Unavailable `download_webhook_unavailable`, only where an
// answer is required. A nil hook asks nobody.
func (h *downloadHook) ask(ctx context.Context, g grant) (bool, error) {
	allowed := g.via != ""
	if h == nil {
		return allowed, nil
	}
	q := downloadQuestion{
		Event: hookDownload, Delivery: webhook.NewID(), File: infoOf(g.file), Allowed: allowed, Via: g.via,
		IP: rest.ClientIP(ctx), Time: time.Now().Unix(),
	}
	if g.user.OpenID != "" {
		q.User = &g.user
	}
	var a verdictOnDownload
	err := h.Ask(ctx, q.Delivery, q, &a, func() error {
		switch {
		case a.Allow == nil:
		case *a.Allow:
			allowed = true
		default:
			return auth.Refusal(errDownloadRefused, a.Reason)
		}
		return nil
	})
	return allowed && err == nil, err
}
