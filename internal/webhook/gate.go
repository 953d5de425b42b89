package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/fault"
)

// GateOptions are what a Gate is made of.
type GateOptions struct {
	Hook      string             // name of the hook and of its event: "login"
	Subject   string             // what waits for the answer, for the log: "logins"
	Without   string             // what those lack that are let through unchecked, for the log: "claims"
	Endpoint  string             // URL; "" asks nobody
	Timeout   time.Duration      // for an answer
	Required  bool               // whether nothing happens without a usable answer
	Refused   *fault.Error       // what a refusal of the backend is
	Away      *fault.Error       // what the lack of a required answer is
	Unchecked prometheus.Counter // of what is let through without an answer
}

// Gate is a question on whose answer it depends whether something happens, and
// a rule for when there is none.
type Gate struct {
	GateOptions
	endpoint *Endpoint
	failing  atomic.Bool
}

// NewGate makes a Gate, or returns nil where nobody is to be asked.
func NewGate(client *Client, o GateOptions) (*Gate, error) {
	if o.Endpoint == "" {
		return nil, nil
	}
	if client == nil {
		return nil, fmt.Errorf("the %s webhook needs a client for webhooks", o.Hook)
	}
	endpoint, err := client.Endpoint(o.Hook, o.Endpoint, o.Timeout)
	if err != nil {
		return nil, err
	}
	return &Gate{GateOptions: o, endpoint: endpoint}, nil
}

// CheckGate finds mistakes in the settings of a Gate.
func CheckGate(endpoint string, timeout time.Duration, report func(path, problem string)) {
	if endpoint != "" {
		if problem := CheckEndpoint(endpoint); problem != "" {
			report("endpoint", problem)
		}
	}
	if timeout < 50*time.Millisecond || timeout > 30*time.Second {
		report("timeout", "must be between 50ms and 30s")
	}
}

// Ask posts question and has apply judge what was decoded into answer: Refused
// for a refusal, another error where the answer is not usable. It returns nil
// where it may happen, also without an answer that is not required; a fault
// like Refused, Away, or the cause of the end of ctx where it may not.
func (g *Gate) Ask(ctx context.Context, delivery string, question, answer any, apply func() error) error {
	err := g.endpoint.Ask(ctx, delivery, g.Hook, question, answer)
	if err == nil {
		err = apply()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, g.Refused) {
		g.observe(ctx, nil)
		return err
	}
	g.observe(ctx, err)
	if err == nil {
		return nil
	}
	if g.Required {
		return g.Away.Because(err)
	}
	g.Unchecked.Inc()
	return nil
}

// observe speaks up only when the answers begin or cease to fail.
func (g *Gate) observe(ctx context.Context, err error) {
	failing := err != nil
	switch {
	case g.failing.Load() == failing || !g.failing.CompareAndSwap(!failing, failing):
	case failing:
		policy := "refused"
		if !g.Required {
			policy = "let through without " + g.Without
		}
		slog.WarnContext(ctx, "the "+g.Hook+" webhook gives no usable answer", g.Subject, policy, "error", err)
	default:
		slog.InfoContext(ctx, "the "+g.Hook+" webhook works again")
	}
}
