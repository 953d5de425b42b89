package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/transfer"
)

// reservedPaths are ours on the public listener: no backend can have them.
var reservedPaths = []string{"/auth/", "/connection/", "/files", "/wechat/"}

// publicRoutes is every URL a phone can reach.
func (s *server) publicRoutes() (*http.ServeMux, error) {
	mux := http.NewServeMux()
	login := s.auth.Require

	mux.Handle("POST /auth/login", rest.Handler(s.auth.ServeLogin))
	mux.Handle("GET /auth/session", login(s.auth.ServeSession))
	mux.Handle("POST /auth/logout", login(s.auth.ServeLogout))
	mux.Handle("POST /auth/ticket", rest.Handler(s.auth.ServeTicket))
	mux.Handle("POST /auth/opendata", login(s.auth.ServeOpenData))
	mux.Handle("POST /auth/phone", login(s.auth.ServePhone))
	mux.Handle("GET /wechat/push/{appid}", rest.Handler(s.auth.ServePush))
	mux.Handle("POST /wechat/push/{appid}", rest.Handler(s.auth.ServePush))

	mux.HandleFunc("GET /connection/websocket", s.hub.ServeWebSocket)

	toUpload := func(*http.Request) auth.Scope { return auth.ScopeUpload }
	toRead := func(r *http.Request) auth.Scope { return auth.FileScope(r.PathValue("id")) }
	mux.Handle("POST /files", s.auth.RequireTicketOr(toUpload, s.files.ServeUpload))
	mux.Handle("GET /files/usage", login(s.files.ServeUsage))
	toContinue := func(r *http.Request) auth.Scope { return auth.UploadScope(r.PathValue("id")) }
	mux.Handle("POST /files/uploads", s.auth.RequireTicketOr(toUpload, s.files.ServeBegin))
	mux.Handle("GET /files/uploads", login(s.files.ServeUploads))
	mux.Handle("PUT /files/uploads/{id}/parts/{n}", s.auth.RequireTicketOr(toContinue, s.files.ServePart))
	mux.Handle("GET /files/uploads/{id}", s.auth.RequireTicketOr(toContinue, s.files.ServeUploadStatus))
	mux.Handle("POST /files/uploads/{id}/complete", s.auth.RequireTicketOr(toContinue, s.files.ServeComplete))
	mux.Handle("DELETE /files/uploads/{id}", s.auth.RequireTicketOr(toContinue, s.files.ServeAbort))
	mux.Handle("POST /files/direct", s.auth.RequireTicketOr(toUpload, s.files.ServeReserve))
	mux.Handle("GET /files/direct/{id}", s.auth.RequireTicketOr(toContinue, s.files.ServeReaddress))
	mux.Handle("DELETE /files/direct/{id}", s.auth.RequireTicketOr(toContinue, s.files.ServeAbort))
	mux.Handle("POST /files/uploads/{id}/form", s.auth.RequireTicketOr(toContinue, s.files.ServeForm))
	mux.Handle("GET /files/uploader/verify", s.auth.RequireTicketOr(toUpload, s.files.ServeUploaderVerify))
	mux.Handle("POST /files/uploader/chunk", s.auth.RequireTicketOr(toUpload, s.files.ServeUploaderChunk))
	mux.Handle("GET /files/uploader/merge", s.auth.RequireTicketOr(toUpload, s.files.ServeUploaderMerge))
	s.tusRoutes(mux)
	linked := func(r *http.Request) string { return r.PathValue("id") }
	download := s.auth.RequireLinkOr(linked, s.files.ServeDownload, s.auth.TicketOrNone(toRead, s.files.ServeDownload))
	mux.Handle("GET /files/{id}", download) // and HEAD
	mux.Handle("GET /files/{id}/{name}", download)
	mux.Handle("DELETE /files/{id}", login(s.files.ServeDelete))

	for _, prefix := range s.proxy.Prefixes() {
		mux.Handle(prefix, s.proxy)
	}
	verification, err := rest.VerificationFiles(s.cfg.VerificationFiles)
	if err != nil {
		return nil, fmt.Errorf("verification_files: %w", err)
	}
	for path, file := range verification {
		mux.Handle("GET "+path, file)
	}
	return mux, nil
}

