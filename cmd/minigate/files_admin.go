package main

import (
	"cmp"
	"context"
	"encoding/json"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/transfer"
)

// fileNews queues what becomes of files; the order of one user is kept. It is
// nil where nobody wants to know.
func (s *server) fileNews() func(context.Context, transfer.News) error {
	if s.cfg.Webhooks.Files.Endpoint == "" {
		return nil
	}
	return func(ctx context.Context, n transfer.News) error {
		owner := n.File.Owner
		return s.hooks.news.Enqueue(ctx, n.Delivery, filesHook, n.Event, owner.AppID+"/"+owner.OpenID, n)
	}
}

// notify publishes what users are told of a file, for them on whatever node.
func (s *server) notify(ctx context.Context, n transfer.Notice) error {
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	push := gateway.PushRequest{Data: data}
	if n.Channel != "" {
		push.Channels = []string{n.Channel}
	} else {
		push.Users = []string{n.User.OpenID}
	}
	res, err := s.hub.Push(ctx, push)
	if err == nil && len(res.Errors) > 0 {
		err = res.Errors[0].Err
	}
	return err
}

// member tells whether a user is in a channel now: subscribed to it, on any
// node, or one who belongs to it for good, by the login that ctx is of. Who comes
// without one, with a link, belongs where the user's newest login says.
func (s *server) member(ctx context.Context, user auth.User, channel string) (bool, error) {
	login := auth.SessionFrom(ctx)
	if login != nil && (login.User.AppID != user.AppID || login.User.OpenID != user.OpenID) {
		login = nil // somebody else's: the link decides
	}
	if login != nil && s.hub.Belongs(login, channel) {
		return true, nil
	}
	live, err := s.hub.Subscribed(ctx, user.AppID, user.OpenID, channel)
	if live || login != nil {
		return live, err
	}
	newest, failed := s.auth.NewestLogin(ctx, user)
	if newest != nil && s.hub.Belongs(newest, channel) {
		return true, nil
	}
	return false, cmp.Or(err, failed)
}

// uploadTicket makes a ticket that goes on with an upload in the place of the
// login that ctx is of; "" where it is of none.
func (s *server) uploadTicket(ctx context.Context, upload string, ttl time.Duration) string {
	ses := auth.SessionFrom(ctx)
	if ses == nil {
		return ""
	}
	return s.auth.NewTicket(ctx, ses, auth.UploadScope(upload), ttl)
}
