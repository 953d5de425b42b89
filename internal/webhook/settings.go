package webhook

import (
	"fmt"
	"net/url"
	"regexp"
	"time"

	"github.com/minigate/minigate/internal/settings"
)

const minSecret = 16 // bytes

// Settings are what all calls to the business backend have in common. Their
// endpoints are configured where they are used.
type Settings struct {
	Keys          []Key         `yaml:"keys" doc:"Keys that sign what we send to your backend. The first one signs; the others are still accepted where signatures are verified, so that a key can be replaced."`
	MaxConcurrent int           `yaml:"max_concurrent" default:"64" doc:"Calls to one endpoint at a time, on each node; 1 to 10000. More wait their turn within their timeout."`
	Queue         QueueSettings `yaml:"queue" doc:"News for your backend, kept until they are delivered."`
}

// Key is one signing key.
type Key struct {
	ID     string          `yaml:"id" doc:"Name of the key, sent as X-Minigate-Key-Id: 1 to 64 letters, digits and - _ . only."`
	Secret settings.Secret `yaml:"secret" doc:"The key itself, at least 16 bytes. Make one with: openssl rand -hex 32"`
}

// QueueSettings bound what waits for delivery.
type QueueSettings struct {
	MaxPending int           `yaml:"max_pending" default:"10000" doc:"Deliveries that may wait; more are refused. 1 to 10000000; each takes up to 512KiB, most far less."`
	MaxDead    int           `yaml:"max_dead" default:"1000" doc:"Undeliverable ones kept to be looked at or replayed; the oldest go first. 0 to 1000000."`
	MaxDeadAge time.Duration `yaml:"max_dead_age" default:"336h" doc:"How long undeliverable ones are kept; between 1m and 8760h. What they say of your users goes with them."`

	MaxDeadBytes settings.Size `yaml:"max_dead_bytes" default:"64MiB" doc:"What undeliverable ones may take together; the oldest go first. 1MiB to 1TiB."`

	GiveUpAfter time.Duration `yaml:"give_up_after" default:"24h" doc:"How long a delivery is tried again before it counts as undeliverable; between 1m and 720h."`
	Workers     int           `yaml:"workers" default:"8" doc:"Deliveries at a time on each node; 1 to 1000."`
}

var nameFormat = regexp.MustCompile(`^[-a-zA-Z0-9_.]{1,64}$`)

// Check finds mistakes in the block.
func (s *Settings) Check(report func(path, problem string)) {
	seen := make(map[string]bool, len(s.Keys))
	for i, k := range s.Keys {
		at := fmt.Sprintf("keys[%d].", i)
		switch {
		case !nameFormat.MatchString(k.ID):
			report(at+"id", "must have 1 to 64 letters, digits, dashes, underscores or dots")
		case seen[k.ID]:
			report(at+"id", "is the same as another key's")
		}
		seen[k.ID] = true
		if len(k.Secret.Value()) < minSecret {
			report(at+"secret", fmt.Sprintf("must have at least %d bytes", minSecret))
		}
	}
	if s.MaxConcurrent < 1 || s.MaxConcurrent > 10000 {
		report("max_concurrent", "must be between 1 and 10000")
	}
}

// Check finds mistakes in the block.
func (s *QueueSettings) Check(report func(path, problem string)) {
	if s.MaxPending < 1 || s.MaxPending > 10_000_000 {
		report("max_pending", "must be between 1 and 10000000")
	}
	if s.MaxDead < 0 || s.MaxDead > 1_000_000 {
		report("max_dead", "must be between 0 and 1000000")
	}
	if s.MaxDeadAge < time.Minute || s.MaxDeadAge > 8760*time.Hour {
		report("max_dead_age", "must be between 1m and 8760h")
	}
	if s.MaxDeadBytes < 1<<20 || s.MaxDeadBytes > 1<<40 {
		report("max_dead_bytes", "must be between 1MiB and 1TiB")
	}
	if s.GiveUpAfter < time.Minute || s.GiveUpAfter > 720*time.Hour {
		report("give_up_after", "must be between 1m and 720h")
	}
	if s.Workers < 1 || s.Workers > 1000 {
		report("workers", "must be between 1 and 1000")
	}
}

// CheckEndpoint says what is wrong with the URL of an endpoint, "" if nothing.
// A query is allowed and treated as a secret.
func CheckEndpoint(text string) (problem string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "" || u.Fragment != "":
		return "must be a URL like https://backend.example/minigate"
	case u.User != nil:
		return "must not have a user name or password"
	case u.Scheme != "http" && u.Scheme != "https":
		return "must begin with http:// or https://"
	}
	return ""
}