// tusRoutes are those of tus, which says with its methods what is wanted, or
// with a header where a client has no PATCH.
func (s *server) tusRoutes(mux *http.ServeMux) {
	scope := func(r *http.Request) auth.Scope {
		if id := transfer.TusUpload(r.URL.Path); id != "" {
			return auth.UploadScope(id)
		}
		return auth.ScopeUpload
	}
	serve, bare := s.auth.RequireTicketOr(scope, s.files.ServeTus), strings.TrimSuffix(transfer.TusPath, "/")
	mux.Handle("POST "+bare, serve)
	mux.Handle("POST "+transfer.TusPath+"{$}", serve)
	for _, method := range []string{"HEAD", "PATCH", "DELETE"} {
		mux.Handle(method+" "+transfer.TusPath+"{id}", serve)
	}
	// Patterns for these would be ambiguous: tus overrides methods by POST.
	toContinue := func(r *http.Request) auth.Scope { return auth.UploadScope(r.PathValue("id")) }
	confirm, link := s.auth.RequireTicketOr(toContinue, s.files.ServeConfirm), s.auth.Require(s.files.ServeOwnLink)
	mux.Handle("POST /files/{id}/{action}", rest.Handler(func(w http.ResponseWriter, r *http.Request) error {
		switch {
		case strings.HasPrefix(r.URL.Path, transfer.TusPath):
			return serve(w, r)
		case r.PathValue("action") == "link":
			return link(w, r)
		case r.PathValue("action") == "confirm":
			return confirm(w, r)
		}
		return fault.New(fault.NotFound, "not_found", "There is nothing at this path.")
	}))
	mux.Handle("OPTIONS "+bare, rest.Handler(s.files.ServeTus)) // what the server can
	mux.Handle("OPTIONS "+transfer.TusPath, rest.Handler(s.files.ServeTus))
}

// refusals answers what no route takes in the shape of all our errors.
func refusals(mux *http.ServeMux) http.Handler {
	return rest.Handler(func(w http.ResponseWriter, r *http.Request) error {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			if strings.Contains(pattern, "{") {
				h = mux // only it sets path values; the others need not be found twice
			}
			h.ServeHTTP(w, r)
			return nil
		}
		var why refusal
		h.ServeHTTP(&why, r)
		if why.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", why.Header().Get("Allow"))
			return fault.New(fault.NotAllowed, "method_not_allowed", "This path does not take "+r.Method+".")
		}
		return fault.New(fault.NotFound, "not_found", "There is nothing at this path.")
	})
}

// refusal is a ResponseWriter that remembers only why.
type refusal struct {
	header http.Header
	status int
}

func (f *refusal) Header() http.Header {
	if f.header == nil {
		f.header = http.Header{}
	}
	return f.header
}
func (f *refusal) Write(b []byte) (int, error) { return len(b), nil }
func (f *refusal) WriteHeader(status int)      { f.status = status }

// opsRoutes is every URL of operators and of the business backend.
func (s *server) opsRoutes() *http.ServeMux {
	mux := http.NewServeMux()
	s.apiRoutes(mux)
	mux.HandleFunc("GET /.well-known/jwks.json", s.auth.ServeKeys) // public keys

	mux.Handle("GET /healthz", rest.Handler(s.health.ServeHealthz))
	mux.Handle("GET /readyz", rest.Handler(s.health.ServeReadyz))
	mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherers{s.registry, s.runtime}, promhttp.HandlerOpts{}))

	admin := s.console.RequireAdmin
	mux.Handle("/debug/pprof/", admin(http.HandlerFunc(pprof.Index)))
	mux.Handle("/debug/pprof/cmdline", admin(http.HandlerFunc(pprof.Cmdline)))
	mux.Handle("/debug/pprof/profile", admin(http.HandlerFunc(pprof.Profile)))
	mux.Handle("/debug/pprof/symbol", admin(http.HandlerFunc(pprof.Symbol)))
	mux.Handle("/debug/pprof/trace", admin(http.HandlerFunc(pprof.Trace)))

	mux.Handle("/", s.console)
	return mux
}

// kick closes one socket of a user for good.
func (s *server) kick(ctx context.Context, user, client string) error {
	if user == "" || client == "" {
		return fault.New(fault.Invalid, "target_missing", "Both user and client are required.")
	}
	return s.hub.Disconnect(ctx, user, gateway.DisconnectOptions{Client: client})
}

// knownHost refuses requests for names that are not ours. Without it a web
// page could rebind its own name to our address and reach the ops listener
// through an operator's browser (DNS rebinding). Addresses cannot be rebound.
func knownHost(hosts []string, next http.Handler) http.Handler {
	return rest.Handler(func(w http.ResponseWriter, r *http.Request) error {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.Trim(host, "[]")
		isIt := func(name string) bool { return strings.EqualFold(name, host) }
		if _, err := netip.ParseAddr(host); err != nil && !isIt("localhost") && !slices.ContainsFunc(hosts, isIt) {
			return fault.New(fault.Forbidden, "host_unknown", "This host name is not in ops.hosts.")
		}
		next.ServeHTTP(w, r)
		return nil
	})
}
