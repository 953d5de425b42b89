package main

import (
	"context"

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
