package main

import (
	"context"
	"net/http"

	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/transfer"
)

// fileRoutes are for the backend and for operators: which files there are, and
// who may read them. To make a link takes a key of scope publish: it hands out
// what is in a file, but only to who knows its id, which publish cannot list.
func (s *server) fileRoutes(mux *http.ServeMux) {
	for path, route := range map[string]struct {
		scope string
		next  rest.Handler
	}{
		"/api/files":        {apikey.Read, s.files.ServeList},
		"/api/files/stat":   {apikey.Read, s.files.ServeStat},
		"/api/files/delete": {apikey.Admin, s.files.ServeRemove},
		"/api/files/link":   {apikey.Publish, s.files.ServeLink},
	} {
		mux.Handle("POST "+path, s.withKey(route.scope, route.next))
	}
}

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
