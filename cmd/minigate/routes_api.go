package main

import (
	"net/http"
	"strings"

	"github.com/minigate/minigate/gateway/serverapi"
	"github.com/minigate/minigate/internal/apidoc"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/audit"
	"github.com/minigate/minigate/internal/rest"
)

// route is one URL below /api/ on the ops listener, beside the methods of
// package serverapi.
type route struct {
	pattern string
	scope   string // what the key must be allowed; admin is allowed everything
	audited bool   // it changes something
	handler rest.Handler
}

// name is what the audit calls it.
func (rt route) name() string {
	_, path, _ := strings.Cut(rt.pattern, " /api/")
	return path
}

// routes are all there are; internal/apidoc describes each.
func (s *server) routes() []route {
	news := s.hooks.news
	return []route{
		{"POST /api/sessions", apikey.Admin, false, s.auth.ServeListSessions},
		{"POST /api/sessions/revoke", apikey.Admin, true, s.auth.ServeRevokeSessions},
		{"GET /api/users/{openid}", apikey.Read, false, s.serveUser},
		{"POST /api/users/info", apikey.Admin, false, s.auth.ServeUser},
		{"POST /api/users/block", apikey.Admin, true, s.auth.ServeBlock},
		{"POST /api/users/unblock", apikey.Admin, true, s.auth.ServeUnblock},
		{"POST /api/users/check_session", apikey.Admin, false, s.auth.ServeCheckSession},
		{"POST /api/users/reset_session_key", apikey.Admin, true, s.auth.ServeResetSessionKey},
		{"POST /api/opendata", apikey.Publish, false, s.auth.ServeOpenDataOf},
		{"GET /api/alerts", apikey.Admin, false, s.auth.ServeAlerts},

		{"POST /api/connections", apikey.Read, false, s.serveConnections},
		{"POST /api/connections/show", apikey.Read, false, s.serveConnection},
		{"POST /api/connections/kick", apikey.Admin, true, s.serveKick},
		{"GET /api/nodes", apikey.Read, false, s.serveNodes},
		{"POST /api/inspect", apikey.Admin, false, s.serveInspect}, // it takes a while, so it is not for everybody

		// To make a link takes a key of scope publish: it hands out what is in a
		// file, but only to who knows its id, which publish cannot list.
		{"POST /api/files", apikey.Read, false, s.files.ServeList},
		{"POST /api/files/stat", apikey.Read, false, s.files.ServeStat},
		{"POST /api/files/link", apikey.Publish, false, s.files.ServeLink},
		{"POST /api/files/verify", apikey.Read, false, s.files.ServeVerify},
		{"POST /api/files/upload", apikey.Publish, false, s.files.ServeUploadFor}, // its body is too much for the audit
		{"POST /api/files/access", apikey.Admin, true, s.files.ServeAccess},
		{"POST /api/files/owner", apikey.Admin, true, s.files.ServeOwner},
		{"POST /api/files/delete", apikey.Admin, true, s.files.ServeRemove},

		{"POST /api/webhooks", apikey.Admin, false, news.ServeDead},
		{"POST /api/webhooks/show", apikey.Admin, true, news.ServeShow}, // it may show what is about a user
		{"POST /api/webhooks/replay", apikey.Admin, true, news.ServeReplay},
		{"POST /api/webhooks/drop", apikey.Admin, true, news.ServeDrop},
	}
}

// apiRoutes mounts everything below /api/.
func (s *server) apiRoutes(mux *http.ServeMux) {
	mux.Handle("/api", s.api)
	mux.Handle("/api/", s.api)
	for _, name := range serverapi.Methods() { // the mux looks longer for what only a prefix matches
		mux.Handle("POST /api/"+name, s.api)
	}
	for _, rt := range s.routes() {
		mux.Handle(rt.pattern, s.guard(rt))
	}
	// What everybody may read in the repository needs no key.
	mux.HandleFunc("GET /api/openapi.json", apidoc.ServeOpenAPI)
	mux.HandleFunc("GET /api/asyncapi.json", apidoc.ServeAsyncAPI)
}

// guard lets only calls through that come with a key that may make them, and
// audits what changes something.
func (s *server) guard(rt route) rest.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		caller, err := s.keys.Admit(r, rt.scope)
		switch {
		case err == nil && rt.audited:
			who := func(*http.Request) string { return caller.Name() }
			return audit.Handler(rt.name(), who, rt.handler)(w, r)
		case err == nil:
			return rt.handler(w, r)
		case rt.audited && caller.Name() != "":
			audit.Log(r, caller.Name(), rt.name(), nil, audit.Result(err))
		}
		return err
	}
}
