package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/webhook"
)

const (
	hookUpload = "upload" // name of the hook and of its event

	maxAttributes = 4 << 10 // bytes, without white space
)

var (
	errUploadRefused = fault.New(fault.Forbidden, "upload_refused", "The service refused this file.")
	errWebhookAway   = fault.New(fault.Unavailable, "upload_webhook_unavailable", "Uploads cannot be checked right now: try again.")
)

// WebhookSettings say whom to ask at every upload.
type WebhookSettings struct {
	Endpoint string        `yaml:"endpoint" doc:"URL at your backend that is asked at every upload, before any of the file is stored. It may refuse, or attach attributes. Empty asks nobody."`
	Timeout  time.Duration `yaml:"timeout" default:"2s" doc:"Time the backend has to answer; between 50ms and 30s."`
	Required bool          `yaml:"required" default:"false" doc:"What happens while the backend gives no usable answer: true refuses uploads, false lets them through without attributes, also those it would have refused."`
}

// Check finds mistakes in the block.
func (s *WebhookSettings) Check(report func(path, problem string)) {
	webhook.CheckGate(s.Endpoint, s.Timeout, report)
}

// uploadHook asks the business backend about an upload, when the file's name
// and type are known and before any of it is stored.
type uploadHook struct{ *webhook.Gate }

// newUploadHook returns nil where nobody is to be asked.
func newUploadHook(s WebhookSettings, client *webhook.Client, m *Metrics) (*uploadHook, error) {
	gate, err := webhook.NewGate(client, webhook.GateOptions{
		Hook: hookUpload, Subject: "uploads", Without: "attributes",
		Endpoint: s.Endpoint, Timeout: s.Timeout, Required: s.Required,
		Refused: errUploadRefused, Away: errWebhookAway, Unchecked: m.unchecked,
	})
	if gate == nil {
		return nil, err
	}
	return &uploadHook{gate}, nil
}

// question is what the backend is asked.
type question struct {
	Event    string    `json:"event"`    // "upload"
	Delivery string    `json:"delivery"` // tells a replay apart, as X-Minigate-Delivery, but signed
	User     auth.User `json:"user"`
	File     offer     `json:"file"`
	IP       string    `json:"ip,omitempty"` // as trusted proxies say
	Time     int64     `json:"time"`         // Unix seconds
}

// offer is what is known of a file before it is read.
type offer struct {
	Name string `json:"name"`           // clean
	Type string `json:"type"`           // media type, as sniffed
	Size *int64 `json:"size,omitempty"` // bytes, where the client said so; then the file has exactly that many
}

// verdictOnUpload is what the backend may say; {} or 204 take the file.
type verdictOnUpload struct {
	Allow      *bool           `json:"allow"`  // nil is true
	Reason     string          `json:"reason"` // of a refusal, shown to the user
	Attributes json.RawMessage `json:"attributes"`
}

// ask returns the attributes that the backend attaches to f. Faults: Forbidden
// `upload_refused`; Unavailable `upload_webhook_unavailable`, only where an
// answer is required. A nil hook asks nobody, and the backend is not asked about
// what it does itself.
func (h *uploadHook) ask(ctx context.Context, f File, size int64) (attributes string, err error) {
	if h == nil || byBackend(ctx) {
		return "", nil
	}
	q := question{hookUpload, webhook.NewID(), f.Owner, offer{Name: f.Name, Type: f.Type}, rest.ClientIP(ctx), time.Now().Unix()}
	if size >= 0 {
		q.File.Size = &size
	}
	var a verdictOnUpload
	err = h.Ask(ctx, q.Delivery, q, &a, func() (err error) {
		attributes, err = a.apply()
		return err
	})
	return attributes, err
}

// apply returns the attributes of an answer that takes the file.
func (a *verdictOnUpload) apply() (attributes string, err error) {
	if a.Allow != nil && !*a.Allow {
		return "", auth.Refusal(errUploadRefused, a.Reason)
	}
	return compactObject(a.Attributes)
}

// compactObject brings a JSON object into the form that File.Attributes has.
// Nothing, null and {} give "".
func compactObject(object []byte) (string, error) {
	if len(object) == 0 || string(object) == "null" {
		return "", nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, object); err != nil || compact.Bytes()[0] != '{' {
		return "", errors.New("attributes are not a JSON object")
	}
	text := strings.ToValidUTF8(compact.String(), "\ufffd")
	if text == "{}" {
		return "", nil
	}
	if len(text) > maxAttributes {
		return "", fmt.Errorf("attributes have more than %d bytes", maxAttributes)
	}
	return text, nil
}
