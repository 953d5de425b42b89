package main

import (
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

// member tells whether a user is subscribed to a channel now, on any node.
func (s *server) member(ctx context.Context, user auth.User, channel string) (bool, error) {
	return s.hub.Subscribed(ctx, user.AppID, user.OpenID, channel)
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
