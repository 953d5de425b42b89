package serverapi

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/internal/apikey"
)

// batchRequest is several commands of the form {"method":{request}}. They run
// in order; Centrifugo's "parallel" is a permission to hurry that is not used.
type batchRequest struct {
	Commands []map[string]json.RawMessage `json:"commands"`
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
	replies := make([]map[string]any, 0, len(req.Commands))
	for _, command := range req.Commands {
		name, result, err := a.run(ctx, c, command)
		if err != nil {
			name, result = "error", errorOf(err)
		}
		replies = append(replies, map[string]any{name: result})
	}
	return batchReply{replies}, nil
}

// run does one command of a batch, with the same rights as alone.
func (a *API) run(ctx context.Context, c caller, command map[string]json.RawMessage) (string, any, error) {
	if command == nil || len(command) > 1 {
		return "", nil, badRequest("a command that is null or several at once")
	}
	for name, body := range command {
		m, known := methods[name]
		if !known || name == "batch" {
			return "", nil, gateway.ErrMethodNotFound
		}
		if !apikey.Allows(c.scope, m.scope) {
			return "", nil, gateway.ErrPermissionDenied
		}
		result, err := m.call(a, ctx, c, body)
		if errors.Is(err, errMalformed) {
			err = badRequest("a command with a malformed request")
		}
		return name, result, err
	}
	return "", nil, gateway.ErrMethodNotFound
}
