package main

import (
	"context"
	"time"

	"github.com/minigate/minigate/auth"
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
