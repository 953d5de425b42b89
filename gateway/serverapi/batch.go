package serverapi

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/audit"
)

// batchParallel is how many commands of a parallel batch run at a time.
const batchParallel = 16

// batchRequest is several commands of the form {"method":{request}}. They run
// in order, or several at a time where that is allowed.
type batchRequest struct {
	Commands []map[string]json.RawMessage `json:"commands"`
	Parallel bool                         `json:"parallel"`
}

// batchReply holds {"method":{result}} or {"error":{…}} for each command.
type batchReply struct {
	Replies []map[string]any `json:"replies"`
}

func (a *API) batch(ctx context.Context, c caller, body []byte) (any, error) {
	req, err := decode[batchRequest](body)
	if err != nil {
		return nil, err
	}
	if len(req.Commands) > maxTargets {
		return nil, badRequest("too many commands")
	}
	c.looks = new(atomic.Int64)
	replies := make([]map[string]any, len(req.Commands))
	var g errgroup.Group
	g.SetLimit(1)
	if req.Parallel {
		g.SetLimit(batchParallel)
	}
	for i, command := range req.Commands {
		if err := c.takeMore(i); err != nil {
			replies[i] = map[string]any{"error": errorOf(err)}
			continue
		}
		g.Go(func() error {
			name, result, err := a.run(ctx, c, command)
			if err != nil {
				name, result = "error", errorOf(err)
			}
			replies[i] = map[string]any{name: result}
			return nil
		})
	}
	_ = g.Wait() // errors are in the replies
	return batchReply{replies}, nil
}

// takeMore counts the i-th command of a request against the limit of its key.
// The first one has been counted as the request.
func (c caller) takeMore(i int) error {
	if i == 0 {
		return nil
	}
	return c.Take()
}

// run does one command of a batch.
func (a *API) run(ctx context.Context, c caller, command map[string]json.RawMessage) (string, any, error) {
	if command == nil || len(command) > 1 {
		return "", nil, badRequest("a command that is null or several at once")
	}
	for name, body := range command {
		result, err := a.runNamed(ctx, c, name, body)
		return name, result, err
	}
	return "", nil, gateway.ErrMethodNotFound
}

// runNamed does one of several commands, with the same rights as alone.
func (a *API) runNamed(ctx context.Context, c caller, name string, body []byte) (any, error) {
	m, known := methods[name]
	if !known || name == "batch" {
		return nil, gateway.ErrMethodNotFound
	}
	if !m.allows(c) {
		if m.audited {
			audit.Log(c.r, c.Name(), name, nil, apikey.ErrScope.Code)
		}
		return nil, gateway.ErrPermissionDenied
	}
	if m.scope == apikey.Read && c.looks.Load() >= a.maxLooks {
		return nil, gateway.ErrLimitExceeded
	}
	result, err := a.do(ctx, c, name, m, body)
	if errors.Is(err, errMalformed) {
		err = badRequest("a command with a malformed request")
	}
	if err == nil && m.scope == apikey.Read {
		answer := json.RawMessage(encode(result))
		c.looks.Add(int64(len(answer)))
		return answer, nil
	}
	return result, err
}
