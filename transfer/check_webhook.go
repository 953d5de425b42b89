package transfer

import (
	"context"
	"errors"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/webhook"
)

const (
	nameWebhook = "webhook"
	hookCheck   = "check" // name of the hook and of its event
	maxLabel    = 100     // characters
)

var errCheckAnswer = fault.New(fault.Upstream, "check_webhook_error", "The backend gave no verdict on the file.")

// webhookChecker asks the business backend about what is in files.
type webhookChecker struct {
	endpoint *webhook.Endpoint
	timeout  time.Duration
	link     func(f File, life time.Duration) string
}

func newWebhookChecker(s CheckWebhookSettings, client *webhook.Client, link func(File, time.Duration) string) (*webhookChecker, error) {
	if client == nil {
		return nil, errors.New("the check webhook needs a client for webhooks")
	}
	endpoint, err := client.Endpoint(hookCheck, s.Endpoint, s.Timeout)
	return &webhookChecker{endpoint, s.Timeout, link}, err
}

// checkQuestion is what the backend is asked.
type checkQuestion struct {
	Event    string   `json:"event"`    // "check"
	Delivery string   `json:"delivery"` // tells a replay apart, as X-Minigate-Delivery, but signed
	File     FileInfo `json:"file"`
	URL      string   `json:"url"` // where the backend, and nobody else, reads it
	Time     int64    `json:"time"`
}

// checkAnswer is what the backend says.
type checkAnswer struct {
	Verdict string `json:"verdict"` // pass or block
	Label   string `json:"label"`   // why it blocks
}

func (c *webhookChecker) name() string { return nameWebhook }

func (c *webhookChecker) check(ctx context.Context, f File) (finding, error) {
	q := checkQuestion{hookCheck, webhook.NewID(), infoOf(f), c.link(f, c.timeout+time.Second), now().Unix()}
	var a checkAnswer
	if err := c.endpoint.Ask(ctx, q.Delivery, hookCheck, q, &a); err != nil {
		return finding{}, err
	}
	switch a.Verdict {
	case decidePass:
		return finding{outcome: passed}, nil
	case decideBlock:
		return finding{objected, cleanLabel(a.Label)}, nil
	}
	return finding{}, errCheckAnswer
}

// cleanLabel takes from a label what others made up what cannot be shown.
func cleanLabel(label string) string { return auth.Printable(label, maxLabel) }
