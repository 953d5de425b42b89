package serverapi

import (
	"context"
	"encoding/json"
	"time"

	"github.com/minigate/minigate/auth/connjwt"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/gateway/engine"
)

// selection says which connections a request is about.
type selection struct {
	User    string `json:"user"`
	Client  string `json:"client"`  // "" means all of the user
	Session string `json:"session"` // "" means all of the user
}

func (s selection) which() gateway.Selection {
	return gateway.Selection{Client: s.Client, Session: s.Session}
}

// boolean is how Centrifugo tells false from nothing.
type boolean struct {
	Value bool `json:"value"`
}

func (b *boolean) pointer() *bool {
	if b == nil {
		return nil
	}
	return &b.Value
}

type override struct {
	Presence           *boolean `json:"presence"`
	JoinLeave          *boolean `json:"join_leave"`
	ForcePushJoinLeave *boolean `json:"force_push_join_leave"`
	ForceRecovery      *boolean `json:"force_recovery"`
	ForcePositioning   *boolean `json:"force_positioning"`
}

func (o override) options() connjwt.Override {
	return connjwt.Override{
		Presence: o.Presence.pointer(), JoinLeave: o.JoinLeave.pointer(), ForcePushJoinLeave: o.ForcePushJoinLeave.pointer(),
		ForceRecovery: o.ForceRecovery.pointer(), ForcePositioning: o.ForcePositioning.pointer(),
	}
}

type subscribeRequest struct {
	selection
	Channel      string          `json:"channel"`
	Info         json.RawMessage `json:"info"`
	B64Info      string          `json:"b64info"`
	Data         json.RawMessage `json:"data"`
	B64Data      string          `json:"b64data"`
	ExpireAt     int64           `json:"expire_at"` // Unix seconds; 0: never
	RecoverSince *position       `json:"recover_since"`
	Override     override        `json:"override"`
}

func (a *API) subscribe(ctx context.Context, req subscribeRequest) (any, error) {
	if req.User == "" || req.Channel == "" {
		return nil, badRequest("no user or no channel")
	}
	o := gateway.SubscribeOptions{Override: req.Override.options()}
	var err error
	if o.Info, err = a.optional(req.Info, req.B64Info); err != nil {
		return nil, err
	}
	if o.Data, err = a.optional(req.Data, req.B64Data); err != nil {
		return nil, err
	}
	if o.ExpireAt, err = unix(req.ExpireAt); err != nil {
		return nil, err
	}
	if req.RecoverSince != nil {
		since := engine.Position(*req.RecoverSince)
		o.Since = &since
	}
	return empty{}, a.hub.Subscribe(ctx, req.User, req.Channel, req.which(), o)
}

type refreshRequest struct {
	selection
	Expired  bool            `json:"expired"`
	ExpireAt int64           `json:"expire_at"` // Unix seconds; 0: never
	Info     json.RawMessage `json:"info"`
}

func (a *API) refresh(ctx context.Context, req refreshRequest) (any, error) {
	if req.User == "" {
		return nil, badRequest("no user")
	}
	o := gateway.RefreshOptions{Expired: req.Expired}
	var err error
	if o.Info, err = a.optional(req.Info, ""); err != nil {
		return nil, err
	}
	if o.ExpireAt, err = unix(req.ExpireAt); err != nil {
		return nil, err
	}
	return empty{}, a.hub.Refresh(ctx, req.User, req.which(), o)
}

// optional is payload.bytes for what need not be there. A null is nothing.
func (a *API) optional(data json.RawMessage, b64 string) (json.RawMessage, error) {
	if b64 == "" && (len(data) == 0 || string(data) == "null") {
		return nil, nil
	}
	return payload{data, b64}.bytes(int(a.settings.MaxData))
}

// maxUnix is far away and still fits a time.Duration.
const maxUnix = 1 << 33

// unix makes a time of Unix seconds, where 0 means never.
func unix(seconds int64) (time.Time, error) {
	switch {
	case seconds == 0:
		return time.Time{}, nil
	case seconds < 0 || seconds > maxUnix:
		return time.Time{}, badRequest("expire_at is no time in Unix seconds")
	}
	return time.Unix(seconds, 0), nil
}
