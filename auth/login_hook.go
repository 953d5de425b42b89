package auth

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/webhook"
)

const (
	hookLogin = "login" // name of the hook and of its event

	maxClaims        = 4 << 10 // bytes, in the form in which they travel
	maxChannels      = 100
	maxChannelName   = 255     // bytes
	maxChannelBytes  = 8 << 10 // of all names together: a session is stored and remembered with them
	maxRefusalReason = 200     // characters
)

var (
	errLoginRefused     = fault.New(fault.Forbidden, "login_refused", "The service refused this login.")
	errLoginWebhookAway = fault.New(fault.Unavailable, "login_webhook_unavailable", "Logins cannot be checked right now: call wx.login and try again.")
)

// LoginWebhookSettings say whom to ask at every login.
type LoginWebhookSettings struct {
	Endpoint string        `yaml:"endpoint" doc:"URL at your backend that is asked at every login, signed with the keys in webhooks. It may refuse, or attach claims and channels. Empty asks nobody."`
	Timeout  time.Duration `yaml:"timeout" default:"2s" doc:"Time the backend has to answer; between 50ms and 30s."`
	Required bool          `yaml:"required" default:"false" doc:"What happens while the backend gives no usable answer: true refuses logins, false lets them through without claims and channels, also those it would have refused."`
}

// Check finds mistakes in the block.
func (s *LoginWebhookSettings) Check(report func(path, problem string)) {
	webhook.CheckGate(s.Endpoint, s.Timeout, report)
}

// loginHook asks the business backend about a login, after WeChat has vouched
// for the user and before there is a session.
type loginHook struct{ *webhook.Gate }

// newLoginHook returns nil where nobody is to be asked.
func newLoginHook(s LoginWebhookSettings, client *webhook.Client, m *Metrics) (*loginHook, error) {
	gate, err := webhook.NewGate(client, webhook.GateOptions{
		Hook: hookLogin, Subject: "logins", Without: "claims",
		Endpoint: s.Endpoint, Timeout: s.Timeout, Required: s.Required,
		Refused: errLoginRefused, Away: errLoginWebhookAway, Unchecked: m.unchecked,
	})
	if gate == nil {
		return nil, err
	}
	return &loginHook{gate}, nil
}

// budget is how long a login may have to wait for the hook.
func (h *loginHook) budget() time.Duration {
	if h == nil {
		return 0
	}
	return h.Timeout
}

// loginQuestion is what the backend is asked.
type loginQuestion struct {
	Event    string `json:"event"`            // "login"
	Delivery string `json:"delivery"`         // tells a replay apart, as X-Minigate-Delivery, but signed
	User     User   `json:"user"`             // as WeChat says
	Device   string `json:"device,omitempty"` // as the phone says
	IP       string `json:"ip,omitempty"`     // as trusted proxies say
	Time     int64  `json:"time"`             // Unix seconds
}

// loginAnswer is what the backend may say; {} or 204 let the user in.
type loginAnswer struct {
	Allow    *bool           `json:"allow"`  // nil is true
	Reason   string          `json:"reason"` // of a refusal, shown to the user
	Claims   json.RawMessage `json:"claims"`
	Channels []string        `json:"channels"`
}

// ask completes ses with what the backend says about its user. Faults:
// Forbidden `login_refused`; Unavailable `login_webhook_unavailable`, only
// where an answer is required. A nil hook asks nobody.
func (h *loginHook) ask(ctx context.Context, ses *Session) error {
	if h == nil {
		return nil
	}
	q := loginQuestion{hookLogin, webhook.NewID(), ses.User, ses.Device, rest.ClientIP(ctx), time.Now().Unix()}
	var a loginAnswer
	return h.Ask(ctx, q.Delivery, q, &a, func() error { return a.apply(ses) })
}

// apply puts the answer into the session, all of it or nothing.
func (a *loginAnswer) apply(ses *Session) error {
	if a.Allow != nil && !*a.Allow {
		return Refusal(errLoginRefused, a.Reason)
	}
	claims, err := CompactClaims(a.Claims)
	if err != nil {
		return err
	}
	channels, err := checkChannels(a.Channels)
	if err != nil {
		return err
	}
	ses.Claims, ses.Channels = claims, channels
	return nil
}

// Refusal is a fault with the reason that the backend gave in the place of its
// sentence, as far as it gave one that can be shown.
func Refusal(refused *fault.Error, reason string) error {
	refusal := *refused
	refusal.Msg = cmp.Or(Printable(reason, maxRefusalReason), refusal.Msg)
	return &refusal
}

// CompactClaims brings a JSON object into the form that [Session.Claims] has:
// without white space, everything but printable ASCII as \uXXXX, which is safe
// in a header; at most 4 KiB in that form. Nothing, null and {} give nil.
func CompactClaims(object []byte) (json.RawMessage, error) {
	if len(object) == 0 || string(object) == "null" {
		return nil, nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, object); err != nil || compact.Bytes()[0] != '{' {
		return nil, errors.New("claims are not a JSON object")
	}
	text := compact.Bytes()
	if len(text) == len("{}") {
		return nil, nil
	}
	claims := make([]byte, 0, len(text))
	for len(text) > 0 && len(claims) <= maxClaims {
		r, size := utf8.DecodeRune(text) // outside ASCII only ever within a string
		claims, text = appendASCII(claims, r), text[size:]
	}
	if len(claims) > maxClaims {
		return nil, fmt.Errorf("claims have more than %d bytes", maxClaims)
	}
	return claims, nil
}

// appendASCII escapes what encoding/json would, too, so that storing claims
// leaves them as they are.
func appendASCII(b []byte, r rune) []byte {
	switch {
	case r > 0xffff:
		hi, lo := utf16.EncodeRune(r)
		return fmt.Appendf(b, `\u%04x\u%04x`, hi, lo)
	case r >= 0x7f, r == '<', r == '>', r == '&':
		return fmt.Appendf(b, `\u%04x`, r)
	}
	return append(b, byte(r))
}

// checkChannels returns the channels without repeats.
func checkChannels(names []string) ([]string, error) {
	if len(names) > maxChannels {
		return nil, fmt.Errorf("there are more than %d channels", maxChannels)
	}
	var channels []string
	size, seen := 0, make(map[string]bool, len(names))
	for _, name := range names {
		if name == "" || len(name) > maxChannelName || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			return nil, fmt.Errorf("a channel's name is not 1 to %d printable ASCII characters", maxChannelName)
		}
		if !seen[name] {
			seen[name] = true
			channels = append(channels, name)
			size += len(name)
		}
	}
	if size > maxChannelBytes {
		return nil, fmt.Errorf("the channels' names have more than %d bytes together", maxChannelBytes)
	}
	return channels, nil
}
