package serverapi

import (
	"context"
	"slices"

	"github.com/minigate/minigate/gateway"
)

// pushRequest is ours: one message for any mix of users, persons, channels and
// everybody.
type pushRequest struct {
	Users    []string `json:"users"`
	UnionIDs []string `json:"unionids"`
	Channels []string `json:"channels"`
	All      bool     `json:"all"`
	payload
	IdempotencyKey string `json:"idempotency_key"` // not with all
}

// pushResult says for how many sockets the message was meant at that moment,
// and whether it is stored for those who come later. These are no receipts.
type pushResult struct {
	Sockets  int               `json:"sockets"`
	Users    map[string]target `json:"users,omitempty"`
	UnionIDs map[string]target `json:"unionids,omitempty"`
	Channels map[string]target `json:"channels,omitempty"`
	All      *int              `json:"all,omitempty"`       // where it was asked for and worked
	AllError *apiError         `json:"all_error,omitempty"` // where it did not
}

type target struct {
	Sockets int  `json:"sockets"`
	Stored  bool `json:"stored"` // those who are away find it in the channel's history, at:
	position
	Repeated bool      `json:"repeated,omitempty"` // it went out before, and not now
	Error    *apiError `json:"error,omitempty"`
}

func (r pushRequest) check() error {
	n := len(r.Users) + len(r.UnionIDs) + len(r.Channels)
	switch {
	case n == 0 && !r.All:
		return badRequest("no target")
	case n > maxTargets:
		return badRequest("too many targets")
	case slices.Contains(r.Users, "") || slices.Contains(r.UnionIDs, "") || slices.Contains(r.Channels, ""):
		return badRequest("an empty target")
	}
	return nil
}

func (a *API) push(ctx context.Context, req pushRequest) (any, error) {
	if err := req.check(); err != nil {
		return nil, explain(err)
	}
	data, err := req.bytes(int(a.settings.MaxData))
	if err != nil {
		return nil, explain(err)
	}
	res, err := a.hub.Push(ctx, gateway.PushRequest{
		Users: req.Users, UnionIDs: req.UnionIDs, Channels: req.Channels, All: req.All, Data: data, IdempotencyKey: req.IdempotencyKey,
	})
	if err != nil {
		return nil, explain(err)
	}
	return pushResultOf(req, res), nil
}

func pushResultOf(req pushRequest, res gateway.PushResult) pushResult {
	out := pushResult{
		Sockets:  res.Sockets,
		Users:    targets(res.Users),
		UnionIDs: targets(res.UnionIDs),
		Channels: targets(res.Channels),
	}
	if req.All {
		out.All = &res.All
	}
	for _, e := range res.Errors {
		failed := target{Error: errorOf(e.Err)}
		switch e.Kind {
		case "user":
			out.Users[e.Target] = failed
		case "unionid":
			out.UnionIDs[e.Target] = failed
		case "channel":
			out.Channels[e.Target] = failed
		case "all":
			out.All, out.AllError = nil, failed.Error
		}
	}
	return out
}

func targets(done map[string]gateway.PushTarget) map[string]target {
	out := make(map[string]target, len(done))
	for name, t := range done {
		out[name] = target{Sockets: t.Sockets, Stored: t.Position.Offset > 0, position: position(t.Position), Repeated: t.Repeated}
	}
	return out
}
